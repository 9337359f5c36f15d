"""Regions with volumes, their backups and copies, in memory, and a year of nights with faults.

What may be deleted is judged here a second time, by rules that are written for this purpose alone: ``World.delete``
fails the test for every deletion that they forbid.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from blockferry.lifecycle.backing_up import Defaults, Instance, Volume, selection
from blockferry.lifecycle.expiring import Backup, Rules, expiry
from blockferry.lifecycle.items import Action, Outcome
from blockferry.lifecycle.replicating import Copy, Destination, Found, replication
from blockferry.lifecycle.retention import Retention
from blockferry.lifecycle.schedule import Schedule, slot_name
from blockferry.lifecycle.tags import MARK_TAG, SLOT_TAG, TagNames

NAMES = TagNames()
SCHEDULE = Schedule(("02:30",), zone="Europe/Berlin")
"""A time that clocks skip on one day of a year, and have twice on another."""

RETENTIONS = ("7", "3d", "2d 3w", "7d 4w 12m", "1d 2w 6m 1y", "nonsense")


class Died(Exception):
    """The run is gone in the middle of its work."""


@dataclass
class Snapshot:
    """A snapshot as EC2 has it; ``of`` is its own volume, made up for a copy."""

    snapshot_id: str
    of: str
    started: datetime
    tags: dict[str, str]
    completes: datetime
    fails: bool = False

    @property
    def made(self) -> datetime:
        """When the backup was begun that it is, or that it is a copy of."""
        named = self.tags.get("blockferry:made")
        return self.started if named is None else datetime.fromisoformat(named)

    @property
    def disk(self) -> tuple[str, bool]:
        """What it is a backup of, and whether it is a copy."""
        is_copy = "Source_SnapshotId" in self.tags
        return (self.tags["Source_VolumeId"] if is_copy else self.of), is_copy

    def state(self, now: datetime) -> str:
        if now < self.completes:
            return "pending"
        return "error" if self.fails else "completed"


@dataclass
class Region:
    """One Region: its instances by id, each with volumes by device, and its snapshots."""

    name: str
    instances: dict[str, Instance] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    down: frozenset[date] = frozenset()
    of_disk: defaultdict[tuple[str, bool], dict[str, Snapshot]] = field(default_factory=lambda: defaultdict(dict))
    copies: defaultdict[str, dict[str, Snapshot]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, snapshot: Snapshot) -> None:
        self.snapshots[snapshot.snapshot_id] = snapshot
        self.of_disk[snapshot.disk][snapshot.snapshot_id] = snapshot
        if original := snapshot.tags.get("Source_SnapshotId"):
            self.copies[original][snapshot.snapshot_id] = snapshot

    def remove(self, snapshot: Snapshot) -> None:
        del self.snapshots[snapshot.snapshot_id], self.of_disk[snapshot.disk][snapshot.snapshot_id]
        if original := snapshot.tags.get("Source_SnapshotId"):
            del self.copies[original][snapshot.snapshot_id]


class World:
    """All Regions, one clock. ``faults`` counts what went wrong on purpose, ``done`` what was done."""

    def __init__(self, seed: int, *, regions: int, instances: int) -> None:
        self.random = random.Random(seed)
        self.now = datetime(2026, 1, 1, 0, 0, tzinfo=UTC)
        names = ("us-east-1", "eu-west-1", "ap-southeast-2")[:regions]
        self.regions = {name: Region(name) for name in names}
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.calm = False
        self._numbers = 0
        self._runs = 0
        for region in self.regions.values():
            for _ in range(instances):
                self._instance(region)

    def _id(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}-0{self._numbers:016x}"

    def _instance(self, region: Region) -> None:
        tags = {"Backup": "Yes", "Retention": self.random.choice(RETENTIONS)}
        if self.random.random() < 0.5:
            others = [name for name in self.regions if name != region.name]
            tags["Copy_Dest"] = " ".join(self.random.sample(others, self.random.randint(1, len(others))))
        devices = {}
        for number in range(self.random.randint(1, 3)):
            volume = Volume(volume_id=self._id("vol"), state="in-use", tags={"Name": f"disk {number}"})
            region.volumes[volume.volume_id] = volume
            devices[f"/dev/sd{chr(ord('f') + number)}"] = volume.volume_id
        instance_id = self._id("i")
        region.instances[instance_id] = Instance(
            instance_id=instance_id, state="running", tags=tags, devices=devices, root="/dev/sdf"
        )

    # -- faults ------------------------------------------------------------------------

    def strikes(self, name: str, share: float) -> bool:
        if self.calm or self.random.random() >= share:
            return False
        self.faults[name] += 1
        return True

    def up(self, region: Region) -> bool:
        return self.now.date() not in region.down

    def dying(self, share: float) -> Iterator[None]:
        """Let a run go on step by step, and die before one of them now and then."""
        while True:
            if self.strikes("run died", share):
                raise Died
            yield

    # -- what EC2 does -----------------------------------------------------------------

    def create(self, region: Region, of: str, tags: dict[str, str]) -> Snapshot:
        late = self.strikes("slow snapshot", 0.02)
        made = Snapshot(
            snapshot_id=self._id("snap"),
            of=of,
            started=self.now,
            tags=dict(tags),
            completes=self.now + timedelta(hours=self.random.uniform(0.2, 40 if late else 3)),
            fails=self.strikes("failed snapshot", 0.01),
        )
        region.add(made)
        return made

    def delete(self, region: Region, snapshot_id: str) -> None:
        """Delete a snapshot; fails the test where the rules of the house forbid it."""
        snapshot = region.snapshots[snapshot_id]
        tags, state = snapshot.tags, snapshot.state(self.now)
        today = SCHEDULE.day_of(self.now)
        assert tags.get("Type") == "Automated", snapshot
        assert not any(key.lower() == "keepforever" for key in tags), snapshot
        assert date.fromisoformat(tags["DeleteOn"]) <= today, snapshot
        assert state in ("completed", "error"), snapshot
        assert MARK_TAG in tags, snapshot
        if state == "completed":
            assert any(
                each.snapshot_id != snapshot_id and each.state(self.now) == "completed" and each.made >= snapshot.made
                for each in region.of_disk[snapshot.disk].values()
            ), f"{snapshot_id} is the newest of {snapshot.disk}"
            for name in tags.get("Copy_Dest", "").split():
                whole = self.regions[name].copies[snapshot_id].values()
                seen = any(each.state(self.now) == "completed" for each in whole) or f"blockferry:copy:{name}" in tags
                assert seen, f"{snapshot_id} has no copy in {name}"
        region.remove(snapshot)
        self.done["deleted"] += 1

    # -- the machines ------------------------------------------------------------------

    def backup(self, region: Region) -> None:
        slot = SCHEDULE.slot(self.now)
        name = slot_name(slot)
        taken = {
            each.of: each.snapshot_id
            for each in region.snapshots.values()
            if each.tags.get(SLOT_TAG) == name and each.state(self.now) != "error"
        }
        chosen = selection(
            region.instances.values(),
            region.volumes.values(),
            taken,
            Defaults(region=region.name, slot=slot, made=SCHEDULE.day_of(slot)),
            destinations=set(self.regions) - {region.name},
        )
        living = self.dying(0.0005)
        for each in chosen.sets:
            next(living)
            # Made with what all have in common; the rest follows.
            made = [self.create(region, volume.volume_id, dict(each.at_once)) for volume in each.volumes]
            for snapshot, volume in zip(made, each.volumes, strict=True):
                snapshot.tags |= volume.tags
            self.done["backups"] += len(made)

    def backups_of(self, region: Region) -> list[Backup]:
        return [
            Backup(
                snapshot_id=each.snapshot_id,
                volume=each.tags.get("Source_VolumeId", each.of),
                state=each.state(self.now),
                started=each.made,
                made=SCHEDULE.day_of(
                    datetime.fromisoformat(each.tags[SLOT_TAG]) if SLOT_TAG in each.tags else each.made
                ),
                tags=dict(each.tags),
            )
            for each in region.snapshots.values()
        ]

    def replicate(self, region: Region) -> None:
        destinations = {name: Destination(name=name, region=name) for name in self.regions if name != region.name}
        found, under_way = {}, {}
        for name in destinations:
            there = self.regions[name]
            if not self.up(there):
                found[name] = Found(unreached="the Region is down")
                continue
            copies = [each for each in there.snapshots.values() if "Source_SnapshotId" in each.tags]
            under_way[name] = sum(each.state(self.now) == "pending" for each in copies)
            found[name] = Found(
                tuple(
                    Copy(
                        snapshot_id=each.snapshot_id,
                        original=each.tags["Source_SnapshotId"],
                        state=each.state(self.now),
                        tags=dict(each.tags),
                    )
                    for each in copies
                )
            )
        steps, _ = replication(
            self.backups_of(region),
            found,
            destinations,
            names=NAMES,
            retention=Retention(7),
            own_region=region.name,
            under_way=under_way,
        )
        living = self.dying(0.001)
        for step in steps:
            if step.item.outcome is not Outcome.PLANNED:
                continue
            next(living)
            there = self.regions[step.destination]
            if step.item.action is Action.COPY:
                self.create(there, "vol-ffffffff", dict(step.tags))
                self.done["copies"] += 1
            elif step.copy_id is not None:
                there.snapshots[step.copy_id].tags |= step.tags
                self.done["protected"] += 1
            else:
                region.snapshots[step.item.resource].tags |= step.tags

    def expire(self, region: Region) -> None:
        self._runs += 1
        run = f"run-{self._runs}"
        backups = self.backups_of(region)
        copies: dict[str, set[str]] = {}
        for name, other in self.regions.items():
            if name != region.name and self.up(other):
                for each in other.snapshots.values():
                    if each.state(self.now) == "completed" and "Source_SnapshotId" in each.tags:
                        copies.setdefault(each.tags["Source_SnapshotId"], set()).add(name)
        known = [replace(each, copies=frozenset(copies.get(each.snapshot_id, ()))) for each in backups]
        self.random.shuffle(known)
        items, _ = expiry(known, today=SCHEDULE.day_of(self.now), run=run, rules=Rules())
        living = self.dying(0.001)
        for item in items:
            if item.outcome is not Outcome.PLANNED:
                continue
            next(living)
            if item.action is Action.DELETE:
                self.delete(region, item.resource)
            elif MARK_TAG in region.snapshots[item.resource].tags:
                del region.snapshots[item.resource].tags[MARK_TAG]
            else:
                region.snapshots[item.resource].tags[MARK_TAG] = run
                self.done["marked"] += 1

    # -- a day -------------------------------------------------------------------------

    def day(self) -> None:
        """A night's backups, some runs of replicate and expire by day, and what people do to tags."""
        for hours, machine in ((2, self.backup), (3, self.replicate), (4, self.replicate), (6, self.expire)):
            self.now += timedelta(hours=hours)
            for region in self.regions.values():
                if not self.up(region) or self.strikes("missed run", 0.02):
                    continue
                for _ in range(2 if self.strikes("run twice", 0.05) else 1):
                    try:
                        machine(region)
                    except Died:
                        continue
        for region in self.regions.values():
            self._edits(region)
        self.now = datetime(self.now.year, self.now.month, self.now.day, tzinfo=UTC) + timedelta(days=1)

    def _edits(self, region: Region) -> None:
        if self.calm:
            return
        snapshots = list(region.snapshots.values())
        for snapshot in self.random.sample(snapshots, min(2, len(snapshots))):
            if self.random.random() < 0.2:
                snapshot.tags["KeepForever"] = self.random.choice(["", "audit", "no"])
        for snapshot in snapshots:
            if "KeepForever" in snapshot.tags and self.random.random() < 0.01:
                del snapshot.tags["KeepForever"]
        if self.random.random() < 0.02:
            region.down = region.down | {self.now.date() + timedelta(days=1)}
            self.faults["day of a Region down"] += 1
