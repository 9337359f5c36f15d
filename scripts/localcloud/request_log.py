"""The log of connections and requests of the main server: ``scripts/cloud logs requests``.

One line for each, in the order in which they end::

    2026-01-31T12:00:00.123456Z 40112 opened
    2026-01-31T12:00:00.130000Z 40112 us-east-1 logs CreateLogGroup /aws/x -> 200 in 4 ms invocation=.. attempt=1
    2026-01-31T12:00:07.500000Z 40112 ended by the client

The number is the client's port, so it names the connection; ``invocation`` and ``attempt`` tell a repeated request from
a new one. Requests that the door refuses are in it, too; those to the control only if they are refused. The file is
bounded: when it is full it is begun anew, and the one before it is kept as ``requests.1``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from localcloud import connections
from localcloud.asgi import Application, Message, Receive, Send
from localcloud.asked import Asked
from localcloud.host import Host
from localcloud.invocations import REPLAYED
from localcloud.request_lines import REQUEST_LOG

MAX_BYTES = 8 * 1024 * 1024
_OWN_PATHS = ("/_",)


def install(host: Host) -> None:
    log = RequestLog(host.data_dir / "logs" / REQUEST_LOG)
    host.on_shutdown(log.close)
    connections.watch(lambda port, what: log.write(f"{port} {what}"))
    host.outer_layers.append(lambda base: RequestLogLayer(base, log.write))


class RequestLog:
    """Lines with the time before them, in a file of at most ``max_bytes`` and one more before it."""

    def __init__(self, file: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._sink: TextIO | None = self._begun()
        self._written = 0

    def write(self, text: str) -> None:
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ} {text}\n"
        with self._lock:
            if self._sink is None:
                return
            if self._written + len(line) > self._max_bytes:
                self._sink.close()
                self._file.replace(self._file.with_suffix(f".1{self._file.suffix}"))
                self._sink, self._written = self._begun(), 0
            self._sink.write(line)
            self._written += len(line)

    def close(self) -> None:
        with self._lock:
            if self._sink is not None:
                self._sink.close()
                self._sink = None

    def _begun(self) -> TextIO:
        return self._file.open("w", encoding="ascii", errors="replace", buffering=1)


class RequestLogLayer:
    """An ASGI application: the base, with a line for every request when it has ended."""

    def __init__(
        self,
        base: Application,
        write: Callable[[str], None],
        *,
        is_ended: Callable[[], bool] = connections.is_ended,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = base
        self._write = write
        self._is_ended = is_ended
        self._clock = clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._base(scope, receive, send)
            return
        started = self._clock()
        beginning = b""
        outcome = "no answer"
        notes = ""

        async def watched_receive() -> Message:
            nonlocal beginning
            message = await receive()
            beginning = beginning or message.get("body", b"")
            return message

        async def watched_send(message: Message) -> None:
            nonlocal outcome, notes
            if message["type"] == "http.response.start":
                outcome = str(message["status"])
                if self._is_ended():
                    notes += ", after the client had ended the connection"
                if REPLAYED in message["headers"]:
                    notes += ", the first answer again"
            await send(message)

        try:
            await self._base(scope, watched_receive, watched_send)
        except BaseException as error:
            notes += f", then {type(error).__name__}"
            raise
        finally:
            self._log(scope, beginning, outcome, notes, started)

    def _log(self, scope: Mapping[str, Any], beginning: bytes, outcome: str, notes: str, started: float) -> None:
        if scope["path"].startswith(_OWN_PATHS) and outcome != "403":
            return
        asked = Asked.of(scope, beginning)
        port = (scope.get("client") or ("", 0))[1]
        milliseconds = (self._clock() - started) * 1000
        ids = f" invocation={asked.invocation} attempt={asked.attempt}" if asked.invocation else ""
        self._write(f"{port} {asked} -> {outcome} in {milliseconds:.0f} ms{notes}{ids}")
