"""How many requests were sent, where to, and why some were sent again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RequestCounts:
    """How often each operation was sent and why it was repeated; shared by the threads of a worker.

    ``placed`` is keyed by operation and the region that it was sent to, which is where AWS bills it:
    ``"PutSnapshotBlock eu-west-1"``. ``retries`` is keyed by operation and error code:
    ``"PutSnapshotBlock RequestThrottledException"``.
    """

    placed: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, operation: str, region: str) -> None:
        """Count one request."""
        with self._lock:
            self.placed[at(operation, region)] += 1

    def retried(self, operation: str, code: str) -> None:
        """Count one answer that made a request be sent again."""
        with self._lock:
            self.retries[f"{operation} {code}"] += 1

    @contextmanager
    def apart(self) -> Iterator[RequestCounts]:
        """Counts of a part of the work, which come to these when it ends, however it does."""
        part = RequestCounts()
        try:
            yield part
        finally:
            with self._lock:
                self.placed.update(part.placed)
                self.retries.update(part.retries)

    @property
    def requests(self) -> Counter[str]:
        """How often each operation was sent, to whatever region."""
        return by_operation(self.placed)


def at(operation: str, region: str) -> str:
    """The key of requests of an operation that are sent to a region."""
    return f"{operation} {region}"


def by_operation(placed: Mapping[str, int]) -> Counter[str]:
    """Requests by operation, from requests by operation and region."""
    total: Counter[str] = Counter()
    for operation, _, count in by_place(placed):
        total[operation] += count
    return total


def by_place(placed: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """Operation, region and number of requests; the region is empty in what earlier versions counted."""
    for key, count in placed.items():
        operation, _, region = key.partition(" ")
        yield operation, region, count
