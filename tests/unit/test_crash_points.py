"""A fault at every external call of a job, one at a time; retried and redriven, the end is always the same.

Every test takes one step of a state machine and one class of faults, and runs a whole job for every call of the step
before which a process may die, for the last one of an attempt, behind which it may, too, and for the first and last
call of every operation that another fault fits. The tables of calls are checked against jobs without faults, so a call
that is added to the code has to be added here, and is then spoiled in every way: those of a copy in all ways that are
known, those of a sync and of a fanout, which share most of the code with it, in a few.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from blockferry.aws.snapshots import CHECKSUM_TAG
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.formats.archive.layout import MANIFEST, UNFINISHED
from blockferry.transfer.job import planned_job
from crash_points import ARCHIVES, IMAGE, TARGET_REGIONS, Execution, Proving, Scenario, proving_ground
from rig import hashes
from wire import AtServer, Call, ConnectionLost, Death, Died, Refusal, Spoil, Spoiler, untouched

Table = Mapping[str, Mapping[str, int]]

_END: Table = {
    "Check targets": {"s3.GetObject": 6, "ec2.DescribeSnapshots": 4},
    "Write receipt": {"s3.GetObject": 4, "ec2.DescribeSnapshots": 4, "s3.PutObject": 2},
}

_ARCHIVE_END: Table = {
    "Check targets": {"s3.GetObject": 3, "image.GetObject": 1},
    "Write receipt": {"s3.GetObject": 4, "image.GetObject": 1, "s3.PutObject": 2},
}

CALLS: Mapping[str, Table] = {
    "copy": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 3,
            "ec2.GetEbsEncryptionByDefault": 2,
            "ebs.ListSnapshotBlocks": 1,
            "s3.GetObject": 3,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 4,
            "ebs.StartSnapshot": 2,
        },
        "Move blocks": {
            "s3.GetObject": 12,
            "s3.ListObjectsV2": 6,
            "ebs.ListSnapshotBlocks": 8,
            "ebs.GetSnapshotBlock": 5,
            "ebs.PutSnapshotBlock": 10,
            "s3.PutObject": 6,
        },
        "Complete transfer": {
            "s3.GetObject": 9,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 6,
            "ec2.DescribeSnapshots": 2,
            "ebs.CompleteSnapshot": 2,
            "ec2.CreateTags": 2,
        },
        **_END,
    },
    "sync": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 6,
            "ebs.ListSnapshotBlocks": 1,
            "ebs.ListChangedBlocks": 1,
            "ec2.GetEbsEncryptionByDefault": 2,
            "s3.GetObject": 3,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 4,
            "ebs.StartSnapshot": 2,
        },
        "Move blocks": {
            "s3.GetObject": 8,
            "s3.ListObjectsV2": 4,
            "ebs.ListChangedBlocks": 6,
            "ebs.GetSnapshotBlock": 3,
            "ebs.PutSnapshotBlock": 8,
            "ebs.ListSnapshotBlocks": 3,
            "s3.PutObject": 4,
        },
        "Complete transfer": {
            "s3.GetObject": 8,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 6,
            "ec2.DescribeSnapshots": 2,
            "ebs.CompleteSnapshot": 2,
            "ec2.CreateTags": 2,
        },
        **_END,
    },
    "sync that compares its parent": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 4,
            "ebs.ListSnapshotBlocks": 2,
            "ebs.ListChangedBlocks": 1,
            "ec2.GetEbsEncryptionByDefault": 1,
            "s3.GetObject": 2,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 3,
            "ebs.StartSnapshot": 1,
        },
        "Move blocks": {
            "s3.GetObject": 5,
            "s3.ListObjectsV2": 2,
            "ebs.ListSnapshotBlocks": 6,
            "ebs.GetSnapshotBlock": 12,
            "ebs.ListChangedBlocks": 4,
            "ebs.PutSnapshotBlock": 4,
            "s3.PutObject": 2,
        },
        "Complete transfer": {
            "s3.GetObject": 6,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 4,
            "ec2.DescribeSnapshots": 1,
            "ebs.CompleteSnapshot": 1,
            "ec2.CreateTags": 1,
        },
        "Check targets": {"s3.GetObject": 6, "ec2.DescribeSnapshots": 2},
        "Write receipt": {"s3.GetObject": 4, "ec2.DescribeSnapshots": 2, "s3.PutObject": 2},
    },
    "fanout of a compressed image": {
        "Plan transfer": {
            "ec2.DescribeRegions": 2,
            "ec2.DescribeSnapshots": 4,
            "image.HeadObject": 2,
            "image.GetObject": 2,
            "ec2.GetEbsEncryptionByDefault": 4,
            "s3.GetObject": 9,
            "s3.ListObjectsV2": 2,
            "s3.PutObject": 5,
            "ebs.StartSnapshot": 2,
        },
        "Unpack image": {"s3.GetObject": 4, "image.GetObject": 1, "s3.PutObject": 4},
        "Move blocks": {"s3.GetObject": 8, "s3.ListObjectsV2": 2, "ebs.PutSnapshotBlock": 6, "s3.PutObject": 2},
        "Complete transfer": {
            "s3.GetObject": 7,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 6,
            "ec2.DescribeSnapshots": 2,
            "ebs.CompleteSnapshot": 2,
            "ec2.CreateTags": 2,
        },
        "Check targets": _END["Check targets"],
        "Write receipt": {
            **_END["Write receipt"],
            "s3.DeleteObject": 1,
            "s3.ListObjectsV2": 1,
            "s3.DeleteObjects": 1,
        },
    },
    "fanout of a raw image": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 2,
            "image.HeadObject": 1,
            "image.GetObject": 2,
            "ec2.GetEbsEncryptionByDefault": 2,
            "s3.GetObject": 3,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 4,
            "ebs.StartSnapshot": 2,
        },
        "Move blocks": {
            "s3.GetObject": 5,
            "s3.ListObjectsV2": 2,
            "image.GetObject": 1,
            "ebs.PutSnapshotBlock": 6,
            "s3.PutObject": 2,
        },
        "Complete transfer": {
            "s3.GetObject": 7,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 6,
            "ec2.DescribeSnapshots": 2,
            "ebs.CompleteSnapshot": 2,
            "ec2.CreateTags": 2,
        },
        "Check targets": _END["Check targets"],
        "Write receipt": _END["Write receipt"],
    },
    "archive": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 1,
            "ebs.ListSnapshotBlocks": 1,
            "image.HeadBucket": 1,
            "image.ListObjectsV2": 1,
            "image.GetObject": 1,
            "s3.GetObject": 2,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 3,
            "image.PutObject": 1,
        },
        "Move blocks": {
            "s3.GetObject": 15,
            "s3.ListObjectsV2": 9,
            "ebs.ListSnapshotBlocks": 8,
            "ebs.GetSnapshotBlock": 5,
            "image.PutObject": 6,
            "s3.PutObject": 12,
            "image.ListObjectsV2": 2,
        },
        "Complete transfer": {
            "s3.GetObject": 11,
            "s3.ListObjectsV2": 2,
            "s3.PutObject": 4,
            "image.ListObjectsV2": 2,
            "image.PutObject": 1,
            "image.DeleteObjects": 1,
        },
        **_ARCHIVE_END,
    },
    "archive on top of one": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 2,
            "ebs.ListSnapshotBlocks": 1,
            "image.GetObject": 2,
            "ebs.ListChangedBlocks": 1,
            "image.HeadBucket": 1,
            "image.ListObjectsV2": 1,
            "s3.GetObject": 2,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 3,
            "image.PutObject": 1,
        },
        "Move blocks": {
            "s3.GetObject": 10,
            "s3.ListObjectsV2": 6,
            "ebs.ListChangedBlocks": 6,
            "ebs.GetSnapshotBlock": 3,
            "image.PutObject": 5,
            "s3.PutObject": 8,
            "ebs.ListSnapshotBlocks": 3,
            "image.GetObject": 4,
            "image.ListObjectsV2": 2,
        },
        "Complete transfer": {
            "s3.GetObject": 9,
            "s3.ListObjectsV2": 2,
            "s3.PutObject": 4,
            "image.ListObjectsV2": 2,
            "image.PutObject": 1,
            "image.DeleteObjects": 1,
        },
        **_ARCHIVE_END,
    },
    "archive that compares its base": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "ec2.DescribeSnapshots": 2,
            "ebs.ListSnapshotBlocks": 1,
            "image.GetObject": 2,
            "image.HeadBucket": 1,
            "image.ListObjectsV2": 1,
            "s3.GetObject": 2,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 3,
            "image.PutObject": 1,
        },
        "Move blocks": {
            "s3.GetObject": 10,
            "s3.ListObjectsV2": 6,
            "image.GetObject": 8,
            "ebs.ListSnapshotBlocks": 6,
            "ebs.GetSnapshotBlock": 4,
            "image.PutObject": 5,
            "s3.PutObject": 8,
            "image.ListObjectsV2": 2,
        },
        "Complete transfer": {
            "s3.GetObject": 9,
            "s3.ListObjectsV2": 2,
            "s3.PutObject": 4,
            "image.ListObjectsV2": 2,
            "image.PutObject": 1,
            "image.DeleteObjects": 1,
        },
        **_ARCHIVE_END,
    },
    "restore": {
        "Plan transfer": {
            "ec2.DescribeRegions": 1,
            "image.GetObject": 2,
            "image.ListObjectsV2": 2,
            "ec2.GetEbsEncryptionByDefault": 2,
            "ec2.DescribeSnapshots": 2,
            "s3.GetObject": 3,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 4,
            "ebs.StartSnapshot": 2,
        },
        "Move blocks": {
            "s3.GetObject": 10,
            "s3.ListObjectsV2": 4,
            "image.GetObject": 19,
            "ebs.PutSnapshotBlock": 8,
            "s3.PutObject": 4,
        },
        "Complete transfer": {
            "s3.GetObject": 8,
            "s3.ListObjectsV2": 1,
            "s3.PutObject": 6,
            "ec2.DescribeSnapshots": 2,
            "ebs.CompleteSnapshot": 2,
            "ec2.CreateTags": 2,
        },
        **_END,
    },
    "verify": {
        "Plan verification": {
            "s3.GetObject": 1,
            "ec2.DescribeRegions": 1,
            "image.GetObject": 2,
            "image.ListObjectsV2": 2,
            "ec2.DescribeSnapshots": 1,
            "ebs.ListSnapshotBlocks": 1,
            "s3.PutObject": 2,
        },
        "Verify blocks": {
            "s3.GetObject": 4,
            "image.GetObject": 23,
            "image.ListObjectsV2": 4,
            "s3.PutObject": 4,
            "ebs.ListSnapshotBlocks": 3,
            "ebs.GetSnapshotBlock": 4,
        },
        "Conclude verification": {
            "s3.GetObject": 5,
            "s3.ListObjectsV2": 1,
            "image.GetObjectTagging": 1,
            "image.PutObjectTagging": 1,
            "s3.PutObject": 2,
        },
    },
}
"""The external calls of every step, in jobs without faults. ``image`` is S3 where images and archives are."""

SCENARIOS: Mapping[str, Callable[[Proving], Scenario]] = {
    "copy": Proving.copy,
    "sync": Proving.sync,
    "sync that compares its parent": Proving.sync_on_unknown_parent,
    "sync that compares two parents": Proving.sync_on_two_unknown_parents,
    "fanout of a compressed image": lambda proving: proving.fanout("zstd"),
    "fanout of a raw image": lambda proving: proving.fanout("raw"),
    "archive": Proving.archive,
    "archive on top of one": Proving.archive_increment,
    "archive that compares its base": Proving.archive_compared,
    "restore": Proving.restore,
    "verify": Proving.verify,
}

READING = ("Describe", "Get", "Head", "List")
"""Operations that change nothing: an answer that is lost is the same as one that never came."""

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
    """One way to spoil a request. ``operations``: those of EBS that it fits; ``boto``: it fits S3 and EC2 calls.

    ``effect``: it differs from another one by what the request has done; a request that only looks does nothing.
    """

    spoil: Spoil
    operations: tuple[str, ...] = ()
    boto: tuple[str, ...] = ()
    paged_only: bool = False
    effect: bool = False

    def fits(self, call: Call) -> bool:
        if self.effect and call.operation.startswith(READING):
            return False
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
    "connection closed after success": FaultClass(AtServer({"action": "close_after"}), ANY_EBS, effect=True),
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
    "body came too slowly": FaultClass(
        error(400, "ValidationException", reason="WRITE_REQUEST_TIMEOUT"), ("StartSnapshot", "PutSnapshotBlock")
    ),
    "clock said to be wrong": FaultClass(
        error(403, "InvalidSignatureException", message="Signature expired: 20260101T000000Z is now earlier than ..."),
        ANY_EBS,
    ),
    "tags not seen by policies yet": FaultClass(
        error(403, "AccessDeniedException", message="no identity-based policy allows the ebs:PutSnapshotBlock action"),
        ("PutSnapshotBlock", "CompleteSnapshot"),
    ),
    "too many at once": FaultClass(error(400, "ConcurrentLimitExceededException"), ("StartSnapshot",)),
    "pending quota reached": FaultClass(error(402, "ServiceQuotaExceededException"), ("StartSnapshot",)),
}

BOTO_FAULTS = {
    "S3 server error": FaultClass(Refusal(500, "InternalError"), boto=("s3",)),
    "S3 slow down": FaultClass(Refusal(503, "SlowDown"), boto=("s3",)),
    "S3 server error after success": FaultClass(
        Refusal(500, "InternalError", took_effect=True), boto=("s3",), effect=True
    ),
    "S3 access denied": FaultClass(Refusal(403, "AccessDenied"), boto=("s3",)),
    "EC2 throttled": FaultClass(Refusal(503, "RequestLimitExceeded"), boto=("ec2",)),
    "EC2 server error": FaultClass(Refusal(500, "InternalError"), boto=("ec2",)),
    "EC2 server error after success": FaultClass(
        Refusal(500, "InternalError", took_effect=True), boto=("ec2",), effect=True
    ),
    "EC2 access denied": FaultClass(Refusal(403, "UnauthorizedOperation"), boto=("ec2",)),
    "connection lost before": FaultClass(ConnectionLost(False), boto=("s3", "ec2")),
    "connection lost after success": FaultClass(ConnectionLost(True), boto=("s3", "ec2"), effect=True),
}

DEATHS = {
    "process dies before": FaultClass(Death(False), ANY_EBS, ("s3", "ec2")),
    "process dies after success": FaultClass(Death(True), ANY_EBS, ("s3", "ec2")),
}

FAULTS = EBS_FAULTS | BOTO_FAULTS | DEATHS

CASES = [
    (step, name)
    for step, calls in CALLS["copy"].items()
    for name, fault in FAULTS.items()
    if any(fault.fits(Call(0, *key.split(".", 1), "", paged=step != "Plan transfer")) for key in calls)
]

SERVER_ERRORS: Mapping[str, Spoil] = {
    "ebs": error(500, "InternalServerException"),
    "s3": Refusal(500, "InternalError"),
    "ec2": Refusal(500, "InternalError"),
    "image": Refusal(500, "InternalError"),
}

FEW_FAULTS = ("process dies before", "process dies after success", "server error", "connection lost after success")

FEW_CASES = [
    (scenario, step, name)
    for scenario, only in {
        "sync": tuple(CALLS["sync"]),
        "sync that compares its parent": ("Move blocks",),
        "fanout of a compressed image": tuple(CALLS["fanout of a compressed image"]),
        "fanout of a raw image": ("Move blocks",),
        "archive": tuple(CALLS["archive"]),
        "archive on top of one": ("Plan transfer", "Move blocks", "Complete transfer"),
        "archive that compares its base": ("Move blocks",),
        "restore": ("Plan transfer", "Move blocks"),
        "verify": tuple(CALLS["verify"]),
    }.items()
    for step in only
    for name in FEW_FAULTS
    if not (name == "connection lost after success" and step == "Check targets")
]


@dataclass(frozen=True)
class Clean:
    """A job, the calls that it makes without faults, and after which of them an attempt of a step had none left."""

    scenario: Scenario
    calls: list[tuple[str, Call]]
    ends: set[int]

    def at(self, step: str, name: str) -> list[tuple[Call, Spoil]]:
        """Where and how a step is spoiled in one of a few ways.

        A process that dies before a call has left the same as one that died before the reading call that it made just
        before, and one that dies after success the same as one that dies before its next call: of such deaths, one is
        tried. Errors and lost answers: at the first call of each operation.
        """
        own = [call for of_step, call in self.calls if of_step == step]
        by_number = {call.number: call for call in own}
        first = {(call.service, call.operation): call for call in reversed(own)}.values()
        match name:
            case "process dies before":
                return [(call, Death(False)) for call in own if self._left_more(by_number.get(call.number - 1))]
            case "process dies after success":
                return [(call, Death(True)) for call in own if call.number in self.ends]
            case "server error":
                return [(call, SERVER_ERRORS[call.service]) for call in first]
            case "connection lost after success":
                return [(call, ConnectionLost(True)) for call in first if not call.operation.startswith(READING)]
        raise AssertionError(name)

    def _left_more(self, before: Call | None) -> bool:
        """Whether something is there that was not there before this call, or its process has ended."""
        return before is None or before.number in self.ends or not before.operation.startswith(READING)


class Ground:
    """The shared server, and one job without faults of each scenario, run when it is first asked for."""

    def __init__(self, proving: Proving) -> None:
        self.proving = proving
        self._clean: dict[str, Clean] = {}

    def clean(self, scenario: str) -> Clean:
        if scenario not in self._clean:
            job = self.proving.execution(SCENARIOS[scenario](self.proving))
            self.proving.proved(job, job.run(), "no fault")
            self._clean[scenario] = Clean(job.scenario, job.trace, job.ends)
        return self._clean[scenario]

    def prove(self, scenario: Scenario, point: Call, spoil: Spoil, where: str, *, may_refuse: bool = False) -> None:
        """A job with one fault ends as one without."""
        proving = self.proving
        execution = proving.execution(scenario)
        proving.wire.clear(once(point.number, spoil))
        receipt, failure = proving.redriven(execution)
        hit = proving.wire.calls[point.number - 1]
        assert (hit.service, hit.operation) == (point.service, point.operation), where
        if receipt is None:
            # Only a refused request ends here, and only for a reason that says that it is refused.
            assert failure is not None
            assert failure.refused, f"{where}: {failure}"
            assert may_refuse, f"{where}: {failure}"
            proving.abandoned(execution, where)
            proving.tried(execution, "refused with nothing left")
            return
        proving.proved(execution, receipt, where)
        proving.tried(execution, outcome_of(execution))


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with proving_ground() as proving:
        yield Ground(proving)
        print(proving.outcomes())


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
    if execution.moved_missing:
        return "healed by moving what one target missed"
    return "healed by the step's retry" if execution.failed else "masked by the request's retry"


@pytest.mark.parametrize("scenario", CALLS)
def test_the_table_of_calls_is_complete(ground: Ground, scenario: str) -> None:
    seen: dict[str, Counter[str]] = {}
    for step, call in ground.clean(scenario).calls:
        seen.setdefault(step, Counter())[f"{call.service}.{call.operation}"] += 1
    assert seen == CALLS[scenario]


def edges(points: list[Call]) -> list[Call]:
    """The first and the last call of each operation."""
    first = {(call.service, call.operation): call for call in reversed(points)}
    last = {(call.service, call.operation): call for call in points}
    return sorted({call.number: call for call in (*first.values(), *last.values())}.values(), key=lambda c: c.number)


@pytest.mark.parametrize(("step", "name"), CASES, ids=[f"{step}-{name}" for step, name in CASES])
def test_one_fault_at_any_call_changes_nothing_in_the_end(ground: Ground, step: str, name: str) -> None:
    clean, fault = ground.clean("copy"), FAULTS[name]
    points = [call for of_step, call in clean.calls if of_step == step and fault.fits(call)]
    assert points
    # An answer that is refused or lost is dealt with by the one request loop of its service: the first and the last
    # call of each operation stand for all.
    chosen = [call for call, _ in clean.at(step, name)] if name in DEATHS else edges(points)
    assert chosen
    for point in chosen:
        where = f"{name} at {point} ({step})"
        ground.prove(clean.scenario, point, fault.spoil, where, may_refuse="denied" in name or "quota" in name)


@pytest.mark.parametrize(("scenario", "step", "name"), FEW_CASES, ids=["-".join(case) for case in FEW_CASES])
def test_one_fault_at_any_call_changes_nothing_in_the_end_of_other_operations(
    ground: Ground, scenario: str, step: str, name: str
) -> None:
    clean = ground.clean(scenario)
    points = clean.at(step, name)
    assert points
    for point, spoil in points:
        ground.prove(clean.scenario, point, spoil, f"{name} at {point} ({step} of {scenario})")


def test_an_image_that_takes_several_invocations_is_unpacked_across_a_crash_at_any_call(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    proving = ground.proving
    scenario = ground.clean("fanout of a compressed image").scenario
    monkeypatch.setattr(proving, "unpacking", replace(proving.unpacking, part_bytes=8192))

    def slowly(call: Call) -> None:
        # Four reads of the image, and the time of an invocation is over.
        if (call.service, call.operation) == ("image", "GetObject"):
            proving.clock.advance(3.0)

    monkeypatch.setattr(proving.wire, "on_sent", slowly)
    job = proving.execution(scenario, seconds_left=70.0)
    proving.proved(job, job.run(), "no fault")
    clean = Clean(scenario, job.trace, job.ends)
    assert len(clean.at("Unpack image", "process dies after success")) > 1
    for point, spoil in clean.at("Unpack image", "process dies before"):
        where = f"process dies at {point}"
        execution = proving.execution(scenario, seconds_left=70.0)
        proving.wire.clear(once(point.number, spoil))
        receipt, failure = proving.redriven(execution)
        assert receipt is not None, f"{where}: {failure}"
        proving.proved(execution, receipt, where)
        proving.tried(execution, outcome_of(execution))


def test_a_verification_that_takes_several_invocations_counts_everything_once_across_a_crash_at_any_call(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    proving = ground.proving
    scenario = ground.clean("verify").scenario
    scenario = replace(scenario, request={**scenario.request, "options": {"blocks_per_range": 2048}})

    def slowly(call: Call) -> None:
        # Manifests and indexes, then three segments or blocks, and the time of an invocation is over.
        if call.operation in ("GetObject", "GetSnapshotBlock") and call.service != "s3":
            proving.clock.advance(1.0)

    monkeypatch.setattr(proving.wire, "on_sent", slowly)
    job = proving.execution(scenario, seconds_left=68.5)
    proving.proved(job, job.run(), "no fault")
    clean = Clean(scenario, job.trace, job.ends)
    calls = [attempt.event["progress"] for attempt in job.job.attempts if attempt.step == "Verify blocks"]
    assert Counter(told["phase"] for told in calls if told) == {"stored": 1, "compared": 2}
    for name in ("process dies before", "process dies after success"):
        for point, spoil in clean.at("Verify blocks", name):
            where = f"{name} at {point}"
            execution = proving.execution(scenario, seconds_left=68.5)
            proving.wire.clear(once(point.number, spoil))
            receipt, failure = proving.redriven(execution)
            assert receipt is not None, f"{where}: {failure}"
            proving.proved(execution, receipt, where)
            proving.tried(execution, outcome_of(execution))


def test_a_job_that_a_worker_refuses_is_refused_with_nothing_left_whatever_dies(ground: Ground) -> None:
    proving = ground.proving
    scenario = proving.sync_on_unknown_parent(equal=False)

    def refused(spoiler: Spoiler, where: str) -> Execution:
        execution = proving.execution(scenario)
        proving.wire.clear(spoiler)
        receipt, failure = proving.redriven(execution)
        assert receipt is None, where
        assert failure is not None, where
        assert failure.refused, f"{where}: {failure}"
        assert failure.step == "Complete transfer", f"{where}: {failure}"
        assert "block 1023" in failure.cause, where
        assert "Nothing is left of the job" in failure.cause, where
        assert proving.started(execution.job_id) == {}, where
        return execution

    job = refused(untouched, "no fault")
    clean = Clean(scenario, job.trace, job.ends)
    assert {(step, call.operation) for step, call in clean.calls} >= {
        ("Move blocks", "PutObject"),
        ("Complete transfer", "DeleteSnapshot"),
    }
    for step in ("Move blocks", "Complete transfer"):
        for name in ("process dies before", "process dies after success"):
            for point, spoil in clean.at(step, name):
                where = f"{name} at {point}"
                execution = refused(once(point.number, spoil), where)
                proving.abandoned(execution, where)
                proving.tried(execution, "refused with nothing left")


PERMANENT = {
    "throttled for ever": ("ebs", error(400, "ThrottlingException")),
    "denied for ever": ("ebs", error(403, "AccessDeniedException", reason="UNAUTHORIZED_ACCOUNT")),
    "no connection for ever": ("ebs", ConnectionLost(False)),
    "S3 denied for ever": ("s3", Refusal(403, "AccessDenied")),
    "S3 down for ever": ("s3", Refusal(500, "InternalError")),
    "EC2 denied for ever": ("ec2", Refusal(403, "UnauthorizedOperation")),
}

CLEAR = {"InvalidRequest", "TransferFailed", "RequestRefused", "RetryLater", "TargetFailed", "IncompleteTransfer"}
"""The errors by which a job may end; anything else is a bug to its operator."""


@pytest.mark.parametrize("name", PERMANENT)
def test_a_fault_that_never_passes_fails_the_job_by_name_and_the_sweep_leaves_nothing(
    ground: Ground, name: str
) -> None:
    proving, (service, spoil) = ground.proving, PERMANENT[name]
    clean = ground.clean("copy")
    for (step, operation), point in first_calls(clean, lambda call: call.service == service).items():
        where = f"{name} from {point} on ({step})"
        execution = failed(ground, clean.scenario, point, spoil, where)
        states = proving.started(execution.job_id)
        if step in ("Check targets", "Write receipt") or operation in ("CompleteSnapshot", "CreateTags"):
            # The targets are proved and sealed, or EBS was never asked to seal them; the sweep takes the pending ones.
            assert set(states.values()) <= {"completed", "pending"}, where
        else:
            assert "completed" not in states.values(), where
        kept: list[str] = []
        if planned_job(execution.folder) is not None:
            kept = proving.sweep(execution)["kept_snapshots"]
        # What EBS was asked to seal is kept and named. It is sealed in the end, unless EBS never heard of it.
        left = {i for i, state in proving.started(execution.job_id).items() if state == "pending"}
        assert {told.split(" ", 1)[0] for told in kept} == left, where
        proving.seal()
        unsealed = (operation, name) == ("CompleteSnapshot", "no connection for ever")
        assert set(proving.started(execution.job_id).values()) <= {"completed", *(["pending"] if unsealed else [])}, (
            where
        )
        assert proving.strangers() == set(), where
        proving.tried(execution, "failed by name, swept")


NEW_PERMANENT = {
    "changes cannot be listed": ("sync", "ebs.ListChangedBlocks", error(403, "AccessDeniedException")),
    "changes throttled for ever": ("sync", "ebs.ListChangedBlocks", error(400, "ThrottlingException")),
    "no changes for ever": ("sync", "ebs.ListChangedBlocks", ConnectionLost(False)),
    "image denied for ever": ("fanout of a compressed image", "image.GetObject", Refusal(403, "AccessDenied")),
    "image down for ever": ("fanout of a compressed image", "image.GetObject", Refusal(503, "SlowDown")),
    "no image for ever": ("fanout of a compressed image", "image.HeadObject", ConnectionLost(False)),
    "raw image denied for ever": ("fanout of a raw image", "image.GetObject", Refusal(403, "AccessDenied")),
    "raw image down for ever": ("fanout of a raw image", "image.GetObject", ConnectionLost(False)),
    "archive denied for ever": ("archive", "image.PutObject", Refusal(403, "AccessDenied")),
    "archive down for ever": ("archive on top of one", "image.PutObject", Refusal(500, "InternalError")),
    "archive cannot be listed": ("archive", "image.ListObjectsV2", Refusal(403, "AccessDenied")),
    "base denied for ever": ("archive that compares its base", "image.GetObject", Refusal(403, "AccessDenied")),
    "no archive to restore for ever": ("restore", "image.GetObject", ConnectionLost(False)),
    "unpacked image down for ever": ("fanout of a compressed image", "s3.GetObject", Refusal(500, "InternalError")),
}


@pytest.mark.parametrize("name", NEW_PERMANENT)
def test_what_only_other_operations_ask_for_fails_them_by_name_with_nothing_usable_left(
    ground: Ground, name: str
) -> None:
    proving, (scenario, operation, spoil) = ground.proving, NEW_PERMANENT[name]
    clean = ground.clean(scenario)
    points = first_calls(clean, lambda call: f"{call.service}.{call.operation}" == operation)
    # What comes behind the sealing does not spoil the targets.
    points = {key: call for key, call in points.items() if key[0] not in ("Check targets", "Write receipt")}
    assert points
    for (step, _), point in points.items():
        where = f"{name} from {point} on ({step})"
        execution = failed(ground, clean.scenario, point, spoil, where)
        proving.abandoned(execution, where)
        proving.tried(execution, "failed by name, swept")


@pytest.mark.parametrize("spoil", [Refusal(403, "UnauthorizedOperation"), Refusal(500, "InternalError")], ids=str)
@pytest.mark.parametrize("name", ["sync", "fanout of a compressed image"])
def test_a_job_that_cannot_find_out_whether_encryption_is_the_default_leaves_nothing_to_it(
    ground: Ground, name: str, spoil: Spoil
) -> None:
    proving, scenario = ground.proving, ground.clean(name).scenario
    if scenario.operation == "fanout":
        # A hole of a snapshot that may be encrypted is not the same as zeros: they are written, then.
        whole = hashes(IMAGE)
        counts = {**scenario.receipt, "changed_blocks": len(whole), "bytes_written": 2 * len(whole) * BLOCK_SIZE}
        scenario = replace(scenario, held=(whole, whole), receipt=counts, holes="noise")
    execution = proving.execution(scenario)
    proving.wire.clear(lambda call: spoil if call.operation == "GetEbsEncryptionByDefault" else None)
    proving.proved(execution, execution.run(), f"{spoil} at every GetEbsEncryptionByDefault")
    proving.tried(execution, "done without knowing the default")


@pytest.mark.parametrize("spoil", [Refusal(403, "UnauthorizedOperation"), Refusal(500, "InternalError")], ids=str)
def test_a_copy_of_unknown_origin_that_cannot_find_out_whether_encryption_is_the_default_asks_and_starts_nothing(
    ground: Ground, spoil: Spoil
) -> None:
    proving = ground.proving
    execution = proving.execution(ground.clean("copy").scenario)
    proving.wire.clear(lambda call: spoil if call.operation == "GetEbsEncryptionByDefault" else None)
    receipt, failure = proving.redriven(execution)
    assert receipt is None
    assert failure is not None
    assert (failure.step, failure.refused) == ("Plan transfer", True)
    assert failure.cause.startswith("options.holes: ")
    proving.abandoned(execution, f"{spoil} at every GetEbsEncryptionByDefault")
    proving.tried(execution, "asked what holes stand for")


def first_calls(clean: Clean, wanted: Callable[[Call], bool]) -> dict[tuple[str, str], Call]:
    """The first of these calls of every step and operation."""
    first: dict[tuple[str, str], Call] = {}
    for step, call in clean.calls:
        if wanted(call):
            first.setdefault((step, call.operation), call)
    return first


def failed(ground: Ground, scenario: Scenario, point: Call, spoil: Spoil, where: str) -> Execution:
    """A job that fails by name, since every call from this one on fails."""
    execution = ground.proving.execution(scenario)
    ground.proving.wire.clear(from_then_on(point, spoil))
    receipt, failure = ground.proving.redriven(execution, times=1)
    assert receipt is None, where
    assert failure is not None, where
    assert failure.error in CLEAR, f"{where}: {failure}"
    assert failure.cause, where
    ground.proving.wire.clear()
    return execution


ONE_TARGET: Mapping[str, tuple[str, str, Spoil, str]] = {
    "cannot be written": ("ebs", "PutSnapshotBlock", error(403, "AccessDeniedException"), "IncompleteTransfer"),
    "is not reached": ("ebs", "PutSnapshotBlock", ConnectionLost(False), "IncompleteTransfer"),
    "cannot be completed": ("ebs", "CompleteSnapshot", error(403, "AccessDeniedException"), "TargetFailed"),
    "never hears that it is complete": ("ebs", "CompleteSnapshot", ConnectionLost(False), "RetryLater"),
    "cannot be tagged": ("ec2", "CreateTags", Refusal(403, "UnauthorizedOperation"), "TargetFailed"),
    "cannot be looked at": ("ec2", "DescribeSnapshots", Refusal(403, "UnauthorizedOperation"), "TargetFailed"),
    "has a parent that cannot be read": (
        "ebs",
        "GetSnapshotBlock",
        error(403, "AccessDeniedException"),
        "IncompleteTransfer",
    ),
    "has a parent that cannot be listed": (
        "ebs",
        "ListSnapshotBlocks",
        error(500, "InternalServerException"),
        "IncompleteTransfer",
    ),
}
"""What may be wrong with one target for ever, and the error that names it."""


@pytest.mark.parametrize("region", TARGET_REGIONS)
@pytest.mark.parametrize("name", ONE_TARGET)
def test_one_target_never_decides_for_another(ground: Ground, name: str, region: str) -> None:
    proving, (service, operation, spoil, expected) = ground.proving, ONE_TARGET[name]
    scenario = ground.clean("sync that compares two parents" if "parent" in name else "copy").scenario
    registry = proving.rig.server.service.registry

    def is_bad(snapshot_id: str) -> bool:
        found = registry.snapshots.get(snapshot_id)
        return found is not None and found.region == region

    def spoiler(call: Call) -> Spoil | None:
        if (call.service, call.operation) != (service, operation) or not proving.started(execution.job_id):
            return None
        return spoil if any(map(is_bad, re.findall(r"snap-[0-9a-f]+", call.subject))) else None

    execution = proving.execution(scenario)
    proving.wire.clear(spoiler)
    _, failure = proving.redriven(execution, times=1)
    proving.wire.clear()
    proving.seal()
    assert failure is not None, name
    assert failure.error == expected, failure
    made = {registry.snapshots[i].region: i for i in proving.started(execution.job_id)}
    assert made[region] in failure.cause, failure
    for target, blocks in zip(scenario.request["targets"], scenario.held, strict=True):
        if target["region"] != region:
            good = made[target["region"]]
            assert proving.started(execution.job_id)[good] == "completed", name
            assert proving.held(good) == blocks, name
            assert CHECKSUM_TAG in registry.snapshots[good].tags, name
            assert f"- {good}" not in failure.cause, name
    receipt, failure = proving.redriven(execution, times=1)
    assert receipt is not None, f"{name}: {failure}"
    proving.proved(execution, receipt, name)
    proving.tried(execution, "the good target done at once, the other by a redrive")


SWEEP_FAULTS: Mapping[str, Spoil] = {
    # Behind a call it leaves what one leaves that dies before the next.
    "process dies before": Death(False),
    "connection lost after success": ConnectionLost(True),
    "denied": Refusal(403, "AccessDenied"),
    "server error": Refusal(500, "InternalError"),
}


def dead_before(what: Callable[[Call], bool]) -> Spoiler:
    """Every process dies that makes such a call."""
    return lambda call: Death(False) if what(call) else None


def puts_the_manifest(call: Call) -> bool:
    return call.operation == "PutObject" and call.subject.endswith(MANIFEST)


ABANDONED: Mapping[str, Spoiler] = {
    # From the first block on: both targets are pending.
    "copy": dead_before(lambda call: call.operation == "GetSnapshotBlock"),
    "archive": dead_before(puts_the_manifest),
}
"""What a job dies of that is never resumed."""


@pytest.mark.parametrize("scenario", ABANDONED)
@pytest.mark.parametrize("name", SWEEP_FAULTS)
def test_a_sweep_that_fails_at_any_call_is_finished_by_the_next_one(ground: Ground, name: str, scenario: str) -> None:
    proving, number = ground.proving, 0
    while True:
        number += 1
        execution = proving.execution(ground.clean(scenario).scenario)
        proving.wire.clear(ABANDONED[scenario])
        _, failure = proving.redriven(execution, times=0)
        assert failure is not None
        if scenario == "copy":
            assert sorted(proving.started(execution.job_id).values()) == ["pending", "pending"]
        else:
            # Of its objects only the manifest is missing, and the claim is there.
            assert len(proving.archived(execution)) == 7
        proving.wire.clear(once(number, SWEEP_FAULTS[name]))
        with suppress(Died, Exception):
            proving.sweep(execution)
        if len(proving.wire.calls) < number:
            break
        where = f"{name} at {proving.wire.calls[number - 1]} (sweep)"
        proving.wire.revive()
        proving.abandoned(execution, where)
        proving.tried(execution, "swept by the next run")
    assert number > 6


@pytest.mark.parametrize("took_effect", [False, True])
def test_an_archive_that_has_its_manifest_is_kept_by_the_sweep_wherever_its_job_has_died(
    ground: Ground, took_effect: bool
) -> None:
    proving, clean = ground.proving, ground.clean("archive")
    calls = [call for _, call in clean.calls]
    (written,) = [call for call in calls if puts_the_manifest(call)]
    points = [call for call in calls if call.number > written.number or (took_effect and call == written)]
    # What a job has written last are its receipt and its report: of one that has them nothing is swept.
    points = [call for call in points if call.operation != "PutObject" or "/proved/" in call.subject or call == written]
    assert len(points) > 5
    for point in points:
        where = f"dead for ever from {point} on"
        execution = proving.execution(clean.scenario)
        proving.wire.clear(lambda call, point=point: Death(took_effect) if call.number >= point.number else None)
        receipt, _ = proving.redriven(execution, times=0)
        assert receipt is None, where
        proving.wire.clear()
        before = {key: etag for key, etag in proving.archived(execution).items() if not key.endswith(UNFINISHED)}
        for _ in range(2):
            found = proving.sweep(execution)
            assert found["deleted_snapshots"] == [], where
            assert proving.archived(execution) == before, where
        (manifest,) = [key for key in before if key.endswith(MANIFEST)]
        assert proving.in_chain(proving.chain(f"s3://{ARCHIVES}/{manifest}")) == clean.scenario.archived, where
        proving.tried(execution, "finished, and kept by the sweep")
