"""Delivery, retries, dead letters and faults with a clock that stands still.

Expectations: EventBridge user guide, "How EventBridge retries delivering events", "Using dead-letter queues to
process undelivered events"; EventBridge Scheduler user guide, "Configuring a schedule's dead-letter queue".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from localcloud.ebs.clock import ManualClock, Timers
from localcloud.events.delivery import Deliverer, Delivery
from localcloud.events.faults import Fault, Faults
from localcloud.events.targets import Origin, TargetFailed

QUEUE = "arn:aws:sqs:us-east-1:111122223333:work"
DEAD = "arn:aws:sqs:us-east-1:111122223333:dead"
RULE = Origin(
    kind="rule", arn="arn:aws:events:us-east-1:111122223333:rule/r", account="111122223333", region="us-east-1"
)
SCHEDULE = Origin(
    kind="schedule",
    arn="arn:aws:scheduler:us-east-1:111122223333:schedule/default/s",
    account="111122223333",
    region="us-east-1",
)
BUSY = TargetFailed("ServiceUnavailable", "busy", retriable=True)
DENIED = TargetFailed("AccessDeniedException", "no", retriable=False)


class Here(Executor):
    """Runs at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Recorded:
    """Targets that fail with ``failures`` first; ``None`` among them is a success."""

    def __init__(self, *failures: TargetFailed | None, always: TargetFailed | None = None) -> None:
        self.failures = list(failures)
        self.always = always
        self.received: list[str] = []
        self.calls = 0
        self.dead: list[tuple[str, str, dict[str, str]]] = []

    def call(self, target: Mapping[str, Any], payload: str, origin: Origin) -> None:
        self.calls += 1
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            raise failure
        self.received.append(payload)

    def dead_letter(self, arn: str, body: str, attributes: Mapping[str, str], origin: Origin) -> None:
        self.dead.append((arn, body, dict(attributes)))


class Post:
    def __init__(self, targets: Recorded, *faults: Mapping[str, Any]) -> None:
        self.targets = targets
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.faults = Faults()
        for fault in faults:
            self.faults.add(Fault.parse(fault))
        self.deliverer = Deliverer(
            targets=targets, clock=self.clock, timers=self.timers, pool=Here(), faults=self.faults, seed=1
        )

    def send(self, payload: str = "x", origin: Origin = RULE, **target: Any) -> None:
        self.deliverer.deliver(
            Delivery(
                delivery_id="id",
                target={"Arn": QUEUE, **target},
                payload_for=lambda attempt: f"{payload}{attempt}",
                origin=origin,
                due=self.clock.now(),
            )
        )

    def advance(self, seconds: float, step: float = 60.0) -> None:
        for _ in range(int(seconds // step)):
            self.clock.advance(step)
            self.timers.run_due()

    def outcomes(self) -> list[str]:
        return [entry["outcome"] for entry in self.deliverer.recent()]


def test_a_failed_call_is_tried_again_later_and_not_at_once() -> None:
    post = Post(Recorded(BUSY, BUSY))

    post.send()
    assert post.targets.received == []
    post.advance(600)

    assert post.targets.received == ["x3"]
    assert post.outcomes() == ["retried", "retried", "delivered"]


def test_after_a_day_or_185_retries_an_event_is_given_up() -> None:
    post = Post(Recorded(always=BUSY))

    post.send(DeadLetterConfig={"Arn": DEAD})
    post.advance(25 * 3600)

    [(queue, body, attributes)] = post.targets.dead
    assert (queue, body[0]) == (DEAD, "x")
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumEventAgeInSeconds"
    assert post.targets.calls <= 186
    assert int(attributes["RETRY_ATTEMPTS"]) == post.targets.calls - 1


def test_a_retry_policy_bounds_attempts() -> None:
    post = Post(Recorded(always=BUSY))

    post.send(DeadLetterConfig={"Arn": DEAD}, RetryPolicy={"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 3600})
    post.advance(3600)

    assert post.targets.calls == 3
    assert post.targets.dead[0][2]["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"


def test_a_missing_permission_goes_to_the_dead_letter_queue_at_once() -> None:
    post = Post(Recorded(always=DENIED))

    post.send(DeadLetterConfig={"Arn": DEAD})

    [(_, body, attributes)] = post.targets.dead
    assert body == "x1"
    assert attributes == {
        "RULE_ARN": RULE.arn,
        "TARGET_ARN": QUEUE,
        "ERROR_CODE": "AccessDeniedException",
        "ERROR_MESSAGE": "no",
        "RETRY_ATTEMPTS": "0",
    }


def test_a_schedules_dead_letter_names_the_schedule_and_the_execution() -> None:
    post = Post(Recorded(always=DENIED))

    post.send(origin=SCHEDULE, DeadLetterConfig={"Arn": DEAD})

    attributes = post.targets.dead[0][2]
    assert (attributes["SCHEDULE_ARN"], attributes["EXECUTION_ID"]) == (SCHEDULE.arn, "id")
    assert "RULE_ARN" not in attributes


def test_without_a_queue_an_undeliverable_event_is_lost_and_noted() -> None:
    post = Post(Recorded(always=DENIED))

    post.send()

    assert post.outcomes() == ["lost"]


def test_duplicates_drops_and_delays_on_demand() -> None:
    post = Post(
        Recorded(),
        {"kind": "duplicate", "times": 1, "copies": 2},
        {"kind": "drop", "target": "*:other"},
        {"kind": "delay", "seconds": 300, "times": 1, "origin": "*schedule*"},
    )

    post.send("twice more")
    post.send("dropped", Arn="arn:aws:sqs:us-east-1:111122223333:other")
    post.send("late", origin=SCHEDULE)

    assert post.targets.received == ["twice more1"] * 3
    post.advance(300)
    assert post.targets.received[3:] == ["late1"]
    assert post.outcomes() == ["delivered"] * 3 + ["dropped", "delayed", "delivered"]


def test_a_fault_fails_calls_as_a_busy_target_would() -> None:
    post = Post(Recorded(), {"kind": "fail", "times": 2, "error": "Throttling"})

    post.send()
    post.advance(600)

    assert post.targets.received == ["x3"]


def test_the_same_seed_strikes_the_same_deliveries() -> None:
    def outcomes(seed: int) -> list[str]:
        post = Post(Recorded(), {"kind": "drop", "probability": 0.5, "seed": seed})
        for _ in range(40):
            post.send()
        return post.outcomes()

    assert outcomes(3) == outcomes(3)
    assert outcomes(3) != outcomes(4)
    assert {"dropped", "delivered"} == set(outcomes(3))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"kind": "explode"},
        {"kind": "drop", "probability": 2},
        {"kind": "drop", "times": 0},
        {"kind": "drop", "target": 3},
        {"kind": "drop", "wen": 1},
        {"kind": "duplicate", "copies": 1.5},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kind|probability|times|target|wen|copies"):
        Fault.parse(raw)
