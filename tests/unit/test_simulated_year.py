"""A year of backups by tag in three Regions, with faults: nothing that must stay goes, and all that may go does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from blockferry.lifecycle.retention import A_WEEK, kept_by_tiers
from blockferry.lifecycle.tags import SLOT_TAG, Told
from lifecycle_world import NAMES, SCHEDULE, Snapshot, World

SEED = 1

CALM_DAYS = 12
"""At the end of the year, without faults and edits: what was missed is made good."""


def test_at_the_end_of_a_year_there_is_what_retention_says_and_nothing_was_lost() -> None:
    world = World(SEED, regions=3, instances=12)
    print(f"seed {SEED}")
    for _ in range(365 - CALM_DAYS):
        world.day()
    world.calm = True
    for region in world.regions.values():
        region.down = frozenset()
    for _ in range(CALM_DAYS):
        world.day()
    volumes = sum(len(region.volumes) for region in world.regions.values())
    snapshots = sum(len(region.snapshots) for region in world.regions.values())
    print(f"{volumes} volumes, {snapshots} snapshots left, {dict(world.done)}, faults {dict(world.faults)}")
    assert world.done["deleted"] > 0.7 * (world.done["backups"] + world.done["copies"])
    assert min(world.faults.values()) > 0
    for region in world.regions.values():
        slots: defaultdict[tuple[str, str], int] = defaultdict(int)
        for each in region.snapshots.values():
            if SLOT_TAG in each.tags and each.state(world.now) == "completed":
                slots[each.of, each.tags[SLOT_TAG]] += 1
        assert set(slots.values()) == {1}
        assert_nothing_is_overdue(world, region.name)
        assert_copies_are_there(world, region.name)


def assert_nothing_is_overdue(world: World, name: str) -> None:
    """What is still there after some calm days has a reason that its own tags and neighbours give.

    What took the place of another one in a tier since the last run but one has that marked, and not yet deleted.
    """
    region = world.regions[name]
    today = SCHEDULE.day_of(world.now)
    for members in region.of_disk.values():
        kept: set[str] = set()
        for hours in (0, 9, 33):
            kept |= kept_of(members.values(), world.now - timedelta(hours=hours))
        for each in members.values():
            # Found due one day, and deleted the next.
            overdue = each.tags["DeleteOn"] < str(today - timedelta(days=2))
            assert each.snapshot_id in kept or "KeepForever" in each.tags or not overdue, (str(today), each)


def kept_of(members: Iterable[Snapshot], moment: datetime) -> set[str]:
    """Of the backups of a disk that were completed at a moment, the newest and what tiers keep."""
    whole = [each for each in members if each.state(moment) == "completed"]
    whole.sort(key=lambda each: (each.made, each.snapshot_id), reverse=True)
    days = {
        each.snapshot_id: (SCHEDULE.day_of(each.made), Told(each.snapshot_id, each.tags, NAMES).retention(A_WEEK))
        for each in whole
    }
    return {each.snapshot_id for each in whole[:1]} | kept_by_tiers(days, newest_first=days).keys()


def assert_copies_are_there(world: World, name: str) -> None:
    """Every backup that is not of the last days has, or had, one whole copy where its tags want it."""
    region = world.regions[name]
    for each in region.snapshots.values():
        old = each.completes < world.now - timedelta(days=3)
        if "Source_SnapshotId" in each.tags or not old or each.state(world.now) != "completed":
            continue
        for wanted in each.tags.get("Copy_Dest", "").split():
            assert f"blockferry:copy:{wanted}" in each.tags, each
            there = world.regions[wanted].copies[each.snapshot_id].values()
            copies = [copy for copy in there if copy.state(world.now) == "completed"]
            assert len(copies) <= 1
            for copy in copies:
                assert "KeepForever" not in each.tags or "KeepForever" in copy.tags
    originals = [each for each in region.snapshots.values() if "Source_SnapshotId" in each.tags]
    for copy in originals:
        source = copy.tags["Source_Region"]
        assert source != name
        assert copy.tags["Type"] == "Automated"
        assert "Copy_Dest" not in copy.tags
