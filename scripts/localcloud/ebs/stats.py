"""Counts of calls, for tests and cost checks."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


class Stats:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._calls: Counter[str] = Counter()
            self._errors: Counter[tuple[str, str]] = Counter()
            self._snapshots: Counter[tuple[str, str]] = Counter()
            self._bytes: Counter[str] = Counter()

    def count(
        self, *, operation: str, snapshot_id: str | None, status: int, code: str, received: int, sent: int
    ) -> None:
        with self._lock:
            self._calls[operation] += 1
            if snapshot_id is not None:
                self._snapshots[(snapshot_id, operation)] += 1
            if status >= 400:
                self._errors[(operation, code or str(status))] += 1
            self._bytes["received"] += received
            self._bytes["sent"] += sent

    def as_dict(self) -> dict[str, Any]:
        """The counts: ``{"calls": {op: n}, "errors": {op: {code: n}}, "snapshots": {id: {op: n}}, "bytes": {..}}``."""
        with self._lock:
            errors: dict[str, dict[str, int]] = {}
            for (operation, code), number in self._errors.items():
                errors.setdefault(operation, {})[code] = number
            snapshots: dict[str, dict[str, int]] = {}
            for (snapshot_id, operation), number in self._snapshots.items():
                snapshots.setdefault(snapshot_id, {})[operation] = number
            return {
                "calls": dict(self._calls),
                "errors": errors,
                "snapshots": snapshots,
                "bytes": dict(self._bytes),
            }
