"""Looking at what a request names: regions, snapshots that can be read, tags and encryption of the targets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Identity
from blockferry.core.errors import InvalidRequest, RequestRefused
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.quotas import MAX_TAGS
from blockferry.requests.parts import Source, Target, TransferOptions
from blockferry.sources.readable import readable_snapshot, refuse_no_access, related, source_identity
from blockferry.sources.snapshot import ExaminedSnapshot, JobSnapshot, copy_tags, snapshot_members
from blockferry.targets.full import FullSnapshot, propose_full
from blockferry.targets.proposal import all_tags, job_tags, tags_left_out
from botocore.exceptions import EndpointConnectionError
from job_records import EXECUTION, HOME, RECOVERY, THIRD, source
from memory_ebs import MemoryEbs, refused
from memory_ec2 import MemoryEc2, described, refusal

SNAPSHOT, BASE = "snap-0", "snap-b"
ROLE = "arn:aws:iam::444455556666:role/reader"
KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"


def account(ec2: Any, *, only: Identity | None = None) -> Any:
    def client(identity: Identity) -> Any:
        assert only in (None, identity)
        return ec2

    return SimpleNamespace(own_region=HOME, ec2=client)


# -- regions and identities --------------------------------------------------------------------------------------------


def test_a_source_is_read_and_a_target_written_as_whom_its_side_says() -> None:
    aws = account(None)
    assert source_identity(Source(), aws) == Identity(HOME)
    assert source_identity(Source(region=THIRD, role_arn=ROLE, external_id="id"), aws) == Identity(THIRD, ROLE, "id")


def regions(*, error: Exception | None = None) -> Any:
    def describe_regions(*, AllRegions: bool = False) -> Any:
        if error is not None:
            raise error
        known = [{"RegionName": HOME}, {"RegionName": RECOVERY, "OptInStatus": "opted-in"}]
        return {"Regions": known + [{"RegionName": THIRD, "OptInStatus": "not-opted-in"}] * AllRegions}

    return account(SimpleNamespace(describe_regions=describe_regions), only=Identity(HOME))


def test_regions_that_the_account_can_use_pass() -> None:
    refuse_unknown_regions(regions(), [("source.region", HOME), ("targets[0].region", RECOVERY)])


def test_a_region_that_aws_does_not_know_is_refused_by_its_field() -> None:
    words = rf"targets\[1\]\.region: region xx-moon-1 is unknown to AWS \(seen from {HOME}\)"
    with pytest.raises(InvalidRequest, match=words):
        refuse_unknown_regions(regions(), [("targets[0].region", HOME), ("targets[1].region", "xx-moon-1")])


def test_a_region_that_is_not_enabled_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidRequest, match=rf"^source\.region: region {THIRD} is not enabled"):
        refuse_unknown_regions(regions(), [("source.region", THIRD)])


@pytest.mark.parametrize(
    "error", [refusal("UnauthorizedOperation", "DescribeRegions"), EndpointConnectionError(endpoint_url="x")]
)
def test_a_list_of_regions_that_is_refused_ends_the_plan(error: Exception) -> None:
    with pytest.raises(RequestRefused, match=f"DescribeRegions in {HOME}: "):
        refuse_unknown_regions(regions(error=error), [])


# -- snapshots that are read -------------------------------------------------------------------------------------------


def test_a_completed_snapshot_is_read_by_its_side() -> None:
    identity = Identity(RECOVERY, ROLE)
    aws = account(MemoryEc2(described(SNAPSHOT, VolumeId="vol-1", Encrypted=False)), only=identity)
    assert readable_snapshot(Call(aws=aws), identity, SNAPSHOT).snapshot_id == SNAPSHOT


def test_one_that_ec2_does_not_know_is_refused_with_its_region() -> None:
    with pytest.raises(InvalidRequest, match=rf"snapshot {SNAPSHOT} in {RECOVERY}: EC2 does not know it"):
        readable_snapshot(Call(aws=account(MemoryEc2())), Identity(RECOVERY), SNAPSHOT)


def test_one_that_the_direct_apis_cannot_read_is_refused() -> None:
    ec2 = MemoryEc2(described(SNAPSHOT, state="error", VolumeId="vol-1", Encrypted=False))
    with pytest.raises(InvalidRequest, match=rf"snapshot {SNAPSHOT} in {RECOVERY} is in state error"):
        readable_snapshot(Call(aws=account(ec2)), Identity(RECOVERY), SNAPSHOT)


def test_a_reading_role_that_may_not_be_assumed_is_the_sources() -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal("AccessDenied", "AssumeRole")
    with pytest.raises(InvalidRequest, match=rf"source in {RECOVERY}: the role cannot be assumed"):
        readable_snapshot(Call(aws=account(ec2)), Identity(RECOVERY, ROLE), SNAPSHOT)


def test_reading_is_tried_with_one_short_list() -> None:
    ebs = MemoryEbs({SNAPSHOT: {}})
    refuse_no_access(cast(Any, ebs), SNAPSHOT)
    assert ebs.asked == [("ListSnapshotBlocks", SNAPSHOT, 0, 1)]
    ebs.errors["ListSnapshotBlocks"] = refused("AccessDeniedException")
    with pytest.raises(InvalidRequest, match=rf"{SNAPSHOT} in us-east-1 cannot be read .*AccessDenied.*kms:Decrypt"):
        refuse_no_access(cast(Any, ebs), SNAPSHOT)


def test_a_snapshot_that_the_direct_apis_do_not_know_is_no_question_of_permissions() -> None:
    ebs = MemoryEbs({SNAPSHOT: {}, BASE: {}})
    ebs.errors["ListSnapshotBlocks"] = ebs.errors["ListChangedBlocks"] = refused("ResourceNotFoundException")
    for look in (lambda: refuse_no_access(cast(Any, ebs), SNAPSHOT), lambda: related(cast(Any, ebs), BASE, SNAPSHOT)):
        with pytest.raises(
            InvalidRequest, match=r"EC2 knows it, but the EBS direct APIs do not: Res.*start again"
        ) as told:
            look()
        assert SNAPSHOT in str(told.value)
        assert "role" not in str(told.value)


def test_snapshots_are_related_when_ebs_lists_their_changes() -> None:
    ebs: Any = MemoryEbs({SNAPSHOT: {}, BASE: {}})
    assert related(ebs, BASE, SNAPSHOT) is True
    assert ebs.asked == [("ListChangedBlocks", f"{BASE} {SNAPSHOT}", 0, 1)]
    ebs.volumes = {BASE: "another"}
    assert related(ebs, BASE, SNAPSHOT) is False


@pytest.mark.parametrize(
    "error", [refused("ValidationException", "INVALID_PARAMETER"), RequestRefused("no cause is known")]
)
def test_another_refusal_does_not_make_snapshots_unrelated(error: Exception) -> None:
    ebs: Any = MemoryEbs({SNAPSHOT: {}, BASE: {}})
    ebs.errors["ListChangedBlocks"] = error
    with pytest.raises(InvalidRequest, match=f"changes from {BASE} to {SNAPSHOT} in us-east-1 cannot be listed"):
        related(ebs, BASE, SNAPSHOT)


def test_the_record_of_a_source_is_what_ec2_says_and_as_whom_it_is_read() -> None:
    shown = described(SNAPSHOT, VolumeId="vol-9", VolumeSize=7, Encrypted=True, FullSnapshotSizeInBytes=5)
    (facts,) = snapshots.existing(cast(Any, MemoryEc2(shown)), [SNAPSHOT])
    found = JobSnapshot(**snapshot_members(facts, Identity(THIRD, ROLE, "id"), "vol-9"))
    assert found.model_dump() == {
        **found.model_dump(),
        "region": THIRD,
        "role_arn": ROLE,
        "external_id": "id",
        "snapshot_id": SNAPSHOT,
        "owner_id": "111122223333",
        "volume_id": "vol-9",
        "size_gib": 7,
        "start_time": "2026-01-01T00:00:00+00:00",
        "encrypted": True,
        "full_size_bytes": 5,
        "lineage_name": "vol-9",
    }
    assert snapshot_members(facts, Identity(THIRD), "chain")["lineage_name"] == "chain"
    assert copy_tags(found) == {
        "blockferry:source-snapshot-id": SNAPSHOT,
        "blockferry:source-region": THIRD,
        "blockferry:lineage": "vol-9",
    }
    assert job_tags(EXECUTION, HoleMeaning.NOISE) == {
        "blockferry:job-id": "job-1",
        "blockferry:execution": EXECUTION.mark,
        "blockferry:holes": "noise",
    }


# -- targets -----------------------------------------------------------------------------------------------------------


class Asked:
    def __init__(self, target: Target, holes: HolePolicy | None) -> None:
        self.targets, self.options = (target,), TransferOptions(holes=holes)


def made(
    target: Target, *, of_source: bool = False, ec2: MemoryEc2 | None = None, holes: HolePolicy | None = None
) -> FullSnapshot:
    """The proposal of one target of a snapshot."""
    ec2 = ec2 or MemoryEc2()
    shown = described(SNAPSHOT, VolumeId="vol-9", VolumeSize=7, Encrypted=of_source, tags={})
    (facts,) = snapshots.existing(cast(Any, MemoryEc2(shown)), [SNAPSHOT])
    found = ExaminedSnapshot(
        source=source(),
        size_gib=7,
        description="the source's",
        tags={"a": "source", "b": "source"},
        encrypted=of_source,
        snapshot=facts,
    )
    aws = account(ec2, only=Identity(target.region, target.role_arn, target.external_id))
    (proposed,) = propose_full(Asked(target, holes), found, EXECUTION, Call(aws=aws)).targets
    return proposed


def test_a_target_is_recorded_as_it_was_asked_for() -> None:
    found = made(Target(region=THIRD, role_arn=ROLE, external_id="id", description="", tags={"a": "asked"}))
    assert (found.identity, found.size_gib, found.description) == (Identity(THIRD, ROLE, "id"), 7, "")
    assert found.tags == {"a": "asked", "b": "source", **job_tags(EXECUTION, HoleMeaning.NOISE)}
    assert found.started is None
    assert made(Target(region=THIRD)).description == "the source's"


@pytest.mark.parametrize(
    ("asked", "of_source", "default", "recorded"),
    [
        ({}, False, True, True),
        ({}, False, False, False),
        ({}, True, False, True),
        ({"kms_key_arn": KEY}, False, False, None),
        ({"kms_key_arn": KEY}, True, True, None),
        ({"kms_key_arn": KEY, "encrypted": True}, False, False, True),
        ({"encrypted": True}, False, False, True),
        ({"encrypted": False}, True, True, False),
    ],
)
def test_a_target_is_encrypted_as_asked_or_as_its_source_or_by_default_and_that_is_asked_for(
    asked: dict[str, Any], of_source: bool, default: bool, recorded: bool | None
) -> None:
    found = made(Target(region=RECOVERY, **asked), of_source=of_source, ec2=MemoryEc2(encrypts=default))
    assert (found.encrypted, found.kms_key_arn) == (recorded, asked.get("kms_key_arn"))


def test_a_default_that_cannot_be_found_out_is_left_to_the_account() -> None:
    ec2 = MemoryEc2()
    ec2.errors["GetEbsEncryptionByDefault"] = refusal("UnauthorizedOperation", "GetEbsEncryptionByDefault")
    assert made(Target(region=RECOVERY), ec2=ec2).encrypted is None


UNKNOWN = MemoryEc2()
UNKNOWN.errors["GetEbsEncryptionByDefault"] = refusal("UnauthorizedOperation", "GetEbsEncryptionByDefault")


@pytest.mark.parametrize(
    ("asked", "ec2", "safe"),
    [
        ({"encrypted": True}, MemoryEc2(), False),
        ({"encrypted": False}, MemoryEc2(encrypts=True), True),
        # A key alone says it, whatever the account's default.
        ({"kms_key_arn": KEY}, MemoryEc2(), False),
        ({}, MemoryEc2(encrypts=True), False),
        ({}, MemoryEc2(), True),
        ({}, UNKNOWN, False),
    ],
)
def test_zeros_are_left_out_only_of_a_target_that_is_surely_not_encrypted(
    asked: dict[str, Any], ec2: MemoryEc2, safe: bool
) -> None:
    target = Target(region=RECOVERY, **asked)
    if safe:
        assert made(target, ec2=ec2, holes=HolePolicy.SKIP_ZERO).encrypted is False
    else:
        with pytest.raises(InvalidRequest, match=r"skip_zero is not safe for targets\[0\]"):
            made(target, ec2=ec2, holes=HolePolicy.SKIP_ZERO)


def test_tags_asked_for_win_over_the_sources_and_the_jobs_over_all() -> None:
    source = {"a": "s", "b": "s", "aws:x": "s", "AWS:y": "s", "blockferry:lineage": "s", "Blockferry:z": "s"}
    assert all_tags(source, {"a": "asked", "o": "asked"}, {"o": "own"}, region=HOME) == {
        "a": "asked",
        "b": "s",
        "o": "own",
    }


def test_tags_by_which_a_backup_is_looked_after_stay_where_they_are_unless_they_are_asked_for() -> None:
    source = {
        "Type": "Automated",
        "DeleteOn": "2026-12-04",
        "KeepForever": "",
        "Retention": "7d",
        "Copy_Dest": "dr",
        "Name": "a",
    }
    assert all_tags(source, {}, {}, region=HOME) == {"Name": "a"}
    assert all_tags(source, {"DeleteOn": "2030-01-01"}, {}, region=HOME) == {"Name": "a", "DeleteOn": "2030-01-01"}
    assert all_tags({"Type": "database"}, {}, {}, region=HOME) == {"Type": "database"}
    (warning,) = tags_left_out(source)
    assert (warning.code, warning.message) == (
        "tags_left_out",
        "Copy_Dest, DeleteOn, KeepForever, Retention, Type say how the source is looked after as a backup, and are not "
        "carried to the targets",
    )
    assert tags_left_out({"Type": "database", "Name": "a"}) == ()


def test_two_tags_are_kept_free_for_the_end() -> None:
    most = {f"k{number}": "" for number in range(MAX_TAGS - 3)}
    own = {"blockferry:job-id": "job-1"}
    assert len(all_tags(most, {}, own, region=THIRD)) == 48
    words = rf"target in {THIRD}: 51 tags \(the source's, the target's and 3 of the job\), EC2 keeps 50"
    with pytest.raises(InvalidRequest, match=words):
        all_tags(most, {"more": ""}, own, region=THIRD)
