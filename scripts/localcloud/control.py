"""The layer in front of the base: answers ``/_local/...`` itself, tells when the base is ready."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from localcloud.asgi import Application, Message, Receive, Send, answer_with, whole_body
from localcloud.host import ControlError, ControlHandler, ControlRequest
from localcloud.local_keys import LocalKeys

PREFIX = "/_local/"
CONTROL_THREADS = 16
_log = logging.getLogger("localcloud.control")


class ControlLayer:
    """An ASGI application: control requests to the parts, everything else to the base.

    ``on_ready`` is called once, when the base has started and requests are served.
    """

    def __init__(
        self, base: Application, control: Mapping[str, ControlHandler], *, on_ready: Callable[[], None]
    ) -> None:
        self._base = base
        self._control = control
        self._on_ready = on_ready
        # Threads of their own: control must answer when every thread of the base waits for something.
        self._threads = ThreadPoolExecutor(max_workers=CONTROL_THREADS, thread_name_prefix="control")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._base(scope, receive, self._announcing(send))
        elif scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self._answer(scope, receive, send)
        else:
            await self._base(scope, receive, send)

    def _announcing(self, send: Send) -> Send:
        async def announce(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._on_ready()

        return announce

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        part, _, path = scope["path"].removeprefix(PREFIX).partition("/")
        request = ControlRequest(
            method=scope["method"],
            path=path.strip("/"),
            query=dict(parse_qsl(scope.get("query_string", b"").decode())),
            body=body,
        )
        status, content = await self._handled(part, request)
        await answer_with(send, (status, {"content-type": "application/json"}, json.dumps(content).encode()))

    async def _handled(self, part: str, request: ControlRequest) -> tuple[int, Any]:
        handler = self._control.get(part)
        if handler is None:
            known = ", ".join(sorted(self._control))
            return 404, {"message": f"no such part of the local cloud: {part!r}; there are {known}"}
        try:
            loop = asyncio.get_running_loop()
            return 200, await loop.run_in_executor(self._threads, handler, request)
        except ControlError as error:
            return error.status, {"message": str(error)}
        except Exception as error:  # the requester needs to see it, and the server has to go on
            _log.exception("control request %s /_local/%s/%s failed", request.method, part, request.path)
            return 500, {"message": f"{type(error).__name__}: {error}"}


def proxy_to(url: str, keys: LocalKeys) -> ControlHandler:
    """A control handler that passes requests on to ``<url>/_local/<path>`` of another process of this cloud."""
    address = urlsplit(url)

    def forward(request: ControlRequest) -> Any:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        query = urlencode(request.query)
        try:
            path = f"{PREFIX}{request.path}" + (f"?{query}" if query else "")
            connection.request(request.method, path, request.body, keys.control_headers())
            response = connection.getresponse()
            content = response.read()
        except OSError as error:
            raise ControlError(f"{url} does not answer: {error}", status=502) from error
        finally:
            connection.close()
        try:
            value = json.loads(content) if content.strip() else {}
        except ValueError as error:
            raise ControlError(f"{url} did not answer with JSON: {content[:200]!r}", status=502) from error
        if response.status >= 400:
            message = value.get("message") if isinstance(value, dict) else None
            raise ControlError(str(message or value), status=response.status)
        return value

    return forward
