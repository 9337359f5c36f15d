"""A tap on every request that the code under test sends: counted, named, and spoiled on demand.

EBS requests are spoiled by the fault rules of the EBS server, so that a broken connection is a broken connection;
requests of boto3 clients are spoiled where botocore hands them to the network. Both kinds can be made to kill the
process, before or after the request took effect.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.ebs.transport import Answer, SignedHttp, TransportError
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.counts import RequestCounts
from blockferry.core.retry import Clock, Deadline, RetryPolicy
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from localcloud.ebs.faults import Faults, Rule
from moto.core.models import botocore_stubber
from rig import DESCRIBE_REGIONS, described_images, with_account_settings

_NO_DELAY: Any = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


class Died(BaseException):
    """The process is gone: nothing that would still run in it reaches AWS."""


@dataclass(frozen=True)
class Call:
    """One request, numbered from 1 in the order of sending. ``subject`` is the resource it is about."""

    number: int
    service: str
    operation: str
    subject: str
    paged: bool = False

    def __str__(self) -> str:
        return f"call {self.number}: {self.service} {self.operation} {self.subject}"


@dataclass(frozen=True)
class Refusal:
    """An error answer of a service. ``took_effect``: the request was carried out all the same."""

    status: int
    code: str
    message: str = "refused by the test"
    took_effect: bool = False


@dataclass(frozen=True)
class ConnectionLost:
    """No answer comes back. ``took_effect``: the request was carried out all the same."""

    took_effect: bool


@dataclass(frozen=True)
class Death:
    """The process dies while it sends the request or waits for its answer."""

    took_effect: bool


@dataclass(frozen=True)
class AtServer:
    """A fault rule of the EBS server, without its ``operation`` and ``times``: see ``localcloud.ebs.faults``."""

    rule: Mapping[str, Any]


Spoil = Refusal | ConnectionLost | Death | AtServer
Spoiler = Callable[[Call], Spoil | None]


def untouched(_call: Call) -> Spoil | None:
    """No request is spoiled."""
    return None


@dataclass
class Wire:
    """What was sent, and which request is spoiled how. ``faults`` are those of the EBS server."""

    faults: Faults
    spoiler: Spoiler = untouched
    calls: list[Call] = field(default_factory=list)
    on_sent: Callable[[Call], None] = lambda _call: None
    dead: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Without this option, as botocore's clients set it, every POST waits 40 ms for a delayed acknowledgement.
    _http: URLLib3Session = field(default_factory=lambda: URLLib3Session(socket_options=_NO_DELAY))

    def clear(self, spoiler: Spoiler = untouched) -> None:
        """Count from 1 again, with another spoiler."""
        self.spoiler = spoiler
        self.calls.clear()
        self.dead = False
        self.faults.clear()

    def revive(self) -> None:
        """A new process takes over."""
        self.dead = False
        self.faults.clear()

    def _noted(self, service: str, operation: str, subject: str, *, paged: bool = False) -> tuple[Call, Spoil | None]:
        with self._lock:
            if self.dead:
                raise Died
            call = Call(len(self.calls) + 1, service, operation, subject, paged)
            self.calls.append(call)
            return call, self.spoiler(call)

    def _die(self, call: Call) -> Died:
        self.dead = True
        return Died(str(call))

    # -- EBS -----------------------------------------------------------------------

    def ebs(self, call_parts: tuple[str, str, bool], deliver: Callable[[], Answer]) -> Answer:
        """Send an EBS request: ``(operation, subject, has a page token)``."""
        operation, subject, paged = call_parts
        call, spoil = self._noted("ebs", operation, subject, paged=paged)
        self.on_sent(call)
        match spoil:
            case None:
                return deliver()
            case AtServer(rule):
                number = self.faults.add(Rule.parse({**rule, "operation": operation, "times": 1}))
                try:
                    return deliver()
                finally:
                    self.faults.clear(number)
            case ConnectionLost(took_effect):
                if took_effect:
                    deliver()
                raise TransportError(f"connection lost by the test at {call}")
            case Death(took_effect):
                if took_effect:
                    deliver()
                raise self._die(call)
            case Refusal():
                raise AssertionError("EBS requests are refused by the server: use AtServer")

    # -- boto3 ---------------------------------------------------------------------

    def attach(self, client: Any, *, service: str | None = None) -> Any:
        """Let every request of the client pass here instead of going to moto or the network by itself.

        ``service`` is what its calls are noted under, by default the name of the service.
        """
        events = client.meta.events
        events.unregister("before-send", botocore_stubber)

        def answer(request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse:
            return self._boto(request, event_name, service)

        events.register("before-send", answer)
        return client

    def _boto(self, request: AWSPreparedRequest, event_name: str, noted_as: str | None) -> AWSResponse:
        _, service, operation = event_name.split(".")
        call, spoil = self._noted(noted_as or service, operation, _subject(request))
        self.on_sent(call)

        def deliver() -> AWSResponse:
            if operation == "DescribeRegions":
                return _answer(request, 200, DESCRIBE_REGIONS)
            if operation == "DescribeImages":
                return _answer(request, 200, described_images({}))
            found = botocore_stubber(event_name, request)
            return self._http.send(request) if found is None else found

        match spoil:
            case None:
                return deliver()
            case ConnectionLost(took_effect):
                if took_effect:
                    deliver()
                raise ConnectionClosedError(endpoint_url=request.url)
            case Death(took_effect):
                if took_effect:
                    deliver()
                raise self._die(call)
            case Refusal():
                if spoil.took_effect:
                    deliver()
                # The answer to HEAD has no body, and so no code.
                return _answer(request, spoil.status, "" if request.method == "HEAD" else _error(service, spoil))
            case AtServer():
                raise AssertionError("only EBS requests are spoiled at the EBS server")


class TappedAws(Aws):
    """The real clients behind a wire. ``clock`` is the one of every EBS client.

    Requests for images are noted as those of a service ``image``, so that they are told from the work bucket's.
    """

    def __init__(self, *, base: boto3.Session, wire: Wire, clock: Clock) -> None:
        super().__init__(base=base, transport=tapped_http(wire))
        self.wire = wire
        self.clock = clock
        self._tapped_ec2: dict[Identity, Any] = {}
        self._tapped_s3: dict[str, Any] = {}
        self._tapped_images: dict[Identity, Any] = {}
        self._answered: dict[str, Any] = {}

    def ec2(self, identity: Identity) -> Any:
        if identity not in self._tapped_ec2:
            self._tapped_ec2[identity] = self.wire.attach(super().ec2(identity))
        return self._tapped_ec2[identity]

    def s3(self, region: str) -> Any:
        if region not in self._tapped_s3:
            self._tapped_s3[region] = self.wire.attach(super().s3(region))
        return self._tapped_s3[region]

    def image_s3(self, identity: Identity) -> Any:
        if identity not in self._tapped_images:
            self._tapped_images[identity] = self.wire.attach(super().image_s3(identity), service="image")
        return self._tapped_images[identity]

    def functions(self, region: str) -> Any:
        # Not behind the wire: a job does without the answer.
        if region not in self._answered:
            self._answered[region] = with_account_settings(super().functions(region))
        return self._answered[region]

    def ebs(
        self,
        identity: Identity,
        *,
        counts: RequestCounts,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        connections: int = 32,
    ) -> EbsDirect:
        return super().ebs(
            identity,
            counts=counts,
            policy=policy,
            clock=clock or self.clock,
            deadline=deadline,
            connections=connections,
        )


def tapped_http(wire: Wire) -> type[SignedHttp]:
    """The transport whose requests pass the wire."""

    class TappedHttp(SignedHttp):
        def send(
            self,
            method: str,
            path: str,
            *,
            query: Mapping[str, str],
            headers: Mapping[str, str],
            body: bytes | None,
            sign_body: bool,
        ) -> Answer:
            def deliver() -> Answer:
                return super(TappedHttp, self).send(
                    method, path, query=query, headers=headers, body=body, sign_body=sign_body
                )

            return wire.ebs((_operation(method, path), path, "pageToken" in query), deliver)

    return TappedHttp


def _operation(method: str, path: str) -> str:
    parts = path.strip("/").split("/")
    match method, parts:
        case "POST", ["snapshots"]:
            return "StartSnapshot"
        case "POST", ["snapshots", "completion", _]:
            return "CompleteSnapshot"
        case "GET", ["snapshots", _, "blocks"]:
            return "ListSnapshotBlocks"
        case "GET", ["snapshots", _, "changedblocks"]:
            return "ListChangedBlocks"
        case "GET", ["snapshots", _, "blocks", _]:
            return "GetSnapshotBlock"
        case "PUT", ["snapshots", _, "blocks", _]:
            return "PutSnapshotBlock"
    raise AssertionError(f"unknown EBS request {method} {path}")


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _answer(request: AWSPreparedRequest, status: int, body: str) -> AWSResponse:
    return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body.encode()))


def _error(service: str, refusal: Refusal) -> str:
    error = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
    if service == "s3":
        return error
    return f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>"


def _subject(request: AWSPreparedRequest) -> str:
    """The path, and what an EC2 query names."""
    path = urlsplit(request.url).path
    body = request.body
    if path == "/" and body:
        text = body.decode() if isinstance(body, bytes | bytearray) else str(body)
        named = parse_qs(text)
        return " ".join(
            v[0] for k, v in sorted(named.items()) if k.startswith(("SnapshotId", "ResourceId", "Filter.1.Value"))
        )
    return path
