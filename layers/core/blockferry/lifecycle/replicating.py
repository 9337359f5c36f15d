"""Replicate: which backups lack a copy where their tags want one, and what their copies lack.

Nothing here asks AWS. A copy is known by its tag ``Source_SnapshotId``, so that whatever is delivered twice or repeated
finds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from blockferry.lifecycle.expiring import COMPLETED, FAILED, Backup
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.retention import Retention
from blockferry.lifecycle.tags import (
    AUTOMATED,
    COPY_TAG,
    DESTINATION_TAG,
    DRILL_TAG,
    MADE_TAG,
    Problem,
    TagNames,
    Told,
)

AT_A_TIME = 20
"""Snapshots that may be copied to a Region at a time (EC2 user guide, CopySnapshot)."""

MOST_TAGS = 50
"""Tags that a resource may have (EC2 user guide, tag restrictions); those of AWS itself do not count."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where copies go. ``retention`` is how long they are kept there, if not as the original says."""

    name: str
    region: str
    retention: Retention | None = None


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A snapshot in a destination that names its original in its tags."""

    snapshot_id: str
    original: str
    state: str
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done for one backup and one destination: ``item`` says it in the report, the rest does it.

    ``tags`` are those of the copy that is made, those that an existing ``copy_id`` gets, or, with an action ``mark``,
    those that the original gets.
    """

    item: Item
    destination: str
    copy_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a look at a destination gave: its copies, or ``unreached``, why there was none."""

    copies: tuple[Copy, ...] = ()
    unreached: str | None = None


def replication(
    backups: Sequence[Backup],
    found: Mapping[str, Found],
    destinations: Mapping[str, Destination],
    *,
    names: TagNames,
    retention: Retention,
    own_region: str,
    under_way: Mapping[str, int] | None = None,
) -> tuple[list[Step], list[Problem]]:
    """The steps for each backup and destination that its tags name, oldest backup first, and the tags that mean
    nothing.

    ``found`` has the copies of each destination by its name; ``under_way`` how many copies EC2 is making in a Region
    already, of whomever. What is ``planned`` is to be done now; the rest is ``skipped`` with its reason, and comes
    with a later run.
    """
    places = dict(under_way or {})
    copies = {name: _by_original(look.copies) for name, look in found.items()}
    steps: list[Step] = []
    problems: list[Problem] = []
    for backup in sorted(backups, key=lambda each: (each.started, each.snapshot_id)):
        told = Told(backup.snapshot_id, backup.tags, names)
        if names.source_snapshot in backup.tags:
            # A copy is never copied on: two Regions that name each other would go on for ever.
            continue
        for name in told.destinations(destinations):
            destination = destinations[name]
            look = found.get(name, Found(unreached="it was not looked at"))
            there = copies.get(name, {}).get(backup.snapshot_id, ())
            steps += _steps(backup, told, destination, look, there, places, retention=retention, own_region=own_region)
        problems += told.problems
    return steps, problems


def _by_original(copies: Iterable[Copy]) -> dict[str, tuple[Copy, ...]]:
    grouped: dict[str, list[Copy]] = defaultdict(list)
    for copy in copies:
        grouped[copy.original].append(copy)
    return {original: tuple(found) for original, found in grouped.items()}


def _steps(
    backup: Backup,
    told: Told,
    destination: Destination,
    look: Found,
    there: Sequence[Copy],
    places: dict[str, int],
    *,
    retention: Retention,
    own_region: str,
) -> list[Step]:
    name = destination.name
    noted = backup.tags.get(f"{COPY_TAG}{name}")
    if look.unreached is not None:
        return [_skipped(backup, name, f"{name} was not reached: {look.unreached}")]
    if whole := [copy for copy in there if copy.state == COMPLETED]:
        return _follow_up(backup, told, name, whole, noted)
    if noted is not None:
        return [_skipped(backup, name, f"its copy {noted} in {name} was completed, and is there no more")]
    if running := [copy for copy in there if copy.state not in (COMPLETED, FAILED)]:
        return [_skipped(backup, name, f"copy {running[0].snapshot_id} in {name} is {running[0].state}")]
    if backup.state != COMPLETED:
        return [_skipped(backup, name, f"it is {backup.state}: only what is completed is copied")]
    if places.get(destination.region, 0) >= AT_A_TIME:
        return [_skipped(backup, name, no_place(destination.region))]
    places[destination.region] = places.get(destination.region, 0) + 1
    tags = tags_of_copy(backup, told, destination, retention=retention, own_region=own_region)
    why = f"to {name}" if not there else f"to {name}: copy {there[0].snapshot_id} has failed"
    return [Step(item=Item(backup.snapshot_id, Action.COPY, Outcome.PLANNED, why), destination=name, tags=tags)]


def _follow_up(backup: Backup, told: Told, name: str, whole: Sequence[Copy], noted: str | None) -> list[Step]:
    """What a completed copy lacks: the note on its original, and the protection that came later."""
    newest = min(whole, key=lambda copy: copy.snapshot_id)
    steps: list[Step] = []
    if noted is None:
        note = {f"{COPY_TAG}{name}": newest.snapshot_id}
        if len([key for key in backup.tags if not key.startswith("aws:")]) >= MOST_TAGS:
            reason = f"copy {newest.snapshot_id} in {name} is completed, but it has no place for a tag that says so"
            return [Step(item=Item(backup.snapshot_id, Action.MARK, Outcome.FAILED, reason), destination=name)]
        item = Item(
            backup.snapshot_id, Action.MARK, Outcome.PLANNED, f"copy {newest.snapshot_id} in {name} is completed"
        )
        steps.append(Step(item=item, destination=name, tags=note))
    if told.kept_forever:
        keys = {key: value for key, value in backup.tags.items() if key.lower() == told.names.keep.lower()}
        for copy in whole:
            if not Told(copy.snapshot_id, copy.tags, told.names).kept_forever:
                item = Item(
                    copy.snapshot_id,
                    Action.MARK,
                    Outcome.PLANNED,
                    f"{told.names.keep} of {backup.snapshot_id} reaches it",
                )
                steps.append(Step(item=item, destination=name, copy_id=copy.snapshot_id, tags=keys))
    return steps or [_skipped(backup, name, f"copy {newest.snapshot_id} in {name} is completed")]


def no_place(region: str) -> str:
    """Why a copy is not begun where as many as there may be are under way."""
    return f"{AT_A_TIME} copies are under way in {region}: it waits for its turn"


def _skipped(backup: Backup, name: str, reason: str) -> Step:
    return Step(item=Item(backup.snapshot_id, Action.NONE, Outcome.SKIPPED, reason), destination=name)


def tags_of_copy(
    backup: Backup, told: Told, destination: Destination, *, retention: Retention, own_region: str
) -> dict[str, str]:
    """The tags with which a copy is made: those of its original, what it is a copy of, and its own ``DeleteOn``.

    What nobody expires, since no backup by tag has made it, has copies that nobody expires. Where the original has so
    many tags that not all find place, its own go, the last in the alphabet first.
    """
    names = told.names
    ours = {
        names.source_snapshot: backup.snapshot_id,
        names.source_volume: backup.volume,
        names.source_region: own_region,
        DESTINATION_TAG: destination.name,
        MADE_TAG: backup.started.isoformat(),
    }
    if told.automated:
        kept = destination.retention or told.retention(retention)
        day = told.delete_on()
        if destination.retention is not None or day is None:
            day = kept.first_delete_on(backup.made)
        ours |= {names.type: AUTOMATED, names.retention: str(kept), names.delete_on: day.isoformat()}
    travel = {names.source_instance, names.source_device, DRILL_TAG}
    ours |= {key: value for key, value in backup.tags.items() if key in travel or key.lower() == names.keep.lower()}
    # A copy that asked for copies would be copied on by a Region that takes it for a backup of its own.
    stay = {names.destinations, names.backup, names.type, names.retention, names.delete_on}
    theirs = {
        key: value
        for key, value in sorted(backup.tags.items())
        if key not in ours and key not in stay and not key.startswith(("aws:", "blockferry:"))
    }
    return ours | dict(list(theirs.items())[: MOST_TAGS - len(ours)])
