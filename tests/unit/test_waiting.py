"""Waiting for targets: until each has come to its end, however many there are and however long EBS takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from blockferry.core.errors import InvalidRequest, RetryLater, TargetFailed
from blockferry.core.retry import Clock, RetryPolicy
from blockferry.transfer.check import check_targets
from blockferry.transfer.complete import complete_transfer
from blockferry.transfer.job import planned_job
from botocore.config import Config
from fakes import ManualClock, content
from job_records import job_call
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, running_rig

MOST_EVENTS = 25_000
"""Of one execution; one that has used them up cannot be redriven either (Step Functions, service quotas)."""

EVENTS_A_WAIT = 5 + 2 + 2
"""A task (entered, scheduled, started, succeeded, exited), a choice and a wait (entered, exited)."""

TIMEOUT_SECONDS = 4_320 * 60


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"seal_seconds": 60.0}) as made:
        yield made


def completing(rig: Rig, *regions: str) -> tuple[str, list[str]]:
    """A job that has asked EBS to seal all targets; its id and its targets."""
    rig.control("config", {"seal_seconds": 0.0})
    source = rig.snapshot({0: content(1)})
    rig.control("config", {"seal_seconds": 60.0})
    targets = [
        {"region": region, "kms_key_arn": f"arn:aws:kms:{region}:{ACCOUNT}:key/00000000-0000-0000-0000-{number:012}"}
        for number, region in enumerate(regions)
    ]
    request = {"snapshot_id": source, "targets": targets, "options": {"holes": "preserve"}}
    job_id = rig.plan(request)["job_id"]
    rig.move_all(job_id)
    rig.complete(job_id)
    return job_id, [target.snapshot_id for target in rig.job(job_id).targets]


def check(rig: Rig, job_id: str) -> dict[str, object]:
    return check_targets(rig.invocation().of(rig.named(job_id)), rig.record(job_id), None)


@pytest.fixture
def impatient(rig: Rig) -> None:
    """One attempt of every request to EC2."""
    rig.aws.describing = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def waits(rig: Rig) -> list[float]:
    """How long EC2 was given to come to its senses, each time."""
    slept: list[float] = []
    rig.clock = Clock(sleep=slept.append)
    return slept


def in_error(rig: Rig, snapshot_id: str) -> None:
    registry = rig.server.service.registry
    registry.fail(registry.snapshots[snapshot_id], "planted")


def test_a_target_that_failed_is_told_when_the_others_have_come_to_their_end(rig: Rig) -> None:
    job_id, (broken, good) = completing(rig, RECOVERY, THIRD)
    in_error(rig, broken)
    assert check(rig, job_id)["completed"] is False
    rig.control("clock", {"advance": 61})
    with pytest.raises(TargetFailed, match=f"{broken} in {RECOVERY} is in state error: planted"):
        check(rig, job_id)
    assert rig.state(good) == "completed"


def test_a_target_that_ec2_does_not_know_any_more_does_not_end_the_wait_for_the_others(rig: Rig) -> None:
    job_id, (gone, _) = completing(rig, RECOVERY, THIRD)
    rig.client("ec2", RECOVERY).delete_snapshot(SnapshotId=gone)
    assert check(rig, job_id)["completed"] is False
    rig.control("clock", {"advance": 61})
    with pytest.raises(TargetFailed, match=f"{gone} in {RECOVERY}: EC2 does not know"):
        check(rig, job_id)


@pytest.mark.usefixtures("impatient")
def test_a_region_that_does_not_answer_does_not_end_the_wait_for_the_others(rig: Rig) -> None:
    job_id, (silent, _) = completing(rig, RECOVERY, THIRD)
    rig.control(
        "faults",
        {"operation": "DescribeSnapshots", "region": RECOVERY, "action": "error", "status": 500, "code": "Unavailable"},
    )
    assert check(rig, job_id)["completed"] is False
    rig.control("clock", {"advance": 61})
    with pytest.raises(RetryLater, match=silent):
        check(rig, job_id)


def test_all_targets_of_a_place_are_asked_about_in_one_request(rig: Rig) -> None:
    job_id, made = completing(rig, *[RECOVERY] * 7, *[HOME] * 5)
    assert len(made) == 12
    rig.waits = replace(rig.waits, first_looks=())
    rig.control("stats/reset", {})
    assert check(rig, job_id)["completed"] is False
    assert rig.calls() == {"DescribeSnapshots": 2}
    rig.control("clock", {"advance": 61})
    rig.control("stats/reset", {})
    receipt = rig.call("write_receipt", {**rig.event(job_id), "proof": rig.proofs[job_id]})
    assert [target["snapshot_id"] for target in receipt["targets"]] == made
    assert rig.calls() == {"DescribeSnapshots": 2}


def test_the_history_of_an_execution_has_room_for_as_long_as_ebs_may_keep_a_target_pending(rig: Rig) -> None:
    job_id, _ = completing(rig, RECOVERY)
    waits = [0]
    while len(waits) == 1 or waits[-1] != waits[-2]:
        asked = check_targets(rig.invocation().of(rig.named(job_id)), rig.record(job_id), waits[-1] or None)
        waits.append(int(asked["wait_seconds"]))
    assert waits[1:7] == [2, 4, 8, 16, 32, 60]
    assert waits[-1] <= 300
    rounds = len(waits) + (TIMEOUT_SECONDS - sum(waits)) / waits[-1]
    assert rounds * EVENTS_A_WAIT < MOST_EVENTS / 2


def volume_snapshots(rig: Rig) -> tuple[str, str]:
    """Two snapshots of one volume."""
    volume = "vol-0123456789abcdef0"
    rig.control("volumes", {"volume_id": volume, "owner": ACCOUNT, "region": HOME, "size": 1})
    taken = []
    for seed in (1, 2):
        rig.post(f"volumes/{volume}/blocks/0", content(seed))
        taken.append(rig.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"])
        rig.control("clock", {"advance": 120})
    return taken[0], taken[1]


def copies(rig: Rig, source: str) -> list[str]:
    receipt = rig.copy({"snapshot_id": source, "targets": [{"region": region} for region in (RECOVERY, THIRD)]})
    return [target["snapshot_id"] for target in receipt["targets"]]


def pending(rig: Rig, snapshot_ids: list[str]) -> None:
    """EC2 shows the snapshots as pending from now on."""
    for snapshot_id in snapshot_ids:
        rig.server.service.registry.snapshots[snapshot_id].state = "pending"


def test_parents_that_are_pending_are_waited_for_together(rig: Rig, waits: list[float]) -> None:
    base, later = volume_snapshots(rig)
    parents = copies(rig, base)
    pending(rig, parents)
    targets = [
        {"region": region, "parent_snapshot_id": parent}
        for region, parent in zip((RECOVERY, THIRD), parents, strict=True)
    ]
    waits.clear()
    with pytest.raises(InvalidRequest, match=f"{parents[0]} in {RECOVERY} is in state pending"):
        rig.plan({"base_snapshot_id": base, "snapshot_id": later, "targets": targets}, operation="sync")
    assert len(waits) == rig.waits.looks - 1


def test_copies_that_are_pending_are_waited_for_together(rig: Rig, waits: list[float]) -> None:
    base, later = volume_snapshots(rig)
    pending(rig, copies(rig, base))
    waits.clear()
    request = {"snapshot_id": later, "follow": True, "targets": [{"region": RECOVERY}, {"region": THIRD}]}
    with pytest.raises(InvalidRequest, match="there is no earlier snapshot of lineage"):
        rig.plan(request, operation="sync")
    assert len(waits) == rig.waits.looks - 1


# -- targets that cannot be reached ------------------------------------------------------------------------------------


def several(rig: Rig, *regions: str) -> dict[str, object]:
    """The request of a copy to so many targets, each with a key of its own."""
    return {
        "snapshot_id": rig.snapshot({0: content(1)}),
        "targets": [
            {
                "region": region,
                "kms_key_arn": f"arn:aws:kms:{region}:{ACCOUNT}:key/00000000-0000-0000-0000-{number:012}",
            }
            for number, region in enumerate(regions)
        ],
        "options": {"holes": "preserve"},
    }


def complete(rig: Rig, job_id: str, *, seconds_left: float) -> None:
    call = job_call(rig.aws, rig.folder(job_id), clock=ManualClock(), seconds_left=seconds_left, waits=rig.waits)
    complete_transfer(call, rig.record(job_id))


def silent(rig: Rig, operation: str, region: str) -> None:
    rig.control("faults", {"operation": operation, "region": region, "action": "error", "status": 503})


def test_targets_that_cannot_be_reached_do_not_use_up_the_time_of_others(rig: Rig) -> None:
    rig.waits = replace(rig.waits, requests=RetryPolicy(max_attempts=1))
    rig.control("config", {"seal_seconds": 0.0})
    job_id = rig.plan(several(rig, RECOVERY, RECOVERY, RECOVERY, THIRD))["job_id"]
    rig.move_all(job_id)
    silent(rig, "CompleteSnapshot", RECOVERY)
    rig.control("stats/reset", {})
    with pytest.raises(RetryLater, match=f"(?s)others in {RECOVERY} could not be reached.*being sealed.* in {THIRD}"):
        complete(rig, job_id, seconds_left=10.0)
    assert rig.calls()["CompleteSnapshot"] == 2
    rig.control("stats/reset", {})
    with pytest.raises(RetryLater) as caught:
        complete(rig, job_id, seconds_left=900.0)
    assert "no time was left" not in str(caught.value)
    assert rig.calls()["CompleteSnapshot"] == 3
    rig.control("faults", method="DELETE")
    assert len(rig.finish(job_id)["targets"]) == 4


def test_targets_that_cannot_be_started_do_not_use_up_the_time_of_others(rig: Rig) -> None:
    rig.waits = replace(rig.waits, starts=RetryPolicy(max_attempts=1), start_seconds=0.0)
    rig.control("config", {"seal_seconds": 0.0})
    request = several(rig, RECOVERY, RECOVERY, RECOVERY, THIRD)
    silent(rig, "StartSnapshot", RECOVERY)
    rig.control("stats/reset", {})
    job_id = rig.plan(request)["job_id"]
    assert rig.calls()["StartSnapshot"] == 2
    rig.move_all(job_id)
    rig.control("faults", method="DELETE")
    receipt = rig.finish(job_id)
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [hashes({0: content(1)})] * 4


class Dying:
    """EBS of a process that dies as it asks for its second target; the first is on its way to the record by then."""

    def __init__(self, ebs: Any) -> None:
        self._ebs = ebs
        self.asked = 0

    def __call__(self, *args: Any, **more: Any) -> Any:
        client = self._ebs(*args, **more)
        start = client.start_snapshot

        def start_snapshot(new: Any) -> Any:
            self.asked += 1
            if self.asked > 1:
                raise SystemExit
            return start(new)

        client.start_snapshot = start_snapshot
        return client


def test_a_plan_that_died_goes_on_behind_the_targets_that_it_had_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.control("config", {"seal_seconds": 0.0})
    request = several(rig, RECOVERY, RECOVERY, RECOVERY)
    with monkeypatch.context() as patch:
        patch.setattr(rig.aws, "ebs", Dying(rig.aws.ebs))
        rig.throughput = replace(rig.throughput, starts_at_a_time=1)
        with pytest.raises(SystemExit):
            rig.plan(request, job_id="again")
    before = planned_job(rig.folder("again"))
    assert before is not None
    assert list(before.started) == [0]
    rig.control("stats/reset", {})
    rig.plan(request, job_id="again")
    assert rig.calls()["StartSnapshot"] == 2
    after = planned_job(rig.folder("again"))
    assert after is not None
    assert after.started[0] == before.started[0]
    assert len({target.snapshot_id for target in after.targets}) == 3


def test_a_dead_region_costs_two_attempts_however_many_targets_it_has(rig: Rig) -> None:
    rig.waits = replace(rig.waits, starts=RetryPolicy(max_attempts=1))
    rig.control("config", {"seal_seconds": 0.0})
    request = several(rig, *[RECOVERY] * 25, THIRD, THIRD)
    silent(rig, "StartSnapshot", RECOVERY)
    rig.control("stats/reset", {})
    rig.plan(request, job_id="dead")
    assert rig.calls()["StartSnapshot"] == 4
    job = planned_job(rig.folder("dead"))
    assert job is not None
    assert list(job.started) == [25, 26]


def test_nothing_that_was_deleted_stays_on_record_when_a_target_is_refused(rig: Rig) -> None:
    rig.control("config", {"seal_seconds": 0.0})
    request = several(rig, RECOVERY, RECOVERY, THIRD)
    rig.control(
        "faults",
        {
            "operation": "StartSnapshot",
            "region": THIRD,
            "action": "error",
            "status": 403,
            "code": "AccessDeniedException",
        },
    )
    with pytest.raises(InvalidRequest, match=rf"targets\[2\] in {THIRD} cannot be started.*Nothing is left"):
        rig.plan(request, job_id="refused")
    job = planned_job(rig.folder("refused"))
    assert job is not None
    assert job.started == {}
