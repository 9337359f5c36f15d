"""Backups that tags ask for, made by the real machine: once in each slot, whoever starts how many runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from blockferry.backups.backup import TAKE
from blockferry.backups.slots import SETTLING
from blockferry.core.errors import ItemsFailed
from rig import ACCOUNT, HOME, MadeInstance, Rig, RigAws, running_rig

NIGHT = "2026-11-27T03:00:00Z"
SLOT = "2026-11-27T01:00:00Z"
WEB = "i-00000000000000001"


class Region:
    """The home region with instances, volumes, and runs of backup there."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self._monkeypatch = monkeypatch
        self._volumes = 0
        self.runs = 0
        assert isinstance(rig.aws, RigAws)
        self.aws = rig.aws
        self.aws.executions = {}
        self.says()

    def says(self, **settings: Any) -> None:
        self._monkeypatch.setenv("BLOCKFERRY_BACKUPS", json.dumps({"allow_as_of": True, **settings}))

    def volume(self, tags: Mapping[str, str] | None = None, *, on: str | None = None, device: str | None = None) -> str:
        self._volumes += 1
        made = f"vol-0{self._volumes:016x}"
        facts = {"volume_id": made, "owner": ACCOUNT, "region": HOME, "size": 1, "tags": dict(tags or {})}
        self.rig.control("volumes", {**facts, "instance_id": on, "device": device})
        return made

    def instance(self, instance_id: str, *volumes: Mapping[str, str] | None, **tags: str) -> list[str]:
        """An instance with a volume for each of their tags; returns the volumes."""
        names = ["/dev/xvda", *(f"/dev/sd{chr(ord('f') + n)}" for n in range(len(volumes) - 1))]
        made = [self.volume(each, on=instance_id, device=name) for each, name in zip(volumes, names, strict=True)]
        devices = dict(zip(names, made, strict=True))
        self.aws.instances = [*self.aws.instances, MadeInstance(instance_id, devices, {"Backup": "Yes", **tags})]
        return made

    @property
    def ec2(self) -> Any:
        return self.rig.client("ec2")

    def run(self, *, at: str = NIGHT, dry_run: bool = False) -> dict[str, Any]:
        self.runs += 1
        return self.rig.run("backup", {"as_of": at, "dry_run": dry_run}, job_id=f"run-{self.runs}")

    def report(self) -> dict[str, Any]:
        body = self.rig.folder(f"run-{self.runs}").read("report.json")
        assert body is not None
        told: dict[str, Any] = json.loads(body)
        return told

    def lines(self) -> dict[str, tuple[str, str, str]]:
        return {each["resource"]: (each["action"], each["outcome"], each["reason"]) for each in self.report()["items"]}

    def backups(self) -> dict[str, list[dict[str, Any]]]:
        """Snapshots by their volumes, each with its tags as a mapping."""
        found: dict[str, list[dict[str, Any]]] = {}
        for each in self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
            tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", ())}
            found.setdefault(each["VolumeId"], []).append({**each, "tags": tags})
        return found

    def backup(self, volume_id: str) -> dict[str, Any]:
        (found,) = self.backups()[volume_id]
        return found


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as rig:
        yield Region(rig, monkeypatch)


def test_the_volumes_of_an_instance_are_backed_up_by_one_request_with_all_their_tags(region: Region) -> None:
    root, data = region.instance(WEB, None, {"Role": "db"}, Name="web", Retention="14", Copy_Dest="eu-west-1")
    before = region.rig.calls()
    answer = region.run()
    assert {name: answer[name] for name in ("planned", "done", "failed", "skipped")} == {
        "planned": 0,
        "done": 2,
        "failed": 0,
        "skipped": 0,
    }
    assert region.rig.calls()["CreateSnapshots"] - before.get("CreateSnapshots", 0) == 1
    assert region.backup(root)["Description"] == region.backup(data)["Description"] == f"web ({WEB}) - us-east-1"
    assert region.backup(data)["tags"] == {
        "Type": "Automated",
        "DeleteOn": "2026-12-11",
        "Retention": "14d",
        "Copy_Dest": "eu-west-1",
        "Role": "db",
        "Source_InstanceId": WEB,
        "Source_VolumeId": data,
        "Source_Device": "/dev/sdf",
        "Source_Region": "us-east-1",
        "blockferry:slot": SLOT,
    }
    assert region.backup(root)["tags"]["Source_Device"] == "/dev/xvda"
    assert region.lines()[root] == ("create", "done", f"{region.backup(root)['SnapshotId']} of {SLOT}")


def test_a_volume_by_itself_has_the_whole_description(region: Region) -> None:
    (attached,) = region.instance(WEB, None, Name="web")
    alone = region.volume({"Backup": "yes", "Name": "spare"})
    region.run()
    assert region.backup(attached)["Description"] == f"web ({WEB}) - {attached} (/dev/xvda) - us-east-1"
    assert region.backup(alone)["Description"] == f"{alone} - us-east-1"
    assert region.backup(alone)["tags"]["Name"] == "spare"


def test_volumes_that_say_no_are_left_out_of_their_instance(region: Region) -> None:
    root, wanted, other, scratch = region.instance(WEB, {"Backup": "No"}, None, None, {"Backup": "no"})
    region.run()
    assert set(region.backups()) == {wanted, other}
    assert region.lines()[root] == region.lines()[scratch] == ("none", "skipped", "its tag Backup says No")


def test_a_second_run_in_the_slot_makes_none_and_one_in_the_next_slot_does(region: Region) -> None:
    volumes = region.instance(WEB, None, None)
    region.run()
    again = region.run(at="2026-11-27T23:59:00Z")
    assert (again["done"], again["skipped"]) == (0, 2)
    assert region.lines()[volumes[0]][2] == f"{region.backup(volumes[0])['SnapshotId']} is its backup of {SLOT}"
    region.run(at="2026-11-28T01:00:00Z")
    assert {volume: len(found) for volume, found in region.backups().items()} == dict.fromkeys(volumes, 2)


def test_ten_runs_of_one_slot_that_start_at_once_make_one_backup(region: Region) -> None:
    volumes = [*region.instance(WEB, None, None), region.volume({"Backup": "Yes"})]
    plans = []
    for number in range(10):
        job_id = f"side-{number}"
        event = {
            "operation": "backup",
            "job_id": job_id,
            "execution_arn": f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-backup:{job_id}",
            "started_at": "2026-01-01T00:00:00.000Z",
            "request": {"as_of": NIGHT},
        }
        plans.append({**event, "record": region.rig.call("plan_backup", event)["record"], "batch": {"first": 0}})
    failed: list[BaseException] = []
    together = threading.Barrier(len(plans))

    def take(event: Mapping[str, Any]) -> None:
        together.wait()
        try:
            region.rig.call("take_backups", event)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=take, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {volume: len(found) for volume, found in region.backups().items()} == dict.fromkeys(volumes, 1)
    outcomes = []
    for plan in plans:
        body = region.rig.workspace.folder("backup", plan["job_id"]).read(f"{TAKE}/0000000000.jsonl") or b""
        outcomes += [json.loads(line)["outcome"] for line in body.splitlines()]
    assert (outcomes.count("done"), outcomes.count("skipped")) == (3, 27)


@pytest.mark.parametrize("operation", ["CreateSnapshot", "CreateSnapshots"])
def test_an_answer_that_is_lost_makes_no_second_backup(region: Region, operation: str) -> None:
    volumes = region.instance(WEB, *[None] * (1 if operation == "CreateSnapshot" else 2))
    region.rig.control("faults", {"operation": operation, "nth": 1, "action": "close_after"})
    assert region.run()["done"] == len(volumes)
    assert {volume: len(found) for volume, found in region.backups().items()} == dict.fromkeys(volumes, 1)


def test_a_request_that_never_arrived_is_made_by_the_next_run_only(region: Region) -> None:
    (volume,) = region.instance(WEB, None)
    region.rig.control("faults", {"operation": "CreateSnapshot", "nth": 1, "action": "close_before"})
    with pytest.raises(ItemsFailed, match="EC2 has not answered, and shows no snapshot yet"):
        region.run()
    assert region.backups() == {}
    assert region.rig.calls()["CreateSnapshot"] <= 1
    region.aws.executions = {f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-backup:run-1": "FAILED"}
    region.says()
    claim = json.loads(region.rig.workspace.folder("backup-slots", SLOT).read(f"claims/{WEB}.json") or b"")
    region.rig.workspace.folder("backup-slots", SLOT).write(
        f"claims/{WEB}.json",
        json.dumps({**claim, "at": (datetime.now(UTC) - SETTLING).isoformat()}).encode(),
    )
    assert region.run()["done"] == 1
    assert len(region.backups()[volume]) == 1


def test_a_refusal_is_told_for_each_volume_and_spoils_nothing_else(region: Region) -> None:
    refused = region.instance(WEB, None, None)
    (other,) = region.instance("i-00000000000000002", None)
    region.rig.control(
        "faults",
        {
            "operation": "CreateSnapshots",
            "action": "error",
            "status": 400,
            "code": "SnapshotLimitExceeded",
            "message": "too many snapshots",
        },
    )
    with pytest.raises(ItemsFailed, match="2 items of backup run-1 failed"):
        region.run()
    assert "SnapshotLimitExceeded" in region.lines()[refused[0]][2]
    assert set(region.backups()) == {other}


def test_tags_that_a_dead_run_has_not_set_are_set_by_the_next_one(region: Region) -> None:
    root, data = region.instance(WEB, {"Role": "boot"}, {"Role": "db", "Retention": "3"})
    region.rig.control(
        "faults", {"operation": "CreateTags", "action": "error", "status": 403, "code": "UnauthorizedOperation"}
    )
    with pytest.raises(ItemsFailed, match="was made, but not all of its tags"):
        region.run()
    # None lives for ever: the later day of the two.
    assert region.backup(data)["tags"]["DeleteOn"] == "2026-12-04"
    region.rig.control("faults", method="DELETE")
    region.aws.executions = {f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-backup:run-1": "FAILED"}
    region.run(at="2026-11-28T03:00:00Z")
    first = min(region.backups()[data], key=lambda each: each["StartTime"])
    assert (first["tags"]["DeleteOn"], first["tags"]["Role"]) == ("2026-11-30", "db")
    first = min(region.backups()[root], key=lambda each: each["StartTime"])
    assert (first["tags"]["DeleteOn"], first["tags"]["Role"]) == ("2026-12-04", "boot")


def test_a_volume_that_is_attached_after_the_slots_run_has_its_backup_by_the_next_one(region: Region) -> None:
    volumes = region.instance(WEB, None, None)
    region.run()
    late = region.volume(on=WEB, device="/dev/sdz")
    (instance,) = region.aws.instances
    region.aws.instances = [MadeInstance(WEB, {**instance.devices, "/dev/sdz": late}, instance.tags)]
    assert region.run()["done"] == 1
    assert {volume: len(found) for volume, found in region.backups().items()} == dict.fromkeys([*volumes, late], 1)
    assert region.backup(late)["tags"]["Source_Device"] == "/dev/sdz"


def test_a_slot_that_a_run_died_in_is_told_once_when_it_is_over(region: Region) -> None:
    (volume,) = region.instance(WEB, None)
    region.rig.control("faults", {"operation": "CreateSnapshot", "nth": 1, "action": "close_before"})
    with pytest.raises(ItemsFailed):
        region.run()
    region.aws.executions = {f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-backup:run-1": "FAILED"}
    with pytest.raises(ItemsFailed, match=f"it has no backup of {SLOT}: the run that was to make it has died"):
        region.run(at="2026-11-28T03:00:00Z")
    assert len(region.backups()[volume]) == 1
    assert region.run(at="2026-11-28T04:00:00Z")["failed"] == 0


def test_bad_values_are_told_and_the_default_holds(region: Region) -> None:
    (volume,) = region.instance(WEB, None, Retention="abc", Copy_Dest="nowhere eu-west-1")
    region.run()
    tags = region.backup(volume)["tags"]
    assert (tags["DeleteOn"], tags["Copy_Dest"]) == ("2026-12-04", "eu-west-1")
    told = {(each["resource"], each["tag"], each["value"]) for each in region.report()["problems"]}
    assert told == {(WEB, "Retention", "abc"), (WEB, "Copy_Dest", "nowhere eu-west-1")}


def test_a_volume_with_fifty_tags_of_its_own_is_backed_up_with_ours(region: Region) -> None:
    many = {f"key-{n:02}": "x" * 256 for n in range(50)}
    volumes = region.instance(WEB, None, many)
    region.run()
    tags = region.backup(volumes[1])["tags"]
    assert len(tags) == 50
    assert tags["DeleteOn"] == "2026-12-04"
    assert tags["key-00"] == "x" * 256
    (problem,) = region.report()["problems"]
    assert problem["resource"] == volumes[1]
    assert "key-49" in problem["told"]


def test_a_dry_run_lists_what_the_slot_lacks_and_makes_nothing(region: Region) -> None:
    volumes = region.instance(WEB, None, None)
    answer = region.run(dry_run=True)
    assert (answer["planned"], answer["done"]) == (2, 0)
    assert {name for name, line in region.lines().items() if line[:2] == ("create", "planned")} == set(volumes)
    assert region.backups() == {}


def test_an_instance_that_is_gone_midway_fails_alone(region: Region) -> None:
    gone = region.instance(WEB, None, None)
    (other,) = region.instance("i-00000000000000002", None)

    def around(step: str, event: Any) -> Any:
        if step == "Take backups":
            for volume in gone:
                region.rig.control(f"volumes/{volume}", method="DELETE")
        return before(step, event)

    before, region.rig.around = region.rig.around, around
    with pytest.raises(ItemsFailed, match="2 items"):
        region.run()
    assert set(region.backups()) == {other}
    assert "InvalidInstanceID.NotFound" in region.lines()[gone[0]][2]
