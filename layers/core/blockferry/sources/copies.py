"""Copies that are there already: a second one of the same snapshot in one place is nobody's wish."""

from __future__ import annotations

from collections.abc import Sequence

from blockferry.aws import snapshots
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest


def refuse_second_copies(regions: Sequence[str], snapshot_id: str, found: Sequence[Sequence[SnapshotFacts]]) -> None:
    """Raise ``InvalidRequest`` when there is a copy of the snapshot among those ``found`` for a target, each of which
    is in its one of the ``regions``: what was to be made is there."""
    there = [copies_of(snapshot_id, each) for each in found]
    if not any(there):
        return
    lines = [
        f"- targets[{number}] in {region}: {'has ' + ', '.join(map(_shown, each)) if each else 'has none'}"
        for number, (region, each) in enumerate(zip(regions, there, strict=True))
    ]
    if all(there):
        head = (
            f"follow: nothing to do: every target has a proved copy of {snapshot_id} already, and nothing was started"
        )
    else:
        head = (
            f"follow: some targets have a proved copy of {snapshot_id} already, and nothing was started: leave them "
            "out and start the job for the others"
        )
    raise InvalidRequest("\n".join([head, *lines]))


def copies_of(snapshot_id: str, found: Sequence[SnapshotFacts]) -> list[SnapshotFacts]:
    """Those of the proven copies that are of this very snapshot."""
    return [facts for facts in found if facts.tags[snapshots.SOURCE_TAG] == snapshot_id]


def _shown(facts: SnapshotFacts) -> str:
    if facts.state == "pending":
        return f"{facts.snapshot_id} (being sealed)"
    return facts.snapshot_id if facts.tier == "standard" else f"{facts.snapshot_id} (archived)"
