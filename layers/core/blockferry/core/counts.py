"""How many requests were sent, and why some were sent again."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class RequestCounts:
    """How often each operation was sent and why it was repeated; shared by the threads of a worker.

    ``retries`` is keyed by operation and error code: ``"PutSnapshotBlock RequestThrottledException"``.
    """

    requests: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, operation: str) -> None:
        with self._lock:
            self.requests[operation] += 1

    def retried(self, operation: str, code: str) -> None:
        with self._lock:
            self.retries[f"{operation} {code}"] += 1
