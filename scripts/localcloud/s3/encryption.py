"""Encryption with keys of KMS: which key is meant, that it can be used, and that an ETag then is no MD5.

Source: S3 user guide, "Specifying server-side encryption with AWS KMS"; API reference, PutObject, Object ("objects
encrypted by SSE-C or SSE-KMS have ETags that are not an MD5 digest"). Nothing is encrypted here. Keys that customers
send along (SSE-C) are the base's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from localcloud.ebs.kms import derived_aws_key_arn
from localcloud.host import Response
from localcloud.s3.base import KMS_KEY, Query, Record, S3Base, text_of
from localcloud.s3.bodies import Body

_ALGORITHM = "x-amz-server-side-encryption"
_BUCKET_KEY = f"{_ALGORITHM}-bucket-key-enabled"
_CUSTOMER = f"{_ALGORITHM}-customer-"
_WITH_KMS = ("aws:kms", "aws:kms:dsse")
_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):([0-9]{12}):((?:key|alias)/.+)")
_AWS_KEY = "alias/aws/s3"
_WRITES, _READS = "kms:GenerateDataKey", "kms:Decrypt"


class Keys:
    """The keys of KMS as S3 uses them."""

    def __init__(self, base: S3Base) -> None:
        self._base = base
        self._keys = base.host.lookup("services.kms", "_keys")
        self._aliases = base.host.lookup("services.kms", "_aliases")
        self._account: Callable[[], str] = base.host.lookup("core.responses", "get_account_id")
        self._region_of: Callable[[str], str | None] = base.lookup("bucket_region")

    def usable(self, named: str, bucket_name: str, action: str) -> tuple[str, Response | None]:
        """The ARN of the key that is meant, or why the caller cannot use it in the bucket for an action of KMS."""
        arn, refused = self._found(named, bucket_name)
        if arn and (denied := self._base.host.key_refusal(action, arn, self._region_of(bucket_name) or "")):
            return "", self._base.error("AccessDenied", denied, 403)
        return arn, refused

    def _found(self, named: str, bucket_name: str) -> tuple[str, Response | None]:
        account, region = self._account(), self._region_of(bucket_name) or ""
        arn = _ARN.fullmatch(named)
        if arn is not None:
            if arn.group(1) != region:
                return "", self._base.error("KMS.NotFoundException", f"Invalid arn {arn.group(1)}", 400)
            account, named = arn.group(2), arn.group(3)
        aws_key = derived_aws_key_arn(account=account, region=region, alias=_AWS_KEY.removeprefix("alias/"))
        if named == _AWS_KEY or f"arn:aws:kms:{region}:{account}:{named}" == aws_key:
            return aws_key, None
        if named.startswith("alias/"):
            key_id = self._aliases.get_scoped(account, region, f"arn:aws:kms:{region}:{account}:{named}")
            what = f"Alias arn:aws:kms:{region}:{account}:{named} is not found."
        else:
            key_id = named.removeprefix("key/")
            what = f"Key 'arn:aws:kms:{region}:{account}:key/{key_id}' does not exist"
        key = self._keys.get_scoped(account, region, key_id) if key_id else None
        if key is None:
            return "", self._base.error("KMS.NotFoundException", what, 400)
        return str(key["Arn"]), self._unusable(key)

    def _unusable(self, key: Record) -> Response | None:
        match key["KeyState"]:
            case "Disabled":
                return self._base.error("KMS.DisabledException", f"{key['Arn']} is disabled.", 400)
            case "PendingDeletion" | "PendingImport" as state:
                what = "pending deletion" if state == "PendingDeletion" else "pending import"
                return self._base.error("KMS.KMSInvalidStateException", f"{key['Arn']} is {what}.", 400)
        return None

    def refused(self, bucket_name: str, record: Record | None) -> Response | None:
        """Why what is stored cannot be read: its key."""
        kept: Mapping[str, str] = (record or {}).get("preserved_headers", {})
        return self.usable(kept[KMS_KEY], bucket_name, _READS)[1] if kept.get(KMS_KEY) else None


class Encryption:
    def __init__(self, base: S3Base, keys: Keys) -> None:
        self._base = base
        self._keys = keys
        self._of_customer: Callable[..., tuple[dict[str, str] | None, Response | None]] = base.lookup(
            "_resolve_sse_write_headers"
        )
        self._of_bucket = base.lookup("_bucket_encryption")
        self._fromstring: Callable[[str], Element] = base.lookup("fromstring")

    def headers(self, headers: Mapping[str, str], bucket_name: str) -> tuple[dict[str, str] | None, Response | None]:
        """How what is written will be encrypted, in headers that the object keeps; or why that cannot be."""
        algorithm, key = headers.get(_ALGORITHM, ""), headers.get(KMS_KEY, "")
        if any(name.startswith(_CUSTOMER) for name in headers):
            return self._of_customer(headers, bucket_name)
        if algorithm and algorithm not in ("AES256", *_WITH_KMS):
            return None, self._invalid("The encryption method specified is not supported")
        if key and algorithm not in _WITH_KMS:
            text = f"Server Side Encryption with AWS KMS managed key requires HTTP header {_ALGORITHM} : aws:kms"
            return None, self._invalid(text)
        bucket_key = headers.get(_BUCKET_KEY, "").lower() == "true"
        if not algorithm:
            algorithm, key, of_bucket = self._default(bucket_name)
            bucket_key = of_bucket if _BUCKET_KEY not in headers else bucket_key
        if algorithm == "AES256":
            return {_ALGORITHM: algorithm}, None
        arn, refused = self._keys.usable(key or _AWS_KEY, bucket_name, _WRITES)
        if refused is not None:
            return None, refused
        kept = {_ALGORITHM: algorithm, KMS_KEY: arn}
        return (kept | {_BUCKET_KEY: "true"} if bucket_key else kept), None

    def _default(self, bucket_name: str) -> tuple[str, str, bool]:
        """Algorithm, key and whether the bucket has a key, of the bucket's default encryption."""
        document = self._of_bucket.get(bucket_name)
        told = {}
        if document:
            told = {
                each.tag.rpartition("}")[2]: (each.text or "").strip() for each in self._fromstring(document).iter()
            }
        enabled = told.get("BucketKeyEnabled", "").lower() == "true"
        return told.get("SSEAlgorithm") or "AES256", told.get("KMSMasterKeyID", ""), enabled

    def _invalid(self, text: str) -> Response:
        return self._base.error("InvalidArgument", text, 400)


def install(base: S3Base) -> None:
    keys = Keys(base)
    encryption = Encryption(base, keys)
    stored: tuple[str, ...] = base.lookup("_SSE_STORED_HEADERS")
    base.replace("_SSE_STORED_HEADERS", (*stored, _BUCKET_KEY))
    base.replace("_resolve_sse_write_headers", encryption.headers)
    _hide_md5(base, encryption)
    _ask_keys(base, keys)


def _hide_md5(base: S3Base, encryption: Encryption) -> None:
    put: Callable[..., Response] = base.lookup("_put_object")
    upload: Callable[..., Response] = base.lookup("_upload_part")

    def put_object(bucket_name: str, key: str, body: Body, headers: dict[str, str]) -> Response:
        kept, _ = encryption.headers(headers, bucket_name)
        return put(bucket_name, key, _hidden(body) if KMS_KEY in (kept or {}) else body, headers)

    def upload_part(bucket_name: str, key: str, body: Body, query: Query, headers: dict[str, str]) -> Response:
        record: Record = base.uploads.get(text_of(query, "uploadId")) or {}
        hides = KMS_KEY in record.get("preserved_headers", {})
        return upload(bucket_name, key, _hidden(body) if hides else body, query, headers)

    base.replace("_put_object", put_object)
    base.replace("_upload_part", upload_part)


def _hidden(body: Body) -> Body:
    return body.with_etag(uuid.uuid4().bytes)


def _ask_keys(base: S3Base, keys: Keys) -> None:
    """Reading takes the key as writing does, and so do the parts of an upload."""
    get: Callable[..., Response] = base.lookup("_get_object")
    copy: Callable[..., Response] = base.lookup("_copy_object")
    copy_part: Callable[..., Response] = base.lookup("_upload_part_copy")
    upload: Callable[..., Response] = base.lookup("_upload_part")
    complete: Callable[..., Response] = base.lookup("_complete_multipart_upload")

    def get_object(bucket_name: str, key: str, headers: dict[str, str], query: Query | None = None) -> Response:
        named = base.found(bucket_name, key, text_of(query or {}, "versionId"))
        return keys.refused(bucket_name, named) or get(bucket_name, key, headers, query)

    def copy_object(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        return keys.refused(bucket_name, base.copied(headers)) or copy(bucket_name, key, headers)

    def upload_part_copy(bucket_name: str, key: str, query: Query, headers: dict[str, str]) -> Response:
        refused = keys.refused(bucket_name, base.copied(headers)) or keys.refused(bucket_name, _upload(query))
        return refused or copy_part(bucket_name, key, query, headers)

    def upload_part(bucket_name: str, key: str, body: Body, query: Query, headers: dict[str, str]) -> Response:
        return keys.refused(bucket_name, _upload(query)) or upload(bucket_name, key, body, query, headers)

    def complete_upload(bucket_name: str, key: str, body: bytes, query: Query, headers: Any = None) -> Response:
        return keys.refused(bucket_name, _upload(query)) or complete(bucket_name, key, body, query, headers)

    def _upload(query: Query) -> Record | None:
        found: Record | None = base.uploads.get(text_of(query, "uploadId"))
        return found

    base.replace("_get_object", get_object)
    base.replace("_copy_object", copy_object)
    base.replace("_upload_part_copy", upload_part_copy)
    base.replace("_upload_part", upload_part)
    base.replace("_complete_multipart_upload", complete_upload)
