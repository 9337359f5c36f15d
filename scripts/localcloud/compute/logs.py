"""What functions print: to the local cloud's CloudWatch Logs, to one file per function, and to the caller's tail."""

from __future__ import annotations

import fcntl
import json
import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from localcloud.compute.function import Function
from localcloud.compute.outcome import Outcome

Deliver = Callable[[Function, str, Sequence[tuple[int, str]]], None]
"""``deliver(function, log_stream, [(epoch milliseconds, message)])`` puts events into CloudWatch Logs."""

TAIL_BYTES = 4096  # Invoke API, LogType=Tail: "the last 4 KB of the execution log"


def log_file(folder: Path, *, function: str, region: str, account_id: str, default_account_id: str) -> Path:
    """One file per function and region; the account is in the name only where it is not the usual one."""
    account = "" if account_id == default_account_id else f".{account_id}"
    return folder / f"{function}.{region}{account}.log"


def new_stream_name(function: Function) -> str:
    """Lambda's name of the log stream of a new execution environment."""
    return f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"


class FunctionOutput:
    """Reads an environment's stdout and stderr and cuts it into log events, one per line.

    ``drain`` takes everything that was printed so far, so that what a handler printed before it answered is
    there when the caller reads the tail.
    """

    def __init__(self, function: Function, *, descriptor: int, stream: str, file: Path, deliver: Deliver) -> None:
        self._function = function
        self._descriptor = descriptor
        self._stream = stream
        self._file = file
        self._deliver = deliver
        self._lock = threading.Lock()
        self._partial = b""
        self._tail = bytearray()
        self._ended = False
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)

    def start(self) -> None:
        threading.Thread(target=self._read, name=f"output-{self._function.name}", daemon=True).start()

    def begin(self, request_id: str) -> None:
        """Start of an invocation: the tail is this invocation's from here."""
        with self._lock:
            self._take()
            self._flush_partial()
            self._tail.clear()
            self._write([_start_line(self._function, request_id)])

    def finish(self, lines: Sequence[str]) -> str:
        """End of an invocation: takes what is still in the pipe, adds ``lines`` and returns the tail."""
        with self._lock:
            self._take()
            self._flush_partial()
            self._write(lines)
            return self._tail[-TAIL_BYTES:].decode(errors="replace")

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while not self._ended:
            poll.poll()
            with self._lock:
                self._take()
        with self._lock:
            self._flush_partial()
            os.close(self._descriptor)

    def _take(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return
            if not data:
                self._ended = True
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._write([_text(line) for line in lines])

    def _flush_partial(self) -> None:
        if self._partial:
            self._write([_text(self._partial)])
            self._partial = b""

    def _write(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        text = "".join(f"{line}\n" for line in lines)
        self._tail += text.encode()
        del self._tail[: -2 * TAIL_BYTES]
        with self._file.open("a", encoding="utf-8") as file:
            file.write(text)
        now = int(time.time() * 1000)
        self._deliver(self._function, self._stream, [(now, line) for line in lines])


def closing_lines(
    function: Function,
    request_id: str,
    *,
    outcome: Outcome,
    duration_ms: float,
    init_ms: float | None,
    memory_used_mb: int,
) -> list[str]:
    """What Lambda logs after an invocation, as text or as JSON depending on the function's log format."""
    billed = -(-max(duration_ms, 1.0) // 1)
    if function.log_format == "JSON":
        metrics = {
            "durationMs": round(duration_ms, 3),
            "billedDurationMs": int(billed),
            "memorySizeMB": function.memory_mb,
            "maxMemoryUsedMB": memory_used_mb,
        }
        if init_ms is not None:
            metrics["initDurationMs"] = round(init_ms, 3)
        record: dict[str, object] = {"requestId": request_id, "metrics": metrics, "status": outcome.status}
        if outcome.error_type is not None:
            record["errorType"] = outcome.error_type
        return [_platform_event("platform.report", record)]
    lines = []
    if outcome.status == "timeout":
        lines.append(f"{_timestamp()} {request_id} Task timed out after {function.timeout_seconds}.00 seconds")
    elif outcome.error_type in ("Runtime.ExitError", "Function.ResponseSizeTooLarge"):
        lines.append(json.loads(outcome.payload)["errorMessage"])
    lines.append(f"END RequestId: {request_id}")
    report = (
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {int(billed)} ms\t"
        f"Memory Size: {function.memory_mb} MB\tMax Memory Used: {memory_used_mb} MB\t"
    )
    if init_ms is not None:
        report += f"Init Duration: {init_ms:.2f} ms\t"
    if outcome.status != "success":
        report += f"Status: {outcome.status}\t"
    if outcome.status == "error":
        report += f"Error Type: {outcome.error_type}\t"
    return [*lines, report]


def _start_line(function: Function, request_id: str) -> str:
    if function.log_format == "JSON":
        return _platform_event("platform.start", {"requestId": request_id, "version": function.version})
    return f"START RequestId: {request_id} Version: {function.version}"


def _platform_event(kind: str, record: dict[str, object]) -> str:
    return json.dumps({"time": _timestamp(), "type": kind, "record": record})


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(line: bytes) -> str:
    # The runtime client joins the lines of one event, a traceback for example, with carriage returns.
    return line.decode(errors="replace").rstrip("\r").replace("\r", "\n")
