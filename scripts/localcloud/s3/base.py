"""The base's S3 as our parts see it: its stores, its errors, and what is in them.

An object's record is a dict of the base with ``body``, ``etag``, ``size``, ``storage_class``, ``checksums``,
``preserved_headers``, ``version_id`` where it has one, and ``restore``; a version's entry has ``data`` for ``body``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree.ElementTree import Element, fromstring, tostring

from localcloud.host import Host, Response

S3 = "services.s3"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
KMS_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
"""The header that names a key of KMS, with which an object keeps it."""
Record = dict[str, Any]
Query = Mapping[str, Any]


class S3Base:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.error: Callable[..., Response] = host.lookup(S3, "_error")
        self.no_such_bucket: Callable[[str], Response] = host.lookup(S3, "_no_such_bucket")
        self.bucket: Callable[[str], Record | None] = host.lookup(S3, "_ensure_bucket")
        self.versions: Any = host.lookup(S3, "_object_versions")
        self.versioning: Any = host.lookup(S3, "_bucket_versioning")
        self.tags: Any = host.lookup(S3, "_object_tags")
        self.uploads: Any = host.lookup(S3, "_multipart_uploads")
        self.locks: Any = host.lookup(S3, "_bucket_object_lock")

    def lookup(self, name: str) -> Any:
        return self.host.lookup(S3, name)

    def replace(self, name: str, value: Any) -> None:
        self.host.replace(S3, name, value)

    def current(self, bucket_name: str, key: str) -> Record | None:
        bucket = self.bucket(bucket_name)
        return None if bucket is None else bucket["objects"].get(key)

    def found(self, bucket_name: str, key: str, version_id: str | None) -> Record | None:
        """The object, or the version of it; ``None`` where there is none, and for delete markers."""
        current = self.current(bucket_name, key)
        if not version_id or (current is not None and (current.get("version_id") or "null") == version_id):
            return current
        for entry in self.versions.get((bucket_name, key)) or ():
            if entry["version_id"] == version_id and not entry.get("is_delete_marker"):
                return dict(entry)
        return None

    def copied(self, headers: Mapping[str, str]) -> Record | None:
        """The object that a request wants to copy."""
        path, _, query = headers.get("x-amz-copy-source", "").lstrip("/").partition("?")
        bucket_name, _, key = unquote(path).partition("/")
        return self.found(bucket_name, key, parse_qs(query).get("versionId", [None])[0])

    def invalid_request(self, message: str) -> Response:
        return self.error("InvalidRequest", message, 400)


def text_of(query: Query, name: str) -> str:
    value = query.get(name, "")
    return str(value[0] if isinstance(value, list) else value)


def parsed(answer: Response) -> Element:
    """The document of an answer, with plain names."""
    root = fromstring(answer[2])  # noqa: S314 - the base wrote it
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def written(root: Element) -> bytes:
    root.set("xmlns", NAMESPACE)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root)
