"""The objects of a bucket in memory, as S3 gives them."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

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
        self, *, Bucket: str, Key: str, Body: bytes, ContentType: str, ChecksumAlgorithm: str, IfNoneMatch: str = ""
    ) -> None:
        self.calls["PutObject"] += 1
        if IfNoneMatch and Key in self.objects:
            raise refusal("PreconditionFailed", "PutObject", status=412)
        assert ChecksumAlgorithm in ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME")
        self.objects[Key], self.types[Key], self.modified[Key] = Body, ContentType, self.now()

    def get_object(self, *, Bucket: str, Key: str, **_: Any) -> Any:
        self.calls["GetObject"] += 1
        if "GetObject" in self.errors:
            raise self.errors["GetObject"]
        if Key not in self.objects:
            raise refusal("NoSuchKey", "GetObject", status=404)
        return {"Body": io.BytesIO(self.objects[Key])}

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> Any:
        keys = sorted(key for key in self.objects if key.startswith(Prefix))[:MaxKeys]
        return {"Contents": [self._listed(key) for key in keys]} if keys else {}

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
