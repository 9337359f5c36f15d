"""S3's additional checksums: checked on arrival, kept, answered.

Source: S3 user guide, "Checking object integrity"; botocore's model of PutObject, CopyObject and GetObjectAttributes;
the texts of refusals are those that clients of S3 report (aws/aws-sdk-java issue 3173, versity/versitygw issue 1188).
An object that comes without one gets a CRC64NVME.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from localcloud.host import Response
from localcloud.s3.base import KMS_KEY, Query, Record, S3Base, parsed, text_of, written
from localcloud.s3.bodies import SIZES, Body

DEFAULT = "CRC64NVME"
ALL_ALGORITHMS = (*SIZES, "XXHASH64", "XXHASH3", "XXHASH128")
FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
_HEADER = re.compile(r"x-amz-checksum-(?!(?:algorithm|type|mode)$)(\w+)")
Checksums = dict[str, str]
"""Checksums in base64 by algorithm."""


def given(headers: Mapping[str, str]) -> Checksums:
    """What the request says that the checksum of its body is."""
    found = ((_HEADER.fullmatch(name.lower()), value.strip()) for name, value in headers.items())
    return {match.group(1).upper(): value for match, value in found if match}


def headers_of(checksums: Mapping[str, str]) -> dict[str, str]:
    return {f"x-amz-checksum-{algorithm.lower()}": value for algorithm, value in checksums.items()}


class Checks:
    """Holds bodies against what their requests say."""

    def __init__(self, base: S3Base) -> None:
        self._base = base

    def of_object(self, body: Body, headers: Mapping[str, str]) -> tuple[Checksums, Response | None]:
        """What is kept with an object, or why it is refused."""
        checksums, refused = self.checked(body, headers)
        if refused is not None:
            return {}, refused
        return checksums or {DEFAULT: body.checksum(DEFAULT)}, None

    def checked(self, body: Body, headers: Mapping[str, str]) -> tuple[Checksums, Response | None]:
        """The checksum that the request gives, if it gives one and the body has it."""
        stated = given(headers)
        named = headers.get("x-amz-sdk-checksum-algorithm", "").upper()
        if len(stated) > 1:
            text = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            return {}, self._base.invalid_request(text)
        if named and not stated:
            text = (
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
                "headers were found."
            )
            return {}, self._base.invalid_request(text)
        for algorithm, value in stated.items():
            refused = self._refusal(body, algorithm, value)
            if refused is not None:
                return {}, refused
            if named and named != algorithm:
                return {}, self._base.error("BadDigest", f"The {named} you specified did not match.", 400)
        return stated, None

    def _refusal(self, body: Body, algorithm: str, value: str) -> Response | None:
        if algorithm not in SIZES:
            return self._base.error("NotImplemented", f"The local cloud does not compute {algorithm} checksums.", 501)
        if not _is_digest(value, SIZES[algorithm]):
            return self._base.invalid_request(f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.")
        if value != body.checksum(algorithm):
            text = f"The {algorithm} you specified did not match the calculated checksum."
            return self._base.error("BadDigest", text, 400)
        return None


def _is_digest(value: str, size: int) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == size
    except (binascii.Error, ValueError):
        return False


def install(base: S3Base) -> Checks:
    checks = Checks(base)
    base.replace("_resolve_object_checksums", checks.of_object)
    # In a presigned URL they are of no body: whoever made it had none. S3 passes over them.
    in_vain = (*(f"x-amz-checksum-{name.lower()}" for name in ALL_ALGORITHMS), "x-amz-sdk-checksum-algorithm")
    base.replace("_PRESIGN_UNHOISTED_CHECKSUM_PARAMS", frozenset(in_vain))
    _keep_types(base)
    _answer_puts(base)
    _mend_copies(base)
    _describe(base)
    return checks


def _keep_types(base: S3Base) -> None:
    """The base forgets with an object's versions whether its checksum is one of parts."""
    entry_of: Callable[..., Record] = base.lookup("_version_entry_from_record")
    record_of: Callable[[Record], Record] = base.lookup("_object_record_from_version")
    kept = ("checksum_type", "parts", "restore")

    def entry(record: Record, version_id: str, data: Any) -> Record:
        return entry_of(record, version_id, data) | {name: record.get(name) for name in kept}

    def record(entry: Record) -> Record:
        return record_of(entry) | {name: entry.get(name) for name in kept}

    base.replace("_version_entry_from_record", entry)
    base.replace("_object_record_from_version", record)


def _answer_puts(base: S3Base) -> None:
    put: Callable[..., Response] = base.lookup("_put_object")

    def put_object(bucket_name: str, key: str, body: Body, headers: dict[str, str]) -> Response:
        answer = put(bucket_name, key, body, headers)
        stored = base.current(bucket_name, key)
        if answer[0] == 200 and stored is not None:
            answer[1].update(headers_of(stored["checksums"]) | {"x-amz-checksum-type": FULL_OBJECT})
        return answer

    base.replace("_put_object", put_object)


def _mend_copies(base: S3Base) -> None:
    """A copy is an object put in one piece, whatever its source was: its checksum and its ETag are of all its bytes."""
    copy: Callable[..., Response] = base.lookup("_copy_object")

    def copy_object(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        wanted = headers.get("x-amz-checksum-algorithm", "").upper()
        if wanted and wanted not in SIZES:
            return base.error("NotImplemented", f"The local cloud does not compute {wanted} checksums.", 501)
        answer = copy(bucket_name, key, headers)
        record = base.current(bucket_name, key)
        if answer[0] != 200 or record is None:
            return answer
        algorithm = wanted or str(next(iter(record["checksums"]), DEFAULT))
        body: Body = record["body"]
        has_kms_key = KMS_KEY in record["preserved_headers"]
        etag = f'"{uuid.uuid4().hex if has_kms_key else body.digest("MD5").hex()}"'
        checksums = {algorithm: body.checksum(algorithm)}
        mended = {"checksums": checksums, "checksum_type": FULL_OBJECT, "etag": etag}
        record.update(mended)
        for entry in base.versions.get((bucket_name, key)) or ():
            if entry.get("is_latest"):
                entry.update(mended)
        root = parsed(answer)
        for element in root.findall("ETag"):
            element.text = etag
        _add_checksums(root, record)
        return answer[0], answer[1], written(root)

    base.replace("_copy_object", copy_object)


def _describe(base: S3Base) -> None:
    attributes: Callable[..., Response] = base.lookup("_get_object_attributes")

    def get_object_attributes(bucket_name: str, key: str, headers: dict[str, str], query: Query) -> Response:
        answer = attributes(bucket_name, key, headers, query)
        record = base.found(bucket_name, key, text_of(query, "versionId"))
        if answer[0] != 200 or record is None:
            return answer
        root = parsed(answer)
        for described in root.findall("Checksum"):
            described.clear()
            _add_checksums(described, record)
        return answer[0], answer[1], written(root)

    def append_parts(root: Element, record: Record, headers: Mapping[str, str]) -> None:
        """Only multipart objects have parts, and only those with an algorithm of their own have them listed."""
        parts = record.get("parts") or []
        if not parts:
            return
        described = SubElement(root, "ObjectParts")
        SubElement(described, "PartsCount").text = str(len(parts))
        if not all(part.get("checksums") for part in parts):
            return
        marker, most = (int(headers.get(f"x-amz-{name}", default)) for name, default in _PAGE)
        after = [part for part in parts if part["PartNumber"] > marker]
        page = after[: min(most, 1000)]
        SubElement(described, "PartNumberMarker").text = str(marker)
        SubElement(described, "MaxParts").text = str(most)
        SubElement(described, "IsTruncated").text = "true" if len(after) > len(page) else "false"
        SubElement(described, "NextPartNumberMarker").text = str(page[-1]["PartNumber"] if page else 0)
        for part in page:
            element = SubElement(described, "Part")
            SubElement(element, "PartNumber").text = str(part["PartNumber"])
            SubElement(element, "Size").text = str(part["Size"])
            for algorithm, value in part["checksums"].items():
                SubElement(element, f"Checksum{algorithm}").text = value

    base.replace("_append_object_parts", append_parts)
    base.replace("_get_object_attributes", get_object_attributes)


_PAGE = (("part-number-marker", "0"), ("max-parts", "1000"))


def _add_checksums(root: Element, record: Record) -> None:
    for algorithm, value in record["checksums"].items():
        SubElement(root, f"Checksum{algorithm}").text = value
    SubElement(root, "ChecksumType").text = record.get("checksum_type") or FULL_OBJECT
