"""Multipart uploads: sizes and order of parts, checksums of parts and of the whole, tags and locks of the object.

Source: S3 user guide, "Uploading and copying objects using multipart upload", "Amazon S3 multipart upload limits",
"Checking object integrity"; API reference, CompleteMultipartUpload. Texts of refusals are those that clients of S3
report (aws/aws-sdk-php issue 2648, apache/opendal pull request 4533, versity/versitygw issue 1342).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement

from localcloud.host import Response
from localcloud.s3.base import Query, Record, S3Base, parsed, text_of, written
from localcloud.s3.bodies import CRCS, SIZES, Body, crc_of_parts, joined
from localcloud.s3.checksums import COMPOSITE, DEFAULT, FULL_OBJECT, Checks, Checksums, given
from localcloud.s3.locks import LOCK_HEADERS, Locks
from localcloud.s3.object_tags import Tags

LEAST_PART = 5 * 1024 * 1024
"""Bytes of every part but the last (S3 user guide, "Amazon S3 multipart upload limits")."""
_ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
Refused = Response | None


@dataclass(frozen=True, kw_only=True)
class ListedPart:
    """A part as CompleteMultipartUpload names it."""

    number: int
    etag: str
    checksums: Checksums


class Uploads:
    def __init__(self, base: S3Base, checks: Checks, locks: Locks, tags: Tags) -> None:
        self._base = base
        self._checks = checks
        self._locks = locks
        self._tags = tags
        self._create: Callable[..., Response] = base.lookup("_create_multipart_upload")
        self._upload_part: Callable[..., Response] = base.lookup("_upload_part")
        self._upload_part_copy: Callable[..., Response] = base.lookup("_upload_part_copy")
        self._check_customer_key: Callable[..., Refused] = base.lookup("_check_sse_c_part")
        self._check_conditions: Callable[..., Refused] = base.lookup("_check_put_preconditions")
        self._encryption_of: Callable[[Record], dict[str, str]] = base.lookup("_stored_sse_headers")
        self._replicate: Callable[..., None] = base.lookup("_maybe_replicate")
        self._record_version: Callable[..., str | None] = base.lookup("_record_object_version")
        self._announce: Callable[..., None] = base.lookup("_fire_s3_event_async")
        self._completed: dict[str, Any] = base.lookup("_completed_multipart_uploads")
        self._now: Callable[[], str] = base.lookup("now_iso")
        self._fromstring: Callable[[bytes], Element] = base.lookup("fromstring")

    def plug_in(self) -> None:
        self._base.replace("_resolve_multipart_checksum_algorithm", self.algorithm)
        self._base.replace("_resolve_part_checksums", self.part_checksums)
        self._base.replace("_create_multipart_upload", self.create)
        self._base.replace("_upload_part", self.upload_part)
        self._base.replace("_upload_part_copy", self.upload_part_copy)
        self._base.replace("_complete_multipart_upload", self.complete)

    # CreateMultipartUpload

    def algorithm(self, headers: Mapping[str, str]) -> tuple[str | None, Refused]:
        algorithm, kind = headers.get("x-amz-checksum-algorithm", "").upper(), headers.get("x-amz-checksum-type", "")
        if algorithm and algorithm not in _ALGORITHMS:
            text = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            return None, self._base.invalid_request(f"{text}[{', '.join(_ALGORITHMS)}]")
        if kind and not algorithm:
            text = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            return None, self._base.invalid_request(text)
        if kind and kind not in _kinds(algorithm):
            text = f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
            return None, self._base.invalid_request(text)
        return algorithm or None, None

    def create(self, bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        tags, refused = self._tags.of_header(headers)
        if refused is not None:
            return refused
        answer = self._create(bucket_name, key, headers)
        if answer[0] != 200:
            return answer
        upload = self._base.uploads[str(parsed(answer).findtext("UploadId"))]
        algorithm = upload["checksum_algorithm"]
        upload["checksum_type"] = headers.get("x-amz-checksum-type") or _kinds(algorithm or DEFAULT)[0]
        upload["tags"] = tags
        upload["lock_headers"] = {name: headers[name] for name in LOCK_HEADERS if name in headers}
        if algorithm:
            answer[1]["x-amz-checksum-type"] = upload["checksum_type"]
        return answer

    # UploadPart, UploadPartCopy

    def part_checksums(self, body: Body, headers: Mapping[str, str], upload: Record) -> tuple[Checksums, Refused]:
        """What is kept with a part: the checksum that came with it, and the one that the object's is made of."""
        wanted, stated = upload["checksum_algorithm"], next(iter(given(headers)), None)
        must_be_stated = upload["checksum_type"] == COMPOSITE and stated is None
        if wanted and stated != wanted and (stated is not None or must_be_stated):
            text = "Checksum Type mismatch occurred, expected checksum Type: "
            text += f"{wanted.lower()}, actual checksum Type: {stated.lower() if stated else 'null'}"
            return {}, self._base.invalid_request(text)
        checksums, refused = self._checks.checked(body, headers)
        if refused is not None:
            return {}, refused
        algorithm = wanted or DEFAULT
        return {**checksums, algorithm: body.checksum(algorithm)}, None

    def upload_part(self, bucket_name: str, key: str, body: Body, query: Query, headers: dict[str, str]) -> Response:
        if self._locks.need_digest(bucket_name, self._lock_headers(query)) and not _has_digest(headers):
            text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock "
            return self._base.invalid_request(f"{text}parameters")
        answer = self._upload_part(bucket_name, key, body, query, headers)
        stated = {f"x-amz-checksum-{algorithm.lower()}" for algorithm in given(headers)}
        for name in [name for name in answer[1] if name.startswith("x-amz-checksum-") and name not in stated]:
            del answer[1][name]
        return answer

    def upload_part_copy(self, bucket_name: str, key: str, query: Query, headers: dict[str, str]) -> Response:
        answer = self._upload_part_copy(bucket_name, key, query, headers)
        if answer[0] != 200:
            return answer
        upload = self._base.uploads[text_of(query, "uploadId")]
        part = upload["parts"][int(text_of(query, "partNumber"))]
        algorithm = upload["checksum_algorithm"] or DEFAULT
        part["checksums"] = {algorithm: part["body"].checksum(algorithm)}
        if not upload["checksum_algorithm"]:
            return answer
        root = parsed(answer)
        SubElement(root, f"Checksum{algorithm}").text = part["checksums"][algorithm]
        return answer[0], answer[1], written(root)

    def _lock_headers(self, query: Query) -> Mapping[str, str]:
        upload: Record = self._base.uploads.get(text_of(query, "uploadId")) or {}
        kept: Mapping[str, str] = upload.get("lock_headers", {})
        return kept

    # CompleteMultipartUpload

    def complete(
        self, bucket_name: str, key: str, body: bytes, query: Query, headers: dict[str, str] | None = None
    ) -> Response:
        headers = headers or {}
        bucket = self._base.bucket(bucket_name)
        if bucket is None:
            return self._base.no_such_bucket(bucket_name)
        upload_id = text_of(query, "uploadId")
        before = self._completed.get(upload_id)
        if before is not None and before["key"] == key:
            response: Response = before["response"]  # the same again is answered the same
            return response
        upload: Record | None = self._base.uploads.get(upload_id)
        if upload is None or (upload["bucket"], upload["key"]) != (bucket_name, key):
            text = "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may "
            text += "have been aborted or completed."
            return self._base.error("NoSuchUpload", text, 404, f"/{bucket_name}/{key}")
        refused = self._check_customer_key(headers, upload) or self._check_conditions(
            headers, bucket["objects"].get(key)
        )
        if refused is not None:
            return refused
        parts, refused = self._listed(body)
        refused = refused or self._refused_parts(parts, upload) or self._refused_whole(parts, upload, headers)
        if refused is not None:
            return refused
        record = self._record(parts, upload)
        del self._base.uploads[upload_id]
        response = self._stored(bucket_name, key, record, upload, headers)
        self._completed[upload_id] = {"key": key, "response": response}
        return response

    def _listed(self, body: bytes) -> tuple[list[ListedPart], Refused]:
        malformed = self._base.error(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
            400,
        )
        try:
            root = self._fromstring(body)
        except ParseError:
            return [], malformed
        parts = []
        for element in root.iter():
            if element.tag.rpartition("}")[2] == "Part":
                told = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
                checksums = {name.removeprefix("Checksum"): told[name] for name in told if name.startswith("Checksum")}
                number = told.get("PartNumber", "")
                if not number.isdecimal():
                    return [], malformed
                parts.append(ListedPart(number=int(number), etag=told.get("ETag", ""), checksums=checksums))
        return (parts, None) if parts else ([], malformed)

    def _refused_parts(self, parts: list[ListedPart], upload: Record) -> Refused:
        numbers = [part.number for part in parts]
        if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
            text = "The list of parts was not in ascending order. Parts must be ordered by part number."
            return self._base.error("InvalidPartOrder", text, 400)
        for part in parts:
            refused = self._refused_part(part, upload, is_last=part is parts[-1])
            if refused is not None:
                return refused
        if upload["checksum_algorithm"] and upload["checksum_type"] == COMPOSITE and numbers[-1] != len(numbers):
            # "If the part numbers aren't consecutive, ... Amazon S3 generates an HTTP 500 Internal Server Error."
            return self._base.error("InternalError", "We encountered an internal error. Please try again.", 500)
        return None

    def _refused_part(self, part: ListedPart, upload: Record, *, is_last: bool) -> Refused:
        stored: Record | None = upload["parts"].get(part.number)
        algorithm = upload["checksum_algorithm"]
        if stored is None or part.etag.strip('"') != stored["etag"].strip('"'):
            return self._invalid_part(part)
        if not is_last and stored["size"] < LEAST_PART:
            about = {
                "ProposedSize": str(stored["size"]),
                "MinSizeAllowed": str(LEAST_PART),
                "PartNumber": str(part.number),
                "ETag": part.etag.strip('"'),
            }
            text = "Your proposed upload is smaller than the minimum allowed size"
            return self._base.error("EntityTooSmall", text, 400, extra=about)
        if algorithm and upload["checksum_type"] == COMPOSITE and not part.checksums:
            text = f"The upload was created using a {algorithm.lower()} checksum. The complete request must include "
            text += f"the checksum for each part. It was missing for part {part.number} in the request."
            return self._base.invalid_request(text)
        if any(stored["checksums"].get(name) != value for name, value in part.checksums.items()):
            return self._invalid_part(part)
        return None

    def _invalid_part(self, part: ListedPart) -> Response:
        text = "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
        text += "specified entity tag may not match the part's entity tag."
        return self._base.error("InvalidPart", text, 400, extra={"PartNumber": str(part.number)})

    def _refused_whole(self, parts: list[ListedPart], upload: Record, headers: Mapping[str, str]) -> Refused:
        size = sum(upload["parts"][part.number]["size"] for part in parts)
        declared = headers.get("x-amz-mp-object-size")
        if declared is not None and declared != str(size):
            text = f"The provided 'x-amz-mp-object-size' header value {declared} does not match what was computed: "
            return self._base.invalid_request(f"{text}{size}")
        kind = headers.get("x-amz-checksum-type")
        if kind and kind != upload["checksum_type"]:
            text = f"The upload was created using the {upload['checksum_type']} checksum mode. The complete request "
            return self._base.invalid_request(f"{text}must use the same checksum mode.")
        algorithm, whole = self._whole_checksum(parts, upload)
        for stated, value in given(headers).items():
            if stated != algorithm:
                text = "Checksum Type mismatch occurred, expected checksum Type: "
                text += f"{algorithm.lower()}, actual checksum Type: {stated.lower()}"
                return self._base.invalid_request(text)
            if value not in (whole, whole.partition("-")[0]):
                text = f"The {algorithm.lower()} you specified did not match the calculated checksum."
                return self._base.error("BadDigest", text, 400)
        return None

    def _whole_checksum(self, parts: list[ListedPart], upload: Record) -> tuple[str, str]:
        algorithm = upload["checksum_algorithm"] or DEFAULT
        stored = [upload["parts"][part.number] for part in parts]
        digests = [base64.b64decode(part["checksums"][algorithm]) for part in stored]
        if upload["checksum_type"] == COMPOSITE:
            of_digests = Body([(b"".join(digests), 0, SIZES[algorithm] * len(digests))])
            return algorithm, f"{of_digests.checksum(algorithm)}-{len(digests)}"
        values = ((int.from_bytes(digest, "big"), part["size"]) for digest, part in zip(digests, stored, strict=True))
        return algorithm, base64.b64encode(crc_of_parts(CRCS[algorithm], values)).decode()

    def _record(self, parts: list[ListedPart], upload: Record) -> Record:
        stored = [upload["parts"][part.number] for part in parts]
        body = joined(part["body"] for part in stored)
        algorithm, whole = self._whole_checksum(parts, upload)
        of_etags = hashlib.md5(b"".join(part["body"].etag_digest for part in stored), usedforsecurity=False)
        chosen = upload["checksum_algorithm"]
        return {
            "body": body,
            "content_type": upload["content_type"],
            "content_encoding": upload.get("content_encoding"),
            "etag": f'"{of_etags.hexdigest()}-{len(parts)}"',
            "last_modified": self._now(),
            "size": len(body),
            "metadata": upload["metadata"],
            "preserved_headers": upload.get("preserved_headers", {}),
            "storage_class": upload.get("storage_class") or "STANDARD",
            "parts": [
                {
                    "PartNumber": part.number,
                    "Size": kept["size"],
                    "checksums": {chosen: kept["checksums"][chosen]} if chosen else {},
                }
                for part, kept in zip(parts, stored, strict=True)
            ],
            "checksums": {algorithm: whole},
            "checksum_type": upload["checksum_type"],
        }

    def _stored(
        self, bucket_name: str, key: str, record: Record, upload: Record, headers: Mapping[str, str]
    ) -> Response:
        bucket = self._base.bucket(bucket_name)
        assert bucket is not None  # noqa: S101 - complete has looked
        prior = bucket["objects"].get(key)
        bucket["objects"][key] = record
        self._replicate(bucket_name, key, record, record["body"], upload["tags"])
        version_id = self._record_version(bucket_name, key, prior, record, record["body"])
        self._locks.apply(bucket_name, key, upload["lock_headers"], record.get("version_id"))
        self._tags.set(bucket_name, key, record.get("version_id"), upload["tags"])
        self._announce(
            bucket_name,
            key,
            "s3:ObjectCreated:CompleteMultipartUpload",
            size=record["size"],
            etag=record["etag"],
            version_id=version_id,
        )
        root = Element("CompleteMultipartUploadResult")
        for name, value in (
            ("Location", f"http://{headers.get('host', 'localhost')}/{bucket_name}/{key}"),
            ("Bucket", bucket_name),
            ("Key", key),
            ("ETag", record["etag"]),
            *((f"Checksum{algorithm}", value) for algorithm, value in record["checksums"].items()),
            ("ChecksumType", record["checksum_type"]),
        ):
            SubElement(root, name).text = value
        sent = {"Content-Type": "application/xml", **self._encryption_of(record)}
        if version_id:
            sent["x-amz-version-id"] = version_id
        return 200, sent, written(root)


def _kinds(algorithm: str) -> tuple[str, ...]:
    """The types of an object's checksum that an algorithm has, the default first."""
    if algorithm == "CRC64NVME":
        return (FULL_OBJECT,)
    return (COMPOSITE, FULL_OBJECT) if algorithm in CRCS else (COMPOSITE,)


def _has_digest(headers: Mapping[str, str]) -> bool:
    return bool(headers.get("content-md5") or given(headers))
