"""An answer reaches its client in one piece: Go's AWS SDK may close the connection as soon as it has the head.

How an answer was lost: net/http sends head and body of a request, and then asks the body once more whether there is
more of it. The SDK closes the request's body when the head of the answer is there; if that comes first, as on a busy
machine, the question fails and net/http closes the connection. What it has read of the answer by then is all it gets.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.protocol.events import Body, EndBody, Response
from hypercorn.protocol.h11 import H11Protocol
from localcloud import whole_answers
from server_probe import RunningServer, running_server

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
LENGTH = (b"content-length", b"5")
Event = Response | Body | EndBody


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(H11Protocol, "_send_h11_event", H11Protocol._send_h11_event)
    whole_answers.install()


def pieces(*events: Event, method: bytes = b"POST") -> list[bytes]:
    """What hypercorn writes, one element for each write, when an application answers with these events."""
    written: list[bytes] = []

    async def answer() -> None:
        async def send(event: Any) -> None:
            if isinstance(event, RawData) and event.data:
                written.append(event.data)

        protocol: Any = H11Protocol(None, Config(), WorkerContext(None), None, None, False, None, None, send)  # type: ignore[arg-type]
        protocol.connection.receive_data(REQUEST.replace(b"POST", method))
        assert isinstance(protocol.connection.next_event(), h11.Request)
        for event in events:
            await protocol.stream_send(event)

    asyncio.run(answer())
    return written


def start(*headers: tuple[bytes, bytes]) -> Response:
    return Response(stream_id=1, status_code=200, headers=list(headers))


def part(data: bytes) -> Body:
    return Body(stream_id=1, data=data)


END = EndBody(stream_id=1)


@pytest.mark.usefixtures("joined")
def test_head_and_body_are_written_at_once() -> None:
    written = pieces(start(LENGTH), part(b"whole"), END)

    assert len(written) == 1
    assert written[0].startswith(b"HTTP/1.1 200")
    assert written[0].endswith(b"\r\n\r\nwhole")


@pytest.mark.usefixtures("joined")
def test_an_answer_without_a_body_is_written_when_it_ends() -> None:
    assert [piece[:12] for piece in pieces(start(LENGTH), END, method=b"HEAD")] == [b"HTTP/1.1 200"]


@pytest.mark.usefixtures("joined")
def test_a_stream_begins_with_its_first_part() -> None:
    written = pieces(start(), part(b"first"), part(b"second"), END)

    assert [b"first" in written[0], b"second" in written[1]] == [True, True]
    assert written[0].startswith(b"HTTP/1.1 200")


@pytest.mark.usefixtures("joined")
def test_an_answer_that_breaks_the_protocol_is_still_an_error() -> None:
    with pytest.raises(h11.LocalProtocolError):
        pieces(start(LENGTH), part(b"too long for it"), END)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


CREATIONS: tuple[tuple[str, str, dict[str, str], str], ...] = (
    (
        "logs",
        "/",
        {"X-Amz-Target": "Logs_20140328.CreateLogGroup", "Content-Type": "application/x-amz-json-1.1"},
        '{"logGroupName": "/aws/%s"}',
    ),
    ("scheduler", "/schedule-groups/%s", {"Content-Type": "application/json"}, "{}"),
    (
        "sqs",
        "/",
        {"X-Amz-Target": "AmazonSQS.CreateQueue", "Content-Type": "application/x-amz-json-1.0"},
        '{"QueueName": "%s"}',
    ),
    (
        "iam",
        "/",
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        "Action=CreateRole&Version=2010-05-08&RoleName=%s&AssumeRolePolicyDocument=%%7B%%22Statement%%22%%3A%%5B%%5D%%7D",
    ),
)


@pytest.mark.parametrize("creation", CREATIONS, ids=lambda creation: creation[0])
def test_a_client_that_stops_at_the_head_loses_nothing(
    server: RunningServer, creation: tuple[str, str, dict[str, str], str]
) -> None:
    """Thirty creations by a client that reads once, as Go does into its 4 KiB, and closes."""
    service, path, headers, body = creation
    for number in range(30):
        name = f"stops-{number}"
        head, content = server.post_in_bytes(
            service,
            path=path % name if "%s" in path else path,
            body=(body % name if "%s" in body else body).encode(),
            headers=headers,
        )
        with socket.create_connection(server.address, timeout=20) as connection:
            # In two pieces, as net/http sends a body that is a stream.
            connection.sendall(head)
            connection.sendall(content)
            assert select.select([connection], [], [], 20)[0]
            answer = connection.recv(4096)
        given, _, received = answer.partition(b"\r\n\r\n")
        announced = next(line for line in given.decode().lower().splitlines() if line.startswith("content-length:"))
        assert len(received) == int(announced.partition(":")[2]), (name, answer)
        assert given.split()[1] == b"200", answer
