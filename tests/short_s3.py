"""The requests that jobs send to S3 most, answered from moto's own buckets without moto's way to them.

Moto tries the addresses of its services one by one, makes each request into one of a web server, and renders its answer
with a serializer for any service: twenty times the work of what it then does in its buckets. ``ShortS3`` does that same
work with moto's own methods, so that both ways find the same objects. A request with any header, parameter or outcome
that is not known here goes the whole way: so does everything that S3 refuses but an object that is not there.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import SIGV4_TIMESTAMP
from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import get_current_datetime
from botocore.exceptions import NoCredentialsError
from botocore.httpchecksum import AwsChunkedWrapper
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import get_account_id_from
from moto.s3.models import FakeBucket, s3_backends
from moto.s3.utils import metadata_from_headers
from moto.utilities.utils import get_partition

Answer = tuple[int, dict[str, Any], str | bytes]
"""Status, headers, body."""

_HOST = re.compile(r"(?P<bucket>[a-z0-9-]+)\.s3(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com")
_ACCESS_KEY = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")
_TRAILER = re.compile(rb"x-amz-checksum-\w+:(.+={1,2})")

_OF_ALL = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "user-agent",
    "x-amz-content-sha256",
    "x-amz-date",
}
_OF_GET = _OF_ALL | {"x-amz-checksum-mode", "range", "if-match"}
_OF_PUT = _OF_ALL | {
    "content-encoding",
    "content-type",
    "expect",
    "if-none-match",
    "transfer-encoding",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
}
_OF_PLAIN_PUT = _OF_ALL | {
    "content-type",
    "expect",
    "if-none-match",
    "x-amz-checksum-sha256",
    "x-amz-storage-class",
    "x-amz-tagging",
}
"""Of one whose caller knows the SHA-256, beside ``x-amz-meta-``: its body comes as it is."""
_OF_LIST = {
    "continuation-token",
    "delimiter",
    "encoding-type",
    "list-type",
    "max-keys",
    "prefix",
    "start-after",
}

_WARM = {"STANDARD", "STANDARD_IA"}
"""Storage classes that jobs of the tests use and that are read without a restore."""

_NO_SIGNATURE = "SignedHeaders=host, Signature=" + 64 * "0"

_XML = '<?xml version="1.0" encoding="utf-8"?>\n'


def name_the_key(signer: Any, request: Any) -> None:
    """Instead of ``S3SigV4Auth.add_auth``: moto reads the access key in a signature, and nothing else of it.

    Raises ``NoCredentialsError`` without credentials, as ``add_auth`` does.
    """
    if signer.credentials is None:
        raise NoCredentialsError
    request.context["timestamp"] = get_current_datetime().strftime(SIGV4_TIMESTAMP)
    if "uploadId=" in request.url:
        # Who sends a part says its SHA-256; to compute it twice takes longer than the rest of a test.
        request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    else:
        signer._modify_request_before_signing(request)
    request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, {_NO_SIGNATURE}"


class ShortS3:
    """Instead of ``process_request`` of moto's stubber, which is ``whole``. ``answered`` counts what it did itself."""

    def __init__(self, whole: Callable[[AWSPreparedRequest], Any]) -> None:
        self._whole = whole
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()
        self.answered = 0

    def __call__(self, request: AWSPreparedRequest) -> Any:
        # What is written anew closes the object before, which another thread may be reading.
        with self._turn:
            answer = self._short(request)
        if answer is None:
            return self._whole(request)
        self.answered += 1
        answer[1]["x-amzn-requestid"] = f"{next(self._numbers):052d}"
        return answer

    def _short(self, request: AWSPreparedRequest) -> Answer | None:
        address = urlsplit(request.url)
        named = _HOST.fullmatch(address.netloc)
        if named is None or address.scheme != "https":
            return None
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        signed = _ACCESS_KEY.match(headers.get("authorization", ""))
        if (
            signed is None
            or get_account_id_from(signed[1]) != DEFAULT_ACCOUNT_ID
            or get_partition(named["region"] or "us-east-1") != "aws"
        ):
            return None
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        bucket = backend.buckets.get(named["bucket"])
        if bucket is None or not _is_plain(bucket):
            return None
        if address.path in ("", "/"):
            if request.method == "GET" and headers.keys() <= _OF_ALL:
                return _listed(backend, bucket, dict(parse_qsl(address.query, keep_blank_values=True)))
            return None
        if address.query or "//" in address.path or "/." in address.path:
            return None
        key = unquote(address.path)[1:]
        match request.method:
            case "GET" if headers.keys() <= _OF_GET:
                return _got(backend, bucket, key, headers)
            case "PUT" if headers.keys() <= _OF_PUT:
                return _put(backend, bucket, key, headers, request.body)
            case "PUT" if {name for name in headers if not name.startswith("x-amz-meta-")} <= _OF_PLAIN_PUT:
                return _put_plain(backend, bucket, key, headers, request.body)
            case "DELETE" if headers.keys() <= _OF_ALL:
                backend.delete_object(bucket.name, key)
                return 204, {}, ""
        return None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is_plain(bucket: Any) -> bool:
    """Whether nothing was set that has a say in what becomes of a request."""
    return type(bucket) is FakeBucket and not (
        bucket.policy
        or bucket.logging
        or bucket.encryption
        or bucket.notification_configuration
        or bucket.object_lock_enabled
        or bucket.is_versioned
    )


def _got(backend: Any, bucket: Any, key: str, headers: Mapping[str, str]) -> Answer | None:
    found = backend.get_object(bucket.name, key)
    if found is None:
        error = (
            f"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>{escape(key)}</Key>"
        )
        return 404, {"Content-Type": "application/xml"}, f"{_XML}{error}<RequestId>r</RequestId></Error>"
    wanted = headers.get("if-match")
    if found.storage_class not in _WARM or (wanted and found.etag not in (wanted, f'"{wanted}"')):
        return None
    answer = {**found.response_dict}
    if headers.get("x-amz-checksum-mode") == "ENABLED" and found.checksum_algorithm:
        if found.checksum_type or found.multipart:
            return None
        answer[f"x-amz-checksum-{found.checksum_algorithm.lower()}"] = found.checksum_value
    answer |= {**found.metadata, "Accept-Ranges": "bytes"}
    body = found.value
    if "range" not in headers:
        return 200, answer, body
    asked = _RANGE.fullmatch(headers["range"])
    if asked is None or not int(asked[1]) <= int(asked[2]) or int(asked[1]) >= len(body):
        return None
    first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
    if first or last < len(body) - 1:
        # The checksum is that of the whole.
        answer = {name: value for name, value in answer.items() if not name.startswith("x-amz-checksum-")}
    part = body[first : last + 1]
    answer |= {"content-range": f"bytes {first}-{last}/{len(body)}", "content-length": str(len(part))}
    return 206, answer, part


def _put(backend: Any, bucket: Any, key: str, headers: Mapping[str, str], body: Any) -> Answer | None:
    algorithm = headers.get("x-amz-sdk-checksum-algorithm")
    if (
        headers.get("x-amz-content-sha256") != "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        or not algorithm
        or not isinstance(body, AwsChunkedWrapper)
    ):
        return None
    if not _may_be_written(backend, bucket, key, headers):
        return None
    sent = body.read()
    trailer = _TRAILER.search(sent)
    if trailer is None:
        body.seek(0)
        return None
    checksum = trailer[1].decode()
    made = backend.put_object(bucket.name, key, _unchunked(sent), storage="STANDARD", checksum_value=checksum)
    made.checksum_algorithm = algorithm
    return _stored(backend, bucket, made, headers, {f"x-amz-checksum-{algorithm.lower()}": checksum})


def _put_plain(backend: Any, bucket: Any, key: str, headers: Mapping[str, str], body: Any) -> Answer | None:
    storage = headers.get("x-amz-storage-class", "STANDARD")
    if (
        storage not in _WARM
        or not _SHA256.fullmatch(headers.get("x-amz-content-sha256", ""))
        or not _may_be_written(backend, bucket, key, headers)
    ):
        return None
    sent = body.read() if hasattr(body, "read") else body or b""
    return _stored(backend, bucket, backend.put_object(bucket.name, key, sent, storage=storage), headers, {})


def _may_be_written(backend: Any, bucket: Any, key: str, headers: Mapping[str, str]) -> bool:
    condition = headers.get("if-none-match")
    return condition is None or (condition == "*" and backend.get_object(bucket.name, key) is None)


def _stored(backend: Any, bucket: Any, made: Any, headers: Mapping[str, str], answer: Mapping[str, str]) -> Answer:
    """What is told of an object that was put, which gets what its headers say."""
    # As the headers of a request, which are those of moto's queries, too, where there is none.
    made.set_metadata(metadata_from_headers({_NAMES.get(name, name): value for name, value in headers.items()}))
    made.set_acl(bucket.acl)
    tags = parse_qs(headers.get("x-amz-tagging", ""), keep_blank_values=True)
    backend.put_object_tagging(made, {name: values[0] for name, values in tags.items()})
    told = {**answer, **made.response_dict}
    del told["content-length"]
    return 200, told, ""


_NAMES = {"content-encoding": "Content-Encoding"}
"""Moto takes what botocore's sending adds to this header away by its name in this spelling."""


def _unchunked(sent: bytes) -> bytes:
    """The content of a body of ``aws-chunked``."""
    parts, at = [], 0
    while True:
        end = sent.index(b"\r\n", at)
        size = int(sent[at:end], 16)
        if size == 0:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        parts.append(sent[end + 2 : end + 2 + size])
        at = end + 4 + size


def _listed(backend: Any, bucket: Any, query: Mapping[str, str]) -> Answer | None:
    if query.get("list-type") != "2" or query.get("encoding-type") != "url" or not query.keys() <= _OF_LIST:
        return None
    token, most = query.get("continuation-token"), query.get("max-keys", "1000")
    if token == "" or not most.isdecimal():
        return None
    prefix, delimiter, after = query.get("prefix"), query.get("delimiter"), query.get("start-after")
    entries, truncated, going_on = backend.list_objects_v2(
        bucket=bucket,
        prefix=prefix,
        delimiter=delimiter,
        continuation_token=token,
        start_after=after,
        max_keys=int(most),
    )
    parts = [
        f"<Name>{bucket.name}</Name><Prefix>{quote(prefix or '')}</Prefix><MaxKeys>{most}</MaxKeys>"
        f"<KeyCount>{len(entries)}</KeyCount><IsTruncated>{str(truncated).lower()}</IsTruncated>"
        "<EncodingType>url</EncodingType>"
    ]
    if delimiter:
        parts.append(f"<Delimiter>{escape(delimiter)}</Delimiter>")
    if going_on:
        parts.append(f"<NextContinuationToken>{going_on}</NextContinuationToken>")
    if not token and after:
        parts.append(f"<StartAfter>{escape(after)}</StartAfter>")
    for entry in entries:
        if isinstance(entry, str):
            parts.append(f"<CommonPrefixes><Prefix>{quote(entry)}</Prefix></CommonPrefixes>")
            continue
        checksum = entry.checksum_algorithm
        algorithm = f"<ChecksumAlgorithm>{checksum}</ChecksumAlgorithm>" if checksum else ""
        parts.append(
            f"<Contents><Key>{entry.safe_name('url')}</Key><LastModified>{entry.last_modified_ISO8601}</LastModified>"
            f"<ETag>{escape(entry.etag)}</ETag>{algorithm}<Size>{entry.size}</Size>"
            f"<StorageClass>{entry.storage_class}</StorageClass></Contents>"
        )
    document = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(parts)}</ListBucketResult>'
    return 200, {"Content-Type": "application/xml"}, f"{_XML}{document}"
