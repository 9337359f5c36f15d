"""Planning: the shares of workers, a plan that is asked for twice, and targets that cannot be started."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.ebs.client import NewSnapshot, StartedSnapshot
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import EXECUTION_TAG
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, OutOfTime, RequestRefused, RetryLater
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Swept
from blockferry.jobs.running import Asked, Running
from blockferry.jobs.workspace import Workspace
from blockferry.operations import pairing_of
from blockferry.sources.snapshot import JobSnapshot
from blockferry.sources.unpack import MARKER, UnpackedInfo
from blockferry.transfer.job import Job, planned_job, record_digest, recorded_job
from blockferry.transfer.plan import PlanInput, plan_transfer
from botocore.exceptions import EndpointConnectionError
from fakes import ManualClock
from job_records import HOME, RECOVERY, THIRD
from memory_ebs import MemoryEbs
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

SNAPSHOT = "snap-0123456789abcdef0"
BASE, PARENT = "snap-0000000b", "snap-0000000a"
ROLE = "arn:aws:iam::444455556666:role/writer"


class Account:
    """One account's regions; ``errors`` are raised by StartSnapshot there, ``places`` is Lambda's limit. What EBS
    starts has ``key``."""

    own_region = HOME

    def __init__(self, *, places: int = 1_000, size_gib: int = 1) -> None:
        facts = described(SNAPSHOT, tags={"of": "source"}, VolumeSize=size_gib, VolumeId="vol-1", Encrypted=False)
        self.regions = {region: MemoryEc2() for region in (HOME, RECOVERY, THIRD)}
        self.regions[HOME].snapshots[SNAPSHOT] = facts
        self.s3: Any = None
        self.errors: dict[str, Exception] = {}
        self.no_time_to_list = False
        self.started: list[tuple[str, NewSnapshot]] = []
        self.tries: list[str] = []
        self.key: str | None = None
        self.places = places

    def ec2(self, identity: Identity) -> Any:
        client = self.regions[identity.region]
        names = [{"RegionName": name} for name in self.regions]
        client.describe_regions = lambda **_: {"Regions": names}  # type: ignore[attr-defined]
        return client

    def functions(self, region: str) -> Any:
        assert region == HOME
        limits = {"ConcurrentExecutions": self.places, "UnreservedConcurrentExecutions": self.places}
        return SimpleNamespace(get_account_settings=lambda: {"AccountLimit": limits})

    def image_s3(self, identity: Identity) -> Any:
        assert identity == Identity(HOME)
        return self.s3

    def ebs(self, identity: Identity, **_: Any) -> Any:
        ebs: Any = MemoryEbs({SNAPSHOT: {0: b""}, BASE: {}, PARENT: {}}, region=identity.region)
        list_blocks = ebs.list_blocks

        def listed(snapshot_id: str, *, window: int, **more: Any) -> Any:
            if self.no_time_to_list and window > 1:  # whether it can be read at all is asked with one
                raise OutOfTime("no time was left")
            return list_blocks(snapshot_id, window=window, **more)

        ebs.list_blocks = listed

        def start(new: NewSnapshot) -> StartedSnapshot:
            self.tries.append(identity.region)
            if identity.region in self.errors:
                raise self.errors[identity.region]
            self.started.append((identity.region, new))
            name = f"snap-{len(self.started)}"
            self.regions[identity.region].snapshots[name] = described(name, state="pending", tags=new.tags)
            return StartedSnapshot(name, self.key)

        ebs.start_snapshot = start
        return ebs


def asked(*regions: str, **options: Any) -> dict[str, Any]:
    return {
        "snapshot_id": SNAPSHOT,
        "targets": [{"region": region, "encrypted": False, "tags": {"n": str(n)}} for n, region in enumerate(regions)],
        "options": {"holes": "preserve", **options},
    }


def twins(*roles: str | None, **options: Any) -> dict[str, Any]:
    return {
        "snapshot_id": SNAPSHOT,
        "targets": [{"region": RECOVERY, "encrypted": False, "role_arn": role} for role in roles],
        "options": {"holes": "preserve", **options},
    }


@pytest.fixture
def workspace() -> Workspace:
    return Workspace("work", cast(Any, MemoryS3()))


def event(request: Mapping[str, Any], operation: str = "copy") -> PlanInput:
    arn = f"arn:aws:states:{HOME}:111122223333:execution:blockferry-{operation}:job-1"
    return PlanInput(Execution(arn), "2026-01-02T00:00:00+00:00", request)


def plan(request: Mapping[str, Any], account: Account, workspace: Workspace, operation: str = "copy") -> dict[str, Any]:
    call = JobCall(aws=cast(Any, account), folder=workspace.folder(operation, "job-1"), clock=ManualClock())
    return plan_transfer(call, pairing_of(operation), event(request, operation))


def record_of(workspace: Workspace, operation: str = "copy") -> Job:
    found = planned_job(workspace.folder(operation, "job-1"))
    assert found is not None
    return found


def planned(request: Mapping[str, Any], account: Account, workspace: Workspace) -> Job:
    plan(request, account, workspace)
    return record_of(workspace)


def ids(job: Job) -> list[str | None]:
    return [target.started and target.started.snapshot_id for target in job.targets]


@pytest.fixture
def folder(workspace: Workspace) -> JobFolder:
    return workspace.folder("copy", "job-1")


def objects(workspace: Workspace) -> dict[str, bytes]:
    return cast(Any, workspace.s3).objects


def test_the_pointer_names_what_later_states_need(workspace: Workspace) -> None:
    pointer = plan(asked(RECOVERY, blocks_per_range=1_000), Account(), workspace)
    record = pointer.pop("record")
    call = JobCall(aws=cast(Any, None), folder=workspace.folder("copy", "job-1"))
    assert recorded_job(call, record) == record_of(workspace)
    assert pointer == {
        "done": True,
        "job_id": "job-1",
        "bucket": "work",
        "plan_key": "jobs/copy/job-1/plan/ranges.jsonl",
        "results_prefix": "jobs/copy/job-1/results",
        "max_concurrency": 3,
        "unpack": False,
        "dry_run": False,
        "estimate": None,
    }
    lines = [json.loads(line) for line in objects(workspace)["jobs/copy/job-1/plan/ranges.jsonl"].splitlines()]
    assert lines == [{"first": 0, "stop": 1_000}, {"first": 1_000, "stop": 2_000}, {"first": 2_000, "stop": 2_048}]


def test_the_record_holds_what_was_planned(workspace: Workspace) -> None:
    request = asked(RECOVERY, THIRD, blocks_per_range=512)
    found = planned(request, Account(places=5), workspace)
    assert isinstance(found.source, JobSnapshot)
    assert (found.job_id, found.operation, found.started_at) == ("job-1", "copy", "2026-01-02T00:00:00+00:00")
    assert found.execution_arn == event(request).execution.arn
    assert (found.total_blocks, found.blocks_per_range, found.max_concurrency) == (2_048, 512, 2)
    assert "Lambda" in found.workers_because
    assert [warning.code for warning in found.warnings] == ["account_concurrency"]
    assert (found.holes.value, found.holes_decided_by, found.verify_parents) == ("preserve", "request", False)
    assert found.holes_reason != ""
    assert found.fingerprint == hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    assert ids(found) == ["snap-1", "snap-2"]


@pytest.mark.parametrize(
    ("request_", "workers", "share", "threads"),
    [
        (asked(RECOVERY, blocks_per_range=2_048), 1, 1_000.0, 32),
        (asked(RECOVERY, blocks_per_range=205), 10, 100.0, 26),
        (asked(HOME, blocks_per_range=205), 10, 100.0, 12),
        (asked(RECOVERY, THIRD, blocks_per_range=205), 10, 100.0, 26),
        (asked(RECOVERY, blocks_per_range=1), 14, 1_000 / 14, 19),
        (asked(RECOVERY, THIRD, blocks_per_range=1), 21, 1_000 / 21, 13),
        (twins(None, ROLE, blocks_per_range=1), 21, 1_000 / 21, 13),
        (twins(None, ROLE, blocks_per_range=2_048), 1, 1_000.0, 32),
        (asked(RECOVERY, blocks_per_range=1, max_concurrency=100), 100, 10.0, 4),
        (asked(RECOVERY, blocks_per_range=1, max_concurrency=40), 40, 25.0, 7),
        (asked(RECOVERY, blocks_per_range=1, max_concurrency=16), 16, 62.5, 17),
    ],
)
def test_the_quota_is_shared_by_workers_and_threads_follow_littles_law(
    request_: dict[str, Any], workers: int, share: float, threads: int, workspace: Workspace
) -> None:
    found = planned(request_, Account(), workspace)
    assert (found.max_concurrency, found.blocks_per_second, found.threads) == (workers, share, threads)


@pytest.mark.parametrize(("regions", "told"), [((RECOVERY,), False), ((RECOVERY, THIRD), True)])
def test_a_job_that_may_take_longer_than_it_has_is_planned_and_says_so(
    regions: tuple[str, ...], told: bool, workspace: Workspace
) -> None:
    # Four workers of a new account carry 286 blocks a second to one target, 191 to two: 5.4 and 8.1 days.
    found = planned(asked(*regions), Account(places=10, size_gib=65_536), workspace)
    slow = [warning.message for warning in found.warnings if warning.code == "longer_than_a_job_has"]
    assert len(slow) == told
    assert all("8.1 days" in message for message in slow)


def test_targets_in_one_account_and_region_share_its_quota(workspace: Workspace) -> None:
    request = asked(RECOVERY, THIRD, blocks_per_range=2_048)
    request["targets"].append({"region": RECOVERY, "encrypted": True, "kms_key_arn": None})
    account = Account()
    account.errors[RECOVERY] = RetryLater("no answer")
    found = planned(request, account, workspace)
    assert found.blocks_per_second == 500.0


# -- a second time -----------------------------------------------------------------------------------------------------


def test_a_plan_that_is_asked_for_again_starts_nothing_again(workspace: Workspace) -> None:
    account = Account()
    first = plan(asked(RECOVERY), account, workspace)
    record = record_of(workspace)
    account.regions[HOME].snapshots.clear()
    assert plan(asked(RECOVERY), account, workspace) == first
    assert record_of(workspace) == record
    assert account.tries == [RECOVERY]


def test_another_input_under_the_same_name_is_refused(workspace: Workspace) -> None:
    account = Account()
    plan(asked(RECOVERY), account, workspace)
    with pytest.raises(
        InvalidRequest, match=r"job named job-1 with another input is recorded in s3://work/jobs/copy/job-1/"
    ):
        plan(asked(THIRD), account, workspace)
    assert account.tries == [RECOVERY]


def test_the_order_of_the_inputs_keys_does_not_make_another_input(workspace: Workspace) -> None:
    account, request = Account(), asked(RECOVERY)
    plan(request, account, workspace)
    plan(dict(reversed(request.items())), account, workspace)
    assert account.tries == [RECOVERY]


def test_a_job_that_was_swept_is_not_planned_again(workspace: Workspace, folder: JobFolder) -> None:
    planned(asked(RECOVERY), Account(), workspace)
    folder.save_swept(Swept(at="2026-02-03T00:00:00+00:00", kept=False))
    with pytest.raises(IncompleteTransfer, match="swept"):
        plan(asked(RECOVERY), Account(), workspace)


# -- targets that cannot be started ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [RetryLater("no answer"), EndpointConnectionError(endpoint_url=f"https://ebs.{RECOVERY}.amazonaws.com")]
)
def test_one_that_cannot_be_reached_is_left_for_later(error: Exception, workspace: Workspace) -> None:
    account = Account()
    account.errors[RECOVERY] = error
    found = planned(asked(RECOVERY, THIRD), account, workspace)
    assert ids(found) == [None, "snap-1"]
    assert "jobs/copy/job-1/plan/ranges.jsonl" in objects(workspace)
    account.errors.clear()
    found = planned(asked(RECOVERY, THIRD), account, workspace)
    assert ids(found) == ["snap-2", "snap-1"]


def test_if_none_can_be_reached_the_first_error_is_the_jobs(workspace: Workspace) -> None:
    account = Account()
    account.errors = {
        RECOVERY: EndpointConnectionError(endpoint_url="https://one.invalid"),
        THIRD: RetryLater("the second"),
    }
    with pytest.raises(RetryLater, match=rf"target in {RECOVERY}: .*https://one\.invalid"):
        plan(asked(RECOVERY, THIRD), account, workspace)
    account.errors[RECOVERY] = RetryLater("the first")
    account.errors[THIRD] = EndpointConnectionError(endpoint_url="https://two.invalid")
    with pytest.raises(RetryLater, match="the first"):
        plan(asked(RECOVERY, THIRD), account, workspace)
    assert record_of(workspace).started == {}
    assert "jobs/copy/job-1/plan/ranges.jsonl" not in objects(workspace)


@pytest.mark.parametrize("error", [RequestRefused("no more snapshots"), InvalidRequest("no such role")])
def test_one_that_is_refused_ends_the_job_and_nothing_is_left(error: Exception, workspace: Workspace) -> None:
    account = Account()
    account.errors[THIRD] = error
    words = rf"targets\[1\] in {THIRD} cannot be started: {error}\. Nothing is left of the job"
    with pytest.raises(InvalidRequest, match=words):
        plan(asked(RECOVERY, THIRD), account, workspace)
    assert account.regions[RECOVERY].snapshots == {}
    assert account.tries == [RECOVERY, THIRD]


def test_what_a_refusal_has_deleted_is_not_taken_for_started_by_a_plan_that_is_repeated(workspace: Workspace) -> None:
    account, request = Account(), asked(RECOVERY, THIRD)
    # The first plan dies when one target is on record, the next one is refused the other.
    for error, kind in ((KeyError("died"), KeyError), (RequestRefused("no"), InvalidRequest)):
        account.errors[THIRD] = error
        with pytest.raises(kind):
            plan(request, account, workspace)
    assert account.regions[RECOVERY].snapshots == {}
    assert account.tries.count(RECOVERY) == 1
    account.errors.clear()
    found = planned(request, account, workspace)
    shown = [*account.regions[RECOVERY].snapshots, *account.regions[THIRD].snapshots]
    assert sorted(map(str, ids(found))) == sorted(shown)


class Late(MemoryEc2):
    """Knows no snapshot in the first looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def _knows(self) -> bool:
        return self.calls["DescribeSnapshots"] > self.looks

    def _found(self, *asked: Any) -> list[Any]:
        return super()._found(*asked) if self._knows else []

    def delete_snapshot(self, *, SnapshotId: str) -> None:
        if not self._knows:
            raise refusal("InvalidSnapshot.NotFound", "DeleteSnapshot")
        super().delete_snapshot(SnapshotId=SnapshotId)


@pytest.mark.parametrize(("looks", "left"), [(8, False), (100, True)])
def test_a_target_that_ec2_does_not_know_yet_is_not_called_deleted(
    looks: int, left: bool, workspace: Workspace
) -> None:
    account = Account()
    account.regions[RECOVERY] = late = Late(looks)
    account.errors[THIRD] = RequestRefused("no more snapshots")
    with pytest.raises(InvalidRequest) as caught:
        plan(asked(RECOVERY, THIRD), account, workspace)
    told = f"Not deleted yet: snap-1 in {RECOVERY} (EC2 does not know snap-1 in {RECOVERY}, which was started a moment"
    assert (told in str(caught.value)) is left
    assert ("Nothing is left of the job" in str(caught.value)) is not left
    assert list(late.snapshots) == (["snap-1"] if left else [])


def test_one_that_comes_out_encrypted_ends_the_job_and_nothing_is_left(workspace: Workspace) -> None:
    account = Account()
    account.key = "arn:aws:kms:eu-west-1:111122223333:key/1"
    with pytest.raises(InvalidRequest, match=r"targets\[0\] .* no encryption was asked for, .*Nothing is left"):
        plan(asked(RECOVERY), account, workspace)
    assert account.regions[RECOVERY].snapshots == {}


@pytest.mark.parametrize(
    "error", [RetryLater("no answer"), EndpointConnectionError(endpoint_url=f"https://ebs.{RECOVERY}.amazonaws.com")]
)
def test_one_more_of_a_region_that_did_not_answer_is_tried(error: Exception, workspace: Workspace) -> None:
    account = Account()
    account.errors[RECOVERY] = error
    request = asked(RECOVERY, THIRD, THIRD)
    request["targets"].insert(1, {"region": RECOVERY, "role_arn": ROLE, "encrypted": False})
    request["targets"][3]["role_arn"] = ROLE
    plan(request, account, workspace)
    assert sorted(account.tries) == sorted([RECOVERY, RECOVERY, THIRD, THIRD])


def test_whoever_has_to_choose_about_holes_is_asked_and_nothing_is_left(workspace: Workspace) -> None:
    account, request = Account(), asked(RECOVERY, holes=None)
    account.regions[HOME].snapshots[SNAPSHOT]["VolumeId"] = "vol-ffffffff"
    request["targets"][0]["encrypted"] = True
    with pytest.raises(InvalidRequest, match=r"options\.holes"):
        plan(request, account, workspace)
    assert (account.tries, objects(workspace)) == ([], {})


@pytest.mark.parametrize("asks", [True, False])
def test_a_count_for_which_there_is_no_time_is_begun_again(asks: bool, workspace: Workspace) -> None:
    """Of what the choices about holes would cost, or of a dry run."""
    account, request = Account(), asked(RECOVERY, **({"holes": None} if asks else {"dry_run": True}))
    account.regions[HOME].snapshots[SNAPSHOT]["VolumeId"] = "vol-ffffffff"
    request["targets"][0]["encrypted"] = True
    account.no_time_to_list = True
    with pytest.raises(RetryLater, match=f"nothing of .*{SNAPSHOT}.* could be counted behind block 0: no list came"):
        plan(request, account, workspace)
    assert (account.tries, objects(workspace)) == ([], {})


class Busy(MemoryS3):
    """A work bucket in which the workers of other jobs cannot be looked at."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def paginate(self, *, Prefix: str, **asked: Any) -> Any:
        if Prefix.startswith("running/"):
            raise self._error
        return super().paginate(Prefix=Prefix, **asked)


@pytest.mark.parametrize(
    "error",
    [refusal("SlowDown", "ListObjectsV2", status=503), EndpointConnectionError(endpoint_url="https://s3.invalid")],
)
def test_workers_of_others_that_cannot_be_seen_are_not_counted(error: Exception, workspace: Workspace) -> None:
    of = asked(RECOVERY, blocks_per_range=1)
    unseen = planned(of, Account(places=20), Workspace("work", cast(Any, Busy(error))))
    alone = planned(of, Account(places=20), workspace)
    assert unseen.max_concurrency == alone.max_concurrency
    running = Running("work", cast(Any, MemoryS3()))
    for first in range(14):
        running.renew(("copy", "another"), first, Asked(requests={"get": 1}, blocks_per_worker=1.0))
    assert planned(of, Account(places=20), Workspace("work", running.s3)).max_concurrency < alone.max_concurrency


def test_the_record_tells_what_was_decided_about_holes(workspace: Workspace) -> None:
    found = planned(asked(RECOVERY, holes="zero_fill"), Account(), workspace)
    assert (found.holes.value, found.holes_taken_for.value) == ("zero_fill", "noise")


@pytest.mark.parametrize("verify", [True, False])
def test_a_sync_plans_the_comparison_that_was_asked_for_with_a_parent_of_the_own_account(
    verify: bool, workspace: Workspace
) -> None:
    account = Account()
    known = {"VolumeId": "vol-1", "Encrypted": False, "Description": ""}
    account.regions[HOME].snapshots[BASE] = described(BASE, **known)
    marks = {"source-snapshot-id": BASE, "source-region": HOME, "proved-snapshot-id": PARENT, "lineage": "vol-1"}
    tags = {f"blockferry:{key}": value for key, value in marks.items()}
    tags |= {"blockferry:job-id": "j", "blockferry:linear-checksum": "c", "blockferry:holes": "noise"}
    account.regions[RECOVERY].snapshots[PARENT] = described(PARENT, tags=tags, **known)
    request = {
        "snapshot_id": SNAPSHOT,
        "base_snapshot_id": BASE,
        "targets": [{"region": RECOVERY, "parent_snapshot_id": PARENT}],
        "options": {"verify_parent": verify},
    }
    plan(request, account, workspace, "sync")
    found = record_of(workspace, "sync")
    assert (found.operation, found.verify_parents, found.targets[0].snapshot_id) == ("sync", verify, "snap-1")
    assert [new.parent_snapshot_id for _, new in account.started] == [PARENT]


# -- images that must be unpacked --------------------------------------------------------------------------------------


def test_an_image_is_unpacked_before_anything_is_started_and_then_planned_anew(workspace: Workspace) -> None:
    account = Account()
    body = gzip.compress(b"\0" * 600_000)
    answer = {"ContentLength": len(body), "ETag": '"e"'}
    account.s3 = SimpleNamespace(
        head_object=lambda **_: answer, get_object=lambda **_: {**answer, "Body": io.BytesIO(body)}
    )
    request = {"image_uri": "s3://images/disk.gz", "targets": [{"region": RECOVERY, "encrypted": False}]}
    first = plan(request, account, workspace, "fanout")
    assert first["unpack"] is True
    assert list(objects(workspace)) == ["jobs/fanout/job-1/plan/job.json"]
    assert first["record"] == record_digest(workspace.folder("fanout", "job-1"))
    assert account.tries == []
    info = UnpackedInfo(raw_bytes=600_000, chunks=1, etag='"e"', codec="gzip")
    workspace.folder("fanout", "job-1").write(MARKER, info.model_dump_json().encode())
    assert plan(request, account, workspace, "fanout")["unpack"] is False
    found = record_of(workspace, "fanout")
    assert (found.total_blocks, account.tries) == (2_048, [RECOVERY])


def test_a_dry_run_starts_and_writes_nothing(workspace: Workspace) -> None:
    account = Account()
    found = plan(asked(RECOVERY, dry_run=True), account, workspace)
    assert (found["dry_run"], found["estimate"]["status"], account.tries) == (True, "DRY_RUN", [])
    assert objects(workspace) == {}


def crowded(account: Account, region: str, count: int, **more: Any) -> None:
    for number in range(count):
        name = f"snap-{region}-{number}"
        shown = {"state": "pending", "tags": {}, "VolumeId": "vol-ffffffff", **more}
        account.regions[region].snapshots[name] = described(name, **shown)


def test_a_job_that_cannot_start_all_its_targets_is_refused_and_starts_none(workspace: Workspace) -> None:
    account = Account()
    crowded(account, RECOVERY, 99)
    crowded(account, THIRD, 99)
    two = asked(THIRD, RECOVERY, RECOVERY)
    key = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
    two["targets"][1]["role_arn"] = ROLE
    two["targets"][2] = {"region": RECOVERY, "role_arn": ROLE, "kms_key_arn": key}
    with pytest.raises(InvalidRequest) as caught:
        plan(two, account, workspace)
    assert str(caught.value).startswith(
        f"targets[1], targets[2]: the account of {ROLE} has 99 pending snapshots in {RECOVERY} and EBS lets it have "
        "100, a quota that cannot be raised: there is room for 1 of 2."
    )
    assert f"aws ec2 describe-snapshots --region {RECOVERY} " in str(caught.value)
    assert THIRD not in str(caught.value)
    assert account.tries == []
    assert objects(workspace) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"VolumeId": "vol-0123456789abcdef0"},
        {"TransferType": "standard"},
        {"state": "completed"},
        {"state": "error"},
        {"OwnerId": "123456789012"},
        {"tags": {EXECUTION_TAG: event({}).execution.mark}},
    ],
    ids=["of a volume", "a copy", "completed", "failed", "of others", "of this job"],
)
def test_what_does_not_count_towards_the_quota_takes_up_no_room(more: dict[str, Any], workspace: Workspace) -> None:
    account = Account()
    crowded(account, RECOVERY, 100, **more)
    plan(asked(RECOVERY), account, workspace)
    assert account.tries == [RECOVERY]


def test_the_last_place_is_taken(workspace: Workspace) -> None:
    account = Account()
    crowded(account, RECOVERY, 99)
    plan(asked(RECOVERY), account, workspace)
    assert account.tries == [RECOVERY]


def test_where_nobody_may_look_ebs_decides(workspace: Workspace) -> None:
    account = Account()
    account.regions[RECOVERY].errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
    plan(asked(RECOVERY), account, workspace)
    assert account.tries == [RECOVERY]


def test_a_plan_that_is_asked_for_again_needs_no_room_for_what_it_has_started(workspace: Workspace) -> None:
    account = Account()
    plan(asked(RECOVERY), account, workspace)
    crowded(account, RECOVERY, 100)
    plan(asked(RECOVERY), account, workspace)
    assert account.tries == [RECOVERY]
