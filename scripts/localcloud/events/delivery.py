"""Delivery to targets: at least once, with retries by the clock, dead letters, and faults on demand.

Sources: EventBridge user guide, "How EventBridge retries delivering events" and "Using dead-letter queues to process
undelivered events"; EventBridge Scheduler user guide, "Configuring a schedule's dead-letter queue". The back-off's
numbers are not documented; ours double from one second to fifteen minutes, with full jitter.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

from localcloud.ebs.clock import Clock, Timers
from localcloud.ebs.events import iso
from localcloud.events.faults import Faults
from localcloud.events.targets import Origin, TargetFailed, Targets

DEFAULT_MAX_AGE_SECONDS = 86_400
DEFAULT_MAX_ATTEMPTS = 185
_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 1.0, 900.0
_KEPT = 1000
_log = logging.getLogger("localcloud.events")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One call that is owed to a target. ``payload_for(attempt)`` is what it receives, attempts counted from 1."""

    delivery_id: str
    target: Mapping[str, Any]
    payload_for: Callable[[int], str]
    origin: Origin
    due: float
    attempt: int = 1

    @property
    def arn(self) -> str:
        return str(self.target.get("Arn", ""))


class Deliverer:
    """Calls targets in threads of ``pool``; what has to wait waits in ``timers``."""

    def __init__(
        self, *, targets: Targets, clock: Clock, timers: Timers, pool: Executor, faults: Faults, seed: int
    ) -> None:
        self._targets = targets
        self._clock = clock
        self._timers = timers
        self._pool = pool
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - jitter, repeatable on purpose
        self._recent: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery on; returns at once."""
        where = {"target": delivery.arn, "origin": delivery.origin.arn}
        if self._faults.strike("drop", **where):
            self._note(delivery, "dropped")
            return
        again = self._faults.strike("duplicate", **where)
        for _ in range(1 + (again.copies if again else 0)):
            late = self._faults.strike("delay", **where)
            if late:
                self._note(delivery, "delayed")
                self._timers.at(self._clock.now() + late.seconds, lambda: self._submit(delivery))
            else:
                self._submit(delivery)

    def recent(self) -> list[dict[str, Any]]:
        """What became of the last thousand deliveries, in the order in which it happened."""
        with self._lock:
            return list(self._recent)

    def settle(self, seconds: float) -> bool:
        """Wait until no call is under way; whether that came about in time. Retries that wait do not count."""
        with self._lock:
            pending = set(self._pending)
        for future in pending:
            try:
                future.exception(timeout=seconds)
            except TimeoutError:
                return False
        return True

    def _submit(self, delivery: Delivery) -> None:
        future = self._pool.submit(self._attempt, delivery)
        with self._lock:
            self._pending.add(future)
        future.add_done_callback(self._forget)

    def _forget(self, future: Future[None]) -> None:
        with self._lock:
            self._pending.discard(future)

    def _attempt(self, delivery: Delivery) -> None:
        try:
            fault = self._faults.strike("fail", target=delivery.arn, origin=delivery.origin.arn)
            if fault:
                raise TargetFailed(fault.error, "failed as asked for", retriable=True)
            self._targets.call(delivery.target, delivery.payload_for(delivery.attempt), delivery.origin)
        except TargetFailed as error:
            self._failed(delivery, error)
        except Exception as error:  # a thread's exception would be lost without a trace
            _log.exception("delivery to %s", delivery.arn)
            self._failed(delivery, TargetFailed(type(error).__name__, str(error), retriable=False))
        else:
            self._note(delivery, "delivered")

    def _failed(self, delivery: Delivery, error: TargetFailed) -> None:
        policy = delivery.target.get("RetryPolicy") or {}
        max_age = _given(policy, "MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_SECONDS)
        max_retries = _given(policy, "MaximumRetryAttempts", DEFAULT_MAX_ATTEMPTS)
        now = self._clock.now()
        ceiling = min(_FIRST_BACKOFF_SECONDS * 2.0 ** (delivery.attempt - 1), _LAST_BACKOFF_SECONDS)
        again = now + self._random.uniform(ceiling / 2, ceiling)
        exhausted = None
        if delivery.attempt > max_retries:
            exhausted = "MaximumRetryAttempts"
        elif again > delivery.due + max_age:
            exhausted = "MaximumEventAgeInSeconds"
        if error.retriable and exhausted is None:
            self._note(delivery, "retried", error)
            self._timers.at(again, lambda: self._submit(replace(delivery, attempt=delivery.attempt + 1)))
            return
        _log.warning("%s could not call %s: %s", delivery.origin.arn, delivery.arn, error)
        self._bury(delivery, error, exhausted if error.retriable else None)

    def _bury(self, delivery: Delivery, error: TargetFailed, exhausted: str | None) -> None:
        queue = (delivery.target.get("DeadLetterConfig") or {}).get("Arn")
        if not queue:
            self._note(delivery, "lost", error)
            return
        attributes = {
            "ERROR_CODE": error.code,
            "ERROR_MESSAGE": error.message,
            "TARGET_ARN": delivery.arn,
            "RETRY_ATTEMPTS": str(delivery.attempt - 1),
        }
        if exhausted:
            attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted
        if delivery.origin.is_schedule:
            attributes |= {
                "SCHEDULE_ARN": delivery.origin.arn,
                "EXECUTION_ID": delivery.delivery_id,
                "EXECUTION_TIME": iso(delivery.due),
            }
        else:
            attributes["RULE_ARN"] = delivery.origin.arn
        try:
            self._targets.dead_letter(queue, delivery.payload_for(delivery.attempt), attributes, delivery.origin)
        except TargetFailed as refused:
            _log.warning("dead letter of %s: %s", delivery.origin.arn, refused)
            self._note(delivery, "lost", refused)
        else:
            self._note(delivery, "dead-lettered", error)

    def _note(self, delivery: Delivery, outcome: str, error: TargetFailed | None = None) -> None:
        entry = {
            "id": delivery.delivery_id,
            "origin": delivery.origin.arn,
            "target": delivery.arn,
            "due": iso(delivery.due),
            "attempt": delivery.attempt,
            "outcome": outcome,
        }
        if error is not None:
            entry["error"] = str(error)
        with self._lock:
            self._recent.append(entry)


def _given(policy: Mapping[str, Any], name: str, default: int) -> int:
    value = policy.get(name)
    return default if value is None else int(value)
