"""Backups by tag that are due, marked and deleted by the real machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from blockferry.core.errors import InvalidRequest, ItemsFailed
from blockferry.jobs.folder import REPORT
from blockferry.jobs.workspace import Workspace
from deployment import ExecutionFailed
from fakes import ManualClock
from rig import HOME, RECOVERY, Rig, RigAws, running_rig, session
from wire import Call, Death, Refusal, Spoil, TappedAws, Wire

TODAY = datetime.now(UTC).date()
"""The day by the clock of the EBS server, which says when a snapshot was made."""

MARK = "blockferry:expires"


class Region:
    """The home region with snapshots of its volumes, and runs of expire there."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self._monkeypatch = monkeypatch
        self._volumes = 0
        self.runs = 0
        self.says()

    def says(self, **settings: Any) -> None:
        """What the deployment says of backups."""
        self._monkeypatch.setenv("BLOCKFERRY_BACKUPS", json.dumps({"allow_as_of": True, **settings}))

    def volume(self) -> str:
        self._volumes += 1
        volume_id = f"vol-0{self._volumes:016x}"
        self.rig.control("volumes", {"volume_id": volume_id, "owner": "111122223333", "region": HOME, "size": 1})
        return volume_id

    def backup(self, volume_id: str | None = None, *, due: date | str | None = TODAY, **tags: str) -> str:
        """A completed snapshot of a volume, of one of its own if none is named."""
        held = {"Type": "Automated", **({} if due is None else {"DeleteOn": str(due)}), **tags}
        made: str = self.ec2.create_snapshot(
            VolumeId=volume_id or self.volume(),
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": k, "Value": v} for k, v in held.items()]}],
        )["SnapshotId"]
        self.rig.control("clock", {"advance": 1})
        return made

    @property
    def ec2(self) -> Any:
        return self.rig.client("ec2")

    def run(self, *, dry_run: bool = False, day: date = TODAY) -> dict[str, Any]:
        self.runs += 1
        request = {"as_of": f"{day}T12:00:00Z", "dry_run": dry_run}
        return self.rig.run("expire", request, job_id=f"run-{self.runs}")

    def report(self) -> dict[str, Any]:
        """That of the last run."""
        body = self.rig.folder(f"run-{self.runs}").read("report.json")
        assert body is not None
        told: dict[str, Any] = json.loads(body)
        return told

    def lines(self) -> dict[str, tuple[str, str, str]]:
        """What the last run says of each snapshot."""
        return {each["resource"]: (each["action"], each["outcome"], each["reason"]) for each in self.report()["items"]}

    def there(self) -> set[str]:
        return {each["SnapshotId"] for each in self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}

    def tags(self, snapshot_id: str) -> dict[str, str]:
        (found,) = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return {tag["Key"]: tag["Value"] for tag in found["Tags"]}


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as rig:
        yield Region(rig, monkeypatch)


def test_one_run_marks_and_another_one_deletes(region: Region) -> None:
    volume = region.volume()
    old, newest = region.backup(volume), region.backup(volume)
    first = region.run()
    assert {name: first[name] for name in ("planned", "done", "failed", "skipped")} == {
        "planned": 0,
        "done": 1,
        "failed": 0,
        "skipped": 1,
    }
    assert region.there() == {old, newest}
    assert region.lines()[old] == ("mark", "done", f"due since {TODAY}: the next run deletes it")
    assert region.lines()[newest][1:] == ("skipped", f"it is the newest good backup of {volume}")
    second = region.run()
    assert (second["status"], second["done"], second["skipped"]) == ("SUCCEEDED", 1, 1)
    assert region.there() == {newest}
    assert region.lines()[old] == ("delete", "done", f"due since {TODAY}")
    page = region.rig.folder("run-2").read(REPORT)
    assert page is not None
    assert f"| {old} | delete | done | due since {TODAY} |" in page.decode()


def test_a_missed_day_is_caught_up_and_the_day_itself_counts(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    days = [TODAY + timedelta(days=more) for more in (-30, 0, 1)]
    backups = [region.backup(volume, due=day) for day in days]
    newest = region.backup(volume)
    region.run()
    assert region.there() == {backups[2], newest}
    assert region.lines()[backups[2]][2] == f"not due before {days[2]}"


PROTECTED = [
    ({"KeepForever": ""}, "tag KeepForever protects it"),
    ({"keepforever": "no"}, "tag KeepForever protects it"),
    ({"DeleteOn": "2026-1-5"}, "it has no DeleteOn that is a day"),
    ({"DeleteOn": "soon"}, "it has no DeleteOn that is a day"),
    ({"DeleteOn": ""}, "it has no DeleteOn that is a day"),
    ({"Copy_Dest": "eu-west-1"}, "its copy to eu-west-1 is not complete"),
    ({"Copy_Dest": "nowhere"}, "its copy to nowhere is not complete"),
]


@pytest.mark.parametrize(("tags", "reason"), PROTECTED, ids=[str(tags) for tags, _ in PROTECTED])
def test_what_its_tags_protect_is_neither_marked_nor_deleted(region: Region, tags: dict[str, str], reason: str) -> None:
    volume = region.volume()
    protected = region.backup(volume, **tags)
    region.backup(volume, due=None)
    for at_once in (False, True):
        region.says(act_at_once=at_once)
        region.run()
        assert region.lines()[protected] == ("none", "skipped", reason)
        assert MARK not in region.tags(protected)


def test_what_others_use_stays_and_is_told_by_whom(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    of_image, locked, shared, read, gone = (region.backup(volume) for _ in range(5))
    newest = region.backup(volume, due=None)
    assert isinstance(region.rig.aws, RigAws)
    region.rig.aws.images = {of_image: "ami-0123456789abcdef0"}
    region.ec2.lock_snapshot(SnapshotId=locked, LockMode="governance", LockDuration=1)
    region.ec2.modify_snapshot_attribute(
        SnapshotId=shared, Attribute="createVolumePermission", OperationType="add", UserIds=["123456789012"]
    )
    region.rig.plan({"snapshot_id": read, "targets": [{"region": RECOVERY}]}, job_id="nightly")
    region.run()
    assert region.there() == {of_image, locked, shared, read, newest}
    told = {snapshot_id: line[2] for snapshot_id, line in region.lines().items()}
    assert told == {
        of_image: "image ami-0123456789abcdef0 is made of it",
        locked: "it is locked (governance)",
        shared: "it is shared with 123456789012",
        read: "job copy nightly uses it",
        gone: f"due since {TODAY}",
        newest: "it has no DeleteOn that is a day",
    }


def test_a_mark_goes_from_what_is_protected_meanwhile(region: Region) -> None:
    volume = region.volume()
    kept, due = region.backup(volume), region.backup(volume)
    region.backup(volume)
    region.run()
    assert MARK in region.tags(kept)
    region.ec2.create_tags(Resources=[kept], Tags=[{"Key": "KeepForever", "Value": "audit"}])
    region.run()
    assert MARK not in region.tags(kept)
    assert region.lines()[kept] == ("mark", "done", "its mark goes: tag KeepForever protects it")
    assert due not in region.there()
    # It is due again, and has its two runs again.
    region.ec2.delete_tags(Resources=[kept], Tags=[{"Key": "KeepForever"}])
    region.run()
    assert kept in region.there()
    region.run()
    assert kept not in region.there()


def test_what_is_protected_between_the_plan_and_the_deletion_stays(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    protected, due = region.backup(volume), region.backup(volume)
    region.backup(volume)

    def around(step: str, _event: Any) -> Any:
        if step == "Delete backups":
            region.ec2.create_tags(Resources=[protected], Tags=[{"Key": "KeepForever", "Value": ""}])
        return before(step, _event)

    before, region.rig.around = region.rig.around, around
    region.run()
    assert region.lines()[protected] == ("none", "skipped", "tag KeepForever protects it")
    assert protected in region.there()
    assert due not in region.there()


def test_a_copy_that_was_seen_complete_lets_its_original_go(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    noted = region.backup(volume, **{"Copy_Dest": "eu-west-1", "blockferry:copy:eu-west-1": "snap-00000000000000001"})
    found, waiting = (region.backup(volume, Copy_Dest="eu-west-1") for _ in range(2))
    region.backup(volume)
    copy = region.rig.snapshot({}, region=RECOVERY)
    region.rig.client("ec2", RECOVERY).create_tags(
        Resources=[copy], Tags=[{"Key": "Source_SnapshotId", "Value": found}]
    )
    region.run()
    assert {noted, found} & region.there() == set()
    assert region.lines()[waiting][2] == "its copy to eu-west-1 is not complete"


def test_a_dry_run_lists_exactly_what_the_next_run_does_and_does_nothing(region: Region) -> None:
    volume = region.volume()
    due, shared = region.backup(volume), region.backup(volume)
    region.backup(volume)
    region.ec2.modify_snapshot_attribute(
        SnapshotId=shared, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"]
    )
    for action in ("mark", "delete"):
        planned = region.run(dry_run=True)
        assert (planned["planned"], planned["done"], planned["dry_run"]) == (1, 0, True)
        listed = {name: line[0] for name, line in region.lines().items() if line[1] == "planned"}
        before = region.there()
        tags = region.tags(due)
        region.run(dry_run=True)
        assert (region.there(), region.tags(due)) == (before, tags)
        region.run()
        done = {name: line[0] for name, line in region.lines().items() if line[1] == "done"}
        assert listed == done == {due: action}


def test_one_that_cannot_be_deleted_fails_the_run_and_not_the_others(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    refused, due = region.backup(volume), region.backup(volume)
    region.backup(volume)
    region.rig.control(
        "faults",
        {
            "operation": "DeleteSnapshot",
            "snapshot_id": refused,
            "action": "error",
            "status": 403,
            "code": "UnauthorizedOperation",
        },
    )
    with pytest.raises(ItemsFailed) as failed:
        region.run()
    assert f"s3://{region.rig.workspace.bucket}/jobs/expire/run-1/report.md" in str(failed.value)
    assert f"delete {refused}: " in str(failed.value)
    assert region.lines()[refused][:2] == ("delete", "failed")
    assert "UnauthorizedOperation" in region.lines()[refused][2]
    assert due not in region.there()
    assert region.report()["status"] == "FAILED"


def test_another_day_is_refused_where_the_deployment_does_not_allow_it(region: Region) -> None:
    region.says(allow_as_of=False)
    region.backup()
    with pytest.raises(InvalidRequest, match=r"as_of is not allowed in this deployment"):
        region.run()


def test_snapshots_that_are_not_ours_are_not_even_looked_at(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    theirs = region.backup(volume, Type="automated"), region.backup(volume, Type="Manual")
    region.backup(volume)
    region.run()
    assert set(theirs) <= region.there()
    assert region.lines().keys() & set(theirs) == set()


def test_days_begin_where_the_deployment_says(region: Region) -> None:
    region.says(act_at_once=True, time_zone="Pacific/Auckland")
    volume = region.volume()
    tomorrow = region.backup(volume, due=TODAY + timedelta(days=1))
    region.backup(volume, due=None)
    # Noon in UTC is past midnight there.
    region.run()
    assert tomorrow not in region.there()


def test_more_than_a_batch_is_deleted_all_the_same(region: Region) -> None:
    region.says(act_at_once=True)
    volume = region.volume()
    due = {region.backup(volume) for _ in range(205)}
    newest = region.backup(volume)
    answer = region.run()
    assert (answer["done"], answer["skipped"]) == (205, 1)
    assert region.there() == {newest}
    assert {name for name, line in region.lines().items() if line[0] == "delete"} == due


SPOILS: dict[str, Spoil] = {
    "process dies before": Death(took_effect=False),
    "process dies after": Death(took_effect=True),
    "denied": Refusal(403, "UnauthorizedOperation"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_one_fault_at_any_call_changes_nothing_in_the_end(region: Region, name: str) -> None:
    rig = region.rig
    wire = Wire(rig.server.service.faults)
    rig.aws = TappedAws(base=session(), wire=wire, clock=ManualClock())
    rig.workspace = Workspace(rig.workspace.bucket, rig.aws.s3(HOME))

    def until_it_ends(number: int) -> int:
        """An expire run with its ``number``-th call spoiled, redriven or followed by the next run; how many calls."""
        region.runs += 1
        rig.operations[f"run-{region.runs}"] = "expire"
        job = rig.deployment.job("expire", {"as_of": f"{TODAY}T12:00:00Z"}, f"run-{region.runs}")
        wire.clear(lambda call: spoil_once(call, number))
        for _ in range(3):
            try:
                job.run()
                break
            except ExecutionFailed as failed:
                if failed.error == "ItemsFailed":
                    return until_it_ends(0)
        return len(wire.calls)

    def spoil_once(call: Call, number: int) -> Spoil | None:
        spoil = SPOILS[name] if call.number == number else None
        if isinstance(spoil, Refusal) and call.service == "s3":
            return Refusal(spoil.status, "AccessDenied")
        return spoil

    def around(_step: str, _event: Any) -> Any:
        wire.revive()
        return nullcontext()

    rig.around = around
    number, last = 0, 0
    while number <= last:
        volume = region.volume()
        due, kept, newest = region.backup(volume), region.backup(volume, KeepForever=""), region.backup(volume)
        until_it_ends(0)
        assert (MARK in region.tags(due), MARK in region.tags(kept)) == (True, False)
        calls = until_it_ends(number)
        # The first one is not spoiled, and says how many there are.
        last = last or calls
        assert region.there() == {kept, newest}, f"{name} at call {number}"
        region.ec2.delete_snapshot(SnapshotId=kept)
        region.ec2.delete_snapshot(SnapshotId=newest)
        number += 1
    assert last > 20
