"""Copies of backups where their tags want them, begun and noted by the real machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.core.errors import ItemsFailed
from fakes import content
from rig import ACCOUNT, HOME, RECOVERY, Rig, RigAws, put, running_rig

NIGHT = "2026-11-27T03:00:00Z"


class Regions:
    """The home region with backups, and runs of replicate there."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self._monkeypatch = monkeypatch
        self.runs = 0
        assert isinstance(rig.aws, RigAws)
        self.aws = rig.aws
        self.aws.executions = {}
        self.says()

    def says(self, **settings: Any) -> None:
        self._monkeypatch.setenv("BLOCKFERRY_BACKUPS", json.dumps({"allow_as_of": True, **settings}))

    def backup(self, *, region: str = HOME, complete: bool = True, **tags: str) -> str:
        """A backup with one block, whose tags want a copy in the recovery region unless they say otherwise."""
        held = {"Type": "Automated", "DeleteOn": "2026-12-04", "Copy_Dest": RECOVERY, **tags}
        client = self.rig.client("ebs", region)
        made: str = client.start_snapshot(
            VolumeSize=1, Tags=[{"Key": key, "Value": value} for key, value in held.items()]
        )["SnapshotId"]
        put(client, made, {3: content(3)})
        if complete:
            client.complete_snapshot(SnapshotId=made, ChangedBlocksCount=1)
        return made

    def run(self, request: Any = None) -> dict[str, Any]:
        self.runs += 1
        self.aws.executions = {
            f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-replicate:run-{number}": "SUCCEEDED"
            for number in range(self.runs)
        }
        given = {"as_of": NIGHT} if request is None else request
        return self.rig.run("replicate", given, job_id=f"run-{self.runs}")

    def report(self) -> dict[str, Any]:
        body = self.rig.folder(f"run-{self.runs}").read("report.json")
        assert body is not None
        told: dict[str, Any] = json.loads(body)
        return told

    def lines(self) -> dict[str, tuple[str, str, str]]:
        return {each["resource"]: (each["action"], each["outcome"], each["reason"]) for each in self.report()["items"]}

    def copies(self, original: str, region: str = RECOVERY) -> list[dict[str, Any]]:
        found = self.rig.client("ec2", region).describe_snapshots(
            OwnerIds=["self"], Filters=[{"Name": "tag:Source_SnapshotId", "Values": [original]}]
        )["Snapshots"]
        return [{**each, "tags": {tag["Key"]: tag["Value"] for tag in each["Tags"]}} for each in found]

    def tags(self, snapshot_id: str) -> dict[str, str]:
        (found,) = self.rig.client("ec2").describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return {tag["Key"]: tag["Value"] for tag in found["Tags"]}

    def seal(self) -> None:
        """Let copies complete."""
        self.rig.control("clock", {"advance": 3600})


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Regions]:
    with running_rig(monkeypatch, {"copy_seconds": 60.0, "volume_snapshot_seconds": 0.0}) as rig:
        yield Regions(rig, monkeypatch)


def numbers(answer: dict[str, Any]) -> tuple[int, int, int]:
    return answer["done"], answer["failed"], answer["skipped"]


def test_a_backup_is_copied_once_with_the_tags_that_travel_and_noted_when_it_is_complete(regions: Regions) -> None:
    backup = regions.backup(Role="db", Source_InstanceId="i-1", Retention="7d 4w", **{"blockferry:slot": NIGHT})
    assert numbers(regions.run()) == (1, 0, 0)
    (copy,) = regions.copies(backup)
    assert copy["Description"] == f"[Copied {backup} from {HOME}]"
    made = copy["tags"].pop("blockferry:made")
    assert copy["tags"] == {
        "Type": "Automated",
        "DeleteOn": "2026-12-04",
        "Retention": "7d 4w",
        "Role": "db",
        "Source_InstanceId": "i-1",
        "Source_SnapshotId": backup,
        "Source_VolumeId": backup,
        "Source_Region": HOME,
        "blockferry:destination": RECOVERY,
    }
    assert made.startswith("20")
    assert numbers(regions.run()) == (0, 0, 1)
    assert regions.lines()[backup] == ("none", "skipped", f"copy {copy['SnapshotId']} in {RECOVERY} is pending")
    regions.seal()
    assert regions.rig.held(copy["SnapshotId"]) == regions.rig.held(backup)
    assert numbers(regions.run()) == (1, 0, 0)
    assert regions.tags(backup)[f"blockferry:copy:{RECOVERY}"] == copy["SnapshotId"]
    assert numbers(regions.run()) == (0, 0, 1)
    # It is not made a second time when the first one has expired.
    regions.rig.client("ec2", RECOVERY).delete_snapshot(SnapshotId=copy["SnapshotId"])
    assert numbers(regions.run()) == (0, 0, 1)
    assert regions.copies(backup) == []


def test_what_is_pending_and_what_is_itself_a_copy_is_not_copied(regions: Regions) -> None:
    pending = regions.backup(complete=False)
    a_copy = regions.backup(Source_SnapshotId="snap-00000000000000001")
    assert numbers(regions.run()) == (0, 0, 1)
    assert regions.lines()[pending][2] == "it is pending: only what is completed is copied"
    assert regions.copies(pending) == regions.copies(a_copy) == []


def test_protection_that_comes_later_reaches_the_copy(regions: Regions) -> None:
    backup = regions.backup()
    regions.run()
    regions.seal()
    regions.run()
    regions.rig.client("ec2").create_tags(Resources=[backup], Tags=[{"Key": "KeepForever", "Value": "audit"}])
    regions.run()
    (copy,) = regions.copies(backup)
    assert copy["tags"]["KeepForever"] == "audit"
    assert regions.lines()[copy["SnapshotId"]] == ("mark", "done", f"KeepForever of {backup} reaches it")


def test_an_answer_that_is_lost_makes_no_second_copy(regions: Regions) -> None:
    backup = regions.backup()
    regions.rig.control("faults", {"operation": "CopySnapshot", "nth": 1, "action": "close_after"})
    assert numbers(regions.run()) == (1, 0, 0)
    assert len(regions.copies(backup)) == 1


def test_a_worker_that_dies_behind_its_request_makes_no_second_copy(regions: Regions) -> None:
    backup = regions.backup()
    deaths = []

    def around(step: str, event: Any) -> Any:
        if step == "Begin copies" and not deaths:
            deaths.append(step)
            regions.rig.call("copy_backups", event)
            raise SystemExit
        return before(step, event)

    before, regions.rig.around = regions.rig.around, around
    answer = regions.run()
    assert numbers(answer) == (0, 0, 1)
    (copy,) = regions.copies(backup)
    assert regions.lines()[backup][2] == f"copy {copy['SnapshotId']} in {RECOVERY} is there already"


def test_where_ec2_has_no_place_copies_wait_for_the_next_run(regions: Regions) -> None:
    regions.rig.control("config", {"concurrent_copies": 2, "quotas_enabled": True})
    backups = [regions.backup() for _ in range(5)]
    assert numbers(regions.run()) == (2, 0, 3)
    waiting = {line[2] for line in regions.lines().values() if line[1] == "skipped"}
    assert waiting == {f"20 copies are under way in {RECOVERY}: it waits for its turn"}
    for _ in range(4):
        regions.seal()
        regions.run()
    assert [len(regions.copies(backup)) for backup in backups] == [1] * 5


def test_only_one_run_of_a_region_is_at_work(regions: Regions) -> None:
    regions.backup()
    regions.run()
    regions.aws.executions = {}
    regions.runs += 1
    answer = regions.rig.run("replicate", {"as_of": NIGHT}, job_id="beside")
    assert numbers(answer) == (0, 0, 0)
    assert answer["notes"] == [
        f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-replicate:run-1 is at work: what it does not see is "
        "left to the next run"
    ]


def test_an_event_of_a_snapshot_wakes_it(regions: Regions) -> None:
    backup = regions.backup()
    event = {
        "version": "0",
        "id": "01234567-0123-0123-0123-0123456789ab",
        "detail-type": "EBS Snapshot Notification",
        "source": "aws.ec2",
        "account": ACCOUNT,
        "time": NIGHT,
        "region": HOME,
        "resources": [f"arn:aws:ec2::{HOME}:snapshot/{backup}"],
        "detail": {"event": "createSnapshot", "result": "succeeded"},
    }
    assert numbers(regions.run(event)) == (1, 0, 0)
    assert numbers(regions.run(event)) == (0, 0, 1)
    assert len(regions.copies(backup)) == 1


def test_a_region_that_is_down_holds_up_nothing_else(regions: Regions) -> None:
    third = "ap-southeast-2"
    backup = regions.backup(Copy_Dest=f"{RECOVERY} {third} nowhere")
    regions.rig.control(
        "faults",
        {"operation": "DescribeSnapshots", "region": RECOVERY, "action": "error", "status": 503, "code": "Unavailable"},
    )
    assert numbers(regions.run()) == (1, 0, 1)
    assert len(regions.copies(backup, third)) == 1
    (note,) = regions.report()["notes"]
    assert note.startswith(f"destination {RECOVERY}: ")
    (problem,) = regions.report()["problems"]
    assert "nowhere is no destination" in problem["told"]
    regions.rig.control("faults", method="DELETE")
    regions.run()
    assert len(regions.copies(backup)) == 1


def test_a_destination_has_its_own_key_and_retention(regions: Regions) -> None:
    key = f"arn:aws:kms:{RECOVERY}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
    regions.says(destinations={"dr": {"region": RECOVERY, "kms_key_arn": key, "retention": "30d"}})
    backup = regions.backup(Copy_Dest="dr")
    regions.run()
    (copy,) = regions.copies(backup)
    assert (copy["Encrypted"], copy["KmsKeyId"]) == (True, key)
    assert (copy["tags"]["Retention"], copy["tags"]["blockferry:destination"]) == ("30d", "dr")
    assert copy["tags"]["DeleteOn"] > "2026-12-20"


def test_a_copy_by_a_job_and_what_is_restored_are_no_backups(regions: Regions) -> None:
    backup = regions.backup(Role="db")
    receipt = regions.rig.copy({"snapshot_id": backup, "targets": [{"region": RECOVERY}]})
    (target,) = receipt["targets"]
    client = regions.rig.client("ec2", RECOVERY)
    (made,) = client.describe_snapshots(SnapshotIds=[target["snapshot_id"]])["Snapshots"]
    keys = {tag["Key"] for tag in made["Tags"] if not tag["Key"].startswith("blockferry:")}
    assert keys == {"Role"}
    assert [warning["code"] for warning in receipt["warnings"]] == ["tags_left_out"]


def test_two_destinations_in_one_region_have_a_copy_each(regions: Regions) -> None:
    regions.says(destinations={"dr": {"region": RECOVERY, "retention": "30d"}})
    backup = regions.backup(Copy_Dest=f"dr {RECOVERY}")
    assert numbers(regions.run()) == (2, 0, 0)
    assert {copy["tags"]["blockferry:destination"] for copy in regions.copies(backup)} == {"dr", RECOVERY}
    regions.seal()
    regions.run()
    assert {f"blockferry:copy:{name}" for name in ("dr", RECOVERY)} <= regions.tags(backup).keys()


def test_a_copy_that_is_refused_fails_alone(regions: Regions) -> None:
    refused, other = regions.backup(), regions.backup()
    regions.rig.control(
        "faults",
        {
            "operation": "CopySnapshot",
            "nth": 1,
            "action": "error",
            "status": 400,
            "code": "InvalidParameterValue",
            "message": "Given key ID is not accessible",
        },
    )
    with pytest.raises(ItemsFailed, match="Given key ID is not accessible"):
        regions.run()
    assert sorted(len(regions.copies(each)) for each in (refused, other)) == [0, 1]
