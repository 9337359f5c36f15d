"""Refuses, in front of the base, what the services' models do not allow.

EBS direct requests are checked by the EBS server, which has a door of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from localcloud.asgi import Application, Receive, Send, answer_with, replayed, whole_body
from localcloud.host import Host
from localcloud.operations import UNKNOWN, Operations
from localcloud.request_model.models import Models
from localcloud.request_model.problems import Problem
from localcloud.request_model.refusals import refusal
from localcloud.request_model.requests import Input, WireRequest
from localcloud.service_errors import error_answer
from localcloud.service_faults import Call, Calls

_OWN_PATHS = ("/_",)
_ELSEWHERE = "ebs"
_LARGE = 64 * 1024
"""Bytes from which on a body is read in a thread, so that other requests go on."""


class ModelLayer:
    """An ASGI application: the base, without the requests that its services' models do not allow."""

    def __init__(
        self, base: Application, models: Models, *, call_of: Callable[[Mapping[str, Any], bytes], Call]
    ) -> None:
        self._base = base
        self._models = models
        self._call_of = call_of

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._base(scope, receive, send)
            return
        call = self._call_of(scope, b"")
        if call.service == _ELSEWHERE:
            await self._base(scope, receive, send)
            return
        body: bytes | None = None
        if not await self._is_stream(call):
            body = await whole_body(receive)
            if body is None:
                return
            call = self._call_of(scope, body)
            receive = replayed(body, receive)
        answer = await self._refused(call, scope, body)
        if answer is None:
            await self._base(scope, receive, send)
        else:
            await answer_with(send, answer, headless=call.method == "HEAD")

    async def _is_stream(self, call: Call) -> bool:
        if not call.operation.protocol.startswith("rest-"):
            return False
        found = await self._input(call)
        return found is not None and found.streams

    async def _input(self, call: Call) -> Input | None:
        name = call.operation.name
        if name == UNKNOWN:
            return None
        if self._models.is_read(call.service, name):
            return self._models.input_of(call.service, name)
        return await asyncio.to_thread(self._models.input_of, call.service, name)

    async def _refused(self, call: Call, scope: Mapping[str, Any], body: bytes | None) -> Any:
        found = await self._input(call)
        if found is None:
            return None
        request = WireRequest(
            path=call.wire_path,
            query=parse_qs(scope.get("query_string", b"").decode(), keep_blank_values=True),
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
        )
        if body is not None and len(body) > _LARGE:
            problems = await asyncio.to_thread(self._models.problems, call.service, call.operation, request)
        else:
            problems = self._models.problems(call.service, call.operation, request)
        return self._answer(call, found, problems) if problems else None

    def _answer(self, call: Call, found: Input, problems: list[Problem]) -> Any:
        refused = refusal(call.service, call.operation, problems, {each: found.place_of(each) for each in problems})
        return error_answer(
            call.service,
            call.operation,
            status=refused.status,
            code=refused.code,
            message=refused.message,
            path=call.path,
            content_type=call.content_type,
        )


def install(host: Host) -> None:
    models, calls = Models(), Calls(host, Operations())
    host.layers.append(lambda base: ModelLayer(base, models, call_of=calls.of))
