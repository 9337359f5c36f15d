"""Daemon threads that are kept for reuse, so that a connection per thread is worth having."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_LOGGER = logging.getLogger("localcloud.states")
_IDLE_SECONDS = 10.0


class Threads:
    """Runs each job at once: in an idle thread, or in a new one.

    There is no bound here on purpose: a job may start and await others, which a bounded pool turns into
    a deadlock. The callers bound themselves: open executions, branches, concurrency of a map, one task each.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
                self._jobs.put(job)
                return
            self._started += 1
            name = f"{self._name}-{self._started}"
        threading.Thread(target=self._work, args=(job,), name=name, daemon=True).start()

    def close(self) -> None:
        """Let idle threads end at once and busy ones after their job."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._jobs.put(None)
            self._idle = 0

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            try:
                job()
            except Exception:
                _LOGGER.exception("a job of the Step Functions engine failed")
            with self._lock:
                if self._closed:
                    return
                self._idle += 1
            job = self._next()

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            with self._lock:
                if self._idle > 0:
                    self._idle -= 1
                    return None
            # Somebody has counted on this thread between the time-out and the lock: their job is coming.
            return self._jobs.get()
