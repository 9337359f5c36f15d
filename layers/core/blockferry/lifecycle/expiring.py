"""Expire: which backups may go, and why each of the others may not.

Nothing here asks AWS. ``expiry`` decides about everything that a Region has at once, since what may go depends on what
else there is; ``objection`` is what the worker asks once more about a single snapshot, just before it acts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.retention import A_WEEK, Retention, kept_by_tiers
from blockferry.lifecycle.tags import COPY_TAG, DESTINATION_TAG, DRILL_TAG, MARK_TAG, Problem, TagNames, Told

COMPLETED, FAILED = "completed", "error"
"""States in which EC2 lets a snapshot be deleted for good at once; a pending one is left to complete."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """A snapshot as the inventory of its Region has it.

    ``volume`` is what it is a backup of: the id of its own volume, or of the one that a copy names. ``started`` is when
    it, or the original of a copy, was begun, and ``made`` the day of that where the schedule is. The rest is why it may
    have to stay: ``images`` that are made of it, its ``lock``, the accounts that it is ``shared`` with, ``jobs`` in
    flight that read or build upon it, and ``needed`` by what comes next in a chain. ``copies`` are destinations in
    which a completed copy of it was found.
    """

    snapshot_id: str
    volume: str
    state: str
    started: datetime
    made: date
    tags: Mapping[str, str]
    images: tuple[str, ...] = ()
    lock: str | None = None
    shared: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    copies: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a deployment says about deleting: the default ``retention``, how many good backups of a volume stay whatever
    their dates say, and whether what is due is deleted ``at_once``, without having been marked by an earlier run."""

    names: TagNames = field(default_factory=TagNames)
    retention: Retention = A_WEEK
    keep_newest: int = 1
    at_once: bool = False


def expiry(backups: Sequence[Backup], *, today: date, run: str, rules: Rules) -> tuple[list[Item], list[Problem]]:
    """An item for each backup, in their order, and the tags that mean nothing.

    ``run`` is the mark of this run. Items that are to be marked or deleted are ``planned``, the others ``skipped``. The
    mark of one that may stay after all is taken away, which is an action ``mark``, too: if it ever is due again, it is
    marked again.
    """
    kept = _kept(backups, rules)
    items: list[Item] = []
    problems: list[Problem] = []
    for backup in backups:
        told = Told(backup.snapshot_id, backup.tags, rules.names)
        reason = objection(backup, told, today) or kept.get(backup.snapshot_id)
        items.append(_item(backup, reason, told, today, run=run, rules=rules))
        problems += told.problems
    return items, problems


def objection(backup: Backup, told: Told, today: date) -> str | None:
    """Why a backup may not be deleted on that day, whatever other backups there are; ``None`` if it may."""
    if not told.automated:
        return f"it is not of ours: its tag {told.names.type} is not Automated"
    if told.kept_forever:
        return f"tag {told.names.keep} protects it"
    day = told.delete_on()
    if day is None:
        return f"it has no {told.names.delete_on} that is a day"
    if day > today:
        return f"not due before {day}"
    if backup.state not in (COMPLETED, FAILED):
        return f"it is {backup.state}"
    if backup.images:
        return f"image {_listed(backup.images)} is made of it"
    if backup.lock is not None:
        return f"it is locked ({backup.lock})"
    if backup.shared:
        return f"it is shared with {_listed(backup.shared)}"
    if backup.jobs:
        return f"job {_listed(backup.jobs)} uses it"
    if backup.state == FAILED:
        # There is nothing in it that anybody could copy or build upon.
        return None
    if backup.needed:
        return f"it is needed: {_listed(backup.needed)}"
    if missing := [name for name in told.wanted() if not copied(backup, name)]:
        return f"its copy to {_listed(missing)} is not complete"
    return None


def copied(backup: Backup, destination: str) -> bool:
    """Whether a copy there is, or was once seen, completed."""
    return destination in backup.copies or f"{COPY_TAG}{destination}" in backup.tags


def good(backup: Backup, told: Told) -> bool:
    """Whether it is a backup to rely on."""
    return backup.state == COMPLETED and told.automated and DRILL_TAG not in backup.tags


def _kept(backups: Iterable[Backup], rules: Rules) -> dict[str, str]:
    """Which backups stay because of their place among those of their volume, and why."""
    of_volumes: dict[tuple[str, str | None], list[tuple[Backup, Told]]] = defaultdict(list)
    for backup in backups:
        told = Told(backup.snapshot_id, backup.tags, rules.names)
        if good(backup, told):
            # Copies are there for the day on which the originals are not: they count by themselves.
            is_copy = rules.names.source_snapshot in backup.tags
            purpose = backup.tags.get(DESTINATION_TAG, "") if is_copy else None
            of_volumes[backup.volume, purpose].append((backup, told))
    kept: dict[str, str] = {}
    for members in of_volumes.values():
        members.sort(key=lambda member: (member[0].started, member[0].snapshot_id), reverse=True)
        days = {backup.snapshot_id: (backup.made, told.retention(rules.retention)) for backup, told in members}
        for snapshot_id, tier in kept_by_tiers(days, newest_first=days).items():
            kept[snapshot_id] = f"it is the last backup of {tier}"
        for backup, _ in members[: rules.keep_newest]:
            kept[backup.snapshot_id] = (
                f"it is the newest good backup of {backup.volume}"
                if rules.keep_newest == 1
                else f"it is one of the {rules.keep_newest} newest good backups of {backup.volume}"
            )
    return kept


def _item(backup: Backup, reason: str | None, told: Told, today: date, *, run: str, rules: Rules) -> Item:
    mark = backup.tags.get(MARK_TAG)
    if reason is not None:
        if mark is not None and told.automated:
            return Item(backup.snapshot_id, Action.MARK, Outcome.PLANNED, f"its mark goes: {reason}")
        return Item(backup.snapshot_id, Action.NONE, Outcome.SKIPPED, reason)
    due = f"due since {told.delete_on()}"
    if rules.at_once or (mark is not None and mark != run):
        return Item(backup.snapshot_id, Action.DELETE, Outcome.PLANNED, due)
    if mark == run:
        return Item(
            backup.snapshot_id, Action.MARK, Outcome.PLANNED, f"{due}, marked by this run: the next one deletes it"
        )
    return Item(backup.snapshot_id, Action.MARK, Outcome.PLANNED, f"{due}: the next run deletes it")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
