"""The usual requests to moto's S3, answered from its own buckets without its detours.

A job puts, gets and lists some hundred objects. For each request moto tries the addresses that it knows, reads the
request again as a web server would, and renders the answer from the model of the service: a fifth of the time of all
tests of jobs. Here is what they ask thousands of times. What is asked in any other way, and what S3 would refuse but
for a key that is not there, is left to moto. The buckets are moto's: what one writes the other reads.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeBucket, FakeKey, s3_backends
from moto.s3.utils import metadata_from_headers

Answer = tuple[int, dict[str, Any], bytes]

_HOST = re.compile(r"(?P<bucket>[a-z0-9.-]+)\.s3(?:\.[a-z0-9-]+)?\.amazonaws\.com")

_OF_ANY = frozenset(
    {"user-agent", "x-amz-date", "x-amz-content-sha256", "authorization", "amz-sdk-invocation-id", "amz-sdk-request"}
)
_OF_GET = _OF_ANY | {"x-amz-checksum-mode"}
_OF_PUT = _OF_ANY | {
    "content-type",
    "content-encoding",
    "content-length",
    "expect",
    "if-none-match",
    "transfer-encoding",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
}
_OF_LIST = {"list-type", "prefix", "start-after", "max-keys", "encoding-type"}

NO_SUCH_KEY = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.'
    b"</Message></Error>"
)


def quick(process: Callable[[Any, AWSPreparedRequest], Any]) -> Callable[[Any, AWSPreparedRequest], Any]:
    """``BotocoreStubber.process_request`` that asks ``process``, which it was, only for what is not usual."""

    # A key that is written anew closes the one before, which another thread may be reading.
    turn = threading.Lock()

    def answered(stubber: Any, request: AWSPreparedRequest) -> Any:
        with turn:
            found = _answer(request)
        return process(stubber, request) if found is None else found

    return answered


def _answer(request: AWSPreparedRequest) -> Answer | None:
    url = urlsplit(request.url)
    host = _HOST.fullmatch(url.netloc)
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(host["bucket"]) if host else None
    if bucket is None or bucket.is_versioned or bucket.encryption or bucket.object_lock_enabled:
        return None
    if bucket.notification_configuration or bucket.policy:
        return None
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    key = unquote(url.path.removeprefix("/"))
    if request.method == "GET" and not key:
        return _list(bucket, dict(parse_qsl(url.query))) if headers.keys() <= _OF_ANY else None
    if url.query or not key:
        return None
    if request.method == "GET" and headers.keys() <= _OF_GET:
        return _get(bucket, key, headers)
    if request.method == "PUT" and headers.keys() <= _OF_PUT:
        return _put(bucket, key, headers, request.body)
    return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _get(bucket: FakeBucket, name: str, headers: Mapping[str, str]) -> Answer | None:
    key = bucket.keys.get(name)
    if key is None:
        return 404, {"Content-Type": "application/xml"}, NO_SUCH_KEY
    if type(key) is not FakeKey or key.storage_class != "STANDARD" or key.multipart:
        return None
    found = {**key.response_dict, **key.metadata, "Accept-Ranges": "bytes"}
    if headers.get("x-amz-checksum-mode") == "ENABLED" and key.checksum_algorithm:
        found[f"x-amz-checksum-{key.checksum_algorithm.lower()}"] = key.checksum_value
    return 200, found, key.value


def _put(bucket: FakeBucket, name: str, headers: Mapping[str, str], body: Any) -> Answer | None:
    if headers.get("content-encoding") != "aws-chunked" or headers.get("x-amz-trailer") != "x-amz-checksum-sha256":
        return None
    if "if-none-match" in headers and (headers["if-none-match"] != "*" or name in bucket.keys):
        return None
    data, checksum = _sent(body)
    assert len(data) == int(headers["x-amz-decoded-content-length"]), f"{name}: not as long as it says"
    assert checksum == base64.b64encode(hashlib.sha256(data).digest()).decode(), f"{name}: not what its checksum says"
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    made = backend.put_object(bucket.name, name, data, storage="STANDARD", checksum_value=checksum)
    # As moto takes them, but for what of the request is no property of the object.
    made.set_metadata(metadata_from_headers({"content-type": headers.get("content-type", "binary/octet-stream")}))
    made.set_acl(bucket.acl)
    made.checksum_algorithm = "SHA256"
    answer = {**made.response_dict, "x-amz-checksum-sha256": checksum}
    answer.pop("content-length")
    return 200, answer, b""


def _sent(body: Any) -> tuple[bytes, str]:
    """The data of a body in chunks, and the SHA-256 (base64) in its trailer."""
    raw, data = body.read(), b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            trailer = dict(line.split(b":", 1) for line in raw.split(b"\r\n") if line)
            return data, trailer[b"x-amz-checksum-sha256"].decode()
        data += raw[:length]
        assert raw[length : length + 2] == b"\r\n", "a chunk that does not end where it says"
        raw = raw[length + 2 :]


def _list(bucket: FakeBucket, asked: Mapping[str, str]) -> Answer | None:
    if asked.get("list-type") != "2" or asked.get("encoding-type") != "url" or not asked.keys() <= _OF_LIST:
        return None
    prefix, after, most = asked.get("prefix", ""), asked.get("start-after", ""), int(asked.get("max-keys", 1_000))
    keys = sorted((name, key) for name, key in bucket.keys.items() if name.startswith(prefix) and name > after)
    if len(keys) > most or not all(type(key) is FakeKey for _, key in keys):
        return None
    contents = "".join(
        f"<Contents><Key>{quote(name)}</Key><LastModified>{key.last_modified_ISO8601}</LastModified>"
        f"<ETag>{key.etag}</ETag><Size>{key.size}</Size><StorageClass>{key.storage_class}</StorageClass></Contents>"
        for name, key in keys
    )
    body = (
        '<?xml version="1.0" encoding="utf-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket.name}</Name><Prefix>{quote(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>"
        f"<EncodingType>url</EncodingType><KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{contents}"
        "</ListBucketResult>"
    )
    return 200, {"Content-Type": "application/xml"}, body.encode()
