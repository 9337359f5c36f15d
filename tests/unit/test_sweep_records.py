"""What a sweep does with each kind of record, and exactly what it says and leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import EXECUTION_TAG
from blockferry.core.errors import BlockferryError
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import JOB, RANGES, RECEIPT, STARTED, SWEPT, JobFolder
from blockferry.jobs.record import Sealing, Swept
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.job import Job
from blockferry.transfer.plan import fingerprint_of
from blockferry.transfer.sweep import sweep_jobs
from botocore.exceptions import EndpointConnectionError
from deployment import EXECUTIONS
from job_records import HOME, RECOVERY, THIRD, archive, job, recorded, source, target
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

NOW = datetime(2026, 1, 10, tzinfo=UTC)
WINDOW = timedelta(hours=72)
LONG_AGO = NOW - timedelta(days=5)


INPUT = {"targets": [{"region": RECOVERY}, {"region": THIRD}]}
"""What every execution was started with, as far as a sweep cares."""


class Cloud:
    """A bucket, the executions of jobs and the snapshots of regions."""

    def __init__(self) -> None:
        self.s3 = MemoryS3()
        self.workspace = Workspace("blockferry-work-111122223333-us-east-1", cast(Any, self.s3))
        self.regions = {region: MemoryEc2() for region in (RECOVERY, THIRD)}
        self.executions: dict[str, Any] = {}
        self.asked: list[str] = []
        self.acted_as: list[Identity] = []
        self.archives = MemoryS3()

    def image_s3(self, identity: Identity) -> MemoryS3:
        self.acted_as.append(identity)
        return self.archives

    def ec2(self, identity: Identity) -> MemoryEc2:
        self.acted_as.append(identity)
        return self.regions[identity.region]

    def step_functions(self, region: str) -> Any:
        def describe_execution(*, executionArn: str) -> Any:
            self.asked.append(f"{region} {executionArn}")
            found = self.executions[executionArn.rsplit(":", 1)[-1]]
            if isinstance(found, BaseException):
                raise found
            return {"input": json.dumps(INPUT)} | found

        return SimpleNamespace(describe_execution=describe_execution)

    def add(self, job_id: str, *targets: Any, **more: Any) -> Job:
        """A job that ended long ago, with some objects."""
        swept = more.pop("swept", None)
        known = {"job_id": job_id, "fingerprint": fingerprint_of(INPUT), **more}
        made = job(source(), *(targets or (target(snapshot_id=""),)), **known)
        folder = self.workspace.folder(made.operation, job_id)
        recorded(folder, made)
        if swept is not None:
            folder.save_swept(swept)
        for name in (RANGES, "moved/digests/0-1-0.bin", "moved/digests/1-2-0.bin"):
            folder.write(name, b"x")
        self.executions.setdefault(job_id, {"status": "FAILED", "stopDate": LONG_AGO})
        return made

    def folder(self, job_id: str) -> JobFolder:
        return self.workspace.folder("copy", job_id)

    def shows(
        self, region: str, snapshot_id: str, job_id: str, *, state: str = "pending", operation: str = "copy"
    ) -> None:
        tags = {EXECUTION_TAG: Execution(f"{EXECUTIONS}{operation}:{job_id}").mark}
        self.regions[region].snapshots[snapshot_id] = described(snapshot_id, state=state, tags=tags)

    def sweep(self, *times: float, now: datetime | None = NOW) -> dict[str, Any]:
        """A sweep with so many seconds left as it looks at the clock."""
        left = iter(times or [300.0] * 9)
        call = Call(aws=cast(Any, self), time_left=lambda: next(left))
        return sweep_jobs(call, self.workspace, executions=EXECUTIONS, resume_window=WINDOW, now=now)

    def names(self, job_id: str) -> list[str]:
        return sorted(key.removeprefix(f"jobs/copy/{job_id}/") for key in self.s3.objects if f"/{job_id}/" in key)


SEALED = Sealing(state="asked", changed_blocks=1, linear_checksum="c")
GONE = [JOB, STARTED, SWEPT]
WHOLE = ["moved/digests/0-1-0.bin", "moved/digests/1-2-0.bin", JOB, RANGES, STARTED]


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
    cloud.folder("one").save_sealing("snap-b", SEALED)
    assert cloud.sweep() == {
        "jobs": 2,
        "left": 0,
        "swept": ["one", "two"],
        "deleted_snapshots": ["snap-a", "snap-c", "snap-d"],
        "kept_snapshots": [f"snap-b in {RECOVERY} (EBS was asked to seal it)"],
        "earlier_versions": [],
        "failed": [],
    }
    assert [cloud.names(one) for one in ("one", "two")] == [GONE, GONE]
    assert cloud.folder("one").swept() == Swept(at=NOW.isoformat(), kept=True)
    assert cloud.folder("two").swept() == Swept(at=NOW.isoformat(), kept=False)
    assert cloud.regions[RECOVERY].snapshots.keys() == {"snap-b"}
    assert cloud.asked == [
        f"{HOME} arn:aws:states:{HOME}:111122223333:execution:blockferry-copy:{each}" for each in ("one", "two")
    ]


def test_what_was_kept_is_kept_until_it_has_come_to_its_end() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), swept=Swept(at=LONG_AGO.isoformat(), kept=True))
    cloud.shows(RECOVERY, "snap-a", "old")
    cloud.shows(RECOVERY, "snap-b", "old", state="error")
    found = cloud.sweep()
    assert (found["jobs"], found["swept"], found["deleted_snapshots"]) == (1, [], ["snap-b"])
    assert found["kept_snapshots"] == [f"snap-a in {RECOVERY} (kept by an earlier sweep, still pending)"]
    assert cloud.names("old") == GONE
    cloud.regions[RECOVERY].snapshots["snap-a"]["State"] = "error"
    assert cloud.sweep()["deleted_snapshots"] == ["snap-a"]
    assert cloud.folder("old").swept() == Swept(at=LONG_AGO.isoformat(), kept=False)
    asked = dict(cloud.regions[RECOVERY].calls)
    looked = len(cloud.asked)
    found = cloud.sweep()
    assert (found["jobs"], found["swept"], found["deleted_snapshots"], found["kept_snapshots"]) == (1, [], [], [])
    assert cloud.regions[RECOVERY].calls == asked
    assert len(cloud.asked) == looked


def test_what_was_kept_is_left_alone_while_its_execution_runs_again() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), swept=Swept(at=LONG_AGO.isoformat(), kept=True))
    cloud.shows(RECOVERY, "snap-a", "old", state="error")
    cloud.executions["old"] = {"status": "RUNNING"}
    found = cloud.sweep()
    assert (found["deleted_snapshots"], found["kept_snapshots"], found["failed"]) == ([], [], [])
    assert cloud.regions[RECOVERY].snapshots.keys() == {"snap-a"}


def test_an_execution_that_does_not_tell_its_input_has_nothing_deleted() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"))
    cloud.shows(RECOVERY, "snap-a", "old")
    cloud.executions["old"] = {"status": "FAILED", "stopDate": LONG_AGO, "input": None}
    with pytest.raises(BlockferryError, match=f"names a target in {RECOVERY}, which arn"):
        cloud.sweep()
    assert cloud.regions[RECOVERY].snapshots.keys() == {"snap-a"}


def test_a_swept_job_with_nothing_kept_only_loses_what_a_late_worker_has_stored() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), swept=Swept(at=LONG_AGO.isoformat(), kept=False))
    cloud.shows(RECOVERY, "snap-a", "old", state="error")
    assert cloud.sweep()["deleted_snapshots"] == []
    assert cloud.names("old") == GONE
    assert cloud.regions[RECOVERY].calls == {}


def test_a_job_is_left_alone_if_it_ended_well_or_nobody_knows_its_record() -> None:
    cloud = Cloud()
    cloud.folder("a-bare").write(RANGES, b"x")
    cloud.add("b-done")
    cloud.folder("b-done").write(RECEIPT, b"{}")
    cloud.add("c-swept", swept=Swept(at=LONG_AGO.isoformat(), kept=False))
    cloud.add("d-runs")
    cloud.executions["d-runs"] = {"status": "RUNNING"}
    cloud.add("e-old")
    found = cloud.sweep()
    assert (found["jobs"], found["swept"]) == (5, ["e-old"])
    assert cloud.names("d-runs") == WHOLE
    assert cloud.names("a-bare") == [RANGES]
    assert cloud.names("b-done") == sorted([*WHOLE, RECEIPT])


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
    assert cloud.names("job") == (GONE if goes else WHOLE)


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
    ],
)
def test_one_job_that_cannot_be_looked_at_does_not_stop_the_others(error: Exception) -> None:
    cloud = Cloud()
    cloud.add("a")
    cloud.add("b")
    cloud.executions["a"] = error
    with pytest.raises(BlockferryError) as caught:
        cloud.sweep()
    assert str(caught.value) == f"jobs that could not be swept:\n- copy a: {error}"
    assert (cloud.names("a"), cloud.names("b")) == (WHOLE, GONE)


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
        f"jobs that could not be swept:\n- copy a: targets that could not be deleted: in {RECOVERY}: {error}; "
        f"snap-b in {THIRD} ({denied}); snap-c in {THIRD} ({denied})"
    )
    assert cloud.names("a") == WHOLE
    assert cloud.folder("a").swept() is None


# -- of an execution that nobody knows any more ------------------------------------------------------------------------


def test_no_role_is_assumed_for_a_job_whose_execution_nobody_knows_any_more() -> None:
    cloud = Cloud()
    other = target(snapshot_id="snap-b", region=THIRD, role_arn="arn:aws:iam::123456789012:role/other")
    cloud.add("old", target(snapshot_id="snap-a"), other)
    cloud.executions["old"] = gone()
    cloud.shows(RECOVERY, "snap-a", "old")
    cloud.shows(THIRD, "snap-b", "old")
    found = cloud.sweep()
    assert (found["swept"], found["deleted_snapshots"]) == (["old"], ["snap-a"])
    assert found["kept_snapshots"] == [
        f"in {THIRD}, as arn:aws:iam::123456789012:role/other (the execution that named the role is not known any more)"
    ]
    assert set(cloud.acted_as) == {Identity(RECOVERY)}


# -- of a record that is not borne out ---------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/target"
NAMED = {"region": RECOVERY, "role_arn": ROLE, "external_id": "id"}
"""The only place of the next jobs."""


def with_role(**planted: Any) -> Cloud:
    """A job whose execution was started with one target in another account, and whose record may say another place."""
    cloud = Cloud()
    given = {"targets": [NAMED]}
    cloud.add("old", target(snapshot_id="snap-a", **{**NAMED, **planted}), fingerprint=fingerprint_of(given))
    cloud.executions["old"] = {"status": "FAILED", "stopDate": LONG_AGO, "input": json.dumps(given)}
    for region in cloud.regions:
        cloud.shows(region, f"snap-{region}", "old")
    return cloud


def test_what_a_job_left_where_its_input_names_a_role_is_deleted_as_that_role() -> None:
    cloud = with_role()
    assert cloud.sweep()["deleted_snapshots"] == [f"snap-{RECOVERY}"]
    assert set(cloud.acted_as) == {Identity(RECOVERY, ROLE, "id")}
    assert cloud.names("old") == GONE


@pytest.mark.parametrize("swept", [None, Swept(at=LONG_AGO.isoformat(), kept=True)], ids=["new", "kept before"])
@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"role_arn": f"{ROLE}-2"}, rf"names {ROLE}-2 in {RECOVERY}"),
        ({"external_id": "id2"}, rf"names {ROLE} in {RECOVERY}"),
        ({"external_id": None}, rf"names {ROLE} in {RECOVERY}"),
        ({"region": THIRD}, rf"names {ROLE} in {THIRD}"),
        ({"role_arn": None, "external_id": None}, rf"names a target in {RECOVERY}"),
    ],
    ids=["role", "external id", "no external id", "region", "no role"],
)
def test_nobody_acts_in_a_place_that_the_input_does_not_name(
    planted: dict[str, Any], told: str, swept: Swept | None
) -> None:
    cloud = with_role(**planted)
    if swept is not None:
        cloud.folder("old").save_swept(swept)
    with pytest.raises(BlockferryError, match=f"{told}, which arn:.*:blockferry-copy:old was not started with; noth"):
        cloud.sweep()
    assert cloud.acted_as == []
    assert cloud.folder("old").swept() == swept


def test_one_place_that_the_input_does_not_name_is_enough_to_act_in_none() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), target(snapshot_id="snap-b", region=THIRD, role_arn=ROLE))
    cloud.shows(RECOVERY, "snap-a", "old")
    with pytest.raises(BlockferryError, match=f"names {ROLE} in {THIRD}"):
        cloud.sweep()
    assert (cloud.acted_as, cloud.names("old")) == ([], WHOLE)


def test_a_record_of_another_input_is_not_acted_by_though_it_names_the_same_places() -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), fingerprint=fingerprint_of({"targets": [{"region": RECOVERY}]}))
    cloud.shows(RECOVERY, "snap-a", "old")
    with pytest.raises(BlockferryError, match=r"has another input, which arn:.* was not started with; nothing is"):
        cloud.sweep()
    assert (cloud.acted_as, cloud.names("old")) == ([], WHOLE)


@pytest.mark.parametrize(
    "arn",
    [
        f"{EXECUTIONS}sync:old",
        f"{EXECUTIONS}copy-2:old",
        f"{EXECUTIONS.replace('111122223333', '123456789012')}copy:old",
        f"{EXECUTIONS.replace(HOME, THIRD)}copy:old",
    ],
)
def test_a_record_of_another_execution_is_not_acted_by_and_nobody_asks_about_it(arn: str) -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), execution_arn=arn)
    for mark in (Execution(arn).mark, Execution(f"{EXECUTIONS}copy:old").mark):
        cloud.regions[RECOVERY].snapshots[mark] = described(mark, state="pending", tags={EXECUTION_TAG: mark})
    with pytest.raises(BlockferryError, match=f"is the record of {arn}, and not of {EXECUTIONS}copy:old, after which"):
        cloud.sweep()
    assert (cloud.asked, cloud.acted_as, cloud.names("old")) == ([], [], WHOLE)


@pytest.mark.parametrize(
    "planted",
    [
        {"targets": []},
        {"source": {"kind": "archive tape"}},
        {"source": "snapshot"},
        {"source": {"kind": "snapshot"}},
        {"targets": [{"kind": ["snapshot"]}]},
        {"started_at": "yesterday"},
        {"started_at": "2026-01-01T00:00:00"},
        {"execution_arn": "arn"},
        {"execution_arn": f"{EXECUTIONS}copy:a:b"},
    ],
)
def test_a_record_that_no_plan_writes_is_damaged_and_does_not_stop_the_sweep(planted: dict[str, Any]) -> None:
    cloud = Cloud()
    cloud.add("a")
    cloud.add("b")
    folder = cloud.folder("a")
    folder.write(JOB, json.dumps(json.loads(folder.read(JOB) or b"") | planted).encode())
    cloud.s3.delete_object(Bucket="", Key=folder.key(STARTED))
    with pytest.raises(BlockferryError, match=r"- copy a: s3://.*/jobs/copy/a/plan/job\.json .* is damaged"):
        cloud.sweep()
    assert (cloud.names("b"), cloud.acted_as) == (GONE, [Identity(RECOVERY)])


@pytest.mark.parametrize("targets", [[{"region": {}}], [{"region": RECOVERY, "role_arn": []}], 5, {"region": RECOVERY}])
def test_an_input_of_any_shape_does_not_stop_the_sweep(targets: Any) -> None:
    cloud = Cloud()
    given = {"targets": targets}
    cloud.add("a", fingerprint=fingerprint_of(given))
    cloud.add("b")
    cloud.executions["a"] = {"status": "FAILED", "stopDate": LONG_AGO, "input": json.dumps(given)}
    with pytest.raises(BlockferryError, match=f"- copy a: .* names a target in {RECOVERY}, which .* was not started"):
        cloud.sweep()
    assert (cloud.names("a"), cloud.names("b")) == (WHOLE, GONE)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"targets": [{"region": RECOVERY}]}, f"names a target in {THIRD}"),
        ({"targets": [{"region": RECOVERY}, {"region": THIRD}, {"region": HOME}]}, "has another input"),
        (None, f"names a target in {RECOVERY}"),
        ({"targets": None}, f"names a target in {RECOVERY}"),
        ({"targets": ["x"]}, f"names a target in {RECOVERY}"),
    ],
)
def test_a_record_that_the_input_of_its_execution_does_not_bear_out_is_left_alone(given: Any, told: str) -> None:
    cloud = Cloud()
    cloud.add("old", target(snapshot_id="snap-a"), target(snapshot_id="snap-b", region=THIRD))
    cloud.executions["old"] = {"status": "FAILED", "stopDate": LONG_AGO, "input": json.dumps(given)}
    cloud.shows(RECOVERY, "snap-a", "old")
    with pytest.raises(BlockferryError, match=f"{told}, which arn:aws:states:.*:blockferry-copy:old was not started"):
        cloud.sweep()
    assert cloud.names("old") == WHOLE
    assert all(region.calls == {} for region in cloud.regions.values())


# -- archives ----------------------------------------------------------------------------------------------------------

PLACE = {"bucket": "archives", "prefix": "disks", "role_arn": None, "external_id": None}
"""Where the archive of the next jobs goes, by the input of their execution."""

MARK = Execution(f"{EXECUTIONS}archive:old").mark
PARTS = ("index/0000000000.idx", "segments/0000000000.zst", "segments/0000000064.zst")


def with_archive(*, claim: str | None = MARK, of_parts: str = "disks/archive-1/", **planted: Any) -> Cloud:
    """A job that has left an archive without a manifest, and whose record may say another place than its input."""
    cloud = Cloud()
    given = {"snapshot_id": "snap-0", "archive": PLACE}
    made = archive(execution=MARK, job_id="old", **planted)
    cloud.add("old", made, operation="archive", fingerprint=fingerprint_of(given))
    cloud.executions["old"] = {"status": "FAILED", "stopDate": LONG_AGO, "input": json.dumps(given)}
    for name in PARTS:
        cloud.archives.objects[f"{of_parts}{name}"] = b"x"
    if claim is not None:
        cloud.archives.objects[f"{of_parts}unfinished.json"] = json.dumps({"execution": claim}).encode()
    # Neither longer names nor what lies beside it are its own.
    for other in ("disks/archive-10/manifest.json", "disks/archive-1.json", "disks/archive-2/segments/0000000000.zst"):
        cloud.archives.objects[other] = b"x"
    return cloud


def left_of_the_archive(cloud: Cloud) -> list[str]:
    return sorted(name for name in cloud.archives.objects if name.startswith("disks/archive-1/"))


def test_an_archive_that_nobody_finishes_is_deleted_with_all_its_objects() -> None:
    cloud = with_archive()
    found = cloud.sweep()
    assert (found["swept"], found["deleted_snapshots"], found["kept_snapshots"]) == (["old"], ["archive-1"], [])
    assert left_of_the_archive(cloud) == []
    assert len(cloud.archives.objects) == 3
    assert set(cloud.acted_as) == {Identity(HOME)}


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ({"bucket": "archives-2"}, "names a target in"),
        ({"prefix": "disk/"}, "names a target in"),
        ({"prefix": ""}, "names a target in"),
        ({"prefix": "disks/deeper/"}, "names a target in"),
        ({"role_arn": ROLE}, f"names {ROLE} in"),
        ({"external_id": "id"}, "names a target in"),
    ],
    ids=str,
)
def test_nobody_deletes_an_archive_where_the_input_names_none(planted: dict[str, Any], told: str) -> None:
    place = planted.get("prefix", "disks/")
    cloud = with_archive(of_parts=f"{place}archive-1/", **planted)
    before = dict(cloud.archives.objects)
    with pytest.raises(BlockferryError, match=f"{told} {HOME}, which arn:.*:blockferry-archive:old was not started wi"):
        cloud.sweep()
    assert (cloud.archives.objects, cloud.acted_as) == (before, [])


def test_an_archive_that_another_execution_has_claimed_is_left_to_it() -> None:
    cloud = with_archive(claim="f" * 64)
    before = dict(cloud.archives.objects)
    found = cloud.sweep()
    assert (found["swept"], found["deleted_snapshots"], found["kept_snapshots"]) == (["old"], [], [])
    assert cloud.archives.objects == before


def test_objects_that_nobody_has_claimed_are_kept_and_named() -> None:
    cloud = with_archive(claim=None)
    before = dict(cloud.archives.objects)
    found = cloud.sweep()
    assert found["deleted_snapshots"] == []
    assert found["kept_snapshots"] == ["archive s3://archives/disks/archive-1/ (nobody says whose it is)"]
    assert cloud.archives.objects == before


@pytest.mark.parametrize("claim", [MARK, None, "f" * 64], ids=["claimed", "unclaimed", "claimed by another"])
def test_an_archive_with_a_manifest_is_never_deleted(claim: str | None) -> None:
    cloud = with_archive(claim=claim)
    cloud.archives.objects["disks/archive-1/manifest.json"] = b"whatever it says"
    before = dict(cloud.archives.objects)
    found = cloud.sweep()
    assert (found["swept"], found["deleted_snapshots"]) == (["old"], [])
    if claim == MARK:
        # The job died before it took its claim away.
        assert found["kept_snapshots"] == ["archive s3://archives/disks/archive-1/ (it is complete)"]
        del before["disks/archive-1/unfinished.json"]
    assert cloud.archives.objects == before
    assert cloud.sweep()["kept_snapshots"] == []
    assert cloud.archives.objects == before


def test_an_archive_of_which_something_cannot_be_deleted_keeps_its_claim_and_is_deleted_by_the_next_sweep() -> None:
    cloud = with_archive()
    cloud.archives.stuck.add("disks/archive-1/segments/0000000064.zst")
    with pytest.raises(
        BlockferryError, match=r"DeleteObjects of s3://archives/disks/archive-1/segments/0000000064.zst"
    ):
        cloud.sweep()
    assert left_of_the_archive(cloud) == [
        "disks/archive-1/segments/0000000064.zst",
        "disks/archive-1/unfinished.json",
    ]
    cloud.archives.stuck.clear()
    assert cloud.sweep()["deleted_snapshots"] == ["archive-1"]
    assert left_of_the_archive(cloud) == []


def test_what_a_sweep_cannot_delete_in_its_time_of_a_large_job_the_next_one_deletes() -> None:
    cloud = Cloud()
    cloud.add("large", target(snapshot_id="snap-a"))
    cloud.shows(RECOVERY, "snap-a", "large")
    for number in range(2 * DELETED_OBJECTS):
        cloud.s3.objects[f"jobs/copy/large/image/{number:08}.zst"] = b""
    # Time for this job when it is begun, and none for its second thousand.
    assert cloud.sweep(300.0, 29.0)["swept"] == ["large"]
    assert len(cloud.names("large")) > DELETED_OBJECTS
    cloud.sweep()
    assert cloud.names("large") == GONE


def test_jobs_of_earlier_versions_are_named() -> None:
    cloud = Cloud()
    cloud.s3.objects["jobs/nightly/job.json"] = b"{}"
    assert cloud.sweep()["earlier_versions"] == ["nightly"]


def finished(cloud: Cloud, *names: str) -> None:
    for name in names:
        operation, job_id = name.split("/")
        cloud.workspace.folder(operation, job_id).write(RECEIPT, b"{}")


def test_thousands_of_jobs_are_all_reached_by_sweeps_that_go_on_where_one_stopped() -> None:
    cloud = Cloud()
    finished(cloud, *(f"copy/job-{number:04}" for number in range(1_500)))
    cloud.add("old", target(snapshot_id="snap-a"), operation="sync", execution_arn=f"{EXECUTIONS}sync:old")
    cloud.shows(RECOVERY, "snap-a", "old", operation="sync")
    results = [cloud.sweep(*[300.0] * 400, 29.0) for _ in range(4)]
    assert [(result["jobs"], result["left"]) for result in results] == [(400, 1_101)] * 4
    assert [result["deleted_snapshots"] for result in results] == [[], [], [], ["snap-a"]]
    assert cloud.regions[RECOVERY].snapshots == {}


def test_what_is_finished_costs_one_request_each() -> None:
    cloud = Cloud()
    finished(cloud, *(f"copy/job-{number:04}" for number in range(100)))
    cloud.s3.calls.clear()
    assert cloud.sweep(*[300.0] * 100)["jobs"] == 100
    # And one to see where to begin.
    assert cloud.s3.calls["GetObject"] == 101
    assert cloud.s3.calls["PutObject"] == 0


def test_a_job_that_the_sweeper_dies_of_holds_up_no_other() -> None:
    cloud = Cloud()
    for name in "abc":
        cloud.add(name, target(snapshot_id=f"snap-{name}"))
        cloud.shows(RECOVERY, f"snap-{name}", name)
    cloud.executions["b"] = SystemExit()
    with pytest.raises(SystemExit):
        cloud.sweep()
    assert sorted(cloud.regions[RECOVERY].snapshots) == ["snap-b", "snap-c"]
    with pytest.raises(SystemExit):
        cloud.sweep()
    assert sorted(cloud.regions[RECOVERY].snapshots) == ["snap-b"]
    cloud.executions["b"] = {"status": "FAILED", "stopDate": LONG_AGO}
    assert cloud.sweep()["deleted_snapshots"] == ["snap-b"]


@pytest.mark.parametrize("planted", [b"", b"null", b"{}", b"7", b"[1, 2]", b'["zzz", "zzz"]', b'["copy"]', b"\xff"])
def test_where_to_begin_is_no_matter_of_trust(planted: bytes) -> None:
    cloud = Cloud()
    for name in "ab":
        cloud.add(name, target(snapshot_id=f"snap-{name}"))
        cloud.shows(RECOVERY, f"snap-{name}", name)
    cloud.workspace.folder("sweep", "next").write(SWEPT, planted)
    assert sorted(cloud.sweep()["swept"]) == ["a", "b"]
    assert cloud.regions[RECOVERY].snapshots == {}
