"""A fault at every external call of a copy, one at a time; retried and redriven, the end is always the same.

Every test takes one step of the state machine and one class of faults, and runs a whole job for every call of the
step that the class fits. The table of calls is checked against a job without faults, so a call that is added to the
code has to be added here, and is then spoiled in every way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pytest
from crash_points import Execution, Proving, proving_ground
from wire import AtServer, Call, ConnectionLost, Death, Died, Refusal, Spoil, Spoiler

CALLS: Mapping[str, Mapping[str, int]] = {
    "Plan transfer": {
        "ec2.DescribeRegions": 1,
        "ec2.DescribeSnapshots": 1,
        "ebs.ListSnapshotBlocks": 1,
        "s3.GetObject": 1,
        "s3.PutObject": 3,
        "ebs.StartSnapshot": 2,
    },
    "Move blocks": {
        "s3.GetObject": 3,
        "s3.ListObjectsV2": 3,
        "ebs.ListSnapshotBlocks": 4,
        "ebs.GetSnapshotBlock": 5,
        "ebs.PutSnapshotBlock": 10,
        "s3.PutObject": 3,
    },
    "Complete transfer": {
        "s3.GetObject": 4,
        "s3.ListObjectsV2": 1,
        "ebs.ListSnapshotBlocks": 4,
        "s3.PutObject": 2,
        "ec2.DescribeSnapshots": 2,
        "ebs.CompleteSnapshot": 2,
    },
    "Check targets": {"s3.GetObject": 2, "ec2.DescribeSnapshots": 4},
    "Write receipt": {"s3.GetObject": 2, "ec2.CreateTags": 2, "ec2.DescribeSnapshots": 2, "s3.PutObject": 2},
}
"""The external calls of every step, in a job without faults."""

ANY_EBS = (
    "ListSnapshotBlocks",
    "GetSnapshotBlock",
    "StartSnapshot",
    "PutSnapshotBlock",
    "CompleteSnapshot",
)


def error(status: int, code: str, **more: str) -> AtServer:
    return AtServer({"action": "error", "status": status, "code": code, **more})


@dataclass(frozen=True)
class FaultClass:
    """One way to spoil a request. ``operations``: those of EBS that it fits; ``boto``: it fits S3 and EC2 calls."""

    spoil: Spoil
    operations: tuple[str, ...] = ()
    boto: tuple[str, ...] = ()
    paged_only: bool = False

    def fits(self, call: Call) -> bool:
        if call.service != "ebs":
            return call.service in self.boto
        listing = call.operation == "ListSnapshotBlocks"
        return call.operation in self.operations and (call.paged or not (listing and self.paged_only))


EBS_FAULTS = {
    "throttled account": FaultClass(error(400, "ThrottlingException"), ANY_EBS),
    "throttled snapshot": FaultClass(
        error(400, "RequestThrottledException", reason="RESOURCE_LEVEL_THROTTLE"),
        ("GetSnapshotBlock", "PutSnapshotBlock"),
    ),
    "server error": FaultClass(error(500, "InternalServerException"), ANY_EBS),
    "unavailable": FaultClass(error(503, "ServiceUnavailable"), ANY_EBS),
    "connection closed before": FaultClass(AtServer({"action": "close_before"}), ANY_EBS),
    "connection closed after success": FaultClass(AtServer({"action": "close_after"}), ANY_EBS),
    "half an answer": FaultClass(AtServer({"action": "short_body"}), ANY_EBS),
    "bit flipped on the way to EBS": FaultClass(AtServer({"action": "flip_request"}), ("PutSnapshotBlock",)),
    "bit flipped on the way back": FaultClass(AtServer({"action": "flip_response"}), ("GetSnapshotBlock",)),
    "expired token": FaultClass(
        AtServer({"action": "expired_token"}), ("GetSnapshotBlock", "ListSnapshotBlocks"), paged_only=True
    ),
    "access denied": FaultClass(error(403, "AccessDeniedException", reason="UNAUTHORIZED_ACCOUNT"), ANY_EBS),
    "snapshot not known yet": FaultClass(
        error(404, "ResourceNotFoundException", reason="SNAPSHOT_NOT_FOUND"), ("PutSnapshotBlock", "CompleteSnapshot")
    ),
    "block data not read": FaultClass(
        error(400, "ValidationException", message="Failed to read block data"), ("PutSnapshotBlock",)
    ),
    "too many at once": FaultClass(error(400, "ConcurrentLimitExceededException"), ("StartSnapshot",)),
    "pending quota reached": FaultClass(error(402, "ServiceQuotaExceededException"), ("StartSnapshot",)),
}

BOTO_FAULTS = {
    "S3 server error": FaultClass(Refusal(500, "InternalError"), boto=("s3",)),
    "S3 slow down": FaultClass(Refusal(503, "SlowDown"), boto=("s3",)),
    "S3 server error after success": FaultClass(Refusal(500, "InternalError", took_effect=True), boto=("s3",)),
    "S3 access denied": FaultClass(Refusal(403, "AccessDenied"), boto=("s3",)),
    "EC2 throttled": FaultClass(Refusal(503, "RequestLimitExceeded"), boto=("ec2",)),
    "EC2 server error": FaultClass(Refusal(500, "InternalError"), boto=("ec2",)),
    "EC2 server error after success": FaultClass(Refusal(500, "InternalError", took_effect=True), boto=("ec2",)),
    "EC2 access denied": FaultClass(Refusal(403, "UnauthorizedOperation"), boto=("ec2",)),
    "connection lost before": FaultClass(ConnectionLost(False), boto=("s3", "ec2")),
    "connection lost after success": FaultClass(ConnectionLost(True), boto=("s3", "ec2")),
}

DEATHS = {
    "process dies before": FaultClass(Death(False), ANY_EBS, ("s3", "ec2")),
    "process dies after success": FaultClass(Death(True), ANY_EBS, ("s3", "ec2")),
}

FAULTS = EBS_FAULTS | BOTO_FAULTS | DEATHS

CASES = [
    (step, name)
    for step, calls in CALLS.items()
    for name, fault in FAULTS.items()
    if any(fault.fits(Call(0, *key.split(".", 1), "", paged=step != "Plan transfer")) for key in calls)
]


@dataclass
class Ground:
    """The shared server and the calls of a job without faults."""

    proving: Proving
    calls: list[tuple[str, Call]]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with proving_ground() as proving:
        clean = proving.execution()
        proving.proved(clean, clean.run(), "no fault")
        yield Ground(proving, clean.trace)
        points = proving.points
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(points.items()))
        print(f"\ncrash points: {sum(points.values())} tried: {outcomes}")


def once(number: int, spoil: Spoil) -> Spoiler:
    return lambda call: spoil if call.number == number else None


def from_then_on(point: Call, spoil: Spoil) -> Spoiler:
    """Every call of the same operation, beginning with this one."""

    def spoiler(call: Call) -> Spoil | None:
        same = (call.service, call.operation) == (point.service, point.operation)
        return spoil if same and call.number >= point.number else None

    return spoiler


def outcome_of(execution: Execution) -> str:
    if execution.redrives:
        return "healed by redrive"
    if any(step == "Move missing blocks" for step, _ in execution.trace):
        return "healed by moving what one target missed"
    return "healed by the step's retry" if execution.retries else "masked by the request's retry"


def test_the_table_of_calls_is_complete(ground: Ground) -> None:
    seen: dict[str, Counter[str]] = {}
    for step, call in ground.calls:
        seen.setdefault(step, Counter())[f"{call.service}.{call.operation}"] += 1
    assert seen == CALLS


@pytest.mark.parametrize(("step", "name"), CASES, ids=[f"{step}-{name}" for step, name in CASES])
def test_one_fault_at_any_call_changes_nothing_in_the_end(ground: Ground, step: str, name: str) -> None:
    proving, fault = ground.proving, FAULTS[name]
    points = [call for of_step, call in ground.calls if of_step == step and fault.fits(call)]
    assert points
    for point in points:
        where = f"{name} at {point} ({step})"
        execution = proving.execution()
        proving.wire.clear(once(point.number, fault.spoil))
        receipt, failure = proving.redriven(execution)
        hit = proving.wire.calls[point.number - 1]
        assert (hit.service, hit.operation) == (point.service, point.operation), where
        if receipt is None:
            # Only a refused request ends here, and only for a reason that says that it is refused.
            assert failure is not None
            assert failure.refused, f"{where}: {failure}"
            assert "denied" in name or "quota" in name, f"{where}: {failure}"
            proving.abandoned(execution, where)
            proving.points["refused with nothing left"] += 1
            continue
        proving.proved(execution, receipt, where)
        proving.points[outcome_of(execution)] += 1


PERMANENT = {
    "throttled for ever": ("ebs", error(400, "ThrottlingException")),
    "denied for ever": ("ebs", error(403, "AccessDeniedException", reason="UNAUTHORIZED_ACCOUNT")),
    "no connection for ever": ("ebs", ConnectionLost(False)),
    "S3 denied for ever": ("s3", Refusal(403, "AccessDenied")),
    "S3 down for ever": ("s3", Refusal(500, "InternalError")),
    "EC2 denied for ever": ("ec2", Refusal(403, "UnauthorizedOperation")),
}

CLEAR = {"InvalidRequest", "RequestRefused", "RetryLater", "TargetFailed", "IncompleteTransfer"}
"""The errors by which a job may end; anything else is a bug to its operator."""


@pytest.mark.parametrize("name", PERMANENT)
def test_a_fault_that_never_passes_fails_the_job_by_name_and_the_sweep_leaves_nothing(
    ground: Ground, name: str
) -> None:
    proving, (service, spoil) = ground.proving, PERMANENT[name]
    first: dict[tuple[str, str], Call] = {}
    for step, call in ground.calls:
        if call.service == service:
            first.setdefault((step, call.operation), call)
    for (step, operation), point in first.items():
        where = f"{name} from {point} on ({step})"
        execution = proving.execution()
        proving.wire.clear(from_then_on(point, spoil))
        receipt, failure = proving.redriven(execution, times=1)
        assert receipt is None, where
        assert failure is not None, where
        assert failure.error in CLEAR, f"{where}: {failure}"
        assert failure.cause, where
        proving.wire.clear()
        states = proving.started(execution.job_id)
        if step in ("Check targets", "Write receipt") or operation == "CompleteSnapshot":
            # The targets are proved and sealed, or EBS was never asked to seal them; the sweep takes the pending ones.
            assert set(states.values()) <= {"completed", "pending"}, where
        else:
            assert "completed" not in states.values(), where
        if execution.workspace.job(execution.job_id) is not None:
            proving.sweep(execution)
        left = proving.started(execution.job_id)
        assert set(left.values()) <= {"completed"}, where
        assert proving.strangers() == set(), where
        proving.points["failed by name, swept"] += 1


SWEEP_FAULTS: Mapping[str, Spoil] = {
    "process dies before": Death(False),
    "process dies after success": Death(True),
    "connection lost after success": ConnectionLost(True),
    "denied": Refusal(403, "AccessDenied"),
    "server error": Refusal(500, "InternalError"),
}


@pytest.mark.parametrize("name", SWEEP_FAULTS)
def test_a_sweep_that_fails_at_any_call_is_finished_by_the_next_one(ground: Ground, name: str) -> None:
    proving, number = ground.proving, 0
    while True:
        number += 1
        execution = proving.execution()
        # Dead from the first block on: both targets are pending.
        proving.wire.clear(lambda call: Death(False) if call.operation == "GetSnapshotBlock" else None)
        _, failure = proving.redriven(execution, times=0)
        assert failure is not None
        assert sorted(proving.started(execution.job_id).values()) == ["pending", "pending"]
        proving.wire.clear(once(number, SWEEP_FAULTS[name]))
        with suppress(Died, Exception):
            proving.sweep(execution)
        if len(proving.wire.calls) < number:
            break
        where = f"{name} at {proving.wire.calls[number - 1]} (sweep)"
        proving.wire.revive()
        proving.abandoned(execution, where)
        proving.points["swept by the next run"] += 1
    assert number > 6
