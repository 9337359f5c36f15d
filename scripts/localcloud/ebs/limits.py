"""Token buckets for the request quotas."""

from __future__ import annotations

import threading

from localcloud.ebs.clock import Clock


class RateLimits:
    """One bucket per key, holding at most one second's worth of requests (at least one)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: tuple[str, ...], per_second: float) -> bool:
        """Whether one more request fits now; counts it if so."""
        now = self._clock.now()
        most = max(per_second, 1.0)
        with self._lock:
            left, since = self._buckets.get(key, (most, now))
            left = min(most, left + max(now - since, 0.0) * per_second)
            if left < 1.0:
                self._buckets[key] = (left, now)
                return False
            self._buckets[key] = (left - 1.0, now)
            return True

    def forget(self, part: str) -> None:
        """Drop the buckets whose key has ``part`` in it (a deleted snapshot's)."""
        with self._lock:
            for key in [key for key in self._buckets if part in key]:
                del self._buckets[key]

    def reset(self) -> None:
        with self._lock:
            self._buckets.clear()
