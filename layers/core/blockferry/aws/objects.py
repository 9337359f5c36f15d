"""Objects of S3, read and written: each request with one retry budget, and every byte checked.

boto3 retries requests but not bodies, so both are retried here. Give it a client with few retries of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from blockferry.aws.errors import about, not_deleted, translated
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, OutOfTime, RequestRefused, RetryLater, SourceChanged
from blockferry.core.quotas import DELETED_OBJECTS, MAX_OBJECT_TAGS
from blockferry.core.retry import Attempts, Clock, Deadline, RetryPolicy
from blockferry.core.words import counted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


T = TypeVar("T")

ARCHIVE_ACCESS = (
    "A bucket of this account is named in the Terraform variable archive_bucket_names; for another account's name a "
    "role of it in archive.role_arn, which may s3:ListBucket there"
)
"""What to do where an archive's bucket may not be looked at."""


class _ShortBody(BlockferryError):
    """An answer has another length than what was asked for: read again."""


class ObjectReader:
    """Reads objects with one S3 client.

    Every method raises ``RequestRefused`` for errors that no repetition mends, ``RetryLater`` when the budget is used
    up on errors that pass, ``OutOfTime`` when the deadline leaves no room for another attempt. Safe to share between
    threads.
    """

    def __init__(
        self,
        s3: S3Client,
        *,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._s3 = s3
        self._counts = counts or RequestCounts()
        self._clock = clock or Clock()
        self._deadline = deadline or Deadline(None, clock=self._clock)
        self._policy = policy or RetryPolicy()

    def part(self, bucket: str, key: str, *, etag: str, first: int, length: int) -> bytes:
        """``length`` bytes from offset ``first`` on. Raises ``SourceChanged`` when the object is not ``etag`` now."""
        name = f"s3://{bucket}/{key}"
        what = f"GetObject of {name}, {length} bytes from {first} on"

        def send() -> bytes:
            answer = self._s3.get_object(
                Bucket=bucket, Key=key, Range=f"bytes={first}-{first + length - 1}", IfMatch=etag
            )
            return _body(answer, length)

        try:
            return self._call("GetObject", what, send)
        except ClientError as error:
            status = status_of(error)
            # Without a permission to list the bucket a deleted object is answered with 403, and stays a refusal.
            if status == 404:
                raise SourceChanged(f"{what}: the image was deleted while it was read; start a new job") from error
            if status in (412, 416):
                raise SourceChanged(
                    f"{what}: the image was replaced while it was read, its ETag is no longer {etag}; start a new job"
                ) from error
            raise RequestRefused(about(what, translated(error))) from error

    def whole(self, bucket: str, key: str) -> bytes | None:
        """All bytes of a small object; ``None`` when there is none."""
        what = f"GetObject of s3://{bucket}/{key}"
        try:
            return self._call("GetObject", what, lambda: _body(self._s3.get_object(Bucket=bucket, Key=key), None))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise RequestRefused(about(what, translated(error))) from error

    def _call(self, operation: str, what: str, send: Callable[[], T]) -> T:
        """What ``send`` gets, asked for within the budget. Raises ``ClientError`` for what does not pass."""
        attempts = Attempts(self._policy, clock=self._clock, deadline=self._deadline)
        while True:
            self._counts.sent(operation, self._s3.meta.region_name)
            try:
                return send()
            except ClientError as failure:
                error = translated(failure)
                if not isinstance(error, RetryLater):
                    raise
                code = failure.response["Error"]["Code"]
            except (_ShortBody, BotoCoreError, HTTPError, OSError) as failure:
                # What urllib3 and the socket raise while a body is read does not always come wrapped by botocore.
                error = RetryLater(f"{type(failure).__name__}: {failure}")
                code = type(failure).__name__.removeprefix("_")
            self._counts.retried(operation, code)
            if attempts.pause():
                continue
            text = f"{about(what, error)} (after {counted(attempts.failed, 'attempt')})"
            raise (OutOfTime(text) if attempts.out_of_time else RetryLater(text)) from error


def put_to(storage_class: str) -> str:
    """The name under which a PutObject is counted: each storage class has its own price."""
    return "PutObject" if storage_class == "STANDARD" else f"PutObject.{storage_class}"


@dataclass(frozen=True)
class Stored:
    """An object as a bucket lists it. ``etag`` as S3 sends it, in quotes."""

    key: str
    size: int
    etag: str
    storage_class: str = field(default="STANDARD", compare=False)


class Bucket(ObjectReader):
    """Reads and writes objects of one bucket with one client; raises as ``ObjectReader`` does. Safe to share between
    threads."""

    def __init__(
        self,
        s3: S3Client,
        bucket: str,
        *,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(s3, counts=counts, clock=clock, deadline=deadline, policy=policy)
        self.name = bucket

    def uri(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes | None:
        """An object, or ``length`` bytes of it from ``first`` on; ``None`` when there is none of that name, or it ends
        before them."""
        part: Any = {} if length is None else {"Range": f"bytes={first}-{first + length - 1}"}
        what = f"GetObject of {self.uri(key)}"

        def send() -> bytes | None:
            answer = self._s3.get_object(Bucket=self.name, Key=key, **part)
            if length is not None and _ends_before(answer, first + length):
                answer["Body"].close()
                return None
            return _body(answer, length)

        try:
            return self._call("GetObject", what, send)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404") or status_of(error) == 416:
                return None
            raise self._refused(what, key, error) from error

    def put(self, key: str, body: bytes | IO[bytes], *, sha256: str, once: bool = False, **more: Any) -> str | None:
        """Store an object, whose SHA-256 (base64) S3 checks on arrival; returns its ETag. With ``once`` nothing is
        stored where there is one of that name, and the answer is ``None``. ``more`` are members of PutObject."""
        condition: Any = {"IfNoneMatch": "*"} if once else {}
        what = f"PutObject of {self.uri(key)}"
        operation = put_to(more.get("StorageClass", "STANDARD"))

        def send() -> str:
            if not isinstance(body, bytes):
                body.seek(0)
            answer = self._s3.put_object(
                Bucket=self.name, Key=key, Body=body, ChecksumSHA256=sha256, **condition, **more
            )
            return str(answer["ETag"])

        try:
            return self._call(operation, what, send)
        except ClientError as error:
            if once and status_of(error) == 412:
                return None
            raise self._refused(what, key, error) from error

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Stored]:
        """The objects whose keys begin with ``prefix``, ascending, those behind the key ``after`` only."""
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        what = f"ListObjectsV2 of {self.uri(prefix)}"
        while True:
            try:
                answer = self._call("ListObjectsV2", what, partial(self._list, prefix, **more))
            except ClientError as error:
                raise self._refused(what, prefix, error) from error
            for item in answer.get("Contents", ()):
                yield Stored(item["Key"], item["Size"], item["ETag"], item.get("StorageClass") or "STANDARD")
            if not answer.get("IsTruncated"):
                return
            more["ContinuationToken"] = answer["NextContinuationToken"]

    def folders(self, prefix: str) -> list[str]:
        """What is between ``prefix`` and the next slash in the keys that begin with it."""
        found: list[str] = []
        more: dict[str, Any] = {}
        what = f"ListObjectsV2 of {self.uri(prefix)}"
        while True:
            try:
                answer = self._call("ListObjectsV2", what, partial(self._list, prefix, Delimiter="/", **more))
            except ClientError as error:
                raise self._refused(what, prefix, error) from error
            found += [each["Prefix"][len(prefix) : -1] for each in answer.get("CommonPrefixes", ())]
            if not answer.get("IsTruncated"):
                return found
            more["ContinuationToken"] = answer["NextContinuationToken"]

    def thawed(self, key: str) -> bool:
        """Whether an object of a class that freezes can be read at present."""
        what = f"HeadObject of {self.uri(key)}"
        try:
            answer = self._call("HeadObject", what, lambda: self._s3.head_object(Bucket=self.name, Key=key))
        except ClientError as error:
            raise self._refused(what, key, error) from error
        return 'ongoing-request="false"' in str(answer.get("Restore"))

    def region(self, *, default: str, access: str = ARCHIVE_ACCESS) -> str:
        """The Region that the bucket is in; ``default`` where S3 does not say. ``access`` says what to do where that is
        not permitted."""
        what = f"HeadBucket of {self.name}"
        try:
            answer = self._call("HeadBucket", what, lambda: self._s3.head_bucket(Bucket=self.name))
        except ClientError as error:
            if status_of(error) == 404:
                raise RequestRefused(f"{what}: there is no such bucket") from error
            if status_of(error) == 403:
                raise RequestRefused(f"{what}: not permitted. {access}") from error
            raise self._refused(what, "", error) from error
        return str(answer.get("BucketRegion") or default)

    def add_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Give an object more tags, beside those that it has. Raises ``RequestRefused`` when there are too many."""
        what = f"PutObjectTagging of {self.uri(key)}"
        try:
            answer = self._call(
                "GetObjectTagging", what, lambda: self._s3.get_object_tagging(Bucket=self.name, Key=key)
            )
            known = {each["Key"]: each["Value"] for each in answer["TagSet"]} | dict(tags)
            if len(known) > MAX_OBJECT_TAGS:
                raise RequestRefused(f"{what}: it would have {len(known)} tags, S3 keeps {MAX_OBJECT_TAGS}")
            tagging: Any = {"TagSet": [{"Key": name, "Value": value} for name, value in known.items()]}
            self._call(
                "PutObjectTagging",
                what,
                lambda: self._s3.put_object_tagging(Bucket=self.name, Key=key, Tagging=tagging),
            )
        except ClientError as error:
            raise self._refused(what, key, error) from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, whether they are there or not; as many as there are. Raises ``RequestRefused``, naming the
        first, when one cannot be deleted."""
        for first in range(0, len(keys), DELETED_OBJECTS):
            some = keys[first : first + DELETED_OBJECTS]
            what = f"DeleteObjects of {self.uri(some[0])}" + (f" and {len(some) - 1} more" if some[1:] else "")
            try:
                answer = self._call("DeleteObjects", what, partial(self._delete, some))
            except ClientError as error:
                raise self._refused(what, some[0], error) from error
            if answer.get("Errors"):
                raise not_deleted(self.uri(""), answer["Errors"][0])

    def _list(self, prefix: str, **more: Any) -> Any:
        return self._s3.list_objects_v2(Bucket=self.name, Prefix=prefix, **more)

    def _delete(self, keys: Sequence[str]) -> Any:
        doomed: Any = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        return self._s3.delete_objects(Bucket=self.name, Delete=doomed)

    def _refused(self, what: str, key: str, error: ClientError) -> RequestRefused:
        if error.response["Error"]["Code"] == "InvalidObjectState":
            return RequestRefused(
                f"{what}: the object is in a storage class that is read only after a restore: aws s3api restore-object "
                f"--bucket {self.name} --key '{key}' --restore-request Days=7"
            )
        return RequestRefused(about(what, translated(error)))


def parts(
    reader: ObjectReader, bucket: str, key: str, *, etag: str, size_bytes: int, start: int, length: int
) -> Iterator[bytes]:
    """The object from offset ``start`` on, ``length`` bytes at a time, read when they are asked for."""
    for first in range(start, size_bytes, length):
        yield reader.part(bucket, key, etag=etag, first=first, length=min(length, size_bytes - first))


def _ends_before(answer: Any, stop: int) -> bool:
    """Whether the object of a ranged answer is shorter than what was asked for, which no repetition mends."""
    size = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return size.isdecimal() and int(size) < stop


def _body(answer: Any, length: int | None) -> bytes:
    with closing(answer["Body"]) as body:
        announced = answer.get("ContentLength")
        # Looked at before the body is: whoever ignores the range sends an image that does not fit into memory.
        if length is not None and announced not in (None, length):
            raise _ShortBody(f"{announced} bytes were announced, {length} were asked for")
        data: bytes = body.read()
    expected = announced if length is None else length
    if expected is not None and len(data) != expected:
        raise _ShortBody(f"{len(data)} bytes came instead of {expected}")
    return data


def status_of(error: ClientError) -> int:
    """The HTTP status of an answer; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
