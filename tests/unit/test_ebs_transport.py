"""The transport against a socket: only a complete answer is an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from blockferry.aws.ebs.signing import Credentials
from blockferry.aws.ebs.transport import Answer, SignedHttp, TransportError


@contextmanager
def server(serve: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server of one connection; ``serve`` gets it with the head of the first request."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65_536)
            serve(connection, head)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(timeout=5)


def send(url: str, *, body: bytes | None = None, **more: float) -> Answer:
    http = SignedHttp(
        endpoint_url=url, region="eu-west-1", credentials=lambda: Credentials("111122223333", "secret", "token"), **more
    )
    method = "GET" if body is None else "PUT"
    return http.send(
        method, "/snapshots/x/blocks/1", query={"b": "+/=", "a": "1"}, headers={}, body=body, sign_body=False
    )


def test_status_headers_and_the_whole_body_come_back_and_the_request_is_signed() -> None:
    seen: list[str] = []

    def serve(connection: socket.socket, head: bytes) -> None:
        seen.append(head.decode())
        connection.sendall(b"HTTP/1.1 418 no\r\nX-Amz-Checksum: c\r\nContent-Length: 3\r\n\r\nabc")

    with server(serve) as url:
        answer = send(url)
    assert (answer.status, answer.body, answer.headers["x-amz-checksum"]) == (418, b"abc", "c")
    assert seen[0].startswith("GET /snapshots/x/blocks/1?a=1&b=%2B%2F%3D HTTP/1.1\r\n")
    lines = {line.split(":")[0].lower(): line for line in seen[0].splitlines()[1:]}
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token" in lines["authorization"]
    assert lines["x-amz-security-token"].endswith(" token")


def test_a_redirect_is_not_followed() -> None:
    def serve(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 302 go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    with server(serve) as url:
        assert send(url).status == 302


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"garbage\r\n\r\n"],
    ids=["closed at once", "closed in the head", "closed in the body", "not HTTP"],
)
def test_an_incomplete_answer_is_no_answer(sent: bytes) -> None:
    with server(lambda connection, _head: connection.sendall(sent)) as url, pytest.raises(TransportError):
        send(url)


def test_a_silent_server_is_given_up_after_the_read_timeout() -> None:
    ended = threading.Event()

    def serve(_connection: socket.socket, _head: bytes) -> None:
        ended.wait(10)

    with server(serve) as url:
        with pytest.raises(TransportError, match="ReadTimeoutError"):
            send(url, read_timeout=0.2)
        ended.set()


def test_nothing_listening_is_a_transport_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransportError):
        send(f"http://127.0.0.1:{port}")
