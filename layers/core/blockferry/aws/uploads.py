"""Objects that many write at once, in the parts of one multipart upload.

Every part is sent under its SHA-256, and the whole has a composite of them (S3 user guide, "Checking object
integrity"): S3 refuses a part that arrived otherwise, and an object whose parts are not those that are named.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO, Any

from botocore.exceptions import ClientError

from blockferry.aws.call import Call
from blockferry.aws.objects import Bucket, status_of
from blockferry.aws.sessions import Identity
from blockferry.core.errors import RetryLater

FROZEN_AT_THE_END = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes for which only the completion is billed as theirs, and parts as STANDARD (S3 user guide, "Multipart
upload and pricing")."""

ABORTED_AGAIN = 5
"""How often an upload is aborted into which parts still arrive (API reference, AbortMultipartUpload)."""


def part_sent_to(storage_class: str, operation: str = "UploadPart") -> str:
    """The name under which a request of an upload is counted: each storage class has its own price."""
    cold = storage_class in FROZEN_AT_THE_END and operation != "CompleteMultipartUpload"
    return operation if cold or storage_class == "STANDARD" else f"{operation}.{storage_class}"


@dataclass(frozen=True)
class Upload:
    """An upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    begun: datetime


@dataclass(frozen=True)
class SentPart:
    """A part that S3 has. ``sha256`` in base64, ``etag`` as S3 sends it."""

    number: int
    size: int
    etag: str
    sha256: str


def composite(parts: Iterable[str]) -> str:
    """The checksum that S3 answers for an object of these parts, by their SHA-256 in base64."""
    digests = [base64.b64decode(each) for each in parts]
    whole = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
    return f"{whole}-{len(digests)}"


class UploadBucket(Bucket):
    """A bucket into which objects are uploaded in parts; raises as ``ObjectReader`` does. What is asked of an upload
    that is completed or aborted answers ``None``."""

    def begin(self, key: str, **more: Any) -> str:
        """Begin an upload and return its id; ``more`` are members of CreateMultipartUpload."""
        what = f"CreateMultipartUpload of {self.uri(key)}"
        name = part_sent_to(more.get("StorageClass", "STANDARD"), "CreateMultipartUpload")

        def send() -> str:
            answer = self._s3.create_multipart_upload(
                Bucket=self.name, Key=key, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE", **more
            )
            return str(answer["UploadId"])

        return str(self._answered(name, what, key, send, gone=()))

    def send(
        self, key: str, upload_id: str, number: int, body: bytes | IO[bytes], *, sha256: str, storage_class: str
    ) -> str | None:
        """Send a part, whose SHA-256 (base64) S3 checks on arrival; returns its ETag. A part that was sent before under
        the same number is replaced."""

        def send() -> str:
            if not isinstance(body, bytes):
                body.seek(0)
            answer = self._s3.upload_part(
                Bucket=self.name, Key=key, UploadId=upload_id, PartNumber=number, Body=body, ChecksumSHA256=sha256
            )
            return str(answer["ETag"])

        what = f"UploadPart {number} of {self.uri(key)}"
        found: str | None = self._answered(part_sent_to(storage_class), what, key, send)
        return found

    def sent(self, key: str, upload_id: str, *, first: int = 1, most: int | None = None) -> list[SentPart] | None:
        """The parts that S3 has from number ``first`` on, ascending, ``most`` of them."""
        what = f"ListParts of {self.uri(key)}"
        found: list[SentPart] = []
        behind = first - 1
        while True:
            page: Any = {} if most is None else {"MaxParts": min(1_000, most - len(found))}
            ask = partial(
                self._s3.list_parts,
                Bucket=self.name,
                Key=key,
                UploadId=upload_id,
                PartNumberMarker=behind,
                **page,
            )
            answer = self._answered("ListParts", what, key, ask)
            if answer is None:
                return None
            found += [
                SentPart(each["PartNumber"], each["Size"], each["ETag"], str(each.get("ChecksumSHA256")))
                for each in answer.get("Parts", ())
            ]
            if not answer.get("IsTruncated") or len(found) == most:
                return found
            behind = int(answer["NextPartNumberMarker"])

    def begun(self, key: str) -> Iterator[Upload]:
        """The uploads to exactly this key."""
        what = f"ListMultipartUploads of {self.uri(key)}"
        more: dict[str, Any] = {}
        while True:
            ask = partial(self._s3.list_multipart_uploads, Bucket=self.name, Prefix=key, **more)
            answer = self._answered("ListMultipartUploads", what, key, ask, gone=())
            for each in answer.get("Uploads", ()):
                if each["Key"] == key:
                    yield Upload(key, each["UploadId"], each["Initiated"])
            if not answer.get("IsTruncated"):
                return
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def complete(
        self, key: str, upload_id: str, parts: Iterable[SentPart], *, size: int, storage_class: str
    ) -> str | None:
        """Make the object of its parts, where there is none of its name, and return the checksum that S3 answers.
        Raises ``FileExistsError`` where there is one."""
        listed: Any = [{"PartNumber": p.number, "ETag": p.etag, "ChecksumSHA256": p.sha256} for p in parts]
        what = f"CompleteMultipartUpload of {self.uri(key)}"

        def send() -> str:
            answer = self._s3.complete_multipart_upload(
                Bucket=self.name,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": listed},
                ChecksumType="COMPOSITE",
                MpuObjectSize=size,
                IfNoneMatch="*",
            )
            return str(answer.get("ChecksumSHA256"))

        name = part_sent_to(storage_class, "CompleteMultipartUpload")
        try:
            found: str | None = self._answered(name, what, key, send, told=(412,))
        except ClientError as error:
            raise FileExistsError(self.uri(key)) from error
        return found

    def abort(self, key: str, upload_id: str) -> None:
        """End an upload, with all its parts. Raises ``RetryLater`` while parts still arrive."""
        what = f"AbortMultipartUpload of {self.uri(key)}"
        ask = partial(self._s3.abort_multipart_upload, Bucket=self.name, Key=key, UploadId=upload_id)
        for _ in range(ABORTED_AGAIN):
            self._answered("AbortMultipartUpload", what, key, ask)
            if not self.sent(key, upload_id, most=1):
                return
        raise RetryLater(f"{what}: parts still arrive")

    def head(self, key: str) -> Mapping[str, Any] | None:
        """The headers of an object, with its checksum; ``None`` when there is none of that name."""
        ask = partial(self._s3.head_object, Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        found: Mapping[str, Any] | None = self._answered(
            "HeadObject", f"HeadObject of {self.uri(key)}", key, ask, gone=("404", "NoSuchKey")
        )
        return found

    def _answered(
        self,
        operation: str,
        what: str,
        key: str,
        ask: Any,
        *,
        gone: tuple[str, ...] = ("NoSuchUpload",),
        told: tuple[int, ...] = (),
    ) -> Any:
        """What ``ask`` gets; ``None`` for an error that is one of ``gone``. Raises ``ClientError`` for one whose status
        is one of ``told``."""
        try:
            return self._call(operation, what, ask)
        except ClientError as error:
            if error.response["Error"]["Code"] in gone:
                return None
            if status_of(error) in told:
                raise
            raise self._refused(what, key, error) from error


def upload_bucket(call: Call, identity: Identity, name: str) -> UploadBucket:
    """A bucket whose requests are counted, and end with the call."""
    return UploadBucket(
        call.aws.image_s3(identity),
        name,
        counts=call.counts,
        clock=call.clock,
        deadline=call.deadline,
        policy=call.waits.requests,
    )
