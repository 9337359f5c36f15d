"""Jobs that nobody resumed leave nothing; jobs that may still go on are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blockferry.aws.call import Call
from blockferry.aws.snapshots import PROVED_TAG
from blockferry.core.errors import BlockferryError, IncompleteTransfer, TargetFailed
from blockferry.jobs.folder import JOB, RANGES, JobFolder
from blockferry.transfer.job import planned_job
from blockferry.transfer.sweep import sweep_jobs
from botocore.exceptions import ClientError
from deployment import EXECUTIONS
from fakes import content
from rig import RECOVERY, THIRD, Rig, running_rig

NOW = datetime(2026, 1, 10, tzinfo=UTC)
"""Jobs of the rig start on 2026-01-01."""


class Executions:
    """DescribeExecution of Step Functions: what each job's execution is said to be."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.states: dict[str, dict[str, Any]] = {}

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:
        found = self.states.get(executionArn.rsplit(":", 1)[-1])
        if found is None:
            error = {"Error": {"Code": "ExecutionDoesNotExist", "Message": "gone"}}
            raise ClientError(error, "DescribeExecution")  # type: ignore[arg-type]
        return found | {"input": json.dumps(self.rig.requests[executionArn.rsplit(":", 1)[-1]])}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


@pytest.fixture
def executions(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Executions:
    made = Executions(rig)
    monkeypatch.setattr(rig.aws, "step_functions", lambda _region: made)
    return made


def sweep(rig: Rig, *, now: datetime = NOW, time_left: float = 300) -> dict[str, Any]:
    return sweep_jobs(
        Call(aws=rig.aws, time_left=lambda: time_left),
        rig.workspace,
        executions=EXECUTIONS,
        resume_window=timedelta(hours=72),
        now=now,
    )


def started(rig: Rig, job_id: str) -> list[str]:
    """A job that has moved some blocks and then stopped; returns its pending targets."""
    source = rig.snapshot({0: content(1), 600: content(2)})
    request = {
        "snapshot_id": source,
        "targets": [{"region": RECOVERY}, {"region": THIRD}],
        "options": {"blocks_per_range": 512},
    }
    rig.plan(request, job_id=job_id)
    rig.move(job_id, rig.ranges(job_id)[0])
    job = rig.job(job_id)
    assert job is not None
    return [target.snapshot_id for target in job.targets]


def existing(rig: Rig) -> set[str]:
    return {snapshot["snapshot_id"] for snapshot in rig.snapshots()}


def stopped(when: datetime) -> dict[str, Any]:
    return {"status": "FAILED", "stopDate": when}


def test_a_job_given_up_loses_its_pending_targets_its_plan_and_its_digests(rig: Rig, executions: Executions) -> None:
    targets = started(rig, "old")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    result = sweep(rig)
    assert result["swept"] == ["old"]
    assert sorted(result["deleted_snapshots"]) == sorted(targets)
    assert not existing(rig) & set(targets)
    assert rig.folder("old").read(RANGES) is None
    assert list(rig.folder("old").stretch_keys()) == []
    assert sweep(rig)["swept"] == []


def test_what_a_sweep_that_died_after_its_mark_left_is_deleted_by_the_next_one(
    rig: Rig, executions: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(rig, "old")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "delete_all_but", lambda *_a, **_k: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            sweep(rig)
    assert rig.folder("old").read(RANGES) is not None
    sweep(rig)
    assert rig.folder("old").read(RANGES) is None
    assert list(rig.folder("old").stretch_keys()) == []
    assert planned_job(rig.folder("old")) is not None


def test_a_redrive_of_a_swept_job_is_told_so(rig: Rig, executions: Executions) -> None:
    started(rig, "old")
    second = rig.ranges("old")[1]
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    sweep(rig)
    with pytest.raises(IncompleteTransfer, match="was swept at 2026-01-10"):
        rig.move("old", second)


@pytest.mark.parametrize(
    "state",
    [{"status": "RUNNING"}, stopped(NOW - timedelta(hours=71)), {"status": "PENDING_REDRIVE"}],
    ids=["running", "in the window", "being redriven"],
)
def test_a_job_that_may_go_on_is_left_alone(rig: Rig, executions: Executions, state: dict[str, Any]) -> None:
    targets = started(rig, "live")
    executions.states["live"] = state
    assert sweep(rig)["swept"] == []
    assert set(targets) <= existing(rig)
    assert rig.folder("live").read(RANGES) is not None


def test_a_job_whose_execution_is_forgotten_cannot_be_redriven_and_is_swept(rig: Rig, executions: Executions) -> None:
    targets = started(rig, "forgotten")
    assert sweep(rig)["swept"] == ["forgotten"]
    assert not existing(rig) & set(targets)


def test_completed_copies_and_jobs_with_a_receipt_are_never_touched(rig: Rig, executions: Executions) -> None:
    source = rig.snapshot({0: content(1)})
    receipt = rig.copy({"snapshot_id": source, "targets": [{"region": RECOVERY}]})
    executions.states[receipt["job_id"]] = stopped(NOW - timedelta(days=30))
    before = existing(rig)
    assert sweep(rig)["swept"] == []
    assert existing(rig) == before


def test_a_target_that_was_started_but_never_recorded_is_found_by_its_tag(rig: Rig, executions: Executions) -> None:
    started(rig, "crashed")
    job = rig.job("crashed")
    assert job is not None
    unrecorded = job.model_copy(update={"targets": tuple(t.model_copy(update={"started": None}) for t in job.targets)})
    rig.save_job(unrecorded)
    executions.states["crashed"] = stopped(NOW - timedelta(days=5))
    assert len(sweep(rig)["deleted_snapshots"]) == 2
    assert all(snapshot["state"] == "completed" for snapshot in rig.snapshots())


def test_a_pending_snapshot_of_somebody_else_is_never_deleted(rig: Rig, executions: Executions) -> None:
    other = rig.client("ebs", RECOVERY).start_snapshot(VolumeSize=1)["SnapshotId"]
    started(rig, "old")
    executions.states["old"] = stopped(NOW - timedelta(days=5))
    sweep(rig)
    assert other in existing(rig)


def test_one_job_that_cannot_be_swept_does_not_stop_the_others_and_is_named(rig: Rig, executions: Executions) -> None:
    targets = started(rig, "b-good")
    executions.states["b-good"] = stopped(NOW - timedelta(days=5))
    rig.folder("a-bad").write(JOB, b"{}")
    with pytest.raises(BlockferryError, match="a-bad"):
        sweep(rig)
    assert not existing(rig) & set(targets)


def test_what_the_time_does_not_allow_is_left_to_the_next_run(rig: Rig, executions: Executions) -> None:
    started(rig, "old")
    executions.states["old"] = stopped(NOW - timedelta(days=5))
    assert sweep(rig, time_left=10) == {
        "jobs": 0,
        "left": 1,
        "swept": [],
        "deleted_snapshots": [],
        "kept_snapshots": [],
        "earlier_versions": [],
        "failed": [],
    }
    assert sweep(rig)["swept"] == ["old"]


def test_a_pending_target_that_ebs_was_asked_to_seal_is_kept_and_named(rig: Rig, executions: Executions) -> None:
    sealed, refused = started(rig, "old")
    rig.control("config", {"seal_seconds": 3600.0})
    for within in rig.ranges("old"):
        rig.move("old", within)
    rig.control(
        "faults",
        {
            "operation": "CompleteSnapshot",
            "snapshot_id": refused,
            "action": "error",
            "status": 400,
            "code": "ValidationException",
        },
    )
    with pytest.raises(TargetFailed, match=refused):
        rig.complete("old")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    result = sweep(rig)
    assert result["deleted_snapshots"] == [refused]
    assert result["kept_snapshots"] == [f"{sealed} in {RECOVERY} (EBS was asked to seal it)"]
    rig.control("clock", {"advance": 3601})
    assert rig.state(sealed) == "completed"


def test_a_target_in_error_of_a_job_given_up_is_deleted(rig: Rig, executions: Executions) -> None:
    broken, pending = started(rig, "old")
    registry = rig.server.service.registry
    registry.fail(registry.snapshots[broken], "planted")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    assert sorted(sweep(rig)["deleted_snapshots"]) == sorted([broken, pending])
    assert not existing(rig) & {broken, pending}


@pytest.mark.parametrize("end", ["completed", "error"])
def test_what_a_sweep_has_kept_is_looked_at_again_until_it_has_come_to_its_end(
    rig: Rig, executions: Executions, end: str
) -> None:
    in_doubt, good = started(rig, "old")
    rig.control("config", {"seal_seconds": 3600.0})
    for within in rig.ranges("old"):
        rig.move("old", within)
    rig.complete("old")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    assert len(sweep(rig)["kept_snapshots"]) == 2
    again = sweep(rig, now=NOW + timedelta(days=1))
    assert (again["deleted_snapshots"], len(again["kept_snapshots"])) == ([], 2)
    if end == "error":
        registry = rig.server.service.registry
        registry.fail(registry.snapshots[in_doubt], "not completed in time")
    rig.control("clock", {"advance": 3601})
    last = sweep(rig, now=NOW + timedelta(days=4))
    assert last["deleted_snapshots"] == []
    # What carries the proof is never deleted, not even when EBS has found fault with it after all: it is named.
    named = [f"{in_doubt} in {RECOVERY} (EBS took its checksum, as its tag {PROVED_TAG} says; it is in state error)"]
    assert last["kept_snapshots"] == (named if end == "error" else [])
    assert existing(rig) & {in_doubt, good} == {in_doubt, good}
    if end == "error":
        rig.client("ec2", RECOVERY).delete_snapshot(SnapshotId=in_doubt)
        assert sweep(rig, now=NOW + timedelta(days=4))["kept_snapshots"] == []
    rig.control("stats/reset", {})
    sweep(rig, now=NOW + timedelta(days=5))
    assert rig.calls() == {}, "nothing is left to look at"


def test_a_region_that_does_not_answer_does_not_keep_the_targets_of_others_from_being_deleted(
    rig: Rig, executions: Executions
) -> None:
    silent, other = started(rig, "old")
    executions.states["old"] = stopped(NOW - timedelta(hours=73))
    denied = {"operation": "DescribeSnapshots", "region": RECOVERY, "action": "error", "status": 403}
    rig.control("faults", {**denied, "code": "UnauthorizedOperation"})
    with pytest.raises(BlockferryError, match=f"in {RECOVERY}"):
        sweep(rig)
    assert other not in existing(rig)
    rig.control("faults", method="DELETE")
    assert sweep(rig)["deleted_snapshots"] == [silent]
