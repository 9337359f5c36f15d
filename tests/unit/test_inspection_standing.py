"""What an inspection sees where the copies would go, and what it therefore recommends."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from blockferry.inspection.answer import answer
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, put, running_rig

OTHER = "444455556666"
DISK = {index: content(index + 1) for index in range(200)}
CHANGED = {3: content(900), 700: content(901)}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"copy_seconds": 0.0}) as made:
        yield made


def later(rig: Rig, base: str, blocks: Mapping[int, bytes] = CHANGED, *, region: str = HOME) -> str:
    """A snapshot of the base's lineage in which ``blocks`` are written."""
    rig.control("clock", {"advance": 1})
    client = rig.client("ebs", region)
    made = str(client.start_snapshot(VolumeSize=1, ParentSnapshotId=base)["SnapshotId"])
    put(client, made, blocks)
    client.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(blocks))
    return made


def copied(rig: Rig, snapshot_id: str, region: str = RECOVERY, **target: Any) -> str:
    """A copy by this software."""
    wanted = {"snapshot_id": snapshot_id, "targets": [{"region": region, **target}], "options": {"holes": "preserve"}}
    return str(rig.copy(wanted)["targets"][0]["snapshot_id"])


def copied_by_ec2(rig: Rig, snapshot_id: str, region: str = RECOVERY, **more: Any) -> str:
    """A copy by CopySnapshot, which tells where it came from as EC2's console does."""
    described = {"Description": f"[Copied {snapshot_id} from {HOME}] nightly", **more}
    made = rig.client("ec2", region).copy_snapshot(SourceRegion=HOME, SourceSnapshotId=snapshot_id, **described)
    rig.control("clock", {"advance": 1})
    assert rig.state(made["SnapshotId"]) == "completed"
    return str(made["SnapshotId"])


def inspected(rig: Rig, snapshot_id: str, base: str | None = None, **more: Any) -> dict[str, Any]:
    targets = more.pop("targets", [{"region": RECOVERY}])
    wanted = {"snapshot_id": snapshot_id, "targets": targets, **more}
    return rig.run("inspect", wanted if base is None else {**wanted, "base_snapshot_id": base})


def choice(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["choices"] if each["name"] == name)


def why_no_sync(report: Mapping[str, Any]) -> str:
    sync = choice(report, "sync")
    assert not sync["possible"]
    assert report["recommendation"]["choice"] == "copy_snapshot"
    return str(sync["why_not"])


def test_where_our_copy_of_the_base_stands_a_sync_is_recommended_at_the_price_that_its_dry_run_tells(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    parent = copied(rig, base)
    snapshot = later(rig, base)
    report = inspected(rig, snapshot, base)
    wanted = {
        "snapshot_id": snapshot,
        "base_snapshot_id": base,
        "targets": [{"region": RECOVERY, "parent_snapshot_id": parent}],
    }
    dry_run = rig.plan({**wanted, "options": {"dry_run": True}}, operation="sync")["estimate"]
    sync = choice(report, "sync")
    assert sync["parents"] == [parent]
    assert (sync["requests"], sync["cost_usd"]) == (dry_run["requests"], dry_run["cost_usd"])
    assert report["recommendation"]["choice"] == "sync"
    assert report["recommendation"]["commands"] == [
        f"blockferry sync {snapshot} --base {base} --to {RECOVERY}={parent}"
    ]
    native = choice(report, "copy_snapshot")
    assert native["one_time_usd"] == pytest.approx(len(DISK | CHANGED) / 2048 * 0.02, abs=1e-6)
    assert "full, because no copy" in native["notes"][0]
    assert rig.run("sync", wanted)["requests"]["PutSnapshotBlock"] == len(CHANGED)


def test_the_newest_of_several_parents_is_taken(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    copied(rig, base)
    rig.control("clock", {"advance": 60})
    newest = copied(rig, base)
    assert choice(inspected(rig, later(rig, base), base), "sync")["parents"] == [newest]


def test_a_copy_that_no_job_has_proved_is_no_parent(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    parent = copied(rig, base)
    rig.client("ec2", RECOVERY).delete_tags(Resources=[parent], Tags=[{"Key": "blockferry:proved-snapshot-id"}])
    why = why_no_sync(inspected(rig, later(rig, base), base))
    assert why == f"no proved copy of {base} stands in {RECOVERY} of account 111122223333"


def test_a_copy_in_another_region_is_no_parent(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    copied(rig, base, THIRD)
    assert f"stands in {RECOVERY}" in why_no_sync(inspected(rig, later(rig, base), base))


def test_a_copy_that_is_not_encrypted_is_no_parent_of_one_that_has_to_be(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    parent = copied(rig, base)
    targets = [{"region": RECOVERY, "encrypted": True}]
    why = why_no_sync(inspected(rig, later(rig, base), base, targets=targets))
    assert why.startswith(f"{parent} in {RECOVERY}, a proved copy of {base}, has another encryption")


def test_a_parent_that_a_sync_would_refuse_is_none(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    parent = copied(rig, base)
    snapshot = later(rig, base)
    rig.client("ec2", RECOVERY).enable_ebs_encryption_by_default()
    why = why_no_sync(inspected(rig, snapshot, base))
    assert why.startswith(f"{parent} in {RECOVERY}, a proved copy of {base}, is not encrypted, and the account")


def test_a_sync_does_not_lead_back(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    snapshot = later(rig, base)
    copied(rig, snapshot)
    assert "newer or larger" in why_no_sync(inspected(rig, base, snapshot))


def test_copy_snapshot_is_incremental_on_top_of_a_copy_that_it_made(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    native = copied_by_ec2(rig, base)
    report = inspected(rig, later(rig, base), base)
    found = choice(report, "copy_snapshot")
    assert found["one_time_usd"] == pytest.approx(len(CHANGED) / 2048 * 0.02, abs=1e-6)
    assert f"incremental on top of {native}" in found["notes"][0]
    assert report["recommendation"]["choice"] == "copy_snapshot"


def test_a_copy_that_was_made_as_recommended_is_seen_by_the_next_inspection(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    (command,) = inspected(rig, base)["recommendation"]["commands"]
    words = shlex.split(command)
    native = copied_by_ec2(rig, base, Description=words[words.index("--description") + 1])
    report = inspected(rig, later(rig, base), base)
    assert report["destinations"][0]["native_base_id"] == native


@pytest.mark.parametrize(
    "more",
    [{"Description": "nightly"}, {"Description": "[Copied snap-00000000 from us-east-1]"}, {"Encrypted": True}],
    ids=["nothing tells its source", "it has another source", "it has a key"],
)
def test_a_copy_by_ec2_that_the_next_one_may_not_build_on_makes_it_a_full_one(rig: Rig, more: dict[str, Any]) -> None:
    base = rig.snapshot(DISK)
    copied_by_ec2(rig, base, **more)
    targets = [{"region": RECOVERY, "encrypted": False}]
    found = choice(inspected(rig, later(rig, base), base, targets=targets), "copy_snapshot")
    assert "full, because no copy" in found["notes"][0]


def test_a_description_alone_does_not_make_a_copy_one_by_ec2(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    rig.snapshot(DISK, region=RECOVERY, Description=f"[Copied {base} from {HOME}]")
    found = choice(inspected(rig, later(rig, base), base), "copy_snapshot")
    assert "full, because no copy" in found["notes"][0]


def test_a_snapshot_of_which_every_target_has_a_proved_copy_needs_none(rig: Rig) -> None:
    snapshot = rig.snapshot(DISK)
    made = [copied(rig, snapshot, region) for region in (RECOVERY, THIRD)]
    targets = [{"region": RECOVERY}, {"region": THIRD}]
    advice = inspected(rig, snapshot, targets=targets)["recommendation"]
    assert advice["choice"] == "nothing"
    assert advice["reason"] == f"{made[0]} in {RECOVERY}, {made[1]} in {THIRD} are proved copies of it already"


def night(rig: Rig, volume_id: str, blocks: Mapping[int, bytes]) -> str:
    """A snapshot of a volume, after these blocks were written."""
    for index, data in blocks.items():
        rig.post(f"volumes/{volume_id}/blocks/{index}", data)
    made = str(rig.client("ec2").create_snapshot(VolumeId=volume_id)["SnapshotId"])
    rig.control("clock", {"advance": 60})
    assert rig.state(made) == "completed"
    return made


def test_without_a_base_the_newest_earlier_snapshot_with_a_copy_there_is_told(rig: Rig) -> None:
    volume_id = rig.client("ec2").create_volume(AvailabilityZone=f"{HOME}a", Size=1)["VolumeId"]
    nights = [night(rig, volume_id, {number: content(number + 1)}) for number in range(5)]
    for copied_night in (nights[0], nights[1], nights[2], nights[4]):
        copied(rig, copied_night)
    rig.client("ec2").delete_snapshot(SnapshotId=nights[2])
    report = inspected(rig, nights[3])
    assert report["destinations"][0]["earlier_id"] == nights[1]
    line = f"  a copy of {nights[1]} stands there: name it as --base to price a sync"
    assert line in answer(report)
    assert inspected(rig, nights[3], targets=[{"region": THIRD}])["destinations"][0]["earlier_id"] is None
    assert inspected(rig, nights[0])["destinations"][0]["earlier_id"] is None


def test_a_place_that_cannot_be_looked_at_is_told_and_nothing_is_assumed_of_it(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    copied(rig, base)
    snapshot = later(rig, base)
    denied = {"action": "error", "operation": "DescribeSnapshots", "code": "UnauthorizedOperation", "status": 403}
    rig.control("faults", {**denied, "region": RECOVERY})
    report = inspected(rig, snapshot, base)
    unseen = f"what stands in {RECOVERY} of account 111122223333 could not be looked at"
    assert why_no_sync(report) == unseen
    assert any(note.startswith(f"{unseen}: DescribeSnapshots: UnauthorizedOperation") for note in report["notes"])
    assert f"  what stands in {RECOVERY} could not be looked at" in answer(report)


def test_a_role_that_cannot_be_assumed_to_look_is_told_and_the_report_comes_all_the_same(rig: Rig) -> None:
    base = rig.snapshot(DISK)
    copied(rig, base)
    targets = [{"region": RECOVERY, "role_arn": f"arn:aws:iam::{OTHER}:role/blockferry"}]
    report = inspected(rig, later(rig, base), base, targets=targets)
    assert why_no_sync(report) == f"what stands in {RECOVERY} of account {OTHER} could not be looked at"
    assert report["recommendation"]["commands"] == []
