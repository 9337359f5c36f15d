"""The one clock of the EBS part, and timers that fire by it.

Every expiry, delay, window and rate takes its time from here, so a test (or ``POST /_local/clock``) can
move a week ahead and see exactly what a week does.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""

    def advance(self, seconds: float) -> None:
        """Move ``seconds`` (not negative) ahead."""


class OffsetClock:
    """The machine's time plus what ``advance`` has added."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        _refuse_backwards(seconds)
        with self._lock:
            self._offset += seconds


class ManualClock:
    """Stands still until ``advance``."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        _refuse_backwards(seconds)
        with self._lock:
            self._now += seconds


def _refuse_backwards(seconds: float) -> None:
    if seconds < 0:
        raise ValueError(f"a clock cannot go back ({seconds} s)")


class Timers:
    """Actions due at clock times, run by ``run_due`` in the order of their times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()

    def at(self, due: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._heap, (due, next(self._order), action))

    def run_due(self) -> int:
        """Run what is due now; returns how many actions ran. An action may add timers."""
        if not self._heap or self._heap[0][0] > self._clock.now():
            return 0  # the hot path of every request: no lock taken
        ran = 0
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > self._clock.now():
                    return ran
                _due, _order, action = heapq.heappop(self._heap)
            action()
            ran += 1
