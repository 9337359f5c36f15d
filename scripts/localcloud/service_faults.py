"""Faults of every service behind the main server, from the config file (``faults``) or ``POST /_local/faults``.

A rule is an object; the config file has a list of them, a request one or a list::

    {"service": "s3" | "*", "operation": "PutObject" | "*", "account": "111122223333", "region": "us-east-1",
     "resource": "jobs/",                           text that the path has in it; for services that have everything
                                                    in the body (``states``, ``ec2``, ``kms``...), that body
     "nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": 1, "after": 0,   see ``localcloud.faults``
     "action": "error" | "throttle" | "access_denied" | "conflict" | "latency" | "close_before" | "close_after"
               | "short_body" | "flip_request" | "flip_response",
     "status": 500, "code": "InternalError", "message": "..",   of error, throttle, access_denied and conflict
     "latency_ms": 200, "bit": 12}

Services have the names they are signed for (``s3``, ``states``, ``monitoring``, ``kms``, ``sts``...) or botocore's;
operations have the names of the API reference. Members left out fit everything.

error: refused with ``status`` and ``code`` (the service's own for a failure of its own, if not given), in the service's
protocol. throttle: the service's own refusal of too much: 503 SlowDown of S3, 503 RequestLimitExceeded of EC2, 429
TooManyRequestsException of Lambda, Throttling or ThrottlingException. access_denied: as where no policy allows it.
conflict: strikes and counts only writes that say ``If-Match`` or ``If-None-Match``; they are refused as S3 refuses one
that another write comes across, 409 ConditionalRequestConflict, and nothing is written.
latency: ``latency_ms`` before the work; other requests go on. close_before: the connection is reset before any work.
close_after: the work is done, the connection is reset instead of an answer (a timeout after success). short_body:
the full length is announced, half of the body sent. flip_request, flip_response: one bit of the body changes on its
way to the service or to the client, headers and checksums in them do not.

Several rules can strike a request: first latencies and flips of the request, then the first refusal, then the rest.
These faults come before authorisation. What a state machine or a schedule calls by itself comes here as well, as it
is sent over HTTP. EBS and EC2 snapshot calls at the EBS server's own address do not: its faults are ``ebs.faults``.

Control: ``GET faults``, ``POST faults``, ``DELETE faults[/ID]``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qs

from localcloud import connections
from localcloud.asgi import Application, KeptAnswer, Receive, Send, answer_with, replayed, whole_body
from localcloud.faults import Rule, Rules, flipped, number
from localcloud.host import ControlError, ControlRequest, Host, Response
from localcloud.operations import BOTOCORE_NAMES, Operation, Operations
from localcloud.service_errors import denial, error_answer, failure, throttle

Action = Literal[
    "error",
    "throttle",
    "access_denied",
    "conflict",
    "latency",
    "close_before",
    "close_after",
    "short_body",
    "flip_request",
    "flip_response",
]
REFUSALS = ("error", "throttle", "access_denied", "conflict", "close_before")
SPOILED_ANSWERS = ("flip_response", "short_body", "close_after")
_CONDITIONS = frozenset({"if-match", "if-none-match"})
SPOILED = "localcloud.spoiled"
"""Key in the scope of a request whose answer is not as the service gave it."""
_OWN_PATHS = ("/_",)
"""Control paths of the local cloud and of the base; no bucket's name begins like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRule(Rule):
    action: Action
    service: str = "*"
    operation: str = "*"
    account: str | None = None
    region: str | None = None
    resource: str | None = None
    status: int | None = number(least=100, most=599)
    code: str | None = None
    message: str | None = None
    latency_ms: float = number(0.0)
    bit: int = number(12)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as rules look at it. ``account`` is asked for only where a rule names one.

    A bucket that is named by the host stands in ``path`` and in ``wire_path``, which has its percent signs.
    """

    service: str
    operation: Operation
    region: str
    account: Callable[[], str]
    method: str
    path: str
    wire_path: str
    content_type: str
    body: bytes
    is_conditional_write: bool = False

    def is_meant_by(self, rule: ServiceRule) -> bool:
        return (
            rule.service in ("*", self.service)
            and rule.operation in ("*", self.operation.name)
            and rule.region in (None, self.region)
            and (rule.action != "conflict" or self.is_conditional_write)
            and (rule.resource is None or self._names(rule.resource))
            and (rule.account is None or rule.account == self.account())
        )

    def _names(self, text: str) -> bool:
        in_body = not self.operation.protocol.startswith("rest-")
        return text in self.path or (in_body and text.encode() in self.body)


class Calls:
    """Tells what a request is about, by the base's own rules."""

    def __init__(self, host: Host, operations: Operations) -> None:
        self._host = host
        self._operations = operations
        self._service = host.lookup("core.router", "detect_service")
        self._region = host.lookup("core.router", "extract_region")
        self._access_key = host.lookup("core.router", "extract_access_key_id")
        self._bucket_in_host: Callable[[str], str | None] = host.lookup("app", "_extract_s3_vhost_bucket")

    def of(self, scope: Mapping[str, Any], body: bytes) -> Call:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope.get("query_string", b"").decode(), keep_blank_values=True)
        method, path = scope["method"], scope["path"]
        service = self._service(method, path, headers, query)
        wire_path = (scope.get("raw_path") or path.encode()).decode("ascii", errors="replace")
        if service == "s3" and (bucket := self._bucket_in_host(headers.get("host", ""))):
            path, wire_path = f"/{bucket}{path}", f"/{bucket}{wire_path}"

        def account() -> str:
            asked = {"access_key": self._access_key(headers, query) or self._host.default_account_id}
            caller = self._host.control["caller"](ControlRequest(method="GET", path="", query=asked, body=b""))
            return str(caller["account"])

        return Call(
            service=service,
            operation=self._operations.of(
                service,
                method=method,
                path=wire_path,
                query={name: values[-1] for name, values in query.items()},
                headers=headers,
                body=body,
            ),
            region=self._region(headers, query),
            account=account,
            method=method,
            path=path,
            wire_path=wire_path,
            content_type=headers.get("content-type", "application/x-amz-json-1.1"),
            body=body,
            is_conditional_write=method not in ("GET", "HEAD") and not _CONDITIONS.isdisjoint(headers),
        )


@dataclass(frozen=True, kw_only=True)
class Breaks:
    """How a connection is broken, and how time passes."""

    reset: Callable[[], None] = connections.reset
    end: Callable[[], None] = connections.end
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class FaultLayer:
    """An ASGI application: the base, spoiled where rules say so. Without rules nothing is looked at."""

    def __init__(
        self,
        base: Application,
        rules: Rules[ServiceRule],
        *,
        call_of: Callable[[Mapping[str, Any], bytes], Call],
        operations: Operations,
        breaks: Breaks,
    ) -> None:
        self._base = base
        self._rules = rules
        self._call_of = call_of
        self._operations = operations
        self._breaks = breaks

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._rules or scope["path"].startswith(_OWN_PATHS):
            await self._base(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        call = self._call_of(scope, body)
        await self._spoiled(call, self._rules.striking(call.is_meant_by), scope, receive, send)

    async def _spoiled(
        self,
        call: Call,
        rules: list[ServiceRule],
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        body = call.body
        for rule in rules:
            if rule.action == "latency":
                await self._breaks.sleep(rule.latency_ms / 1000)
            elif rule.action == "flip_request":
                body = flipped(body, rule.bit)
        refusal = next((rule for rule in rules if rule.action in REFUSALS), None)
        if refusal is not None and refusal.action == "close_before":
            await self._reset(receive)
        elif refusal is not None:
            await answer_with(send, _refused(call, refusal, self._operations), headless=call.method == "HEAD")
        else:
            spoil = [rule for rule in rules if rule.action in SPOILED_ANSWERS]
            await self._answer(spoil, scope, replayed(body, receive), receive, send)

    async def _answer(
        self,
        rules: list[ServiceRule],
        scope: MutableMapping[str, Any],
        replayed: Receive,
        receive: Receive,
        send: Send,
    ) -> None:
        if not rules:
            await self._base(scope, replayed, send)
            return
        kept = KeptAnswer()
        await self._base(scope, replayed, kept)
        scope[SPOILED] = True
        body = kept.body
        for rule in rules:
            if rule.action == "flip_response":
                body = flipped(body, rule.bit)
        actions = {rule.action for rule in rules}
        if "close_after" in actions:
            await self._reset(receive)
        elif "short_body" in actions and body:
            # The head tells the whole length, so that the client notices; without it the end would look clean.
            await send(kept.start_with_length(len(body)))
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            self._breaks.end()
            await _disconnected(receive)
        else:
            await send(kept.start)
            await send({"type": "http.response.body", "body": body})

    async def _reset(self, receive: Receive) -> None:
        self._breaks.reset()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    """The server answers for an application that ends without an answer, so this one waits until nobody listens."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _refused(call: Call, rule: ServiceRule, operations: Operations) -> Response:
    name = call.operation.name
    match rule.action:
        case "throttle":
            status, code = throttle(call.service, call.operation, operations)
            message = f"Rate exceeded for {name}."
        case "access_denied":
            status, code = denial(call.service, call.operation)
            message = f"Access denied to {name}."
        case "conflict":
            status, code = 409, "ConditionalRequestConflict"
            message = "The conditional request cannot succeed due to a conflicting operation against this resource."
        case _:
            status, code = failure(call.service)
            message = f"Fault injected into {name}."
    return error_answer(
        call.service,
        call.operation,
        status=rule.status or status,
        code=rule.code or code,
        message=rule.message or message,
        path=call.path,
        content_type=call.content_type,
    )


class FaultControl:
    """``/_local/faults``, and the rules of the config file. Refuses rules about what there is not."""

    def __init__(self, rules: Rules[ServiceRule], *, services: Callable[[], set[str]], operations: Operations) -> None:
        self._rules = rules
        self._services = services
        self._operations = operations

    def add(self, rules: list[ServiceRule]) -> list[int]:
        """Arm all of them or none; ``ValueError`` names the member that is wrong."""
        return [self._rules.add(rule) for rule in [self._checked(rule) for rule in rules]]

    def __call__(self, request: ControlRequest) -> Any:
        match request.method, request.path:
            case "GET", "":
                return {"rules": self._rules.listed()}
            case "POST", "":
                return {"ids": self._posted(request.body)}
            case "DELETE", path if path == "" or path.isdigit():
                if not self._rules.clear(int(path) if path else None):
                    raise ControlError(f"there is no fault {path}", status=404)
                return {"rules": self._rules.listed()}
        raise ControlError(f"no such control request: {request.method} /_local/faults/{request.path}", status=404)

    def _posted(self, body: bytes) -> list[int]:
        try:
            given = json.loads(body)
        except ValueError as error:
            raise ControlError(f"the body is not JSON: {error}") from error
        try:
            return self.add(ServiceRule.parse_all(given) if isinstance(given, list) else [ServiceRule.parse(given)])
        except ValueError as error:
            raise ControlError(str(error)) from error

    def _checked(self, rule: ServiceRule) -> ServiceRule:
        """The rule with the service's name as requests are signed; reads the model, so that no request waits for it."""
        if rule.service == "*":
            return rule
        signed = {botocore: own for own, botocore in BOTOCORE_NAMES.items()}
        service = signed.get(rule.service, rule.service)
        if service not in self._services():
            raise ValueError(f"service: the local cloud has no service {rule.service!r}")
        self._operations.prepare(service)
        names = self._operations.names(service)
        if names and rule.operation not in ("*", *names):
            raise ValueError(f"operation: {rule.service} has no operation {rule.operation!r}")
        return replace(rule, service=service)


def install(host: Host) -> None:
    rules: Rules[ServiceRule] = Rules()
    operations = Operations()
    calls = Calls(host, operations)
    control = FaultControl(rules, services=lambda: set(host.handlers), operations=operations)
    control.add(ServiceRule.parse_all(host.config.get("faults", [])))
    connections.remember()
    host.control["faults"] = control
    host.layers.append(lambda base: FaultLayer(base, rules, call_of=calls.of, operations=operations, breaks=Breaks()))
