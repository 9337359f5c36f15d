"""S3's conditional writes: ``If-None-Match: *`` and ``If-Match: <ETag>``.

PutObject, CompleteMultipartUpload and CopyObject take them. The base takes more than S3 does (an ETag in
``If-None-Match``, ``*`` in ``If-Match``) and does not look at the headers of a copy. Source: S3 user guide, "How to
prevent object overwrites with conditional writes"; API reference of the three. S3 answers 501 where a header means
what it does not have: aws/aws-sdk-ruby issue 3144 (an ETag in ``If-None-Match``) and versity/versitygw pull request
1727 (both headers at once); that ``If-Match: *`` is such a header, too, is our choice.

The base looks at an object and writes it in one go on its event loop, so nothing comes between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from localcloud.host import Host, Response

S3 = "services.s3"


def install(host: Host) -> None:
    error: Callable[[str, str, int], Response] = host.lookup(S3, "_error")
    copy: Callable[[str, str, dict[str, str]], Response] = host.lookup(S3, "_copy_object")
    bucket_of: Callable[[str], Mapping[str, Any] | None] = host.lookup(S3, "_ensure_bucket")

    def refusal(headers: Mapping[str, str], current: Mapping[str, Any] | None) -> Response | None:
        refused = refused_condition(headers, None if current is None else str(current["etag"]))
        return None if refused is None else error(*refused)

    def copy_if(bucket_name: str, key: str, headers: dict[str, str]) -> Response:
        bucket = bucket_of(bucket_name)
        refused = None if bucket is None else refusal(headers, bucket["objects"].get(key))
        return copy(bucket_name, key, headers) if refused is None else refused

    host.replace(S3, "_check_put_preconditions", refusal)
    host.replace(S3, "_copy_object", copy_if)


def refused_condition(headers: Mapping[str, str], etag: str | None) -> tuple[str, str, int] | None:
    """Code, message and status for a write that may not be done; ``None`` if it may.

    ``headers``: names in lower case. ``etag``: of the current version, ``None`` where there is none or where it is a
    delete marker.
    """
    absent, match = headers.get("if-none-match", "").strip(), headers.get("if-match", "").strip()
    if not absent and not match:
        return None
    if (absent and match) or absent not in ("", "*") or match == "*":
        return "NotImplemented", "A header you provided implies functionality that is not implemented", 501
    if match and etag is None:
        return "NoSuchKey", "The specified key does not exist.", 404
    holds = etag is None if absent else match.strip('"') == str(etag).strip('"')
    if holds:
        return None
    return "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412
