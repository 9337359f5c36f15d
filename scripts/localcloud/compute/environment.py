"""One execution environment: an operating system process that serves one invocation at a time."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcloud.compute.faults import Fault
from localcloud.compute.function import Function
from localcloud.compute.logs import FunctionOutput, closing_lines
from localcloud.compute.outcome import (
    INIT_SECONDS,
    MAX_RESPONSE_BYTES,
    Outcome,
    handler_error,
    process_exited,
    response_too_large,
    timed_out,
)
from localcloud.compute.runtime_api import Invocation, RuntimeApi

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class NotDelivered(RuntimeError):
    """The environment ended before it took the invocation, which may go to another one."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An invocation's end: what the caller gets, the last 4 KiB of its log, and how long it ran."""

    outcome: Outcome
    log_tail: str
    duration_ms: float


class ExecutionEnvironment:
    """Lives from ``start`` until its process ends; ``invoke`` may be called by one thread at a time.

    The process asks its Runtime API for work, so three threads meet here: the caller of ``invoke``, the
    connection of the Runtime API, and the one that waits for the process; ``_changed`` guards all state.
    """

    def __init__(self, function: Function, *, home: Path) -> None:
        self.function = function
        self.home = home
        self.last_used = time.monotonic()
        self.invocations = 0
        self.api = RuntimeApi(self)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: FunctionOutput | None = None
        self._changed = threading.Condition()
        self._started = 0.0
        self._init_seconds: float | None = None
        self._init_reported = False
        self._offered: Invocation | None = None
        self._current: Invocation | None = None
        self._fault: Fault | None = None
        self._delivered = 0.0
        self._limit = math.inf
        self._outcome: Outcome | None = None
        self._init_error: bytes | None = None
        self._exit_code: int | None = None
        self._out_of_memory = False
        self._ending = False
        self._peak_kib = 0

    def start(self, process: subprocess.Popen[bytes], output: FunctionOutput) -> None:
        """Serve ``process``, which ``pool`` has started with this environment's Runtime API address."""
        self._process = process
        self._output = output
        self._started = time.monotonic()
        output.start()
        self.api.start()
        threading.Thread(target=self._wait, name=f"environment-{process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        assert self._process is not None  # noqa: S101
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._exit_code is None and not self._ending

    @property
    def is_busy(self) -> bool:
        return self._offered is not None or self._current is not None

    def invoke(self, invocation: Invocation, fault: Fault | None) -> Answer:
        """Run one invocation to its end, whatever that is; raises ``NotDelivered`` if it never began."""
        assert self._output is not None  # noqa: S101
        timeout = self.function.timeout_seconds
        with self._changed:
            if not self.is_alive:
                raise NotDelivered
            self._outcome, self._fault, self._limit = None, fault, math.inf
            self._offered = invocation
            self._changed.notify_all()
            was_ready = self._init_seconds is not None
            offered = time.monotonic()
            latest = max(offered, self._started + INIT_SECONDS) + timeout
            self._wait_until(lambda: self._offered is None or self._over, latest)
            if self._offered is not None and self._over and was_ready:
                raise NotDelivered
            begun = self._offered is None
            if begun:
                self._wait_until(lambda: self._outcome is not None or self._exit_code is not None, self._limit)
            outcome = self._settle(invocation)
            self._offered = self._current = self._fault = None
            ended = time.monotonic()
        if not begun:
            self._output.begin(invocation.request_id)
        self.last_used = ended
        self.invocations += 1
        duration_ms = (ended - (self._delivered if begun else offered)) * 1000
        return Answer(
            outcome=outcome,
            log_tail=self._output.finish(self._closing(invocation, outcome, duration_ms)),
            duration_ms=duration_ms,
        )

    def resident_kib(self) -> int:
        """Memory in use now, 0 if the process is gone."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_KIB
            self._peak_kib = max(self._peak_kib, resident)
            return resident
        return 0

    def peak_kib(self) -> int:
        """The most memory the process ever had resident (VmHWM); the last known value once it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_kib = max(self._peak_kib, int(line.split()[1]))
        return self._peak_kib

    def out_of_memory(self) -> None:
        """End the process because it uses more memory than the function has."""
        with self._changed:
            self._out_of_memory = True
        self.peak_kib()
        self.kill()

    def kill(self) -> None:
        """End the process and everything it started, at once; what it has not taken yet goes to another one."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            if self._exit_code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def join(self, timeout: float) -> None:
        with self._changed:
            self._wait_until(lambda: self._exit_code is not None, time.monotonic() + timeout)

    # --- the Runtime protocol, called by the connection of the process ---

    def next_invocation(self) -> tuple[Invocation, int] | None:
        assert self._output is not None  # noqa: S101
        with self._changed:
            if self._init_seconds is None:
                self._init_seconds = time.monotonic() - self._started
            self._changed.wait_for(lambda: self._offered is not None or self._over)
            if self._offered is None or self._over:
                return None
            invocation = self._current = self._offered
            self._output.begin(invocation.request_id)
            now = time.monotonic()
            # Time of an initialisation beyond its own limit counts against the invocation.
            late = 0.0
            if not self._init_reported:
                late = max(0.0, self._init_seconds - INIT_SECONDS)
            self._delivered = now
            self._limit = now + self.function.timeout_seconds - late
            self._offered = None
            self._changed.notify_all()
            if self._fault is not None and self._fault.when == "before":
                self._strike()
                return None
            if self._fault is not None and self._fault.when == "during":
                self._strike_later(invocation, self._fault.after_ms / 1000)
            return invocation, int((time.time() + self._limit - now) * 1000)

    def respond(self, request_id: str, payload: bytes) -> int:
        if len(payload) > MAX_RESPONSE_BYTES:
            return 413 if self._answered(request_id, response_too_large()) else 400
        return 202 if self._answered(request_id, Outcome(payload=payload)) else 400

    def fail(self, request_id: str, payload: bytes) -> int:
        return 202 if self._answered(request_id, handler_error(payload)) else 400

    def init_failed(self, payload: bytes) -> None:
        with self._changed:
            self._init_error = payload
            self._changed.notify_all()

    # --- inside ---

    @property
    def _over(self) -> bool:
        return self._exit_code is not None or self._init_error is not None or self._ending

    def _wait_until(self, condition: Callable[[], bool], limit: float) -> None:
        while not condition():
            left = limit - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(min(left, 60.0))  # a limit of math.inf is more than a lock can wait

    def _settle(self, invocation: Invocation) -> Outcome:
        """The outcome, once something ended the wait; ends the process where it has to end."""
        if self._outcome is not None:
            return self._outcome
        if self._init_error is not None:
            return handler_error(self._init_error)
        if self._exit_code is None and not self._ending:
            self.peak_kib()
            self.kill()
            return timed_out(invocation.request_id, self.function.timeout_seconds)
        self._wait_until(lambda: self._exit_code is not None, time.monotonic() + 5)
        return process_exited(invocation.request_id, -signal.SIGKILL if self._exit_code is None else self._exit_code)

    def _answered(self, request_id: str, outcome: Outcome) -> bool:
        with self._changed:
            if self._current is None or self._current.request_id != request_id or self._exit_code is not None:
                return False
            if self._fault is not None and self._fault.when == "after":
                self._strike()
                return False
            self._outcome, self._current = outcome, None
            self._changed.notify_all()
            return True

    def _strike(self) -> None:
        """Do what the fault of this invocation says. The lock is held."""
        fault, invocation = self._fault, self._current
        if fault is None or invocation is None:
            return
        self.peak_kib()
        if fault.kind == "timeout":
            self._outcome = timed_out(invocation.request_id, self.function.timeout_seconds)
        self._out_of_memory = fault.kind == "oom"
        self.kill()

    def _strike_later(self, invocation: Invocation, seconds: float) -> None:
        def strike() -> None:
            with self._changed:
                if self._current is invocation:
                    self._strike()

        timer = threading.Timer(seconds, strike)
        timer.daemon = True
        timer.start()

    def _closing(self, invocation: Invocation, outcome: Outcome, duration_ms: float) -> list[str]:
        memory = math.ceil(self.peak_kib() / 1024)
        if self._out_of_memory:
            memory = self.function.memory_mb
        init_ms = None
        if not self._init_reported and self._init_seconds is not None:
            init_ms = self._init_seconds * 1000
            self._init_reported = True
        return closing_lines(
            self.function,
            invocation.request_id,
            outcome=outcome,
            duration_ms=duration_ms,
            init_ms=init_ms,
            memory_used_mb=memory,
        )

    def _wait(self) -> None:
        assert self._process is not None  # noqa: S101
        # Not reaped yet, so that its process group cannot be another one's in the next line.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what the handler started ends with it
        code = self._process.wait()
        with self._changed:
            self._exit_code = code
            self._changed.notify_all()
        self.api.close()
        shutil.rmtree(self.home, ignore_errors=True)
