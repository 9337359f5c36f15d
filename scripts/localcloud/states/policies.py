"""Retry and Catch: which errors they match, and how long a retry waits.

Source: developer guide, "Handling errors in Step Functions workflows".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_TERMINAL: Final = frozenset({"States.DataLimitExceeded", "States.Runtime"})
"""Errors that no wildcard matches."""
_UNCATCHABLE: Final = "States.Runtime"


def matches(error_equals: Sequence[str], error: str) -> bool:
    """Whether an ``ErrorEquals`` list names ``error``."""
    if error == _UNCATCHABLE:
        return False
    for name in error_equals:
        if name == error:
            return True
        if name == "States.ALL" and error not in _TERMINAL:
            return True
        if name == "States.TaskFailed" and error not in _TERMINAL and error != "States.Timeout":
            return True
        # "Reported when a Task state runs longer than TimeoutSeconds or failed to send a heartbeat".
        if name == "States.Timeout" and error == "States.HeartbeatTimeout":
            return True
    return False


def catcher_for(catchers: Sequence[Mapping[str, Any]], error: str) -> int | None:
    """Index of the first catcher that matches."""
    for index, catcher in enumerate(catchers):
        if matches(catcher["ErrorEquals"], error):
            return index
    return None


class RetryPolicy:
    """The retriers of one visit to a state. ``uniform(a, b)`` gives a random number for FULL jitter."""

    def __init__(self, retriers: Sequence[Mapping[str, Any]], *, uniform: Callable[[float, float], float]) -> None:
        self._retriers = retriers
        self._uniform = uniform
        self._used = [0] * len(retriers)

    def delay_after(self, error: str) -> float | None:
        """Seconds to wait before the next attempt; ``None`` if the error is not retried (any more).

        The first retrier that matches decides, with its own count of attempts.
        """
        for index, retrier in enumerate(self._retriers):
            if not matches(retrier["ErrorEquals"], error):
                continue
            if self._used[index] >= retrier.get("MaxAttempts", 3):
                return None
            delay = _interval(retrier, self._used[index])
            self._used[index] += 1
            return self._uniform(0.0, delay) if retrier.get("JitterStrategy", "NONE") == "FULL" else delay
        return None


def _interval(retrier: Mapping[str, Any], attempt: int) -> float:
    interval = float(retrier.get("IntervalSeconds", 1))
    most = float(retrier.get("MaxDelaySeconds", 31_622_400))
    try:
        return float(min(interval * float(retrier.get("BackoffRate", 2.0)) ** attempt, most))
    except OverflowError:
        return most
