"""Time as the engine sees it: the wall clock, delays of the machine, and deadlines."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

from localcloud.states.cancellation import Cancellation


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        """A Wait state. Raises as soon as ``cancellation`` does."""
        ...

    def back_off(self, seconds: float, cancellation: Cancellation) -> None:
        """The delay before a retry, which the same ends."""
        ...

    def after(self, seconds: float) -> float:
        """The monotonic time at which a timeout of ``seconds`` that starts now is over."""
        ...


class SystemClock:
    """Real time. ``wait_scale`` shortens Wait states and retry delays, ``timeout_scale`` timeouts."""

    def __init__(self, *, wait_scale: float = 1.0, timeout_scale: float = 1.0) -> None:
        self.wait_scale = wait_scale
        self.timeout_scale = timeout_scale

    def now(self) -> float:
        return time.time()

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        cancellation.wait(threading.Event(), until=time.monotonic() + seconds * self.wait_scale)

    def back_off(self, seconds: float, cancellation: Cancellation) -> None:
        self.pause(seconds, cancellation)

    def after(self, seconds: float) -> float:
        return time.monotonic() + seconds * self.timeout_scale


class SkippingClock:
    """Pauses take no time but move the clock on; ``pauses`` records them. For tests of schedules."""

    def __init__(self, *, start: float | None = None, timeout_scale: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._skipped = 0.0
        self.timeout_scale = timeout_scale
        self.pauses: list[float] = []

    def now(self) -> float:
        with self._lock:
            return (time.time() if self._start is None else self._start) + self._skipped

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        cancellation.check()
        with self._lock:
            self._skipped += seconds
            self.pauses.append(seconds)

    def back_off(self, seconds: float, cancellation: Cancellation) -> None:
        # Not ``pause``, which a test may give an effect that only a Wait state has.
        SkippingClock.pause(self, seconds, cancellation)

    def after(self, seconds: float) -> float:
        return time.monotonic() + seconds * self.timeout_scale


def iso(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds, as the context object and result files show times."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
