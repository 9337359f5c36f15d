"""Starting targets: what EBS is told, what a role that fails means, and the record that later steps need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.ebs.client import NewSnapshot, StartedSnapshot
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Identity
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import EncryptionDiffers, IncompleteTransfer, InvalidRequest, RetryLater
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Swept
from blockferry.targets.full import FullSnapshot
from blockferry.targets.kind import Started
from blockferry.transfer import plan
from blockferry.transfer.job import Job, Target, recorded_job, save_job, save_started, started_job
from botocore.exceptions import ClientError, EndpointConnectionError
from job_records import AT_ONCE, RECOVERY, THIRD, archive, folder_of, job, on_parent, source, target
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

ROLE = "arn:aws:iam::444455556666:role/writer"
KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
OTHER = f"arn:aws:kms:{RECOVERY}:111122223333:key/99999999-2222-3333-4444-555555555555"
COUNTS = RequestCounts()


class Region:
    """StartSnapshot of one region, which answers with ``key`` or raises ``error``."""

    def __init__(self, *, key: str | None = None, error: Exception | None = None) -> None:
        self.asked: list[NewSnapshot] = []
        self.ec2_client = MemoryEc2()
        self.identities: list[Identity] = []
        self._key = key
        self._error = error

    def ebs(self, identity: Identity, *, counts: RequestCounts, policy: Any, **_: Any) -> Any:
        assert counts is COUNTS
        assert policy.budget_seconds <= 60
        self.identities.append(identity)
        return SimpleNamespace(start_snapshot=self._start)

    def ec2(self, identity: Identity) -> Any:
        self.identities.append(identity)
        return self.ec2_client

    def _start(self, new: NewSnapshot) -> StartedSnapshot:
        if self._error is not None:
            raise self._error
        self.asked.append(new)
        shown = described("snap-new", state="pending", Encrypted=self._key is not None)
        self.ec2_client.snapshots["snap-new"] = shown
        return StartedSnapshot("snap-new", self._key)


def start(of: Job, number: int, region: Region) -> Target:
    call = JobCall(aws=cast(Any, region), counts=COUNTS, folder=folder_of(of, MemoryS3(), "work"))
    return plan.start(of, number, call)


def waiting(**asked: Any) -> FullSnapshot:
    return target(snapshot_id="", **asked)


def test_ebs_is_told_all_that_was_asked_for_of_the_target_at_its_position() -> None:
    long = "x" * 256
    asked = waiting(
        kms_key_arn=KEY,
        encrypted=True,
        description="of the night",
        tags={"a": "1", "long": long, "k" * 128: "v", "k" * 127: "w" * 255},
        size_gib=7,
        role_arn=ROLE,
        external_id="id",
    )
    region = Region(key=KEY)
    before = datetime.now(UTC)
    found = start(job(source(), waiting(region=THIRD), asked), 1, region)
    (new,) = region.asked
    assert (new.volume_size_gib, new.description, new.encrypted, new.kms_key_arn) == (7, "of the night", True, KEY)
    assert new.tags == {"a": "1", "k" * 127: "w" * 255}
    assert new.parent_snapshot_id is None
    assert set(region.identities) == {Identity(RECOVERY, ROLE, "id")}
    assert found.started is not None
    assert before <= datetime.fromisoformat(found.started.at) <= before + timedelta(minutes=1)
    assert found == asked.model_copy(update={"started": Started(snapshot_id="snap-new", at=found.started.at)})


def test_a_parent_is_named() -> None:
    region = Region()
    start(job(source(), on_parent("snap-p", snapshot_id="")), 0, region)
    assert [(new.parent_snapshot_id, new.encrypted) for new in region.asked] == [("snap-p", None)]


def test_the_token_is_that_of_the_execution_and_the_position() -> None:
    region = Region()
    two = job(source(), waiting(), waiting())
    other = two.model_copy(update={"execution_arn": two.execution_arn + "b"})
    for of, number in ((two, 0), (two, 0), (two, 1), (other, 0)):
        start(of, number, region)
    tokens = [new.client_token for new in region.asked]
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 3
    # A version that formed it otherwise would start the targets of a running job once more.
    assert tokens[0] == "51552060b5a491e9b1732d7a05e925c0f2d4d27fa892a000b8630f8b96921d8d"
    assert all(token.isascii() and 32 <= len(token) <= 64 for token in tokens)


def test_a_target_with_another_key_is_deleted_again() -> None:
    region = Region(key=OTHER)
    with pytest.raises(EncryptionDiffers, match=OTHER) as caught:
        start(job(source(), waiting(kms_key_arn=KEY, encrypted=True)), 0, region)
    assert "could not be deleted" not in str(caught.value)
    assert region.ec2_client.snapshots == {}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("UnauthorizedOperation", "DeleteSnapshot"), "UnauthorizedOperation"),
        (EndpointConnectionError(endpoint_url="https://ec2.invalid"), "https://ec2.invalid"),
    ],
)
def test_one_that_cannot_be_deleted_is_told_of(error: Exception, said: str) -> None:
    region = Region(key=OTHER)
    region.ec2_client.errors["DeleteSnapshot"] = error
    with pytest.raises(EncryptionDiffers, match=rf"{OTHER}.* could not be deleted yet: .*{said}"):
        start(job(source(), waiting(kms_key_arn=KEY, encrypted=True)), 0, region)
    assert list(region.ec2_client.snapshots) == ["snap-new"]


def test_one_that_ec2_does_not_know_yet_is_waited_for_and_deleted() -> None:
    class Late(MemoryEc2):
        unknown_for = 2

        def paginate(self, **members: Any) -> Any:
            self.unknown_for -= 1
            return super().paginate(**members) if self.unknown_for < 0 else iter(({"Snapshots": []},))

        def delete_snapshot(self, **members: Any) -> None:
            assert self.unknown_for < 0
            super().delete_snapshot(**members)

    region = Region(key=OTHER)
    region.ec2_client = Late()
    of = job(source(), waiting(kms_key_arn=KEY, encrypted=True))
    call = JobCall(aws=cast(Any, region), counts=COUNTS, folder=folder_of(of, MemoryS3(), "work"), waits=AT_ONCE)
    with pytest.raises(EncryptionDiffers, match="It is empty and deleted"):
        plan.start(of, 0, call)
    assert region.ec2_client.snapshots == {}


def test_what_is_written_is_borne_with_for_as_long_as_the_tags_of_a_new_snapshot_take_to_spread() -> None:
    told: list[tuple[str, float]] = []
    ebs = SimpleNamespace(was_started=lambda snapshot_id, *, seconds_ago: told.append((snapshot_id, seconds_ago)))
    at = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    call = JobCall(aws=cast(Any, SimpleNamespace(ebs=lambda _identity, **_: ebs)), folder=cast(Any, None))
    target(started_at=at).sink(call)
    ((snapshot_id, seconds),) = told
    assert snapshot_id == "snap-1"
    assert 100 <= seconds < 160


def test_a_dry_run_shows_where_a_target_will_be_and_upon_what() -> None:
    assert target(size_gib=3).planned() == {"region": RECOVERY, "parent_snapshot_id": None, "volume_size_gib": 3}
    assert on_parent("snap-p").planned() == {
        "region": RECOVERY,
        "parent_snapshot_id": "snap-p",
        "volume_size_gib": 1,
    }


def test_snapshots_take_up_places_among_the_pending_ones_and_archives_do_not() -> None:
    places = [each.takes_up_a_place for each in (target(), on_parent("snap-p"), archive())]
    assert places == [True, True, False]


def test_a_role_that_may_not_be_assumed_is_a_fault_of_the_input() -> None:
    region = Region(error=refusal("AccessDenied", "AssumeRole", message="not trusted"))
    with pytest.raises(InvalidRequest, match=rf"^target in {RECOVERY}: .*\(AccessDenied: not trusted\).*role_arn"):
        start(job(source(), waiting(role_arn=ROLE)), 0, region)


def test_a_role_that_cannot_be_assumed_now_is_tried_later() -> None:
    throttled = refusal("Throttling", "AssumeRole")
    with pytest.raises(RetryLater, match="AssumeRole: Throttling"):
        start(job(source(), waiting(role_arn=ROLE)), 0, Region(error=throttled))


def test_another_refusal_is_not_the_roles() -> None:
    denied = refusal("AccessDenied", "DescribeSnapshots")

    def call() -> None:
        raise denied

    with pytest.raises(ClientError) as caught:
        assuming(call, "source")
    assert caught.value is denied
    assert assuming(lambda: 3, "source") == 3


# -- the record --------------------------------------------------------------------------------------------------------


class Recorded:
    """A job on record in a bucket."""

    def __init__(self, of: Job) -> None:
        self.folder = folder_of(of, MemoryS3(), "work")
        self.call = JobCall(aws=cast(Any, None), folder=self.folder)
        save_job(self.folder, of)
        self.record = save_started(self.folder, of)


def test_the_record_of_a_job_with_a_started_target_is_found() -> None:
    of = job(source(), waiting(), target())
    on = Recorded(of)
    assert started_job(on.call, on.record) == recorded_job(on.call, on.record) == of


def test_a_record_that_is_gone_is_named() -> None:
    call = JobCall(aws=cast(Any, None), folder=folder_of(job(source(), target()), MemoryS3(), "work"))
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job-1/plan/job\.json is gone"):
        recorded_job(call, "0" * 64)


def test_a_record_without_started_targets_is_refused() -> None:
    on = Recorded(job(source(), waiting(), waiting()))
    assert recorded_job(on.call, on.record).started == {}
    with pytest.raises(
        IncompleteTransfer, match=r"s3://work/jobs/copy/job-1/plan/job\.json names targets that were nev"
    ):
        started_job(on.call, on.record)


def test_a_job_that_was_swept_is_refused_with_the_time() -> None:
    on = Recorded(job(source(), target()))
    on.folder.save_swept(Swept(at="2026-02-03T04:05:06+00:00", kept=False))
    with pytest.raises(IncompleteTransfer, match=r"job-1 .* swept at 2026-02-03T04:05:06"):
        recorded_job(on.call, on.record)


def test_what_was_started_late_is_read_by_those_who_know_of_it_only() -> None:
    of = job(source(), target(), waiting())
    on = Recorded(of)
    later = of.model_copy(update={"targets": (of.targets[0], target(snapshot_id="snap-2"))})
    late = save_started(on.folder, later, late=True)
    assert recorded_job(on.call, late) == later
    assert recorded_job(on.call, on.record) == of
    with pytest.raises(IncompleteTransfer, match="is not the record that this execution has planned"):
        recorded_job(on.call, "0" * 64)
