"""Multipart uploads as S3 has them, in front of moto's, which checks and keeps no checksums of parts.

What is asked of uploads is answered here, as strictly as the API reference says. What an upload is completed to is an
object of moto's, which every other request finds; its content, a GiB of nearly nothing but zeros, stays here.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSPreparedRequest
from moto.s3.models import s3_backends
from moto.s3.utils import metadata_from_headers

Answer = tuple[int, dict[str, Any], str | bytes]

LEAST_PART = 5 * 2**20
"""Bytes of every part but the last (S3 user guide, multipart upload limits)."""

MOST_PARTS = 10_000


@dataclass
class OpenUpload:
    """An upload: the headers that it was created with, and its parts by number with their SHA-256 (base64)."""

    bucket: str
    key: str
    headers: Mapping[str, str]
    begun: datetime
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)


class UploadsS3:
    """Instead of ``process_request`` of moto's stubber, which gets what is not about uploads. ``open`` are the uploads
    that are neither completed nor aborted, by id; ``made`` has the content of completed ones, by key and part."""

    def __init__(self, others: Callable[[AWSPreparedRequest], Any]) -> None:
        self._others = others
        self._numbers = itertools.count(1)
        self.open: dict[str, OpenUpload] = {}
        self.made: dict[str, list[bytes]] = {}
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self, request: AWSPreparedRequest) -> Any:
        address = urlsplit(str(request.url))
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        bucket, _, host = address.netloc.partition(".s3")
        if not host.endswith("amazonaws.com") or not query.keys() & {"uploads", "uploadId"}:
            return self._about_what_is_made(request, unquote(address.path)[1:])
        backend = _backend(bucket)
        if backend is None:
            return _error("NoSuchBucket", 404)
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        key = unquote(address.path)[1:]
        body: Any = request.body
        sent = body.read() if hasattr(body, "read") else body or b""
        if "uploads" in query:
            return self._create(bucket, key, headers) if request.method == "POST" else self._list(bucket, query)
        return self._of_upload(str(request.method), backend, bucket, key, query, headers, sent)

    def _create(self, bucket: str, key: str, headers: Mapping[str, str]) -> Answer:
        assert headers["x-amz-checksum-algorithm"] == "SHA256"
        upload_id = f"upload-{next(self._numbers)}"
        self.open[upload_id] = OpenUpload(bucket, key, headers, self.now())
        return _xml(
            "InitiateMultipartUploadResult",
            f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload_id}</UploadId>",
        )

    def _list(self, bucket: str, query: Mapping[str, str]) -> Answer:
        found = "".join(
            f"<Upload><Key>{escape(each.key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{each.begun:%Y-%m-%dT%H:%M:%S.000Z}</Initiated></Upload>"
            for upload_id, each in sorted(self.open.items())
            if each.bucket == bucket and each.key.startswith(query.get("prefix", ""))
        )
        return _xml("ListMultipartUploadsResult", f"<Bucket>{bucket}</Bucket><IsTruncated>false</IsTruncated>{found}")

    def _of_upload(
        self,
        method: str,
        backend: Any,
        bucket: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        upload = self.open.get(query["uploadId"])
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            return _error("NoSuchUpload", 404)
        if method == "PUT":
            return _put(upload, int(query["partNumber"]), headers, body)
        if method == "GET":
            return _parts(upload, int(query.get("part-number-marker", 0)), int(query.get("max-parts", 1_000)))
        if method == "DELETE":
            del self.open[query["uploadId"]]
            return 204, {}, ""
        answer = _complete(backend, upload, headers, body)
        if answer[0] == 200:
            self.made[key] = [upload.parts[number][0] for number in sorted(upload.parts)][: _listed(body)]
            del self.open[query["uploadId"]]
        return answer

    def _about_what_is_made(self, request: AWSPreparedRequest, key: str) -> Any:
        answer = self._others(request)
        if request.method == "HEAD" and answer is not None and answer[0] == 200 and key in self.made:
            headers = {name.lower(): value for name, value in answer[1].items()}
            if headers.get("etag", "").strip('"').endswith("-made"):
                size = sum(map(len, self.made[key]))
                return answer[0], {**headers, "content-length": str(size)}, answer[2]
        return answer


def _put(upload: OpenUpload, number: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if not 1 <= number <= MOST_PARTS:
        return _error("InvalidArgument", 400)
    stated = headers.get("x-amz-checksum-sha256")
    if stated is None:
        return _error("InvalidRequest", 400)
    body = _shared(body)
    if _digests(body)[0] != stated:
        return _error("BadDigest", 400)
    upload.parts[number] = (body, stated)
    return 200, {"ETag": _etag(body), "x-amz-checksum-sha256": stated}, ""


def _parts(upload: OpenUpload, behind: int, most: int) -> Answer:
    numbers = sorted(number for number in upload.parts if number > behind)
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(_etag(body))}</ETag><Size>{len(body)}</Size>"
        f"<ChecksumSHA256>{sha256}</ChecksumSHA256></Part>"
        for number in numbers[:most]
        for body, sha256 in [upload.parts[number]]
    )
    more = ""
    if len(numbers) > most:
        more = f"<NextPartNumberMarker>{numbers[most - 1]}</NextPartNumberMarker>"
    truncated = str(len(numbers) > most).lower()
    return _xml("ListPartsResult", f"<IsTruncated>{truncated}</IsTruncated>{more}{listed}")


def _complete(backend: Any, upload: OpenUpload, headers: Mapping[str, str], body: bytes) -> Answer:
    if headers.get("if-none-match") == "*" and backend.get_object(upload.bucket, upload.key) is not None:
        return _error("PreconditionFailed", 412)
    named = [
        {child.tag.rpartition("}")[2]: child.text or "" for child in part} for part in ElementTree.fromstring(body)
    ]
    numbers = [int(part["PartNumber"]) for part in named]
    if numbers != sorted(set(numbers)):
        return _error("InvalidPartOrder", 400)
    if numbers != list(range(1, len(numbers) + 1)):
        return _error("InternalError", 500)
    for number, part in zip(numbers, named, strict=True):
        sent, sha256 = upload.parts.get(number, (b"", ""))
        if number not in upload.parts or (part["ETag"], part.get("ChecksumSHA256")) != (_etag(sent), sha256):
            return _error("InvalidPart", 400)
        if number != numbers[-1] and len(sent) < LEAST_PART:
            return _error("EntityTooSmall", 400)
    size = sum(len(upload.parts[number][0]) for number in numbers)
    if headers.get("x-amz-mp-object-size", str(size)) != str(size):
        return _error("InvalidRequest", 400)
    of_parts = hashlib.sha256(b"".join(base64.b64decode(upload.parts[number][1]) for number in numbers)).digest()
    checksum = f"{base64.b64encode(of_parts).decode()}-{len(numbers)}"
    made = backend.put_object(
        upload.bucket,
        upload.key,
        b"",
        storage=upload.headers.get("x-amz-storage-class", "STANDARD"),
        etag=f"{of_parts.hex()[:32]}-made",
    )
    made.set_metadata(metadata_from_headers(upload.headers))
    made.checksum_algorithm, made.checksum_value = "SHA256", checksum
    tags = parse_qs(upload.headers.get("x-amz-tagging", ""), keep_blank_values=True)
    backend.put_object_tagging(made, {name: values[0] for name, values in tags.items()})
    told = f"<Key>{escape(upload.key)}</Key><ETag>{escape(made.etag)}</ETag><ChecksumSHA256>{checksum}</ChecksumSHA256>"
    return _xml("CompleteMultipartUploadResult", told)


def _backend(bucket: str) -> Any:
    return next((account["aws"] for account in s3_backends.values() if bucket in account["aws"].buckets), None)


def _listed(body: bytes) -> int:
    return len(list(ElementTree.fromstring(body)))


_ZEROS: dict[int, bytes] = {}


def _shared(body: bytes) -> bytes:
    """The one body of so many zeros, if it is one: it is compared faster than it is hashed."""
    zeros = _ZEROS.setdefault(len(body), bytes(len(body)))
    return zeros if body == zeros else body


@lru_cache(maxsize=256)
def _digests_of(_number: int, body: _Same) -> tuple[str, str]:
    sha256 = base64.b64encode(hashlib.sha256(body.data).digest()).decode()
    return sha256, f'"{hashlib.md5(body.data, usedforsecurity=False).hexdigest()}"'


def _digests(body: bytes) -> tuple[str, str]:
    """SHA-256 (base64) and ETag, computed once for each body that is the same object."""
    return _digests_of(id(body), _Same(body))


def _etag(body: bytes) -> str:
    return _digests(body)[1]


class _Same:
    """Bytes that equal themselves and nothing else; the cache keeps them, so that no other has their id."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.data is self.data

    def __hash__(self) -> int:
        return id(self.data)


def _xml(root: str, body: str) -> Answer:
    document = f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{body}</{root}>'
    return 200, {"Content-Type": "application/xml"}, document


def _error(code: str, status: int) -> Answer:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
