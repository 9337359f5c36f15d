"""Object Lock: what has to come with a locked object, and what a bucket with locks does not do any more.

Source: S3 user guide, "Object Lock considerations"; API reference, PutObject ("The Content-MD5 or
x-amz-sdk-checksum-algorithm header is required for any request to upload an object with a retention period"),
PutBucketVersioning. That a locked version cannot be deleted is the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from localcloud.host import Response
from localcloud.s3.base import Record, S3Base
from localcloud.s3.bodies import Body
from localcloud.s3.checksums import given

MODE, UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
LOCK_HEADERS = (MODE, UNTIL, "x-amz-object-lock-legal-hold")


class Locks:
    def __init__(self, base: S3Base) -> None:
        self._base = base
        self._buckets = base.locks
        self._retention = base.lookup("_object_retention")
        self._holds = base.lookup("_object_legal_hold")
        self.apply: Callable[[str, str, Mapping[str, str], str | None], None] = base.lookup(
            "_apply_object_lock_from_headers"
        )
        self._refused_headers: Callable[[str, Mapping[str, str]], Response | None] = base.lookup(
            "_object_lock_header_error"
        )

    def need_digest(self, bucket_name: str, headers: Mapping[str, str]) -> bool:
        """Whether an object with these headers will be locked."""
        locked: Record = self._buckets.get(bucket_name) or {}
        return any(headers.get(name) for name in LOCK_HEADERS) or bool(locked.get("default_retention"))

    def forget(self, bucket_name: str, key: str, version_id: str | None) -> None:
        self._retention.pop((bucket_name, key, version_id), None)
        self._holds.pop((bucket_name, key, version_id), None)

    def refused_headers(self, bucket_name: str, headers: Mapping[str, str]) -> Response | None:
        if refused := self._refused_headers(bucket_name, headers):
            return refused
        mode, until = headers.get(MODE), headers.get(UNTIL)
        if bool(mode) != bool(until):
            return self._base.error("InvalidArgument", f"{UNTIL} and {MODE} must both be supplied", 400)
        if until and _is_past(until):
            return self._base.error("InvalidArgument", "The retain until date must be in the future!", 400)
        return None


def install(base: S3Base) -> Locks:
    locks = Locks(base)
    put: Callable[..., Response] = base.lookup("_put_object")
    copy: Callable[..., Response] = base.lookup("_copy_object")
    put_versioning: Callable[[str, bytes], Response] = base.lookup("_put_bucket_versioning")

    def put_object(bucket_name: str, key: str, body: Body, headers: dict[str, str]) -> Response:
        if locks.need_digest(bucket_name, headers) and not (headers.get("content-md5") or given(headers)):
            text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock "
            return base.invalid_request(f"{text}parameters")
        return put(bucket_name, key, body, headers)

    def copy_object(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        """A copy is locked as its request and its bucket say, not as its source is."""
        answer = copy(bucket_name, key, headers)
        record = base.current(bucket_name, key)
        if answer[0] == 200 and record is not None:
            locks.forget(bucket_name, key, record.get("version_id"))
            locks.apply(bucket_name, key, headers, record.get("version_id"))
        return answer

    def put_bucket_versioning(bucket_name: str, body: bytes) -> Response:
        if base.locks.get(bucket_name) and b"<Status>Suspended" in body:
            text = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
            return base.error("InvalidBucketState", text, 409)
        return put_versioning(bucket_name, body)

    base.replace("_object_lock_header_error", locks.refused_headers)
    base.replace("_put_object", put_object)
    base.replace("_copy_object", copy_object)
    base.replace("_put_bucket_versioning", put_bucket_versioning)
    return locks


def _is_past(until: str) -> bool:
    try:
        date = datetime.fromisoformat(until.replace("Z", "+00:00"))
    except ValueError:
        return False  # the service's model refuses it
    return date.replace(tzinfo=date.tzinfo or UTC) <= datetime.now(UTC)
