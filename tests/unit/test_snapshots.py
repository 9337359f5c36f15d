"""What EC2 says of snapshots, and which of them may be read, taken for proved, or deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from blockferry.aws import snapshots
from blockferry.aws.snapshots import EXECUTION_TAG, JOB_TAG, SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.core.tuning import Waits
from blockferry.jobs.execution import Execution
from botocore.exceptions import ClientError, EndpointConnectionError
from fakes import ManualClock
from job_records import EXECUTION
from memory_ec2 import MemoryEc2, described, refusal

# Spelled out: snapshots that are older, and policies, have these names.
CHECKSUM_TAG = "blockferry:linear-checksum"
PROVED_TAG = "blockferry:proved-snapshot-id"
LINEAGE_TAG = "blockferry:lineage"
SOURCE_REGION_TAG = "blockferry:source-region"
SOURCE_TAG = "blockferry:source-snapshot-id"

ONE, TWO, THREE = "snap-1", "snap-2", "snap-3"
PROVED = {JOB_TAG: "j", CHECKSUM_TAG: "c", PROVED_TAG: ONE}
COPY = {**PROVED, LINEAGE_TAG: "vol-1", SOURCE_REGION_TAG: "us-east-1", SOURCE_TAG: "snap-9"}


def facts(**more: Any) -> SnapshotFacts:
    return snapshots.describe(cast(Any, MemoryEc2(described(ONE, **more))), ONE, region="us-east-1")


def ids(found: list[SnapshotFacts]) -> list[str]:
    return sorted(one.snapshot_id for one in found)


def test_every_fact_is_taken_from_the_answer() -> None:
    found = facts(
        state="error",
        tags={"k": "v", "l": "w"},
        VolumeSize=7,
        StorageTier="archive",
        OwnerId="444455556666",
        VolumeId="vol-5",
        StartTime=datetime(2026, 2, 3, tzinfo=UTC),
        Description="nightly",
        Encrypted=True,
        KmsKeyId="arn:key",
        FullSnapshotSizeInBytes=1_048_576,
        StateMessage="no key",
    )
    assert found == SnapshotFacts(
        snapshot_id=ONE,
        state="error",
        size_gib=7,
        tier="archive",
        owner_id="444455556666",
        volume_id="vol-5",
        start_time=datetime(2026, 2, 3, tzinfo=UTC),
        description="nightly",
        tags={"k": "v", "l": "w"},
        encrypted=True,
        kms_key_id="arn:key",
        full_size_bytes=1_048_576,
        state_message="no key",
    )


def test_what_ec2_leaves_out_is_nothing() -> None:
    short = {"SnapshotId": ONE, "State": "completed", "VolumeSize": 1, "StartTime": datetime(2026, 1, 1, tzinfo=UTC)}
    found = snapshots.describe(cast(Any, MemoryEc2(short)), ONE, region="us-east-1")
    assert found == SnapshotFacts(
        snapshot_id=ONE,
        state="completed",
        size_gib=1,
        tier="standard",
        owner_id="",
        volume_id="",
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        description="",
        tags={},
        encrypted=False,
        kms_key_id=None,
        full_size_bytes=None,
        state_message="",
    )


def test_no_key_is_no_key_however_it_is_told() -> None:
    assert facts(KmsKeyId="").kms_key_id is None


def test_a_size_of_nothing_is_not_an_unknown_size() -> None:
    assert facts(FullSnapshotSizeInBytes=0).full_size_bytes == 0


@pytest.mark.parametrize(
    ("tags", "proved"),
    [
        (PROVED, True),
        ({**PROVED, PROVED_TAG: TWO}, False),
        ({CHECKSUM_TAG: "c", PROVED_TAG: ONE}, False),
        ({JOB_TAG: "j", PROVED_TAG: ONE}, False),
        ({}, False),
    ],
)
def test_a_snapshot_is_proved_by_tags_that_were_set_on_itself(tags: dict[str, str], proved: bool) -> None:
    assert facts(tags=tags).proved is proved


@pytest.mark.parametrize(
    ("volume_id", "real"), [("vol-0123", True), ("vol-ffff", False), ("vol-ffffffff", False), ("", False), ("x", False)]
)
def test_a_made_up_volume_is_none(volume_id: str, real: bool) -> None:
    assert snapshots.has_volume(volume_id) is real


@pytest.mark.parametrize("code", ["InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed"])
def test_an_unknown_snapshot_is_named_with_the_hint(code: str) -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal(code, "DescribeSnapshots")
    with pytest.raises(InvalidRequest, match=rf"{ONE} in us-east-1: EC2 does not know it \({code}\). Look there;"):
        snapshots.describe(cast(Any, ec2), ONE, region="us-east-1", hint="Look there")


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "AccessDenied", "AuthFailure"])
def test_a_missing_permission_is_told_with_what_ec2_says(code: str) -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal(code, "DescribeSnapshots", message="not you")
    with pytest.raises(InvalidRequest, match=rf"{ONE} in us-east-1: no permission to look at it \({code}: not you\)"):
        snapshots.describe(cast(Any, ec2), ONE, region="us-east-1")
    ec2.errors["DescribeSnapshots"] = ClientError(cast(Any, {"Error": {"Code": code}}), "DescribeSnapshots")
    with pytest.raises(InvalidRequest, match=rf"\({code}: \)"):
        snapshots.describe(cast(Any, ec2), ONE, region="us-east-1")


def test_a_role_that_may_not_be_assumed_is_not_a_refusal_of_ec2() -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal("AccessDenied", "AssumeRole")
    with pytest.raises(ClientError, match="AssumeRole"):
        snapshots.describe(cast(Any, ec2), ONE, region="us-east-1")


def test_another_error_of_ec2_passes_through() -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal("InternalError", "DescribeSnapshots", status=500)
    with pytest.raises(ClientError, match="InternalError"):
        snapshots.describe(cast(Any, ec2), ONE, region="us-east-1")


def test_an_answer_without_the_snapshot_is_an_unknown_one() -> None:
    with pytest.raises(InvalidRequest, match=f"{ONE} in us-east-1: EC2 does not know it. Check the id"):
        snapshots.describe(cast(Any, MemoryEc2()), ONE, region="us-east-1")


def test_more_snapshots_than_a_filter_takes_are_all_found() -> None:
    there = [f"snap-{number:03d}" for number in range(401)]
    ec2 = MemoryEc2(*(described(one) for one in there))
    asked = [*there, *there[:5], "snap-gone"]
    assert ids(snapshots.existing(cast(Any, ec2), asked)) == there
    assert ec2.calls == {"DescribeSnapshots": 3}


def test_nobody_is_asked_about_no_snapshot() -> None:
    ec2 = MemoryEc2(described(ONE))
    assert snapshots.existing(cast(Any, ec2), []) == []
    assert ec2.calls == {}


def looked(*states: tuple[str, ...]) -> tuple[list[str], ManualClock, int]:
    """What is found at the end where EC2 shows these states, look after look, the last one for ever."""
    clock = ManualClock()
    looks = []

    def look() -> list[SnapshotFacts]:
        shown = states[min(len(looks), len(states) - 1)]
        looks.append(shown)
        return [facts(state=state) for state in shown]

    return [one.state for one in snapshots.settled(look, clock=clock, waits=Waits())], clock, len(looks)


def test_what_is_pending_is_looked_at_again_until_nothing_is() -> None:
    found, clock, looks = looked(("completed", "pending"), ("pending", "completed"), ("completed", "error"))
    assert (found, clock.slept, looks) == (["completed", "error"], [2.0, 2.0], 3)


def test_what_is_settled_is_looked_at_once() -> None:
    assert looked(("completed", "error"))[2] == 1


def test_what_stays_pending_is_given_back_as_pending_within_half_a_minute() -> None:
    found, clock, looks = looked(("pending", "completed"))
    assert found == ["pending", "completed"]
    assert looks == len(clock.slept) + 1 > 5
    assert sum(clock.slept) < 30


@pytest.mark.parametrize("looks", [1, 2, 4])
def test_ec2_is_asked_as_often_as_was_said_before_pending_is_believed(looks: int) -> None:
    clock, asked = ManualClock(), []

    def look() -> list[SnapshotFacts]:
        asked.append(1)
        return [facts(state="pending")]

    found = snapshots.settled(look, clock=clock, waits=Waits(looks=looks, look_seconds=0.5))
    assert ([one.state for one in found], len(asked), clock.slept) == (["pending"], looks, [0.5] * (looks - 1))


class LateEc2(MemoryEc2):
    """Knows its snapshot from a look on; the first look is 1."""

    def __init__(self, known_from: int) -> None:
        super().__init__()
        self._known_from = known_from

    def _called(self, operation: str) -> None:
        super()._called(operation)
        if self.calls[operation] >= self._known_from:
            self.snapshots[ONE] = described(ONE, state="pending")


@pytest.mark.parametrize("known_from", [1, 2, 4, 5])
def test_a_snapshot_that_was_just_started_is_asked_for_until_ec2_knows_it(known_from: int) -> None:
    ec2, clock = LateEc2(known_from), ManualClock()
    waits = Waits(looks=4, look_seconds=0.5)
    found = snapshots.described_soon(cast(Any, ec2), ONE, clock=clock, waits=waits)
    looks = min(known_from, 4)
    assert (found and found.snapshot_id, clock.slept) == (ONE if known_from <= 4 else None, [0.5] * (looks - 1))
    assert ec2.calls == {"DescribeSnapshots": looks}


@pytest.mark.parametrize("state", ["completed", "pending"])
def test_a_proved_copy_of_the_lineage_is_found(state: str) -> None:
    ec2 = MemoryEc2(described(ONE, state=state, tags=COPY), described(TWO, tags={**COPY, PROVED_TAG: TWO}))
    found = snapshots.proven_copies(cast(Any, ec2), lineage="vol-1", source_region="us-east-1")
    assert ids(found) == [ONE, TWO]


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "error"},
        {"OwnerId": "444455556666"},
        {"tags": {**COPY, LINEAGE_TAG: "vol-2"}},
        {"tags": {**COPY, SOURCE_REGION_TAG: "eu-west-1"}},
        {"tags": {**COPY, PROVED_TAG: TWO}},
        {"tags": {key: value for key, value in COPY.items() if key != SOURCE_TAG}},
    ],
)
def test_what_is_no_proved_copy_of_the_lineage_is_not_found(wrong: dict[str, Any]) -> None:
    ec2 = MemoryEc2(described(ONE, **{"tags": COPY, **wrong}))
    assert snapshots.proven_copies(cast(Any, ec2), lineage="vol-1", source_region="us-east-1") == []


def test_the_default_of_encryption_is_unknown_where_nobody_may_ask() -> None:
    assert snapshots.encrypted_by_default(cast(Any, MemoryEc2(encrypts=True))) is True
    assert snapshots.encrypted_by_default(cast(Any, MemoryEc2(encrypts=False))) is False
    for error in (refusal("AccessDenied", "x"), EndpointConnectionError(endpoint_url="http://local")):
        ec2 = MemoryEc2(encrypts=True)
        ec2.errors["GetEbsEncryptionByDefault"] = error
        assert snapshots.encrypted_by_default(cast(Any, ec2)) is None


def test_the_unfinished_ones_of_an_execution_are_those_of_the_own_account_that_are_pending_or_in_error() -> None:
    mine = {EXECUTION_TAG: "mark"}
    ec2 = MemoryEc2(
        described(ONE, state="pending", tags=mine),
        described(TWO, state="error", tags=mine),
        described(THREE, state="completed", tags=mine),
        described("snap-4", state="pending", tags={EXECUTION_TAG: "another mark", JOB_TAG: "job-1"}),
        described("snap-5", state="pending", tags=mine, OwnerId="444455556666"),
    )
    assert ids(snapshots.unfinished_of(cast(Any, ec2), "mark")) == [ONE, TWO]


@pytest.mark.parametrize(
    ("state", "asked", "kept"),
    [
        ("completed", False, "EC2 calls it completed"),
        ("completed", True, "EC2 calls it completed"),
        ("pending", True, "EBS was asked to seal it"),
        ("pending", False, None),
        ("error", True, None),
        ("error", False, None),
    ],
)
def test_only_what_can_not_be_or_become_a_good_copy_is_deleted(state: str, asked: bool, kept: str | None) -> None:
    ec2 = MemoryEc2(described(ONE, state=state))
    assert snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=asked) == kept
    assert (ONE in ec2.snapshots) is (kept is not None)
    assert ec2.calls["DeleteSnapshot"] == (0 if kept else 1)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("state", ["pending", "error", "recovering"])
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {EXECUTION_TAG: ""},
        {EXECUTION_TAG: EXECUTION.mark.upper()},
        {EXECUTION_TAG: Execution(f"{EXECUTION.arn}-2").mark},
        # That of its name alone: names of jobs are not unique.
        {JOB_TAG: EXECUTION.job_id},
    ],
)
def test_what_does_not_carry_the_mark_of_the_execution_is_kept(tags: dict[str, str], state: str, asked: bool) -> None:
    ec2 = MemoryEc2(described(ONE, state=state, tags=tags))
    kept = snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=asked)
    assert kept == f"its tag {EXECUTION_TAG} is not that of this job"
    assert (list(ec2.snapshots), ec2.calls["DeleteSnapshot"]) == ([ONE], 0)


@pytest.mark.parametrize("proof", [ONE, TWO, ""])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("state", ["completed", "pending", "error", "recovering"])
def test_what_carries_the_proof_is_kept_whatever_became_of_it(state: str, asked: bool, proof: str) -> None:
    ec2 = MemoryEc2(described(ONE, state=state, tags={EXECUTION_TAG: EXECUTION.mark, PROVED_TAG: proof}))
    kept = snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=asked)
    if state == "completed":
        assert kept == "EC2 calls it completed"
    elif asked and state != "error":
        assert kept == "EBS was asked to seal it"
    else:
        assert kept == f"EBS took its checksum, as its tag {PROVED_TAG} says; it is in state {state}"
    assert (list(ec2.snapshots), ec2.calls["DeleteSnapshot"]) == ([ONE], 0)


def test_only_the_snapshot_that_is_named_is_deleted() -> None:
    ec2 = MemoryEc2(described(ONE, state="pending"), described(TWO, state="pending"))
    assert snapshots.delete(cast(Any, ec2), TWO, mark=EXECUTION.mark, asked_to_seal=False) is None
    assert list(ec2.snapshots) == [ONE]


def test_what_ec2_does_not_show_is_kept_if_ebs_was_asked_to_seal_it() -> None:
    ec2 = MemoryEc2()
    assert snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=True) == "EBS was asked to seal it"
    assert ec2.calls["DeleteSnapshot"] == 0


def test_deleting_what_is_gone_is_no_error_and_another_refusal_is() -> None:
    ec2 = MemoryEc2()
    assert snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=False) is None
    ec2.errors["DeleteSnapshot"] = refusal("UnauthorizedOperation", "DeleteSnapshot")
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        snapshots.delete(cast(Any, ec2), ONE, mark=EXECUTION.mark, asked_to_seal=False)


def test_tags_are_added_and_replaced() -> None:
    ec2 = MemoryEc2(described(ONE, tags={"kept": "1", "old": "1"}))
    snapshots.add_tags(cast(Any, ec2), ONE, {"old": "2", "new": "3"})
    assert snapshots.describe(cast(Any, ec2), ONE, region="x").tags == {"kept": "1", "old": "2", "new": "3"}


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ({"StorageTier": "archive"}, "archive tier.*--snapshot-id snap-1 "),
        ({"state": "pending"}, "snap-1 in us-east-1 is pending; start again"),
        ({"state": "recovering"}, "is in state recovering; only"),
        ({"state": "error", "StateMessage": "no key"}, r"is in state error \(no key\); only"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(shown: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        snapshots.refuse_unreadable(facts(**shown), region="us-east-1")


def test_a_completed_snapshot_can_be_read() -> None:
    snapshots.refuse_unreadable(facts(), region="us-east-1")
