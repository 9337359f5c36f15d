"""Storage classes: which can be chosen, and that nothing is read or copied of what is frozen.

Source: S3 user guide, "Understanding S3 Glacier storage classes for long-term data storage", "Restoring an archived
object"; API reference, RestoreObject, GetObject. That GET of a frozen object is refused until it is restored is the
base's; restoring takes ``restore_seconds``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, ParseError, SubElement

from localcloud.host import Response
from localcloud.s3.base import Query, Record, S3Base, text_of

FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE"})
CHOOSABLE = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", *FROZEN}
)
"""The classes of a general purpose bucket. The service's model has those of other kinds of buckets, too."""


def is_frozen(record: Record) -> bool:
    if record.get("storage_class") not in FROZEN:
        return False
    restore = record.get("restore")
    return not (restore and restore["available_at"] <= time.time() < restore["expires_at"])


def install(base: S3Base, *, restore_seconds: float) -> None:
    base.replace("_RESTORE_DELAY_SECONDS", restore_seconds)
    _choose(base)
    _keep_frozen(base)
    _restore(base)


def _choose(base: S3Base) -> None:
    def resolved(headers: Mapping[str, str], **_: str) -> tuple[str | None, Response | None]:
        """A copy that says nothing is of the class STANDARD, too, whatever its source's is."""
        chosen = headers.get("x-amz-storage-class") or "STANDARD"
        if chosen in CHOOSABLE:
            return chosen, None
        about = {"StorageClassRequested": chosen}
        return None, base.error("InvalidStorageClass", "The storage class you specified is not valid", 400, extra=about)

    base.replace("_resolve_storage_class", resolved)


def _keep_frozen(base: S3Base) -> None:
    copy: Callable[..., Response] = base.lookup("_copy_object")
    copy_part: Callable[..., Response] = base.lookup("_upload_part_copy")

    def refused(headers: Mapping[str, str]) -> Response | None:
        source = base.copied(headers)
        if source is None or not is_frozen(source):
            return None
        text = "Operation is not valid for the source object's storage class"
        return base.error("InvalidObjectState", text, 403, extra={"StorageClass": str(source["storage_class"])})

    def copy_object(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        answer = refused(headers)
        return copy(bucket_name, key, headers) if answer is None else answer

    def upload_part_copy(bucket_name: str, key: str, query: Query, headers: dict[str, str]) -> Response:
        answer = refused(headers)
        return copy_part(bucket_name, key, query, headers) if answer is None else answer

    base.replace("_copy_object", copy_object)
    base.replace("_upload_part_copy", upload_part_copy)


def _restore(base: S3Base) -> None:
    restore: Callable[[str, str, bytes], Response] = base.lookup("_restore_object")
    dispatch: Callable[..., Response] = base.lookup("_dispatch")
    fromstring: Callable[[bytes], Element] = base.lookup("fromstring")

    def restore_object(bucket_name: str, key: str, body: bytes) -> Response:
        record = base.current(bucket_name, key)
        if record is not None and record.get("storage_class") == "DEEP_ARCHIVE" and _tier(body) == "Expedited":
            text = "Retrieval option is not supported by this storage class"
            return base.error("InvalidArgument", text, 400)
        answer = restore(bucket_name, key, body)
        for entry in base.versions.get((bucket_name, key)) or ():
            if record is not None and entry["version_id"] == (record.get("version_id") or "null"):
                entry["restore"] = record.get("restore")
        return answer

    def _tier(body: bytes) -> str:
        try:
            elements = list(fromstring(body).iter()) if body else []
        except ParseError:
            return ""
        return next(((each.text or "").strip() for each in elements if each.tag.rpartition("}")[2] == "Tier"), "")

    def dispatched(
        method: str, bucket_name: str, key: str, headers: dict[str, str], body: bytes, query: Query
    ) -> Response:
        """The base restores the current version, whichever is named."""
        version_id = text_of(query, "versionId")
        if method == "POST" and key and "restore" in query and version_id:
            current, named = base.current(bucket_name, key), base.found(bucket_name, key, version_id)
            if named is None:
                return base.error("NoSuchVersion", "The specified version does not exist.", 404)
            if named is not current:
                return base.error("NotImplemented", "The local cloud restores current versions only.", 501)
        return dispatch(method, bucket_name, key, headers, body, query)

    base.replace("_restore_object", restore_object)
    base.replace("_dispatch", dispatched)


def add_restore_status(element: Element, record: Record) -> None:
    """To an entry of a listing, as it is asked for by ``OptionalObjectAttributes``."""
    restore = record.get("restore")
    if not restore or time.time() >= restore["expires_at"]:
        return
    status = SubElement(element, "RestoreStatus")
    in_progress = time.time() < restore["available_at"]
    SubElement(status, "IsRestoreInProgress").text = "true" if in_progress else "false"
    if not in_progress:
        expiry = datetime.fromtimestamp(restore["expires_at"], UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        SubElement(status, "RestoreExpiryDate").text = expiry
