"""Deltas on top of clones of their base, held against what the EBS server itself holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from blockferry.aws.snapshots import CHECKSUM_TAG, LINEAGE_TAG
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RetryLater, TransferFailed
from blockferry.jobs.folder import REPORT
from blockferry.jobs.record import Swept
from blockferry.local.upload import upload_image
from fakes import TickingClock, content
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, put, running_rig
from volumes import Volume

OTHER_ACCOUNT = "123456789012"
RANGES = {"blocks_per_range": 700}

BEFORE = {0: content(1), 1: content(2), 2: content(3), 700: content(4), 701: content(0), 1500: content(5)}
"""Kept, changed, removed, becomes zero, stays zero, removed at the other end."""

AFTER = {0: content(1), 1: content(9), 700: content(0), 701: content(0), 702: content(7), 2047: content(0)}

DELTA = {1, 2, 700, 702, 1500, 2047}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


def copied(rig: Rig, source: str, *regions: str, **more: Any) -> list[str]:
    targets = [{"region": region} for region in regions or (RECOVERY,)]
    receipt = rig.copy({"snapshot_id": source, "targets": targets, "options": RANGES, **more})
    return [target["snapshot_id"] for target in receipt["targets"]]


def request(
    base: str, snapshot: str, *parents: str, regions: tuple[str, ...] = (RECOVERY,), **more: Any
) -> dict[str, Any]:
    targets = [{"region": r, "parent_snapshot_id": p} for r, p in zip(regions, parents, strict=True)]
    options = {**RANGES, **more.pop("options", {})}
    return {"base_snapshot_id": base, "snapshot_id": snapshot, "targets": targets, "options": options, **more}


def reads_as(blocks: Mapping[int, bytes]) -> dict[int, str]:
    """What is left of blocks when zeros and holes are the same."""
    return hashes({index: data for index, data in blocks.items() if data != content(0)})


@pytest.fixture
def night(rig: Rig) -> tuple[str, str]:
    """Two snapshots of one volume with every kind of change between them."""
    volume = Volume(rig)
    return volume.becomes(BEFORE).snapshot(), volume.becomes(AFTER).snapshot()


def test_a_delta_on_top_of_a_copy_of_its_base_reads_as_its_snapshot(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    rig.control("stats/reset", {})
    receipt = rig.run("sync", request(base, snapshot, parent))
    made = receipt["targets"][0]["snapshot_id"]
    assert rig.image_of(made, size_gib=1) == reads_as(AFTER)
    assert rig.facts(made)["region"] == RECOVERY
    assert rig.facts(made)["parent_id"] == parent
    # Nothing but the delta is read and written; what the base alone had is written without being read.
    calls = rig.calls()
    assert calls["PutSnapshotBlock"] == receipt["requests"]["PutSnapshotBlock"] == len(DELTA)
    assert calls["GetSnapshotBlock"] == receipt["requests"]["GetSnapshotBlock"] == len(DELTA) - 2
    assert (receipt["changed_blocks"], receipt["removed_blocks"], receipt["zero_blocks"]) == (4, 2, 2)
    assert receipt["allocated_blocks"] == len(AFTER)
    assert receipt["targets"][0]["blocks_written"] == len(DELTA)
    assert receipt["bytes_read"] == 4 * BLOCK_SIZE
    assert receipt["bytes_written"] == 6 * BLOCK_SIZE
    assert rig.facts(made)["written_linear_checksum"] == receipt["linear_checksum"]


def test_a_block_removed_in_b_is_written_as_zeros_in_d(rig: Rig) -> None:
    volume = Volume(rig)
    base = volume.becomes({5: content(5), 6: content(6)}).snapshot()
    snapshot = volume.becomes({6: content(6)}).snapshot()
    (parent,) = copied(rig, base)
    made = rig.run("sync", request(base, snapshot, parent))["targets"][0]["snapshot_id"]
    assert rig.held(made) == hashes({5: content(0), 6: content(6)})


def test_a_delta_without_changes_gives_a_clone_of_the_parent(rig: Rig) -> None:
    volume = Volume(rig).becomes(BEFORE)
    base, snapshot = volume.snapshot(), volume.snapshot()
    (parent,) = copied(rig, base)
    receipt = rig.run("sync", request(base, snapshot, parent))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == rig.held(parent)
    assert (receipt["changed_blocks"], receipt["removed_blocks"]) == (0, 0)
    assert receipt["allocated_blocks"] == len(BEFORE)
    # EBS was given a count of 0 and no checksum; what was made is proved all the same, and built upon.
    job_report = rig.folder(receipt["job_id"]).read(REPORT)
    assert job_report is not None
    assert b"EBS accepted the count of 0 for every target" in job_report
    made = receipt["targets"][0]["snapshot_id"]
    assert rig.facts(made)["tags"]["blockferry:linear-checksum"] == receipt["linear_checksum"]
    next_night = volume.becomes(AFTER).snapshot()
    receipt = rig.run("sync", request(snapshot, next_night, made))
    assert rig.image_of(receipt["targets"][0]["snapshot_id"], size_gib=1) == reads_as(AFTER)


def test_a_volume_that_has_grown_gives_a_snapshot_of_its_new_size(rig: Rig) -> None:
    volume = Volume(rig)
    base = volume.becomes(BEFORE).snapshot()
    (parent,) = copied(rig, base)
    grown = {**AFTER, 2048: content(11), 6143: content(12)}
    snapshot = volume.grows(3).becomes(grown).snapshot()
    receipt = rig.run("sync", request(base, snapshot, parent))
    made = receipt["targets"][0]
    assert made["volume_size_gib"] == 3
    assert rig.image_of(made["snapshot_id"], size_gib=3) == reads_as(grown)


def test_many_targets_are_synced_at_once_each_on_its_own_parent(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    parents = copied(rig, base, HOME, RECOVERY, THIRD)
    rig.control("stats/reset", {})
    receipt = rig.run("sync", request(base, snapshot, *parents, regions=(HOME, RECOVERY, THIRD)))
    made = [target["snapshot_id"] for target in receipt["targets"]]
    assert [rig.image_of(m, size_gib=1) for m in made] == [reads_as(AFTER)] * 3
    assert [target["parent_snapshot_id"] for target in receipt["targets"]] == parents
    assert rig.calls()["GetSnapshotBlock"] == len(DELTA) - 2
    assert rig.calls()["PutSnapshotBlock"] == 3 * len(DELTA)


def test_the_base_itself_can_be_the_parent(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    receipt = rig.run("sync", request(base, snapshot, base, regions=(HOME,)))
    assert rig.image_of(receipt["targets"][0]["snapshot_id"], size_gib=1) == reads_as(AFTER)


def test_a_target_is_encrypted_as_its_parent_is(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    targets = [{"region": RECOVERY, "encrypted": True}]
    parent = rig.copy({"snapshot_id": base, "targets": targets})["targets"][0]["snapshot_id"]
    made = rig.run("sync", request(base, snapshot, parent))["targets"][0]
    assert made["encrypted"] is True
    assert made["kms_key_arn"] == rig.facts(parent)["kms_key_arn"]
    assert rig.image_of(made["snapshot_id"], size_gib=1) == reads_as(AFTER)


def test_tags_and_receipt_say_what_was_made_of_what(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    wanted = request(base, snapshot, parent)
    wanted["targets"][0] |= {"tags": {"team": "a"}, "description": "nightly"}
    receipt = rig.run("sync", wanted)
    made = receipt["targets"][0]["snapshot_id"]
    facts = rig.facts(made)
    assert facts["description"] == "nightly"
    assert facts["tags"] == {
        "team": "a",
        "blockferry:job-id": receipt["job_id"],
        "blockferry:execution": rig.job(receipt["job_id"]).execution.mark,
        "blockferry:source-snapshot-id": snapshot,
        "blockferry:source-region": HOME,
        "blockferry:lineage": "vol-0123456789abcdef0",
        "blockferry:holes": "noise",
        "blockferry:base-snapshot-id": base,
        "blockferry:parent-snapshot-id": parent,
        "blockferry:linear-checksum": receipt["linear_checksum"],
        "blockferry:proved-snapshot-id": made,
    }
    assert receipt["source"]["base_snapshot_id"] == base
    assert receipt["lineage"] == {
        "name": "vol-0123456789abcdef0",
        "base_snapshot_id": base,
        "snapshot_id": snapshot,
        "targets": [{"region": RECOVERY, "parent_snapshot_id": parent, "snapshot_id": made}],
    }


def test_a_dry_run_counts_the_delta_and_starts_nothing(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    before = rig.snapshots()
    rig.control("stats/reset", {})
    wanted = request(base, snapshot, parent, options={"dry_run": True})
    estimate = rig.plan(wanted, operation="sync")["estimate"]
    assert (estimate["changed_blocks"], estimate["removed_blocks"], estimate["allocated_blocks"]) == (4, 2, 6)
    assert estimate["requests"]["GetSnapshotBlock"] == 4
    assert estimate["requests"]["PutSnapshotBlock"] == 6
    assert estimate["bytes_written"] == 6 * BLOCK_SIZE
    assert estimate["cost_usd"]["PutSnapshotBlock"] == pytest.approx(6 * 0.000006)
    assert not {"StartSnapshot", "PutSnapshotBlock", "GetSnapshotBlock"} & rig.calls().keys()
    assert rig.snapshots() == before


def test_a_dry_run_that_takes_several_calls_tells_the_same_as_one_call(rig: Rig) -> None:
    volume = Volume(rig, size_gib=64)
    base = volume.becomes({5: content(1), 50_000: content(2), 120_000: content(3)}).snapshot()
    snapshot = volume.becomes({5: content(4), 50_000: content(2), 70_000: content(5)}).snapshot()
    (parent,) = copied(rig, base, options={})
    wanted = request(base, snapshot, parent, options={"dry_run": True})
    at_once = rig.plan(wanted, operation="sync", job_id="night")["estimate"]
    rig.clock, rig.seconds_left = TickingClock(), 75.0
    job = rig.deployment.job("sync", wanted, "night")
    rig.control("stats/reset", {})
    assert job.run() == at_once
    assert (at_once["changed_blocks"], at_once["removed_blocks"], at_once["allocated_blocks"]) == (2, 1, 3)
    assert len(job.attempts) > 2
    assert {attempt.step for attempt in job.attempts} == {"Plan transfer"}
    assert [each.event["progress"] for each in job.attempts] == [
        None,
        *(each.answer["progress"] for each in job.attempts[:-1]),
    ]
    counted = [each.answer["progress"]["counted"]["next_index"] for each in job.attempts[:-1]]
    assert counted == sorted(set(counted))
    assert counted[0] > 0
    assert counted[-1] < 64 * 2048
    # Each stretch of both lists is asked for once, and each call looks at them anew.
    assert rig.calls()["ListChangedBlocks"] <= 14 + 2 * len(job.attempts)


def test_a_dry_run_counts_nothing_on_of_another_source(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    wanted = request(base, snapshot, parent, options={"dry_run": True})
    of_another = {"source": "another", "counted": {"next_index": 2048, "allocated": 9, "read": 9, "removed": 9}}
    estimate = rig.plan(wanted, operation="sync", progress=of_another)["estimate"]
    assert (estimate["changed_blocks"], estimate["removed_blocks"], estimate["allocated_blocks"]) == (4, 2, 6)


def test_a_dry_run_that_gets_no_list_in_its_time_is_tried_again(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    wanted = request(base, snapshot, parent, options={"dry_run": True})
    rig.clock, rig.seconds_left = TickingClock(), 60.0
    with pytest.raises(RetryLater, match="behind block 0"):
        rig.plan(wanted, operation="sync")


# -- following ---------------------------------------------------------------------------------------------------------


def follow(snapshot: str, *regions: str, **more: Any) -> dict[str, Any]:
    targets = [{"region": region} for region in regions or (RECOVERY,)]
    return {"snapshot_id": snapshot, "follow": True, "targets": targets, "options": RANGES, **more}


def test_night_after_night_only_the_new_snapshot_has_to_be_named(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes(BEFORE).snapshot()
    parent, base = copied(rig, first)[0], first
    for night in range(1, 5):
        blocks = {**BEFORE, 0: content(20 + night), 1000 + night: content(night)}
        blocks.pop(2 if night % 2 else 1500)
        snapshot = volume.becomes(blocks).snapshot()
        receipt = rig.run("sync", follow(snapshot))
        made = receipt["targets"][0]
        assert rig.image_of(made["snapshot_id"], size_gib=1) == reads_as(blocks)
        assert (receipt["source"]["base_snapshot_id"], made["parent_snapshot_id"]) == (base, parent)
        base, parent = snapshot, made["snapshot_id"]


def test_following_takes_the_newest_snapshot_of_which_every_target_has_a_copy(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes(BEFORE).snapshot()
    here, there = copied(rig, first, RECOVERY, THIRD)
    second = volume.becomes(AFTER).snapshot()
    copied(rig, second, RECOVERY)  # the other region was down that night
    third = volume.becomes({**AFTER, 40: content(40)}).snapshot()
    receipt = rig.run("sync", follow(third, RECOVERY, THIRD))
    assert receipt["source"]["base_snapshot_id"] == first
    assert [target["parent_snapshot_id"] for target in receipt["targets"]] == [here, there]
    for target in receipt["targets"]:
        assert rig.image_of(target["snapshot_id"], size_gib=1) == reads_as({**AFTER, 40: content(40)})


def test_a_repeated_plan_keeps_the_base_and_the_parents_that_the_first_one_found(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes(BEFORE).snapshot()
    (parent,) = copied(rig, first)
    second = volume.becomes({0: content(50)}).snapshot()
    last = volume.becomes(AFTER).snapshot()
    job_id = rig.plan(follow(last), operation="sync", job_id="nightly")["job_id"]
    copied(rig, second)
    before = rig.snapshots()
    rig.plan(follow(last), operation="sync", job_id="nightly")
    assert rig.snapshots() == before
    job = rig.job(job_id)
    assert job is not None
    assert job.targets[0].parent_snapshot_id == parent
    rig.move_all(job_id)
    assert rig.image_of(rig.finish(job_id)["targets"][0]["snapshot_id"], size_gib=1) == reads_as(AFTER)


def test_a_plan_of_a_job_that_was_swept_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    wanted = request(base, snapshot, parent)
    rig.plan(wanted, operation="sync", job_id="late")
    rig.folder("late").save_swept(Swept(at="2026-01-10T00:00:00+00:00", kept=False))
    with pytest.raises(IncompleteTransfer, match="was swept at"):
        rig.plan(wanted, operation="sync", job_id="late")


def test_a_parent_that_may_not_be_read_is_refused_before_anything_is_started(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    parent = clone_by_hand(rig, BEFORE)
    rig.control("faults", {"operation": "ListSnapshotBlocks", "snapshot_id": parent, "action": "error", "status": 403,
                           "code": "AccessDeniedException"})  # fmt: skip
    text = refused(rig, request(base, snapshot, parent, options={"verify_parent": True}))
    assert f"options.verify_parent: targets[0]: snapshot {parent} in {RECOVERY} cannot be read" in text


def test_following_passes_over_a_base_that_is_gone_and_a_copy_that_was_not_proved(rig: Rig) -> None:
    volume = Volume(rig)
    oldest = volume.becomes({0: content(1)}).snapshot()
    (good,) = copied(rig, oldest)
    deleted = volume.becomes({0: content(2)}).snapshot()
    copied(rig, deleted)
    rig.client("ec2").delete_snapshot(SnapshotId=deleted)
    unproved = volume.becomes({0: content(3)}).snapshot()
    (forged,) = copied(rig, unproved)
    rig.client("ec2", RECOVERY).delete_tags(Resources=[forged], Tags=[{"Key": CHECKSUM_TAG}])
    receipt = rig.run("sync", follow(volume.becomes({0: content(4)}).snapshot()))
    assert receipt["source"]["base_snapshot_id"] == oldest
    assert receipt["targets"][0]["parent_snapshot_id"] == good


def test_the_same_night_is_not_copied_a_second_time(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    copied(rig, base)
    (made,) = (target["snapshot_id"] for target in rig.run("sync", follow(snapshot))["targets"])
    told = f"nothing to do: every target has a proved copy of {snapshot} already.*has {made}$"
    before = rig.snapshots()
    assert re.search(told, refused(rig, follow(snapshot)), re.DOTALL)
    rig.client("ec2").delete_snapshot(SnapshotId=base)
    assert re.search(told, refused(rig, follow(snapshot)), re.DOTALL)
    assert [each["snapshot_id"] for each in rig.snapshots()] == [
        each["snapshot_id"] for each in before if each["snapshot_id"] != base
    ]


def test_uploads_go_on_their_own_chain_and_are_not_mixed_with_others(rig: Rig, tmp_path: Path) -> None:
    def uploaded(name: str, *blocks: bytes, parent: str | None = None) -> str:
        path = tmp_path / name
        path.write_bytes(b"".join(blocks))
        return upload_image(path, region=HOME, aws=rig.aws, parent_snapshot_id=parent).snapshot_id

    first, other = uploaded("a.img", content(1), content(2)), uploaded("b.img", content(9))
    (parent,) = copied(rig, first)
    copied(rig, other)
    assert rig.facts(parent)["tags"][LINEAGE_TAG] == rig.facts(first)["tags"][LINEAGE_TAG]
    later = uploaded("a.img", content(1), content(3), parent=first)
    receipt = rig.run("sync", follow(later))
    assert (receipt["source"]["base_snapshot_id"], receipt["targets"][0]["parent_snapshot_id"]) == (first, parent)
    assert receipt["changed_blocks"] == 1
    assert "no proven copy of this lineage" in refused(rig, follow(uploaded("c.img", content(9), content(8))))


def test_following_a_snapshot_of_no_volume_and_chain_asks_for_its_name(rig: Rig) -> None:
    base = rig.snapshot(BEFORE)
    (parent,) = copied(rig, base)
    copied(rig, rig.snapshot({9: content(9)}))
    client = rig.client("ebs")
    snapshot = client.start_snapshot(VolumeSize=1, ParentSnapshotId=base)["SnapshotId"]
    put(client, snapshot, {1: content(77)})
    client.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    assert f"{snapshot} has no volume of its own" in refused(rig, follow(snapshot))
    receipt = rig.run("sync", follow(snapshot, lineage=base))
    assert receipt["source"]["base_snapshot_id"] == base
    assert receipt["targets"][0]["parent_snapshot_id"] == parent
    assert rig.image_of(receipt["targets"][0]["snapshot_id"], size_gib=1) == reads_as({**BEFORE, 1: content(77)})


def test_a_lineage_of_its_own_name_is_followed_by_that_name_only(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (mine,) = copied(rig, base, lineage="golden")
    copied(rig, base)
    assert rig.facts(mine)["tags"][LINEAGE_TAG] == "golden"
    receipt = rig.run("sync", follow(snapshot, lineage="golden"))
    assert receipt["targets"][0]["parent_snapshot_id"] == mine
    assert receipt["lineage"]["name"] == "golden"
    assert "no proven copy of this lineage" in refused(rig, follow(snapshot, lineage="silver"))


def test_following_without_an_earlier_copy_says_what_to_do(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    copied(rig, base, THIRD)
    text = refused(rig, follow(snapshot, RECOVERY, THIRD))
    assert "Make one with the operation copy" in text
    assert f"targets[0] in {RECOVERY}: no proven copy of this lineage" in text
    assert f"targets[1] in {THIRD}: copies of {base}" in text


# -- proof that the parent equals the base -----------------------------------------------------------------------------


def clone_by_hand(rig: Rig, blocks: Mapping[int, bytes], **more: Any) -> str:
    """A snapshot in the recovery region that nothing is known of."""
    return rig.snapshot(blocks, region=RECOVERY, **more)


def test_a_parent_without_lineage_is_compared_block_by_block_when_asked_to(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    same_but_holes = {index: data for index, data in BEFORE.items() if data != content(0)} | {99: content(0)}
    parent = clone_by_hand(rig, same_but_holes)
    receipt = rig.run("sync", request(base, snapshot, parent, options={"verify_parent": True}))
    assert rig.image_of(receipt["targets"][0]["snapshot_id"], size_gib=1) == reads_as(AFTER)
    # The union of the blocks of both: six of the base and the block of zeros that only the parent has.
    assert receipt["parent_blocks_compared"] == len(BEFORE) + 1


@pytest.mark.parametrize(
    ("change", "block"),
    [
        ({0: content(99)}, 0),
        ({1400: content(99)}, 1400),
        ({1500: None}, 1500),
        ({1: content(9)}, 1),
    ],
    ids=["other content", "a block too many", "a block missing", "equal to the new snapshot but not to the base"],
)
def test_a_parent_that_differs_refuses_the_job_and_nothing_is_left(
    rig: Rig, night: tuple[str, str], change: dict[int, bytes | None], block: int
) -> None:
    base, snapshot = night
    other = {index: data for index, data in {**BEFORE, **change}.items() if data is not None}
    parent = clone_by_hand(rig, other)
    before = {s["snapshot_id"] for s in rig.snapshots()}
    job_id = rig.plan(request(base, snapshot, parent, options={"verify_parent": True}), operation="sync")["job_id"]
    rig.move_all(job_id)
    with pytest.raises(TransferFailed, match=rf"{parent} in {RECOVERY} is not equal to base {base}: block {block} "):
        rig.complete(job_id)
    assert {s["snapshot_id"] for s in rig.snapshots()} == before


def test_parents_with_different_holes_can_both_equal_the_base(rig: Rig) -> None:
    volume = Volume(rig)
    first = volume.becomes({5: content(5)}).snapshot()
    (before,) = copied(rig, first)
    base = volume.becomes({6: content(6)}).snapshot()
    with_zeros = rig.run("sync", request(first, base, before))["targets"][0]["snapshot_id"]
    (with_hole,) = copied(rig, base, THIRD)
    snapshot = volume.becomes({6: content(7)}).snapshot()
    wanted = request(base, snapshot, with_zeros, with_hole, regions=(RECOVERY, THIRD), options={"verify_parent": True})
    receipt = rig.run("sync", wanted)
    assert [rig.image_of(t["snapshot_id"], size_gib=1) for t in receipt["targets"]] == [hashes({6: content(7)})] * 2


def test_a_hole_of_an_encrypted_parent_is_not_the_zeros_that_the_base_has(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    parent = clone_by_hand(rig, {i: d for i, d in BEFORE.items() if i != 701}, Encrypted=True)
    job_id = rig.plan(request(base, snapshot, parent, options={"verify_parent": True}), operation="sync")["job_id"]
    rig.move_all(job_id)
    with pytest.raises(TransferFailed, match="block 701 is not allocated there"):
        rig.complete(job_id)


def test_what_lies_behind_the_end_of_the_base_is_compared_too(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    parent = clone_by_hand(rig, {**BEFORE, 4000: content(8)}, size_gib=2)
    job_id = rig.plan(request(base, snapshot, parent, options={"verify_parent": True}), operation="sync")["job_id"]
    rig.move_all(job_id)
    with pytest.raises(TransferFailed, match="block 4000 is SHA-256"):
        rig.complete(job_id)


def test_workers_that_come_after_the_refusal_write_nothing_more(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    parent = clone_by_hand(rig, {**BEFORE, 0: content(99)})
    job_id = rig.plan(request(base, snapshot, parent, options={"verify_parent": True}), operation="sync")["job_id"]
    first, *rest = rig.ranges(job_id)
    rig.move(job_id, first)
    rig.control("stats/reset", {})
    assert [rig.move(job_id, part)["done"] for part in rest] == [True] * len(rest)
    assert rig.calls() == {}


def test_comparing_parents_goes_on_where_time_ran_out(rig: Rig) -> None:
    volume = Volume(rig)
    blocks = {index: content(index + 1) for index in range(80)}
    base = volume.becomes(blocks).snapshot()
    parent = clone_by_hand(rig, blocks)
    changed = {index: content(index + 100) for index in range(80)}
    snapshot = volume.becomes(changed).snapshot()
    wanted = request(base, snapshot, parent, options={"verify_parent": True, "blocks_per_range": 2048})
    job_id = rig.plan(wanted, operation="sync")["job_id"]
    calls = rig.move_all_in_little_time(job_id, latency_ms=100, seconds_left=60.9)
    assert calls[0] > 1
    receipt = rig.finish(job_id)
    assert rig.image_of(receipt["targets"][0]["snapshot_id"], size_gib=1) == reads_as(changed)
    assert receipt["parent_blocks_compared"] >= 80


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(rig: Rig, wanted: dict[str, Any]) -> str:
    before = {s["snapshot_id"]: s["state"] for s in rig.snapshots()}
    with pytest.raises(InvalidRequest) as caught:
        rig.plan(wanted, operation="sync")
    assert {s["snapshot_id"]: s["state"] for s in rig.snapshots()} == before
    return str(caught.value)


def test_a_parent_that_is_not_shown_to_equal_the_base_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    text = refused(rig, request(base, snapshot, clone_by_hand(rig, BEFORE)))
    assert "is not shown to equal the base" in text
    assert "options.verify_parent" in text


def test_a_snapshot_that_inherited_the_tags_of_a_copy_is_refused_as_parent_and_not_followed(
    rig: Rig, night: tuple[str, str]
) -> None:
    base, snapshot = night
    (copy,) = copied(rig, base)
    # A volume of the copy was written to and snapshotted again, by a tool that carries tags along.
    tags = [{"Key": key, "Value": value} for key, value in rig.facts(copy)["tags"].items()]
    other = clone_by_hand(rig, {**BEFORE, 0: content(66)}, Tags=tags)
    assert f"its tags were copied from {copy}" in refused(rig, request(base, snapshot, other))
    assert rig.run("sync", follow(snapshot))["targets"][0]["parent_snapshot_id"] == copy


def test_a_copy_of_another_snapshot_of_the_volume_is_refused_as_parent(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (wrong,) = copied(rig, snapshot)
    assert f"its tags say that it was made of {snapshot} in {HOME}" in refused(rig, request(base, snapshot, wrong))


def test_unrelated_snapshots_are_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, _ = night
    (parent,) = copied(rig, base)
    stranger = Volume(rig, volume_id="vol-0fedcba9876543210").becomes(AFTER).snapshot()
    text = refused(rig, request(base, stranger, parent))
    assert "are not of one volume (UNRELATED_SNAPSHOTS)" in text
    assert base in text
    assert stranger in text


def test_a_base_that_is_newer_than_the_snapshot_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, snapshot)
    assert "name them the other way round" in refused(rig, request(snapshot, base, parent))


def test_the_same_snapshot_twice_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, _ = night
    assert "is named twice" in refused(rig, request(base, base, "snap-00000000000000001"))


def test_a_parent_of_another_region_is_refused_by_name(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (elsewhere,) = copied(rig, base, THIRD)
    text = refused(rig, request(base, snapshot, elsewhere))
    assert f"targets[0].parent_snapshot_id: snapshot {elsewhere} in {RECOVERY}" in text
    assert "must be in the region and account of its target" in text


def test_a_parent_of_another_account_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    foreign = rig.snapshot(BEFORE, region=RECOVERY, account=OTHER_ACCOUNT)
    rig.client("ec2", RECOVERY, OTHER_ACCOUNT).modify_snapshot_attribute(
        SnapshotId=foreign, Attribute="createVolumePermission", OperationType="add", UserIds=[ACCOUNT]
    )
    text = refused(rig, request(base, snapshot, foreign, options={"verify_parent": True}))
    assert f"belongs to account {OTHER_ACCOUNT}, the target is made in {ACCOUNT}" in text


def test_a_parent_that_is_smaller_than_the_base_is_refused(rig: Rig) -> None:
    volume = Volume(rig, size_gib=2).becomes(BEFORE)
    base, snapshot = volume.snapshot(), volume.snapshot()
    small = clone_by_hand(rig, BEFORE)
    assert "it cannot be a clone of it" in refused(rig, request(base, snapshot, small, options={"verify_parent": True}))


def test_a_pending_parent_is_refused(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    pending = rig.client("ebs", RECOVERY).start_snapshot(VolumeSize=1)["SnapshotId"]
    text = refused(rig, request(base, snapshot, pending, options={"verify_parent": True}))
    assert f"{pending} in {RECOVERY} is in state pending" in text


def test_an_archived_base_is_refused_with_the_command_that_restores_it(rig: Rig, night: tuple[str, str]) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    rig.client("ec2").modify_snapshot_tier(SnapshotId=base, StorageTier="archive")
    rig.control("clock", {"advance": 60})
    assert "restore-snapshot-tier" in refused(rig, request(base, snapshot, parent))


def test_an_unencrypted_parent_is_refused_where_the_account_encrypts_by_default(
    rig: Rig, night: tuple[str, str]
) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    rig.client("ec2", RECOVERY).enable_ebs_encryption_by_default()
    text = refused(rig, request(base, snapshot, parent))
    assert "EBS refuses a snapshot on top of an unencrypted parent" in text
    assert "Make an encrypted full copy" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"encrypted": True}, "targets[0]: encrypted: a snapshot on top of a parent is encrypted as the parent is"),
        ({"encrypted": False}, "targets[0]: encrypted: a snapshot on top of a parent is encrypted as the parent is"),
        (
            {"kms_key_arn": f"arn:aws:kms:{RECOVERY}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"},
            "targets[0]: kms_key_arn: a snapshot on top of a parent",
        ),
        ({"parent_snapshot_id": None}, "targets[0].parent_snapshot_id is required"),
        ({"parent_snapshot_id": "C"}, "targets[0].parent_snapshot_id: 'C' is not a snapshot id"),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_its_field(rig: Rig, change: dict[str, Any], expected: str) -> None:
    wanted = request("snap-00000000000000001", "snap-00000000000000002", "snap-00000000000000003")
    wanted["targets"][0] |= change
    assert expected in refused(rig, wanted)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base_snapshot_id": None}, "base_snapshot_id is required, or follow: true"),
        ({"follow": True}, "leave out base_snapshot_id, targets[0].parent_snapshot_id"),
        ({"options": {"holes": "zero_fill"}}, "holes: zero_fill is not possible on top of a parent"),
        ({"options": {"holes": "skip_zero"}}, "holes: skip_zero is not possible on top of a parent"),
        ({"lineage": "a b"}, "lineage"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_its_field(rig: Rig, change: dict[str, Any], expected: str) -> None:
    wanted = request("snap-00000000000000001", "snap-00000000000000002", "snap-00000000000000003")
    assert expected in refused(rig, {**wanted, **change})


# -- what completion finds ---------------------------------------------------------------------------------------------


def test_a_removed_block_that_was_not_written_as_zeros_is_found_before_completion(
    rig: Rig, night: tuple[str, str]
) -> None:
    base, snapshot = night
    (parent,) = copied(rig, base)
    job_id = rig.plan(request(base, snapshot, parent), operation="sync")["job_id"]
    rig.move_all(job_id)
    key = next(iter(rig.folder(job_id).stretch_keys()))
    stretch = rig.folder(job_id).stretch(key)
    digests = tuple((index, digest) for index, digest in stretch.digests if index != 2)
    rig.folder(job_id).save_stretch(type(stretch)(**{**vars(stretch), "digests": digests}))
    rig.forget_recounts(job_id)
    with pytest.raises(IncompleteTransfer, match=rf"block 2 of {snapshot} is changed but was not moved"):
        rig.finish(job_id)
    assert [s["state"] for s in rig.snapshots()].count("pending") == 1
