"""One retry budget per request: full jitter, a cap on each delay, a deadline, and no retry layer below it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RetryPolicy:
    """How long one request may be repeated.

    The defaults give a request about two minutes: a new snapshot may be unknown to the direct APIs for that long
    (the EBS team's advice to coldsnap: wait and retry, capped at two minutes).
    """

    budget_seconds: float = 130.0
    first_delay_seconds: float = 0.1
    max_delay_seconds: float = 8.0
    max_attempts: int = 40

    def delay_ceiling(self, attempt: int) -> float:
        """Upper bound of the delay after the ``attempt``-th failure (1, 2, ...), in seconds."""
        # The exponent is bounded so that a long budget never overflows a float.
        return min(self.max_delay_seconds, self.first_delay_seconds * 2.0 ** min(attempt - 1, 30))


@dataclass
class Clock:
    """Time as the package uses it, so that tests pass their own.

    ``monotonic`` in seconds for deadlines, ``sleep`` in seconds, ``uniform(a, b)`` for jitter.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    # Jitter needs no secrecy, only spread.
    uniform: Callable[[float, float], float] = field(default=random.uniform)


class Deadline:
    """The moment by which work must have stopped; ``None`` seconds means never."""

    def __init__(self, seconds: float | None, *, clock: Clock) -> None:
        self._clock = clock
        self._at = None if seconds is None else clock.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; negative when it has passed, infinity when there is none."""
        return float("inf") if self._at is None else self._at - self._clock.monotonic()

    def passed(self) -> bool:
        return self.remaining() <= 0


class Attempts:
    """The attempts of one request: ask ``pause()`` after each failure, go on while it says true."""

    def __init__(self, policy: RetryPolicy, *, clock: Clock, deadline: Deadline) -> None:
        self._policy = policy
        self._clock = clock
        self._deadline = deadline
        self._ends = clock.monotonic() + policy.budget_seconds
        self.failed = 0
        self.out_of_time = False

    def pause(self) -> bool:
        """Count a failure and sleep; false when budget or deadline leave no room for another attempt.

        ``out_of_time`` then tells whether it was the deadline: the work is unfinished, not failed.
        """
        self.failed += 1
        delay = self._clock.uniform(0.0, self._policy.delay_ceiling(self.failed))
        if delay >= self._deadline.remaining():
            self.out_of_time = True
            return False
        if self.failed >= self._policy.max_attempts or self._clock.monotonic() + delay >= self._ends:
            return False
        self._clock.sleep(delay)
        return True
