"""The objects of a bucket in memory, as S3 gives them."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import IO, Any

from memory_ec2 import refusal

PAGE = 2
"""Entries of a page of a listing; S3 has 1,000."""


class MemoryS3:
    """PutObject, GetObject, ListObjectsV2, DeleteObject and DeleteObjects. Keys in ``stuck`` cannot be deleted."""

    def __init__(self, region: str = "us-east-1") -> None:
        self.meta = SimpleNamespace(region_name=region)
        self.objects: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.errors: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self.modified: dict[str, datetime] = {}
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes | IO[bytes],
        ContentType: str = "binary/octet-stream",
        ChecksumAlgorithm: str = "SHA256",
        ChecksumSHA256: str = "",
        IfNoneMatch: str = "",
        **_: Any,
    ) -> Any:
        self.calls["PutObject"] += 1
        if IfNoneMatch and Key in self.objects:
            raise refusal("PreconditionFailed", "PutObject", status=412)
        assert ChecksumAlgorithm in ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME")
        body = Body if isinstance(Body, bytes) else Body.read()
        if ChecksumSHA256 and base64.b64decode(ChecksumSHA256) != hashlib.sha256(body).digest():
            raise refusal("BadDigest", "PutObject", status=400)
        self.objects[Key], self.types[Key], self.modified[Key] = body, ContentType, self.now()
        return {"ETag": self._listed(Key)["ETag"]}

    def get_object(self, *, Bucket: str, Key: str, Range: str = "", **_: Any) -> Any:
        self.calls["GetObject"] += 1
        if "GetObject" in self.errors:
            raise self.errors["GetObject"]
        if Key not in self.objects:
            raise refusal("NoSuchKey", "GetObject", status=404)
        body, more = self.objects[Key], {}
        if Range:
            first, last = map(int, Range.removeprefix("bytes=").split("-"))
            if first >= len(body):
                raise refusal("InvalidRange", "GetObject", status=416)
            more = {"ContentRange": f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"}
            body = body[first : last + 1]
        return {"Body": io.BytesIO(body), "ContentLength": len(body), **more}

    def list_objects_v2(
        self, *, Bucket: str, Prefix: str, MaxKeys: int = PAGE, StartAfter: str = "", ContinuationToken: str = ""
    ) -> Any:
        after = max(StartAfter, ContinuationToken)
        keys = sorted(key for key in self.objects if key.startswith(Prefix) and key > after)
        page = keys[:MaxKeys]
        more = {"IsTruncated": True, "NextContinuationToken": page[-1]} if len(keys) > len(page) else {}
        return {"Contents": [self._listed(key) for key in page], **more} if page else {}

    def _listed(self, key: str) -> dict[str, Any]:
        etag = f'"{hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()}"'
        return {
            "Key": key,
            "ETag": etag,
            "Size": len(self.objects[key]),
            "LastModified": self.modified.get(key, self.now()),
        }

    def get_paginator(self, operation: str) -> MemoryS3:
        assert operation == "list_objects_v2"
        return self

    def paginate(
        self, *, Bucket: str, Prefix: str, Delimiter: str = "", StartAfter: str = "", PaginationConfig: Any = None
    ) -> Iterator[Any]:
        keys = sorted(key for key in self.objects if key.startswith(Prefix) and key > StartAfter)
        if "ListObjectsV2" in self.errors:
            raise self.errors["ListObjectsV2"]
        name, entries = "Contents", [self._listed(key) for key in keys]
        if Delimiter:
            # Every key of a workspace lies in a folder.
            folders = {Prefix + key.removeprefix(Prefix).split(Delimiter)[0] + Delimiter for key in keys}
            name, entries = "CommonPrefixes", [{"Prefix": folder} for folder in sorted(folders)]
        if not entries:
            yield {}
        for first in range(0, len(entries), PAGE):
            yield {name: entries[first : first + PAGE]}

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self.objects.pop(Key, None)

    def delete_objects(self, *, Bucket: str, Delete: Any) -> Any:
        asked = [one["Key"] for one in Delete["Objects"]]
        errors = [{"Key": key, "Code": "InternalError", "Message": "planted"} for key in asked if key in self.stuck]
        for key in asked:
            if key not in self.stuck:
                self.objects.pop(key, None)
        return {"Errors": errors} if errors else {}
