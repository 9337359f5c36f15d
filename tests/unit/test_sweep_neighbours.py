"""A sweep over many jobs: none decides for another, and each is judged at the very moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blockferry.aws.call import Call
from blockferry.core.errors import BlockferryError
from blockferry.jobs.folder import JOB, RANGES, RECEIPT
from blockferry.transfer.sweep import sweep_jobs
from deployment import EXECUTIONS
from fakes import content
from rig import RECOVERY, Rig, running_rig

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = STARTED + timedelta(days=9)
WINDOW = timedelta(hours=72)
LONG_AGO = NOW - WINDOW - timedelta(hours=1)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


class Executions:
    """DescribeExecution of Step Functions: what each job's execution is said to be."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, **states: dict[str, Any]) -> None:
        self.rig, self.states = rig, states
        monkeypatch.setattr(rig.aws, "step_functions", lambda _region: self)

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:
        name = executionArn.rsplit(":", 1)[-1]
        return self.states[name] | {"input": json.dumps(self.rig.requests[name])}


def ended(when: datetime = LONG_AGO) -> dict[str, Any]:
    return {"status": "FAILED", "stopDate": when}


def sweep(rig: Rig, *, now: datetime = NOW, time_left: Iterator[float] | None = None) -> dict[str, Any]:
    left = time_left or iter([300.0] * 99)
    call = Call(aws=rig.aws, time_left=lambda: next(left))
    return sweep_jobs(call, rig.workspace, executions=EXECUTIONS, resume_window=WINDOW, now=now)


def planned(rig: Rig, *job_ids: str) -> None:
    source = rig.snapshot({0: content(1)})
    for job_id in job_ids:
        rig.plan({"snapshot_id": source, "targets": [{"region": RECOVERY}]}, job_id=job_id)


def has_plan(rig: Rig, job_id: str) -> bool:
    return rig.folder(job_id).read(RANGES) is not None


def test_no_kind_of_job_keeps_the_sweep_from_those_behind_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(rig, "b-swept", "c-done", "d-runs", "e-old", "f-old")
    executions = Executions(rig, monkeypatch, **{"b-swept": ended()})
    rig.folder("a-no-record").write(RANGES, b"")
    executions.states |= {"c-done": ended(), "d-runs": {"status": "RUNNING"}, "e-old": ended(NOW)}
    executions.states |= {"f-old": ended(NOW)}
    rig.folder("c-done").write(RECEIPT, b"{}")
    assert sweep(rig)["swept"] == ["b-swept"]
    executions.states |= {"e-old": ended(), "f-old": ended()}
    result = sweep(rig)
    assert (result["jobs"], result["swept"], result["failed"]) == (6, ["e-old", "f-old"], [])
    assert [has_plan(rig, job) for job in ("a-no-record", "b-swept", "c-done", "d-runs", "e-old", "f-old")] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert len(result["deleted_snapshots"]) == 2


def test_a_job_that_cannot_be_swept_does_not_keep_the_sweep_from_those_behind_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(rig, "a", "b")
    rig.folder("0-damaged").write(JOB, b"{")
    Executions(rig, monkeypatch, a=ended(), b=ended())
    with pytest.raises(BlockferryError, match="- copy 0-damaged: ") as failed:
        sweep(rig)
    assert "- copy a: " not in str(failed.value)
    assert not has_plan(rig, "a")
    assert not has_plan(rig, "b")


@pytest.mark.parametrize(
    ("state", "now", "goes"),
    [
        (ended(NOW - WINDOW), NOW, False),
        (ended(NOW - WINDOW - timedelta(seconds=1)), NOW, True),
        # A redriven execution may still say when it had stopped.
        ({"status": "RUNNING", "stopDate": LONG_AGO}, NOW, False),
        ({"status": "FAILED", "stopDate": None}, NOW, False),
        (ended(STARTED - timedelta(days=1)), STARTED + WINDOW, True),
        (ended(STARTED - timedelta(days=1)), STARTED + WINDOW - timedelta(seconds=1), False),
    ],
    ids=["at the window's end", "behind it", "runs again", "no end", "started as long ago", "started later"],
)
def test_a_job_goes_only_when_both_its_start_and_its_end_lie_behind_the_resume_window(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], now: datetime, goes: bool
) -> None:
    planned(rig, "job")
    Executions(rig, monkeypatch, job=state)
    assert sweep(rig, now=now)["swept"] == (["job"] if goes else [])
    assert has_plan(rig, "job") is not goes


def test_a_sweep_without_half_a_minute_left_leaves_the_rest_to_the_next_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(rig, "a", "b", "c")
    Executions(rig, monkeypatch, a=ended(), b=ended(), c=ended())
    result = sweep(rig, time_left=iter([31.0, 30.0, 29.9]))
    assert (result["jobs"], result["swept"]) == (2, ["a", "b"])
    assert has_plan(rig, "c")
