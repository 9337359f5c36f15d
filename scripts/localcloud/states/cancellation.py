"""Stopping: a tree of cancellations, from the engine down to one task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from localcloud.states.errors import Cancelled, DeadlinePassed


class Cancellation:
    """Cancelled by itself, by a parent, or by the passing of the execution's deadline.

    ``deadline`` is a monotonic time; children have their parents' if it comes first, unless
    their parent watches it for them (``inherit_deadline=False``).
    """

    deadline: float | None

    def __init__(
        self,
        parent: Cancellation | None = None,
        *,
        deadline: float | None = None,
        inherit_deadline: bool = True,
    ) -> None:
        self._parent = parent
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next_key = 0
        inherited = parent.deadline if parent and inherit_deadline else None
        self.deadline = min((d for d in (deadline, inherited) if d is not None), default=None)
        self._parent_key = parent.add_callback(self.cancel) if parent else None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> int:
        """Call ``callback`` on cancellation (now, if that has been); the key takes it back."""
        with self._lock:
            if not self._cancelled:
                self._next_key += 1
                self._callbacks[self._next_key] = callback
                return self._next_key
        callback()
        return 0

    def remove_callback(self, key: int) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def detach(self) -> None:
        """Forget the parent: a long-lived parent must not collect its finished children."""
        if self._parent is not None and self._parent_key is not None:
            self._parent.remove_callback(self._parent_key)

    def check(self) -> None:
        """Raise ``Cancelled`` or ``DeadlinePassed`` if this is over."""
        if self._cancelled:
            raise Cancelled
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlinePassed

    def wait(self, event: threading.Event, *, until: float | None = None) -> bool:
        """Wait for ``event``; ``False`` if the monotonic time ``until`` comes first.

        Raises ``Cancelled`` or ``DeadlinePassed`` as soon as either is the case. ``event`` is also set
        by a cancellation, so it must belong to this wait.
        """
        key = self.add_callback(event.set)
        try:
            limits = [moment for moment in (until, self.deadline) if moment is not None]
            happened = event.wait(max(0.0, min(limits) - time.monotonic()) if limits else None)
            if self._cancelled:
                raise Cancelled
            if not happened and (until is None or (self.deadline is not None and self.deadline < until)):
                raise DeadlinePassed
            return happened
        finally:
            self.remove_callback(key)
