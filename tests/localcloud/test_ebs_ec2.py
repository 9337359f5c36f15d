"""The EC2 snapshot actions as boto3 sees them.

Expectations: the EC2 API reference page of each action, botocore's ec2/2016-11-15 model, and the EBS user
guide pages named at the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.kms import AnyKey, derived_aws_key_arn
from localcloud.ebs.testing import HOME_ACCOUNT, OTHER_ACCOUNT, RunningServer, running_server

from .ebs_clients import ZEROS, block, client, contents, pages, refused, snapshot_of, start, state

KEY = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def keys() -> AnyKey:
    return AnyKey()


@pytest.fixture
def server(keys: AnyKey) -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False}, clock=ManualClock(), keys=keys) as running:
        yield running


@pytest.fixture
def ebs(server: RunningServer) -> Any:
    return client(server, "ebs")


@pytest.fixture
def ec2(server: RunningServer) -> Any:
    return client(server, "ec2")


def pass_time(server: RunningServer, seconds: float) -> None:
    server.service.clock.advance(seconds)
    server.service.tick()


def ids(answer: dict[str, Any]) -> list[str]:
    return [snapshot["SnapshotId"] for snapshot in answer["Snapshots"]]


def volume_with(server: RunningServer, ec2: Any, blocks: dict[int, bytes], **more: Any) -> str:
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", **{"Size": 1, **more})["VolumeId"]
    write(server, volume_id, blocks)
    return str(volume_id)


def write(server: RunningServer, volume_id: str, blocks: dict[int, bytes | None]) -> None:
    """Write blocks into a volume through the control endpoint; ``None`` trims."""
    for index, data in blocks.items():
        server.control("DELETE" if data is None else "POST", f"volumes/{volume_id}/blocks/{index}", data)


def snapshot_volume(server: RunningServer, ec2: Any, volume_id: str, **more: Any) -> str:
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id, **more)["SnapshotId"]
    pass_time(server, server.service.config.volume_snapshot_seconds)
    return str(snapshot_id)


# -- describe, delete, tags --------------------------------------------------------


def test_a_snapshot_of_the_direct_apis_is_described(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(
        server, ebs, {0: ZEROS, 4: block("a")}, size=3, Description="d", Tags=[{"Key": "k", "Value": "v"}]
    )
    (shown,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert shown["StartTime"].timestamp() == server.service.clock.now() - server.service.config.seal_seconds
    assert shown["CompletionTime"].timestamp() == server.service.clock.now()
    assert {key: value for key, value in shown.items() if not key.endswith("Time")} == {
        "SnapshotId": snapshot_id,
        "VolumeId": "vol-ffffffff",
        "VolumeSize": 3,
        "State": "completed",
        "Progress": "100%",
        "OwnerId": HOME_ACCOUNT,
        "Description": "d",
        "Encrypted": False,
        "StorageTier": "standard",
        "SseType": "none",
        "FullSnapshotSizeInBytes": 2 * 524288,
        "Tags": [{"Key": "k", "Value": "v"}],
    }


def test_unknown_and_malformed_ids_have_codes_of_their_own(ec2: Any) -> None:
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=["snap-0123456789abcdef0"])
    with refused(400, "InvalidSnapshotID.Malformed"):
        ec2.describe_snapshots(SnapshotIds=["snap-xyz"])
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.delete_snapshot(SnapshotId="snap-0123456789abcdef0")
    with refused(400, "InvalidParameterValue"):
        ec2.describe_snapshots(Filters=[{"Name": "colour", "Values": ["red"]}])


def test_accounts_and_regions_see_their_own_snapshots(server: RunningServer, ebs: Any, ec2: Any) -> None:
    mine = start(ebs)
    theirs = start(client(server, "ebs", account=OTHER_ACCOUNT))
    far = start(client(server, "ebs", region="eu-west-1"))
    assert ids(ec2.describe_snapshots()) == [mine]
    assert ids(client(server, "ec2", account=OTHER_ACCOUNT).describe_snapshots()) == [theirs]
    assert ids(client(server, "ec2", region="eu-west-1").describe_snapshots()) == [far]
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[theirs])


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("tag:job", ["one"])], ["a"]),
        ([("tag:job", ["o*", "two"])], ["a", "b"]),
        ([("tag-key", ["job"])], ["a", "b"]),
        ([("tag:job", ["one"]), ("status", ["pending"])], []),
        ([("status", ["pending"])], ["c"]),
        ([("volume-size", ["2"])], ["b"]),
        ([("description", ["bl?ckferry*"])], ["a"]),
        ([("start-time", ["2023-11-14T22:13:2*"])], ["a"]),
        ([("volume-id", ["vol-ffffffff"])], ["a", "b", "c"]),
        ([("owner-id", [OTHER_ACCOUNT])], []),
        ([("encrypted", ["false"])], ["a", "b", "c"]),
    ],
    ids=str,
)
def test_filters_choose(
    server: RunningServer, ebs: Any, ec2: Any, filters: list[tuple[str, list[str]]], expected: list[str]
) -> None:
    names = {snapshot_of(server, ebs, {}, Description="blockferry copy", Tags=[{"Key": "job", "Value": "one"}]): "a"}
    pass_time(server, 60)
    names[snapshot_of(server, ebs, {}, size=2, Tags=[{"Key": "job", "Value": "two"}])] = "b"
    names[start(ebs)] = "c"
    answer = ec2.describe_snapshots(Filters=[{"Name": name, "Values": values} for name, values in filters])
    assert [names[snapshot_id] for snapshot_id in ids(answer)] == expected


def test_owners_and_restorable_by(server: RunningServer, ebs: Any, ec2: Any) -> None:
    mine = snapshot_of(server, ebs, {})
    other_ec2 = client(server, "ec2", account=OTHER_ACCOUNT)
    shared = snapshot_of(server, client(server, "ebs", account=OTHER_ACCOUNT), {})
    other_ec2.modify_snapshot_attribute(SnapshotId=shared, CreateVolumePermission={"Add": [{"UserId": HOME_ACCOUNT}]})
    other_ec2.create_tags(Resources=[shared], Tags=[{"Key": "private", "Value": "x"}])
    assert set(ids(ec2.describe_snapshots())) == {mine, shared}
    assert ids(ec2.describe_snapshots(OwnerIds=["self"])) == [mine]
    assert ids(ec2.describe_snapshots(OwnerIds=[OTHER_ACCOUNT])) == [shared]
    assert set(ids(ec2.describe_snapshots(RestorableByUserIds=["self"]))) == {mine, shared}
    assert "Tags" not in ec2.describe_snapshots(SnapshotIds=[shared])["Snapshots"][0]


def test_pages_name_every_snapshot_once(ebs: Any, ec2: Any) -> None:
    made = {start(ebs) for _number in range(12)}
    found = pages(ec2, "describe_snapshots", MaxResults=5)
    assert [len(page["Snapshots"]) for page in found] == [5, 5, 2]
    assert {snapshot_id for page in found for snapshot_id in ids(page)} == made
    with refused(400, "InvalidParameterValue"):
        ec2.describe_snapshots(MaxResults=4)
    with refused(400, "InvalidParameterCombination"):
        ec2.describe_snapshots(MaxResults=5, SnapshotIds=list(made))


def test_the_completed_waiter_of_botocore_works(ebs: Any) -> None:
    with running_server({"seal_seconds": 0.05}) as running:
        direct = client(running, "ebs")
        snapshot_id = start(direct)
        direct.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
        waiter = client(running, "ec2").get_waiter("snapshot_completed")
        waiter.wait(SnapshotIds=[snapshot_id], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        assert state(running, snapshot_id) == "completed"


def test_a_completed_snapshot_may_look_pending_again_for_a_while(server: RunningServer, ebs: Any, ec2: Any) -> None:
    server.service.configure({"describe_stale_seconds": 10})
    snapshot_id = snapshot_of(server, ebs, {0: ZEROS})

    def looks() -> list[str]:
        answers = [ec2.describe_snapshots(SnapshotIds=[snapshot_id]) for _look in range(4)]
        return [answer["Snapshots"][0]["State"] for answer in answers]

    assert looks() == ["completed", "pending", "completed", "pending"]
    pass_time(server, 10)
    assert looks() == ["completed"] * 4


def test_a_pending_snapshot_can_be_deleted(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = start(ebs)
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)


def test_snapshots_of_images_and_of_others_cannot_be_deleted(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    server.service.configure({"snapshots_in_use": [snapshot_id]})
    with refused(400, "InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    server.service.configure({"snapshots_in_use": []})
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    with refused(403, "UnauthorizedOperation"):
        client(server, "ec2", account=OTHER_ACCOUNT).delete_snapshot(SnapshotId=snapshot_id)
    ec2.delete_snapshot(SnapshotId=snapshot_id)


def test_a_dry_run_changes_nothing(ebs: Any, ec2: Any) -> None:
    snapshot_id = start(ebs)
    with refused(412, "DryRunOperation"):
        ec2.delete_snapshot(SnapshotId=snapshot_id, DryRun=True)
    assert ids(ec2.describe_snapshots()) == [snapshot_id]


def test_tags_are_set_changed_and_removed(ebs: Any, ec2: Any) -> None:
    one, other = start(ebs), start(ebs)
    ec2.create_tags(Resources=[one, other], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    ec2.create_tags(Resources=[one], Tags=[{"Key": "a", "Value": "3"}])
    ec2.delete_tags(Resources=[one], Tags=[{"Key": "b", "Value": "not this"}])
    ec2.delete_tags(Resources=[other], Tags=[{"Key": "b"}])
    found = ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["snapshot"]}])["Tags"]
    assert {(tag["ResourceId"], tag["Key"], tag["Value"]) for tag in found} == {
        (one, "a", "3"),
        (one, "b", "2"),
        (other, "a", "1"),
    }
    ec2.delete_tags(Resources=[one])
    assert "Tags" not in ec2.describe_snapshots(SnapshotIds=[one])["Snapshots"][0]


def test_tags_are_set_on_all_resources_or_none(ebs: Any, ec2: Any) -> None:
    snapshot_id = start(ebs)
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.create_tags(Resources=[snapshot_id, "snap-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "1"}])
    with refused(400, "TagLimitExceeded"):
        ec2.create_tags(Resources=[snapshot_id], Tags=[{"Key": str(n), "Value": ""} for n in range(51)])
    assert ec2.describe_tags()["Tags"] == []


# -- volumes and their snapshots ---------------------------------------------------


def test_a_volumes_snapshot_is_of_the_moment_it_was_asked_for(server: RunningServer, ebs: Any, ec2: Any) -> None:
    volume_id = volume_with(server, ec2, {0: block("a"), 5: block("b")})
    answer = ec2.create_snapshot(
        VolumeId=volume_id,
        Description="d",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "k", "Value": "v"}]}],
    )
    assert (answer["State"], answer["VolumeId"], answer["Tags"]) == (
        "pending",
        volume_id,
        [{"Key": "k", "Value": "v"}],
    )
    write(server, volume_id, {0: block("later")})
    pass_time(server, 1)
    assert contents(ebs, answer["SnapshotId"]) == {0: block("a"), 5: block("b")}


def test_two_snapshots_of_a_volume_give_its_changes_trims_too(server: RunningServer, ebs: Any, ec2: Any) -> None:
    volume_id = volume_with(server, ec2, {0: block("a"), 1: block("b"), 2: block("c")})
    first = snapshot_volume(server, ec2, volume_id)
    write(server, volume_id, {1: block("new"), 2: None, 9: block("added")})
    second = snapshot_volume(server, ec2, volume_id)
    (page,) = pages(ebs, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second)
    shown = {e["BlockIndex"]: ("FirstBlockToken" in e, "SecondBlockToken" in e) for e in page["ChangedBlocks"]}
    assert shown == {1: (True, True), 2: (True, False), 9: (False, True)}


def test_a_volume_from_a_snapshot_has_its_blocks_and_lineage(server: RunningServer, ebs: Any, ec2: Any) -> None:
    source = snapshot_of(server, ebs, {3: block("a")}, size=2)
    volume_id = volume_with(server, ec2, {4: block("b")}, SnapshotId=source, Size=3)
    held = [server.control("GET", f"volumes/{volume_id}/blocks/{n}") for n in (3, 4, 5)]
    assert held == [block("a"), block("b"), ZEROS]
    second = snapshot_volume(server, ec2, volume_id)
    (page,) = pages(ebs, "list_changed_blocks", FirstSnapshotId=source, SecondSnapshotId=second)
    assert [entry["BlockIndex"] for entry in page["ChangedBlocks"]] == [4]
    assert page["VolumeSize"] == 3
    with refused(400, "InvalidParameterValue"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=source, Size=1)
    with refused(400, "IncorrectState"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=start(ebs))


def test_volumes_are_described_and_deleted(server: RunningServer, ec2: Any) -> None:
    volume_id = volume_with(server, ec2, {0: block("a")}, VolumeType="gp3", Encrypted=True, KmsKeyId=KEY)
    (shown,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert (shown["Size"], shown["VolumeType"], shown["Iops"], shown["KmsKeyId"]) == (1, "gp3", 3000, KEY)
    assert len(server.service.store) == 1
    ec2.delete_volume(VolumeId=volume_id)
    assert len(server.service.store) == 0
    with refused(400, "InvalidVolume.NotFound"):
        ec2.describe_volumes(VolumeIds=[volume_id])
    with refused(400, "InvalidVolume.NotFound"):
        ec2.create_snapshot(VolumeId=volume_id)


def test_a_volume_has_at_most_five_pending_snapshots(server: RunningServer, ec2: Any) -> None:
    # EBS quotas: concurrent snapshots per volume.
    volume_id = volume_with(server, ec2, {})
    for _number in range(5):
        ec2.create_snapshot(VolumeId=volume_id)
    with refused(400, "ConcurrentSnapshotLimitExceeded"):
        ec2.create_snapshot(VolumeId=volume_id)


def test_snapshots_of_an_instance_leave_out_what_is_excluded(server: RunningServer, ebs: Any, ec2: Any) -> None:
    made = {name: volume_with(server, ec2, {0: block(name)}) for name in ("boot", "data", "scratch")}
    for name, volume_id in made.items():
        volume = server.service.registry.volumes[volume_id]
        volume.instance_id, volume.device = "i-1", "/dev/xvda" if name == "boot" else f"/dev/{name}"
    answer = ec2.create_snapshots(
        InstanceSpecification={
            "InstanceId": "i-1",
            "ExcludeBootVolume": True,
            "ExcludeDataVolumeIds": [made["scratch"]],
        }
    )
    (shown,) = answer["Snapshots"]
    assert (shown["VolumeId"], shown["State"]) == (made["data"], "pending")
    pass_time(server, 1)
    assert contents(ebs, shown["SnapshotId"]) == {0: block("data")}
    with refused(400, "InvalidInstanceID.NotFound"):
        ec2.create_snapshots(InstanceSpecification={"InstanceId": "i-2"})


# -- copies ------------------------------------------------------------------------


def copy(
    server: RunningServer, source: str, *, region: str = "eu-west-1", account: str = HOME_ACCOUNT, **more: Any
) -> str:
    """A copy made and finished in ``region``."""
    there = client(server, "ec2", region=region, account=account)
    answer = there.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=source, **more)
    assert state(server, answer["SnapshotId"]) == "pending"
    pass_time(server, server.service.config.copy_seconds)
    return str(answer["SnapshotId"])


def test_a_copy_has_the_blocks_but_not_the_tags(server: RunningServer, ebs: Any) -> None:
    # EBS user guide, "Copy an Amazon EBS snapshot".
    blocks = {0: block("a"), 7: ZEROS}
    source = snapshot_of(server, ebs, blocks, Tags=[{"Key": "k", "Value": "v"}], Description="source")
    copied = copy(server, source, Description="copy")
    assert contents(client(server, "ebs", region="eu-west-1"), copied) == blocks
    (shown,) = client(server, "ec2", region="eu-west-1").describe_snapshots(SnapshotIds=[copied])["Snapshots"]
    assert (shown["VolumeId"], shown["Description"], shown["TransferType"]) == ("vol-ffffffff", "copy", "standard")
    assert "Tags" not in shown


def test_a_second_copy_of_a_lineage_is_incremental_until_the_first_is_deleted(server: RunningServer, ebs: Any) -> None:
    source = snapshot_of(server, ebs, {0: block("a")})
    child = snapshot_of(server, ebs, {1: block("b")}, ParentSnapshotId=source)
    snapshots = server.service.registry.snapshots
    first, second = copy(server, source), copy(server, child)
    assert (snapshots[first].incremental, snapshots[second].incremental) == (False, True)
    other_key = KEY.replace("us-east-1", "eu-west-1")
    assert snapshots[copy(server, child, Encrypted=True, KmsKeyId=other_key)].incremental is False
    there = client(server, "ec2", region="eu-west-1")
    for snapshot_id in (first, second):
        there.delete_snapshot(SnapshotId=snapshot_id)
    assert snapshots[copy(server, child)].incremental is False


@pytest.mark.parametrize("related", [True, False])
def test_whether_copies_of_one_lineage_are_related_is_a_toggle(server: RunningServer, ebs: Any, related: bool) -> None:
    server.service.configure({"copies_related": related})
    source = snapshot_of(server, ebs, {0: block("a")})
    child = snapshot_of(server, ebs, {1: block("b")}, ParentSnapshotId=source)
    first, second = copy(server, source), copy(server, child)
    there = client(server, "ebs", region="eu-west-1")
    if not related:
        with refused(400, "ValidationException", "UNRELATED_SNAPSHOTS"):
            there.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)
        return
    (page,) = pages(there, "list_changed_blocks", FirstSnapshotId=first, SecondSnapshotId=second)
    assert [entry["BlockIndex"] for entry in page["ChangedBlocks"]] == [1]


def test_twenty_copies_at_once_to_a_region(server: RunningServer, ebs: Any) -> None:
    server.service.configure({"quotas_enabled": True})
    source = snapshot_of(server, ebs, {})
    there = client(server, "ec2", region="eu-west-1")
    for _number in range(20):
        there.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=source)
    with refused(400, "ResourceLimitExceeded"):
        there.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=source)
    client(server, "ec2").copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=source)


def test_a_bad_key_makes_the_copy_fail_silently(server: RunningServer, ebs: Any, keys: AnyKey) -> None:
    # "If you specify .. a key that is not valid, the action can appear to complete, but eventually fails."
    keys.disabled.add(KEY)
    source = snapshot_of(server, ebs, {0: ZEROS})
    failed = copy(server, source, region="us-east-1", Encrypted=True, KmsKeyId=KEY)
    (shown,) = client(server, "ec2").describe_snapshots(SnapshotIds=[failed])["Snapshots"]
    assert (shown["State"], shown["StateMessage"]) == ("error", "Given key ID is not accessible")
    server.service.configure({"silent_kms_failure": False})
    with refused(400, "InvalidParameterValue"):
        copy(server, source, region="us-east-1", Encrypted=True, KmsKeyId=KEY)


def test_a_source_that_is_not_there_fails_later_or_at_once(server: RunningServer, ec2: Any) -> None:
    failed = copy(server, "snap-0123456789abcdef0")
    assert state(server, failed) == "error"
    assert server.service.registry.snapshots[failed].state_message == "Source snapshot ID is not valid"
    server.service.configure({"missing_copy_source": "refuse"})
    with refused(400, "InvalidSnapshot.NotFound"):
        copy(server, "snap-0123456789abcdef0")


def test_copies_of_encrypted_sources_are_encrypted(server: RunningServer, ebs: Any) -> None:
    source = snapshot_of(server, ebs, {0: block("a")}, Encrypted=True, KmsKeyArn=KEY)
    (shown,) = client(server, "ec2", region="eu-west-1").describe_snapshots(SnapshotIds=[copy(server, source)])[
        "Snapshots"
    ]
    assert (shown["Encrypted"], shown["KmsKeyId"]) == (
        True,
        derived_aws_key_arn(account=HOME_ACCOUNT, region="eu-west-1"),
    )


def test_a_copy_into_another_account_starts_a_lineage_of_its_own(server: RunningServer, ebs: Any, ec2: Any) -> None:
    source = snapshot_of(server, ebs, {0: block("a")})
    ec2.modify_snapshot_attribute(SnapshotId=source, CreateVolumePermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    copied = copy(server, source, region="us-east-1", account=OTHER_ACCOUNT)
    with refused(400, "ValidationException", "UNRELATED_SNAPSHOTS"):
        client(server, "ebs", account=OTHER_ACCOUNT).list_changed_blocks(
            FirstSnapshotId=source, SecondSnapshotId=copied
        )


def test_time_based_copies_take_steps_of_15_minutes(server: RunningServer, ebs: Any) -> None:
    source = snapshot_of(server, ebs, {})
    with refused(400, "InvalidParameterValue"):
        copy(server, source, CompletionDurationMinutes=20)
    copied = server.service.registry.snapshots[copy(server, source, CompletionDurationMinutes=30)]
    assert (copied.transfer_type, copied.completion_minutes) == ("time-based", 30)


# -- sharing -----------------------------------------------------------------------


def test_permissions_are_added_described_removed_and_reset(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})

    def granted() -> Any:
        answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
        return answer["CreateVolumePermissions"]

    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id, CreateVolumePermission={"Add": [{"UserId": OTHER_ACCOUNT}, {"Group": "all"}]}
    )
    assert granted() == [{"UserId": OTHER_ACCOUNT}, {"Group": "all"}]
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission={"Remove": [{"Group": "all"}]})
    assert granted() == [{"UserId": OTHER_ACCOUNT}]
    ec2.reset_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    assert granted() == []
    with refused(400, "InvalidUserID.Malformed"):
        ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission={"Add": [{"UserId": "me"}]})


def test_encrypted_snapshots_are_shared_with_own_keys_only_and_never_public(
    server: RunningServer, ebs: Any, ec2: Any
) -> None:
    # EBS user guide, "Share an Amazon EBS snapshot".
    with_aws_key = snapshot_of(server, ebs, {}, Encrypted=True)
    with_own_key = snapshot_of(server, ebs, {}, Encrypted=True, KmsKeyArn=KEY)
    to_other = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    with refused(400, "InvalidParameterValue"):
        ec2.modify_snapshot_attribute(SnapshotId=with_aws_key, CreateVolumePermission=to_other)
    with refused(400, "InvalidParameterValue"):
        ec2.modify_snapshot_attribute(SnapshotId=with_own_key, CreateVolumePermission={"Add": [{"Group": "all"}]})
    ec2.modify_snapshot_attribute(SnapshotId=with_own_key, CreateVolumePermission=to_other)


# -- locks (EBS user guide, "Amazon EBS snapshot lock") ----------------------------


def test_a_locked_snapshot_is_not_deleted_until_unlocked_or_expired(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    answer = ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="governance", LockDuration=2)
    assert (answer["LockState"], answer["LockDuration"]) == ("governance", 2)
    assert answer["LockExpiresOn"] - answer["LockCreatedOn"] == timedelta(days=2)
    with refused(400, "SnapshotLocked"):
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    ec2.unlock_snapshot(SnapshotId=snapshot_id)
    ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="governance", LockDuration=2)
    pass_time(server, 2 * 86400)
    (shown,) = ec2.describe_locked_snapshots()["Snapshots"]
    assert shown["LockState"] == "expired"
    ec2.delete_snapshot(SnapshotId=snapshot_id)


def test_a_compliance_lock_hardens_after_its_cool_off_period(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    locked = ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="compliance", CoolOffPeriod=3, LockDuration=10)
    assert locked["LockState"] == "compliance-cooloff"
    assert locked["CoolOffPeriodExpiresOn"] - locked["LockCreatedOn"] == timedelta(hours=3)
    ec2.unlock_snapshot(SnapshotId=snapshot_id)
    ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="compliance", CoolOffPeriod=3, LockDuration=10)
    pass_time(server, 3 * 3600)
    with refused(400, "SnapshotLocked"):
        ec2.unlock_snapshot(SnapshotId=snapshot_id)
    with refused(400, "SnapshotLocked"):
        ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="compliance", LockDuration=5)
    assert ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="compliance", LockDuration=20)["LockDuration"] == 20
    answer = ec2.describe_locked_snapshots(Filters=[{"Name": "lock-state", "Values": ["compliance"]}])
    assert [entry["SnapshotId"] for entry in answer["Snapshots"]] == [snapshot_id]


def test_a_lock_on_a_pending_snapshot_counts_from_its_completion(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = start(ebs)
    answer = ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="governance", LockDuration=1)
    assert "LockExpiresOn" not in answer
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
    pass_time(server, 1)
    (shown,) = ec2.describe_locked_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert shown["LockExpiresOn"] - shown["LockDurationStartTime"] == timedelta(days=1)


def test_a_lock_takes_a_duration_or_a_date(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {})
    date = datetime.fromtimestamp(server.service.clock.now() + 5 * 86400, UTC)
    with refused(400, "InvalidParameterCombination"):
        ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="governance", LockDuration=1, ExpirationDate=date)
    answer = ec2.lock_snapshot(SnapshotId=snapshot_id, LockMode="governance", ExpirationDate=date)
    assert answer["LockExpiresOn"] == date


# -- tiers (EBS user guide, "Archive Amazon EBS snapshots") ------------------------


def test_an_archived_snapshot_is_unreadable_until_restored(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a")})
    ec2.modify_snapshot_tier(SnapshotId=snapshot_id, StorageTier="archive")

    def status() -> tuple[str, str]:
        (shown,) = ec2.describe_snapshot_tier_status()["SnapshotTierStatuses"]
        return shown["StorageTier"], shown["LastTieringOperationStatus"]

    assert status() == ("standard", "archival-in-progress")
    assert contents(ebs, snapshot_id) == {0: block("a")}
    pass_time(server, 1)
    assert status() == ("archive", "archival-completed")
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    with refused(400, "ValidationException", "INVALID_SNAPSHOT_ID"):
        start(ebs, ParentSnapshotId=snapshot_id)
    with refused(400, "IncorrectState"):
        copy(server, snapshot_id)
    ec2.restore_snapshot_tier(SnapshotId=snapshot_id, PermanentRestore=True)
    pass_time(server, 1)
    assert status() == ("standard", "permanent-restore-completed")
    assert contents(ebs, snapshot_id) == {0: block("a")}


def test_a_temporary_restore_ends(server: RunningServer, ebs: Any, ec2: Any) -> None:
    snapshot_id = snapshot_of(server, ebs, {0: block("a")})
    ec2.modify_snapshot_tier(SnapshotId=snapshot_id, StorageTier="archive")
    pass_time(server, 1)
    answer = ec2.restore_snapshot_tier(SnapshotId=snapshot_id, TemporaryRestoreDays=2)
    assert (answer["RestoreDuration"], answer["IsPermanentRestore"]) == (2, False)
    pass_time(server, 1)
    (shown,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert shown["RestoreExpiryTime"].timestamp() == server.service.clock.now() + 2 * 86400
    assert contents(ebs, snapshot_id) == {0: block("a")}
    pass_time(server, 2 * 86400)
    (shown,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (shown["StorageTier"], "RestoreExpiryTime" in shown) == ("archive", False)


def test_only_completed_snapshots_change_their_tier(ebs: Any, ec2: Any) -> None:
    with refused(400, "IncorrectState"):
        ec2.modify_snapshot_tier(SnapshotId=start(ebs), StorageTier="archive")
