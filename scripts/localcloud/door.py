"""The main server's outermost layer: who may come in at all.

No web page (``web_guard``), control requests with the token only (``local_keys``), everything else with a signature
that is verified (``signatures``). Where policies are enforced, objects may be read without one, as in AWS: the base
refuses that unless the bucket is public. Whatever else AWS would take without a signature is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from localcloud import web_guard
from localcloud.asgi import Application, Message, Receive, Send, answer_with, replayed, whole_body
from localcloud.chunk_signatures import check_chunks
from localcloud.host import Host, Response
from localcloud.local_keys import TOKEN_HEADER, TOKEN_VARIABLE, LocalKeys
from localcloud.operations import Operations
from localcloud.service_errors import error_answer
from localcloud.signature_errors import told
from localcloud.signatures import (
    STREAMED,
    UNSIGNED_PAYLOAD,
    Claim,
    Incoming,
    Secret,
    SignatureRefused,
    Verifier,
    claim_of,
    literal_payload,
)

CONTROL = "/_"
"""Control paths of the local cloud and of the base; no bucket's name begins like this."""
_LARGE = 1024 * 1024
"""Bytes from which on a body is hashed in a thread, so that other requests are served meanwhile."""


class KnownSecrets:
    """Secrets by access key: 12 digits are an account's root, others are what STS and IAM gave out."""

    def __init__(self, host: Host) -> None:
        self._root = Secret(secret_access_key=host.keys.secret)
        self._sessions: dict[str, dict[str, Any]] = host.lookup("services.sts", "_sessions")
        self._user_keys = host.lookup("services.iam", "_access_keys")
        self._account_of_user: Callable[[str], str | None] = host.lookup(
            "core.iam_evaluator", "find_iam_access_key_account"
        )

    def __call__(self, access_key: str) -> Secret | None:
        if len(access_key) == 12 and access_key.isascii() and access_key.isdigit():
            return self._root
        session = self._sessions.get(access_key)
        if session is not None and session.get("SecretAccessKey"):
            expires = session.get("Expiration")
            return Secret(
                secret_access_key=session["SecretAccessKey"],
                session_token=session.get("SessionToken"),
                expires=expires if isinstance(expires, int | float) else None,
            )
        account = self._account_of_user(access_key)
        record = self._user_keys.get_scoped(account, None, access_key) if account else None
        if record is None or record.get("Status") != "Active":
            return None
        return Secret(secret_access_key=record["SecretAccessKey"])


class Door:
    """An ASGI application around all others."""

    def __init__(self, application: Application, host: Host, secrets: KnownSecrets, *, anonymous_reads: bool) -> None:
        self._application = application
        self._keys: LocalKeys = host.keys
        self._port = urlsplit(host.endpoint_url).port or 80
        self._anonymous_reads = anonymous_reads
        self._verifier = Verifier(secrets, now=time.time)
        self._operations = Operations()
        self._service_of: Callable[..., str] = host.lookup("core.router", "detect_service")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = _headers(scope)
        send = _without_cors(send)
        reason = web_guard.refusal(headers, port=self._port)
        if not reason and scope["method"] == "OPTIONS":
            reason = f"There is nothing to ask for before a request. {web_guard.HINT}"
        if reason:
            await answer_with(
                send, (403, {"content-type": "application/json"}, json.dumps({"message": reason}).encode())
            )
            return
        if scope["path"].startswith(CONTROL):
            if self._keys.opens(headers):
                await self._application(scope, receive, send)
            else:
                await answer_with(send, no_token())
            return
        await self._verified(scope, headers, receive, send)

    async def _verified(
        self, scope: MutableMapping[str, Any], headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        request = Incoming(
            method=scope["method"],
            path=(scope.get("raw_path") or scope["path"].encode()).decode("ascii", errors="replace").partition("?")[0],
            query=scope.get("query_string", b"").decode("ascii", errors="replace"),
            headers=headers,
        )
        body = await whole_body(receive)
        if body is None:
            return
        service = self._named_service(request, scope["path"])
        try:
            claim = claim_of(request)
            if claim is not None:
                service = claim.service
                await self._check(claim, request, body)
            elif not self._needs_no_signature(service, request):
                raise SignatureRefused("missing", "")
        except SignatureRefused as refused:
            # Reading a service's model takes up to some tenths of a second.
            answer = await asyncio.to_thread(self._refusal, refused, service, request, scope["path"], body)
            await answer_with(send, answer, headless=request.method == "HEAD")
            return
        await self._application(scope, replayed(body, receive), send)

    def _named_service(self, request: Incoming, path: str) -> str:
        return self._service_of(
            request.method, path, dict(request.headers), parse_qs(request.query, keep_blank_values=True)
        )

    def _needs_no_signature(self, service: str, request: Incoming) -> bool:
        """Whether the base decides well about a request without one: it does for reading an object, and no more."""
        in_path = request.headers["host"].lower().rpartition(":")[0] in web_guard.NAMES
        bucket, _, name = request.path.lstrip("/").partition("/")
        reads_object = bool(name if in_path else bucket) and not request.query and request.method in ("GET", "HEAD")
        return self._anonymous_reads and service == "s3" and reads_object

    async def _check(self, claim: Claim, request: Incoming, body: bytes) -> None:
        given = request.headers.get("x-amz-content-sha256", "")
        if claim.service == "s3" and "x-amz-target" in request.headers:
            # S3 alone takes bodies that are not signed; nobody else's request becomes S3's by saying so.
            raise SignatureRefused("scope", "Credential should be scoped to correct service, which is not 's3'.")
        unsigned_body = False
        if claim.service != "s3" and given == UNSIGNED_PAYLOAD:
            unsigned_body = await asyncio.to_thread(self._leaves_body_unsigned, claim.service, request, body)
        payload = literal_payload(claim, request, service=claim.service, unsigned_body=unsigned_body)
        body_hash = "" if payload == UNSIGNED_PAYLOAD or payload in STREAMED else await _sha256(body)
        self._verifier.check(claim, request, service=claim.service, payload=payload or body_hash)
        if body_hash and payload not in (None, body_hash):
            raise SignatureRefused("payload", "")
        if payload in STREAMED and payload.startswith("STREAMING-AWS4-HMAC"):
            key = self._verifier.key_of(claim)
            await asyncio.to_thread(check_chunks, body, claim, key, trailer=payload.endswith("-TRAILER"))

    def _leaves_body_unsigned(self, service: str, request: Incoming, body: bytes) -> bool:
        return self._operations.leaves_body_unsigned(service, self._operation(service, request, body).name)

    def _operation(self, service: str, request: Incoming, body: bytes) -> Any:
        query = {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        return self._operations.of(
            service, method=request.method, path=request.path, query=query, headers=request.headers, body=body
        )

    def _refusal(self, refused: SignatureRefused, service: str, request: Incoming, path: str, body: bytes) -> Response:
        operation = self._operation(service, request, body)
        status, code, message = told(refused, service=service, protocol=operation.protocol)
        return error_answer(
            service,
            operation,
            status=status,
            code=code,
            message=message,
            path=path,
            content_type=request.headers.get("content-type", "application/x-amz-json-1.1"),
        )


def no_token() -> Response:
    """The answer to a control request without the token."""
    message = f'The local cloud\'s control takes requests with its token only: -H "{TOKEN_HEADER}: ${TOKEN_VARIABLE}"'
    text = f'{message}, which eval "$(scripts/cloud env)" sets.'
    return 403, {"content-type": "application/json"}, json.dumps({"message": text}).encode()


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("utf-8", errors="replace")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


async def _sha256(body: bytes) -> str:
    if len(body) < _LARGE:
        return hashlib.sha256(body).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())


def _without_cors(send: Send) -> Send:
    async def strip(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if not web_guard.is_cors(name.decode().lower())]
            message = {**message, "headers": kept}
        await send(message)

    return strip
