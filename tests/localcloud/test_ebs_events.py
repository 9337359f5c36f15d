"""Events of snapshots: EBS user guide, "Amazon EventBridge events for Amazon EBS"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from localcloud.ebs.clock import ManualClock
from localcloud.ebs.events import KeptEvents, iso
from localcloud.ebs.testing import HOME_ACCOUNT, OTHER_ACCOUNT, RunningServer, running_server

from .ebs_clients import block, client, snapshot_of


@pytest.fixture
def kept() -> KeptEvents:
    return KeptEvents()


@pytest.fixture
def server(kept: KeptEvents) -> Iterator[RunningServer]:
    settings = {"quotas_enabled": False, "seed": 3}
    with running_server(settings, clock=ManualClock(), event_sink=kept) as running:
        yield running


def pass_time(server: RunningServer, seconds: float = 5) -> None:
    server.service.clock.advance(seconds)
    server.service.tick()


def test_a_volumes_snapshot_says_when_it_is_done(server: RunningServer, kept: KeptEvents) -> None:
    ec2 = client(server, "ec2")
    began = server.service.clock.now()
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    assert kept.events == []
    pass_time(server)
    (event,) = kept.events
    arn = f"arn:aws:ec2::us-east-1:snapshot/{snapshot_id}"
    assert event.pop("id")
    assert event == {
        "version": "0",
        "detail-type": "EBS Snapshot Notification",
        "source": "aws.ec2",
        "account": HOME_ACCOUNT,
        "time": iso(began + 5),
        "region": "us-east-1",
        "resources": [arn],
        "detail": {
            "event": "createSnapshot",
            "result": "succeeded",
            "cause": "",
            "request-id": "",
            "snapshot_id": arn,
            "source": f"arn:aws:ec2::us-east-1:volume/{volume_id}",
            "startTime": iso(began),
            "endTime": iso(began + 5),
        },
    }


def test_a_copy_says_so_in_its_destination_region(server: RunningServer, kept: KeptEvents) -> None:
    source = snapshot_of(server, client(server, "ebs"), {0: block("a")})
    there = client(server, "ec2", region="eu-west-1")
    copied = there.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=source)["SnapshotId"]
    pass_time(server)
    (event,) = kept.events
    assert (event["region"], event["detail-type"]) == ("eu-west-1", "EBS Snapshot Notification")
    detail = event["detail"]
    assert detail["event"] == "copySnapshot"
    assert detail["snapshot_id"].endswith(f":snapshot/{copied}")
    assert detail["source"] == f"arn:aws:ec2::us-east-1:snapshot/{source}"
    assert (detail["incremental"], detail["transferType"]) == ("false", "standard")


def test_a_copy_without_source_says_that_it_failed(server: RunningServer, kept: KeptEvents) -> None:
    client(server, "ec2").copy_snapshot(SourceRegion="eu-west-1", SourceSnapshotId="snap-0123456789abcdef0")
    pass_time(server)
    (event,) = kept.events
    assert (event["detail"]["result"], event["detail"]["cause"]) == ("failed", "Source snapshot ID is not valid")


def test_sharing_is_told_to_the_account_shared_with(server: RunningServer, kept: KeptEvents) -> None:
    snapshot_id = snapshot_of(server, client(server, "ebs"), {})
    arguments = {"SnapshotId": snapshot_id, "CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}]}}
    client(server, "ec2").modify_snapshot_attribute(**arguments)
    client(server, "ec2").modify_snapshot_attribute(**arguments)  # nothing new, no second event
    (event,) = kept.events
    assert event["account"] == OTHER_ACCOUNT
    assert (event["detail"]["event"], event["detail"]["source"]) == ("shareSnapshot", HOME_ACCOUNT)


def test_an_instances_snapshots_have_one_event_of_another_type(server: RunningServer, kept: KeptEvents) -> None:
    ec2 = client(server, "ec2")
    made = [ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"] for _number in range(2)]
    for volume_id in made:
        server.service.registry.volumes[volume_id].instance_id = "i-1"
    answer = ec2.create_snapshots(InstanceSpecification={"InstanceId": "i-1"})
    pass_time(server)
    (event,) = kept.events
    assert event["detail-type"] == "EBS Multi-Volume Snapshots Completion Status"
    shown = [entry["snapshot_id"].rpartition("/")[2] for entry in event["detail"]["snapshots"]]
    assert shown == [snapshot["SnapshotId"] for snapshot in answer["Snapshots"]]
    assert len(event["resources"]) == 2


def test_archiving_and_restoring_are_told(server: RunningServer, kept: KeptEvents) -> None:
    snapshot_id = snapshot_of(server, client(server, "ebs"), {})
    ec2 = client(server, "ec2")
    ec2.modify_snapshot_tier(SnapshotId=snapshot_id, StorageTier="archive")
    pass_time(server)
    ec2.restore_snapshot_tier(SnapshotId=snapshot_id, TemporaryRestoreDays=1)
    pass_time(server)
    pass_time(server, 86400)
    told = [event["detail"]["event"] for event in kept.events]
    assert told == ["archiveSnapshot", "temporaryRestoreSnapshot", "restoreExpiry"]
    assert "restoreExpiryTime" in kept.events[1]["detail"]


@pytest.mark.parametrize("told", [False, True])
def test_completing_a_direct_snapshot_is_told_only_if_asked_for(
    server: RunningServer, kept: KeptEvents, told: bool
) -> None:
    # No document says which event CompleteSnapshot causes, so it is off by default.
    server.service.configure({"direct_completion_event": told})
    snapshot_of(server, client(server, "ebs"), {0: block("a")})
    assert [event["detail"]["source"] for event in kept.events] == (
        ["arn:aws:ec2::us-east-1:volume/vol-ffffffff"] if told else []
    )


def share_once(server: RunningServer) -> None:
    ec2 = client(server, "ec2")
    (snapshot_id,) = list(server.service.registry.snapshots) or [snapshot_of(server, client(server, "ebs"), {})]
    permission: Any = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission=permission)
    ec2.reset_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")


def test_the_three_arn_shapes_can_rotate(server: RunningServer, kept: KeptEvents) -> None:
    server.service.configure({"event_arn": "rotate"})
    for _number in range(3):
        share_once(server)
    shapes = {event["resources"][0].split("snapshot/")[0] for event in kept.events}
    assert shapes == {
        "arn:aws:ec2::us-east-1:",
        "arn:aws:ec2:us-east-1::",
        f"arn:aws:ec2:us-east-1:{HOME_ACCOUNT}:",
    }


def test_events_can_be_lost_doubled_and_late(server: RunningServer, kept: KeptEvents) -> None:
    server.service.configure({"event_loss_probability": 1.0})
    share_once(server)
    assert kept.events == []
    server.service.configure({"event_loss_probability": 0.0, "event_duplicate_probability": 1.0})
    share_once(server)
    first, second = kept.events
    assert first == second
    server.service.configure({"event_duplicate_probability": 0.0, "event_delay_seconds": 60})
    share_once(server)
    assert len(kept.events) == 2
    pass_time(server, 60)
    assert len(kept.events) == 3
