"""Where the contents of objects are: in files from their arrival until they are read."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from localcloud.asgi import Receive, Send
from localcloud.host import Handler, Response
from localcloud.s3.base import Query, Record, S3Base, text_of
from localcloud.s3.bodies import CHUNK, SIZES, Body, BodyStore
from localcloud.s3.checksums import DEFAULT, given

_WHOLE = 4 * CHUNK
"""Bytes up to which an answer is given in one piece."""
_OF_DATA = frozenset({"partNumber", "uploadId", "x-id"})


def install(base: S3Base, store: BodyStore) -> None:
    _take_in(base, store)
    _give_out(base)
    base.host.handlers["s3"] = _aside(base, base.host.handlers["s3"], store)


def _take_in(base: S3Base, store: BodyStore) -> None:
    put: Callable[..., Response] = base.lookup("_put_object")
    upload: Callable[..., Response] = base.lookup("_upload_part")
    record_version: Callable[..., str | None] = base.lookup("_record_object_version")
    md5: Callable[[bytes], str] = base.lookup("md5_hash")

    def put_object(bucket_name: str, key: str, body: bytes | Body, headers: dict[str, str]) -> Response:
        return put(bucket_name, key, store.keep(body), headers)

    def upload_part(
        bucket_name: str, key: str, body: bytes | Body, query: dict[str, Any], headers: dict[str, str]
    ) -> Response:
        return upload(bucket_name, key, store.keep(body), query, headers)

    def record_object_version(
        bucket_name: str, key: str, prior: Record | None, record: Record, _: bytes | Body
    ) -> str | None:
        """Every write of the base comes by here with its new record."""
        record["body"] = store.keep(record["body"])
        return record_version(bucket_name, key, prior, record, record["body"])

    def md5_hash(data: bytes | Body) -> str:
        return data.etag_digest.hex() if isinstance(data, Body) else md5(data)

    def validate_content_md5(headers: Mapping[str, str], body: bytes | Body) -> Response | None:
        stated = headers.get("content-md5", "")
        if not stated:
            return None
        try:
            digest = base64.b64decode(stated, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != SIZES["MD5"]:
            return base.error("InvalidDigest", "The Content-MD5 you specified is not valid.", 400)
        if digest != store.keep(body).digest("MD5"):
            return base.error("BadDigest", "The Content-MD5 you specified did not match what we received.", 400)
        return None

    base.replace("_put_object", put_object)
    base.replace("_upload_part", upload_part)
    base.replace("_record_object_version", record_object_version)
    base.replace("md5_hash", md5_hash)
    base.replace("_validate_content_md5", validate_content_md5)


def _give_out(base: S3Base) -> None:
    data_of: Callable[..., bytes | Body | None] = base.lookup("_get_object_data")
    get: Callable[..., Response] = base.lookup("_get_object")
    range_of: Callable[[str, int], tuple[int, int] | None] = base.lookup("_parse_range")
    range_error: Callable[[str, str], Any] = base.lookup("_range_error_xml")
    xml: Callable[[Any], bytes] = base.lookup("_xml_body")
    streaming: Callable[[Any], Any] = base.host.lookup("core.responses", "StreamingResponse")

    def read_body(_: str, __: str, record: Record) -> Body:
        body: Body = record["body"]
        return body

    def get_object_data(bucket_name: str, key: str, version_id: str | None = None) -> bytes | None:
        """For other services of the base."""
        data = data_of(bucket_name, key, version_id)
        return None if data is None else bytes(data)

    def get_object(bucket_name: str, key: str, headers: dict[str, str], query: Query | None = None) -> Response:
        query = dict(query or {})
        current = base.current(bucket_name, key)
        if current is not None and text_of(query, "versionId") == current.get("version_id"):
            del query["versionId"]
        status, sent, content = get(bucket_name, key, headers, query)
        body: Any = content
        if not isinstance(body, Body):
            return status, sent, content
        wanted = headers.get("range", "")
        if status == 200 and wanted:  # an older version, of which the base gives no ranges
            found = range_of(wanted, len(body))
            if found is None:
                sent = {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}
                return 416, sent, xml(range_error(bucket_name, key))
            first, last = found
            sent = {name: value for name, value in sent.items() if not name.lower().startswith("x-amz-checksum-")}
            sent["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        sent["Content-Length"] = str(len(body))
        return status, sent, bytes(body) if len(body) <= _WHOLE else streaming(_sender(body))

    base.replace("_read_body", read_body)
    base.replace("_get_object_data", get_object_data)
    base.replace("_get_object", get_object)


def _sender(body: Body) -> Callable[[Send, Receive], Any]:
    async def send_all(send: Send, _: Receive) -> None:
        chunks = body.chunks()
        while chunk := await asyncio.to_thread(next, chunks, b""):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_all


def _aside(base: S3Base, handle: Handler, store: BodyStore) -> Handler:
    """Large bodies are written and summed up in a thread, so that other requests are served meanwhile."""

    async def handled(method: str, path: str, headers: dict[str, str], body: Any, query: dict[str, Any]) -> Response:
        is_data = method == "PUT" and all(name in _OF_DATA or name.startswith("X-Amz-") for name in query)
        if is_data and len(body) > CHUNK:
            upload = base.uploads.get(text_of(query, "uploadId")) or {}
            default = upload.get("checksum_algorithm") or DEFAULT
            algorithms = {"MD5", *([default] if upload else given(headers) or [DEFAULT]), *given(headers)}
            body = await asyncio.to_thread(store.keep, body, checksums=algorithms & set(SIZES))
        return await handle(method, path, headers, body, query)

    return handled
