"""What lists of objects and versions tell besides the base's: checksums' algorithm and type, and restores if asked."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote
from xml.etree.ElementTree import SubElement

from localcloud.host import Response
from localcloud.s3.base import Query, S3Base, parsed, text_of, written
from localcloud.s3.checksums import FULL_OBJECT
from localcloud.s3.storage_classes import add_restore_status

_OPTIONAL = "x-amz-optional-object-attributes"
_LISTS = (b"<ListBucketResult", b"<ListVersionsResult")
_PLACES = ("Contents", "Version")


def install(base: S3Base) -> None:
    dispatch: Callable[..., Response] = base.lookup("_dispatch")

    def dispatched(
        method: str, bucket_name: str, key: str, headers: dict[str, str], body: bytes, query: Query
    ) -> Response:
        answer = dispatch(method, bucket_name, key, headers, body, query)
        if method != "GET" or not bucket_name or key or answer[0] != 200:
            return answer
        if not isinstance(answer[2], bytes) or not any(name in answer[2][:200] for name in _LISTS):
            return answer  # about the bucket itself, which the base tells in texts
        root = parsed(answer)
        is_encoded = text_of(query, "encoding-type") == "url"
        for element in (each for each in root if each.tag in _PLACES):
            name = element.findtext("Key") or ""
            record = base.found(bucket_name, unquote(name) if is_encoded else name, element.findtext("VersionId"))
            if record is None:
                continue
            for algorithm in record["checksums"]:
                SubElement(element, "ChecksumAlgorithm").text = algorithm
            SubElement(element, "ChecksumType").text = record.get("checksum_type") or FULL_OBJECT
            if "RestoreStatus" in headers.get(_OPTIONAL, ""):
                add_restore_status(element, record)
        return answer[0], answer[1], written(root)

    base.replace("_dispatch", dispatched)
