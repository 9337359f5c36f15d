"""A small threaded HTTP/1.1 server made for 512 KiB bodies.

One thread per connection, keep-alive, no buffering between socket and block: enough for several thousand
blocks a second where a general-purpose server manages some hundreds. It understands Content-Length,
chunked and aws-chunked bodies and ``Expect: 100-continue``; nothing else of HTTP is needed by AWS SDKs.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate

from localcloud.ebs.errors import invalid
from localcloud.ebs.messages import Response, ebs_error_response

_MOST_HEAD = 64 * 1024
_MOST_BODY = 64 * 1024 * 1024
_LENGTH = re.compile(rb"[0-9a-fA-F]{1,16}")
_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """A request as it came in: ``target`` is path and query with their percent signs; headers have lower-case names,
    repeated ones are joined by commas. ``sent`` are those that came, ``headers`` those that fit ``body``."""

    method: str
    target: str
    sent: dict[str, str]
    headers: dict[str, str]
    body: bytes | bytearray


Serve = Callable[[RawRequest], Response]


class _Gone(Exception):
    """The client closed or broke the connection."""


class _Malformed(Exception):
    """What came in is not HTTP as it is understood here."""


class HttpServer:
    """Listens on 127.0.0.1 from construction on; ``start`` begins to accept."""

    def __init__(
        self,
        serve: Serve,
        *,
        port: int = 0,
        body_timeout: Callable[[], float] = lambda: 60.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._serve = serve
        self._now = now
        self._body_timeout = body_timeout
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._accept, name="ebs-http", daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self._stopping = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            reader = _Reader(connection)
            while self._exchange(connection, reader):
                pass
        except (_Gone, OSError):
            pass  # the client's business
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _exchange(self, connection: socket.socket, reader: _Reader) -> bool:
        """One request and its answer; whether the connection stays open."""
        try:
            head = reader.head()
            if head is None:
                return False
            method, target, headers = head
            if headers.get("expect", "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.settimeout(self._body_timeout())
            sent = dict(headers)
            body = reader.body(headers)
        except TimeoutError:
            late = invalid("WRITE_REQUEST_TIMEOUT", "The request body was not received in time.")
            _send(connection, ebs_error_response(late), keep_alive=False, now=self._now())
            return False
        except _Malformed as error:
            _send(connection, Response(400, {}, str(error).encode()), keep_alive=False, now=self._now())
            return False
        connection.settimeout(None)
        answer = self._serve(RawRequest(method=method, target=target, sent=sent, headers=headers, body=body))
        if answer.cut in ("before", "after"):
            _reset(connection)
            return False
        keep_alive = headers.get("connection", "").lower() != "close" and answer.cut == "none"
        _send(connection, answer, keep_alive=keep_alive, now=self._now())
        return keep_alive


def _reset(connection: socket.socket) -> None:
    """Close as a dying server does: the client reads a reset, not a clean end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _send(connection: socket.socket, answer: Response, *, keep_alive: bool, now: float) -> None:
    """``now``, in epoch seconds, is what the answer's Date says: clients with a wrong clock learn the time by it."""
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += [
        f"Date: {formatdate(now, usegmt=True)}",
        f"Content-Length: {len(answer.body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")
    body: memoryview = memoryview(answer.body)
    if answer.cut == "short":
        body = body[: len(body) // 2]
    sent = connection.sendmsg([head, body]) if body else connection.send(head)
    if sent < len(head):
        connection.sendall(head[sent:])
        connection.sendall(body)
    elif sent < len(head) + len(body):
        connection.sendall(body[sent - len(head) :])


class _Reader:
    """Buffered reading of heads, unbuffered reading of bodies."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def head(self) -> tuple[str, str, dict[str, str]] | None:
        """Method, target and headers; ``None`` when the client has ended the connection."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise _Malformed("the request head is too long")
            part = self._connection.recv(65536)
            if not part:
                return None
            self._buffer += part
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        first = lines[0].split(" ")
        if len(first) != 3 or not first[2].startswith("HTTP/1."):
            raise _Malformed("the request line is malformed")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise _Malformed("a header has no colon")
            known, value = name.strip().lower(), value.strip()
            headers[known] = f"{headers[known]},{value}" if known in headers else value
        return first[0], first[1], headers

    def body(self, headers: dict[str, str]) -> bytes | bytearray:
        """The decoded body; ``aws-chunked`` is taken off ``headers``' Content-Encoding."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body: bytes | bytearray = self._chunks()
        else:
            text = headers.get("content-length", "0")
            if not text.isascii() or not text.isdigit():
                raise _Malformed("Content-Length is not a number")
            body = self._exactly(int(text))
        codings = [c.strip() for c in headers.get("content-encoding", "").split(",") if c.strip()]
        if "aws-chunked" in codings:
            body = _decoded_chunks(bytes(body))
            codings.remove("aws-chunked")
            headers.pop("content-encoding")
            if codings:
                headers["content-encoding"] = ",".join(codings)
        return body

    def _exactly(self, length: int) -> bytearray | bytes:
        if length > _MOST_BODY:
            raise _Malformed("the request body is too long")
        if length == 0:
            return b""
        body = bytearray(length)
        have = min(length, len(self._buffer))
        body[:have] = self._buffer[:have]
        del self._buffer[:have]
        view = memoryview(body)
        while have < length:
            got = self._connection.recv_into(view[have:])
            if not got:
                raise _Gone
            have += got
        return body

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise _Malformed("a chunk's head is too long")
            part = self._connection.recv(65536)
            if not part:
                raise _Gone
            self._buffer += part
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _chunks(self) -> bytearray:
        body = bytearray()
        while True:
            length = _hex(self._line())
            if length == 0:
                while self._line():
                    pass  # trailers
                return body
            body += self._exactly(length)
            if len(body) > _MOST_BODY:
                raise _Malformed("the request body is too long")
            if self._line():
                raise _Malformed("a chunk is longer than it says")


def _hex(line: bytes) -> int:
    length = line.split(b";")[0].strip()
    if not _LENGTH.fullmatch(length):  # int() takes signs, underscores and 0x, too
        raise _Malformed("a chunk's length is malformed")
    return int(length, 16)


def _decoded_chunks(body: bytes) -> bytes:
    """The payload of an ``aws-chunked`` body; chunk signatures and trailers are not looked at."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        if end < 0:
            raise _Malformed("an aws-chunked body ends too early")
        length = _hex(body[at:end])
        if length == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + length])
        if len(parts[-1]) != length:
            raise _Malformed("an aws-chunked body ends too early")
        at = end + 2 + length + 2
