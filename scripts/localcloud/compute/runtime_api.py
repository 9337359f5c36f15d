"""The Runtime API that AWS's runtime client in an execution environment talks to (Lambda, "custom runtimes").

One listening socket per environment, because the address in ``AWS_LAMBDA_RUNTIME_API`` has no path that could
tell environments apart.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from localcloud import web_guard

_PREFIX = "/2018-06-01/runtime/"
_ANSWER = re.compile(r"^invocation/([^/]+)/(response|error)$")


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One event on its way to a handler. ``payload`` is JSON; ``deadline_ms`` is epoch milliseconds."""

    request_id: str
    payload: bytes
    function_arn: str
    trace_id: str | None


class Runtime(Protocol):
    """The environment behind a Runtime API."""

    def next_invocation(self) -> tuple[Invocation, int] | None:
        """Block until there is work: the invocation and its deadline; ``None`` when the environment ends."""

    def respond(self, request_id: str, payload: bytes) -> int:
        """Take a handler's result; returns the HTTP status for the runtime client (202, 413 or 400)."""

    def fail(self, request_id: str, payload: bytes) -> int:
        """Take a handler's error."""

    def init_failed(self, payload: bytes) -> None:
        """Take the error that ended initialisation."""


class RuntimeApi:
    """Serves one environment on a free loopback port until ``close``."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        threading.Thread(target=self._accept, name=f"runtime-api-{self.address}", daemon=True).start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for connection in [self._listener, *connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection, peer), name="runtime-api-connection", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        # Without this every answer waits for a delayed ACK: 87 ms for a warm invocation instead of 5.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with contextlib.suppress(OSError):
                _Connection(connection, peer, self)  # type: ignore[arg-type]  # any object may be the server
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True
    server: RuntimeApi  # type: ignore[assignment]

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path != _PREFIX + "invocation/next":
            self._answer(404, {"errorMessage": f"no such path: {self.path}", "errorType": "InvalidPath"})
            return
        work = self.server.runtime.next_invocation()
        if work is None:
            self.close_connection = True
            return
        invocation, deadline_ms = work
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(invocation.payload)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.request_id)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline_ms))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn)
        if invocation.trace_id:
            self.send_header("Lambda-Runtime-Trace-Id", invocation.trace_id)
        self.end_headers()
        self.wfile.write(invocation.payload)
        self.wfile.flush()

    def do_POST(self) -> None:
        if self._refused():
            return
        body = self._body()
        runtime = self.server.runtime
        path = self.path.removeprefix(_PREFIX)
        if path == "init/error":
            runtime.init_failed(body)
            self._answer(202, {"status": "OK"})
            return
        match = _ANSWER.match(path)
        if match is None:
            self._answer(404, {"errorMessage": f"no such path: {self.path}", "errorType": "InvalidPath"})
            return
        request_id, kind = match.groups()
        status = runtime.respond(request_id, body) if kind == "response" else runtime.fail(request_id, body)
        self._answer(status, {"status": "OK"} if status == 202 else {"errorType": "RuntimeApiError"})

    def _refused(self) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reason = web_guard.refusal(headers, port=self.server.port)
        if reason:
            self.close_connection = True
            self._answer(403, {"errorMessage": reason, "errorType": "Forbidden"})
        return bool(reason)

    def log_message(self, format: str, *args: object) -> None:
        """The server's log is not the place for every invocation."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _answer(self, status: int, content: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
