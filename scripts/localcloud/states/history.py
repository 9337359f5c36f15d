"""The event history of one execution, with the service's event names and details."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable
from typing import Any

from localcloud.states.errors import Cancelled, HistoryFull
from localcloud.states.limits import MAX_HISTORY_EVENTS

_SHARED_DETAILS = {
    "StateEntered": "stateEnteredEventDetails",
    "StateExited": "stateExitedEventDetails",
}


def details_key(event_type: str) -> str:
    """The member of an event that has its details: ``stateEnteredEventDetails`` of a ``TaskStateEntered``,
    ``taskFailedEventDetails`` of a ``TaskFailed``."""
    for suffix, key in _SHARED_DETAILS.items():
        if event_type.endswith(suffix):
            return key
    return event_type[0].lower() + event_type[1:] + "EventDetails"


class History:
    """Events in order. Closed by the execution's last event, so that late threads add nothing after it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._packed: bytes | None = None
        self._count = 0
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def add(self, event_type: str, details: dict[str, Any] | None = None, *, previous: int = 0) -> int:
        """Append an event and return its id. Raises ``HistoryFull`` or, after the end, ``Cancelled``."""
        with self._lock:
            if self._closed:
                raise Cancelled
            # One place stays free for the event that ends the execution.
            if self._count >= MAX_HISTORY_EVENTS - 1:
                raise HistoryFull
            return self._append(event_type, details, previous)

    def end(self, event_type: str, details: dict[str, Any] | None = None, *, previous: int = 0) -> None:
        """Append the execution's last event; does nothing if it has one."""
        with self._lock:
            if not self._closed:
                self._append(event_type, details, previous)
                self._closed = True

    def reopen(self, event_type: str, details: dict[str, Any]) -> int:
        """Go on after a redrive."""
        with self._lock:
            self._unpack()
            self._closed = False
            return self._append(event_type, details, self._count)

    @property
    def closed(self) -> bool:
        return self._closed

    def events(self) -> list[dict[str, Any]]:
        with self._lock:
            if self._packed is not None:
                unpacked: list[dict[str, Any]] = json.loads(zlib.decompress(self._packed))
                return unpacked
            return list(self._events)

    def pack(self) -> None:
        """Keep the events compressed: a map of 30,000 children has 30,000 histories."""
        with self._lock:
            if self._packed is None:
                self._packed = zlib.compress(json.dumps(self._events).encode(), 1)
                self._events = []

    def _unpack(self) -> None:
        if self._packed is not None:
            self._events = json.loads(zlib.decompress(self._packed))
            self._packed = None

    def _append(self, event_type: str, details: dict[str, Any] | None, previous: int) -> int:
        self._count += 1
        event: dict[str, Any] = {
            "timestamp": self._now(),
            "type": event_type,
            "id": self._count,
            "previousEventId": previous,
        }
        if details is not None:
            event[details_key(event_type)] = details
        self._events.append(event)
        return self._count
