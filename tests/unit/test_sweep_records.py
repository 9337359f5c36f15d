"""What a sweep does with each kind of record, and exactly what it says and leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import JOB_TAG
from blockferry.core.errors import BlockferryError
from blockferry.jobs.record import Job, Sealing
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.sweep import sweep_jobs
from botocore.exceptions import EndpointConnectionError
from job_records import HOME, RECOVERY, THIRD, job, source, target
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

NOW = datetime(2026, 1, 10, tzinfo=UTC)
WINDOW = timedelta(hours=72)
LONG_AGO = NOW - timedelta(days=5)


class Cloud:
    """A bucket, the executions of jobs and the snapshots of regions."""

    def __init__(self) -> None:
        self.s3 = MemoryS3()
        self.workspace = Workspace("work", cast(Any, self.s3))
        self.regions = {region: MemoryEc2() for region in (RECOVERY, THIRD)}
        self.executions: dict[str, Any] = {}
        self.asked: list[str] = []

    def ec2(self, identity: Identity) -> MemoryEc2:
        return self.regions[identity.region]

    def step_functions(self, region: str) -> Any:
        def describe_execution(*, executionArn: str) -> Any:
            self.asked.append(f"{region} {executionArn}")
            found = self.executions[executionArn.rsplit(":", 1)[-1]]
            if isinstance(found, Exception):
                raise found
            return found

        return SimpleNamespace(describe_execution=describe_execution)

    def add(self, job_id: str, *targets: Any, **more: Any) -> Job:
        """A job that ended long ago, with some objects."""
        arn = f"arn:aws:states:{HOME}:111122223333:execution:blockferry-copy:{job_id}"
        made = job(source(), *(targets or (target(snapshot_id=""),)), job_id=job_id, execution_arn=arn, **more)
        self.workspace.save_job(made)
        for name in ("plan.jsonl", "digests/0-1-0.bin", "digests/1-2-0.bin"):
            self.workspace.write(job_id, name, b"x")
        self.executions.setdefault(job_id, {"status": "FAILED", "stopDate": LONG_AGO})
        return made

    def shows(self, region: str, snapshot_id: str, job_id: str, *, state: str = "pending") -> None:
        self.regions[region].snapshots[snapshot_id] = described(snapshot_id, state=state, tags={JOB_TAG: job_id})

    def sweep(self, *times: float, now: datetime | None = NOW) -> dict[str, Any]:
        """A sweep with so many seconds left as it looks at the clock."""
        left = iter(times or [300.0] * 9)
        return sweep_jobs(
            aws=cast(Any, self), workspace=self.workspace, resume_window=WINDOW, time_left=lambda: next(left), now=now
        )

    def names(self, job_id: str) -> list[str]:
        return sorted(key.removeprefix(f"jobs/{job_id}/") for key in self.s3.objects if f"/{job_id}/" in key)


SEALED = Sealing(state="asked", changed_blocks=1, linear_checksum="c")
SWEPT = ["job.json"]
WHOLE = ["digests/0-1-0.bin", "digests/1-2-0.bin", "job.json", "plan.jsonl"]


def test_each_target_of_each_job_is_told_of_once() -> None:
    cloud = Cloud()
    places = [target(snapshot_id="snap-a"), target(snapshot_id="snap-b"), target(snapshot_id="snap-c", region=THIRD)]
    cloud.add("one", *places)
    cloud.add("two", target(snapshot_id="snap-d"))
    for region, name, of in (
        (RECOVERY, "a", "one"),
        (RECOVERY, "b", "one"),
        (THIRD, "c", "one"),
        (RECOVERY, "d", "two"),
    ):
        cloud.shows(region, f"snap-{name}", of)
    cloud.workspace.save_sealing("one", "snap-b", SEALED)
    assert cloud.sweep() == {
        "jobs": 2,
        "swept": ["one", "two"],
        "deleted_snapshots": ["snap-a", "snap-c", "snap-d"],
        "kept_snapshots": [f"snap-b in {RECOVERY} (EBS was asked to seal it)"],
        "failed": [],
    }
    assert [cloud.names(one) for one in ("one", "two")] == [SWEPT, SWEPT]
    one, two = (cloud.workspace.job(each) for each in ("one", "two"))
    assert one is not None
    assert two is not None
    assert (one.swept_at, one.kept_at_sweep) == (NOW.isoformat(), True)
    assert (two.swept_at, two.kept_at_sweep) == (NOW.isoformat(), False)
    assert cloud.regions[RECOVERY].snapshots.keys() == {"snap-b"}
    assert cloud.asked == [
        f"{HOME} arn:aws:states:{HOME}:111122223333:execution:blockferry-copy:{each}" for each in ("one", "two")
    ]


def test_what_was_kept_is_kept_until_it_has_come_to_its_end() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), swept_at=LONG_AGO.isoformat(), kept_at_sweep=True)
    cloud.shows(RECOVERY, "snap-a", "old")
    cloud.shows(RECOVERY, "snap-b", "old", state="error")
    found = cloud.sweep()
    assert (found["jobs"], found["swept"], found["deleted_snapshots"]) == (1, [], ["snap-b"])
    assert found["kept_snapshots"] == [f"snap-a in {RECOVERY} (kept by an earlier sweep, still pending)"]
    assert cloud.names("old") == SWEPT
    cloud.regions[RECOVERY].snapshots["snap-a"]["State"] = "error"
    assert cloud.sweep()["deleted_snapshots"] == ["snap-a"]
    after = cloud.workspace.job("old")
    assert after is not None
    assert not after.kept_at_sweep
    asked = dict(cloud.regions[RECOVERY].calls)
    assert cloud.sweep() == {"jobs": 1, "swept": [], "deleted_snapshots": [], "kept_snapshots": [], "failed": []}
    assert cloud.regions[RECOVERY].calls == asked
    assert cloud.asked == []


def test_a_swept_job_with_nothing_kept_only_loses_what_a_late_worker_has_stored() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), swept_at=LONG_AGO.isoformat())
    cloud.shows(RECOVERY, "snap-a", "old", state="error")
    assert cloud.sweep()["deleted_snapshots"] == []
    assert cloud.names("old") == SWEPT
    assert cloud.regions[RECOVERY].calls == {}


def test_a_job_is_left_alone_if_it_ended_well_or_nobody_knows_its_record() -> None:
    cloud = Cloud()
    cloud.workspace.write("a-bare", "plan.jsonl", b"x")
    cloud.add("b-done")
    cloud.workspace.write("b-done", "receipt.json", b"{}")
    cloud.add("c-swept", swept_at=LONG_AGO.isoformat())
    cloud.add("d-runs")
    cloud.executions["d-runs"] = {"status": "RUNNING"}
    cloud.add("e-old")
    found = cloud.sweep()
    assert (found["jobs"], found["swept"]) == (5, ["e-old"])
    assert cloud.names("d-runs") == WHOLE
    assert cloud.names("a-bare") == ["plan.jsonl"]
    assert cloud.names("b-done") == sorted([*WHOLE, "receipt.json"])


def gone() -> Exception:
    return refusal("ExecutionDoesNotExist", "DescribeExecution")


@pytest.mark.parametrize(
    ("started_at", "execution", "goes"),
    [
        (LONG_AGO, {"status": "FAILED", "stopDate": NOW - WINDOW - timedelta(seconds=1)}, True),
        (LONG_AGO, {"status": "FAILED", "stopDate": NOW - WINDOW}, False),
        (LONG_AGO, {"status": "RUNNING", "stopDate": LONG_AGO}, False),
        (LONG_AGO, {"status": "PENDING_REDRIVE"}, False),
        (LONG_AGO, gone(), True),
        (NOW - WINDOW, gone(), True),
        (NOW - WINDOW + timedelta(seconds=1), gone(), False),
    ],
)
def test_a_job_is_given_up_when_its_start_and_its_end_lie_behind_the_resume_window(
    started_at: datetime, execution: Any, goes: bool
) -> None:
    cloud = Cloud()
    cloud.add("job", started_at=started_at.isoformat())
    cloud.executions["job"] = execution
    assert cloud.sweep()["swept"] == (["job"] if goes else [])
    assert cloud.names("job") == (SWEPT if goes else WHOLE)


def test_the_moment_is_now_unless_another_one_is_given() -> None:
    cloud = Cloud()
    now = datetime.now(UTC)
    cloud.add("old", started_at=(now - WINDOW - timedelta(minutes=1)).isoformat())
    cloud.add("young", started_at=(now - WINDOW + timedelta(minutes=1)).isoformat())
    cloud.executions |= {"old": gone(), "young": gone()}
    assert cloud.sweep(now=None)["swept"] == ["old"]


def test_no_job_is_begun_without_half_a_minute_left() -> None:
    cloud = Cloud()
    for name in ("a", "b", "c", "d"):
        cloud.add(name)
    found = cloud.sweep(31.0, 30.0, 29.9)
    assert (found["jobs"], found["swept"]) == (2, ["a", "b"])


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDenied", "DescribeExecution"),
        EndpointConnectionError(endpoint_url="http://local"),
        BlockferryError("planted"),
        RuntimeError("planted"),
    ],
)
def test_one_job_that_cannot_be_looked_at_does_not_stop_the_others(error: Exception) -> None:
    cloud = Cloud()
    cloud.add("a")
    cloud.add("b")
    cloud.executions["a"] = error
    with pytest.raises(BlockferryError) as caught:
        cloud.sweep()
    assert str(caught.value) == f"jobs that could not be swept:\n- a: {error}"
    assert (cloud.names("a"), cloud.names("b")) == (WHOLE, SWEPT)


@pytest.mark.parametrize(
    "error", [refusal("Unavailable", "DescribeSnapshots"), EndpointConnectionError(endpoint_url="http://local")]
)
def test_a_job_of_which_something_could_not_be_deleted_is_not_marked_and_all_is_named(error: Exception) -> None:
    cloud = Cloud()
    cloud.add("a", target(snapshot_id="snap-a"), target(snapshot_id="snap-b", region=THIRD))
    cloud.regions[RECOVERY].errors["DescribeSnapshots"] = error
    cloud.shows(THIRD, "snap-b", "a")
    cloud.shows(THIRD, "snap-c", "a")
    cloud.regions[THIRD].errors["DeleteSnapshot"] = refusal("UnauthorizedOperation", "DeleteSnapshot")
    with pytest.raises(BlockferryError) as caught:
        cloud.sweep()
    denied = "DeleteSnapshot: UnauthorizedOperation: refused"
    assert str(caught.value) == (
        f"jobs that could not be swept:\n- a: targets that could not be deleted: in {RECOVERY}: {error}; "
        f"snap-b in {THIRD} ({denied}); snap-c in {THIRD} ({denied})"
    )
    assert cloud.names("a") == WHOLE
    after = cloud.workspace.job("a")
    assert after is not None
    assert after.swept_at is None
