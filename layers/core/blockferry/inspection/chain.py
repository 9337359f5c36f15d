"""The report on a chain: what each snapshot holds, what changed to the next, and what deleting it would free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.delta import Delta
from blockferry.cost.bill import Bill, gib
from blockferry.inspection.count import Counts

MAX_LEFT_OUT = 100
"""Snapshots that the report names beside the chain; their number is always told."""


def in_order(members: Sequence[SnapshotFacts]) -> tuple[str, ...]:
    """Ids from the oldest to the newest."""
    return tuple(facts.snapshot_id for facts in sorted(members, key=lambda f: (f.start_time, f.snapshot_id)))


def predecessors_estimate(delta: Delta, first: int, second: int) -> int:
    """``C12 = D12 - (S2 - S1)``: blocks that flexible-snapshot-proxy expects deleting the first snapshot to free.

    It is added + overwritten + removed - (added - removed), so a removed block counts twice, and what the first shares
    with its own predecessor counts although it stays.
    """
    return delta.blocks - (second - first)


def chain_report(
    members: Sequence[SnapshotFacts], counts: Counts, *, region: str, others: Sequence[str] | None
) -> dict[str, Any]:
    """The chain's part of the report.

    ``members`` from the oldest to the newest; ``others`` of the volume that are not among them, if that can be told.
    """
    rows = [_row(number, members, counts, region) for number in range(len(members))]
    # EBS keeps each block once: all of the first snapshot, and what each later one wrote.
    stored = rows[0]["allocated_blocks"] + sum(
        row["delta"]["added_blocks"] + row["delta"]["overwritten_blocks"] for row in rows[1:]
    )
    return {
        "volume_id": members[0].volume_id,
        "snapshots": rows,
        "stored_blocks": stored,
        "stored_bytes": stored * BLOCK_SIZE,
        "stored_usd_month": _usd_month(stored, region),
        "other_snapshots": None if others is None else list(others[:MAX_LEFT_OUT]),
        "other_snapshots_count": None if others is None else len(others),
        "notes": _notes(members, others),
    }


def _row(number: int, members: Sequence[SnapshotFacts], counts: Counts, region: str) -> dict[str, Any]:
    facts = members[number]
    name = facts.snapshot_id
    allocated, frees = counts.allocated[name], counts.frees[name]
    delta = counts.changed[members[number - 1].snapshot_id, name] if number else None
    estimate = None
    if number + 1 < len(members):
        following = members[number + 1].snapshot_id
        estimate = predecessors_estimate(counts.changed[name, following], allocated, counts.allocated[following])
    return {
        "snapshot_id": name,
        "start_time": facts.start_time.isoformat(),
        "allocated_blocks": allocated,
        "allocated_bytes": allocated * BLOCK_SIZE,
        "delta": None if delta is None else delta_json(delta),
        "frees_blocks": frees,
        "frees_bytes": frees * BLOCK_SIZE,
        "frees_usd_month": _usd_month(frees, region),
        "c12_blocks": estimate,
        "c12_bytes": None if estimate is None else estimate * BLOCK_SIZE,
        "c12_usd_month": None if estimate is None else _usd_month(estimate, region),
    }


def delta_json(delta: Delta) -> dict[str, int]:
    """A delta as reports carry it; removed blocks are written as zeros on top of the first snapshot."""
    return {
        "added_blocks": delta.added,
        "overwritten_blocks": delta.overwritten,
        "removed_blocks": delta.removed,
        "bytes_to_write": delta.blocks * BLOCK_SIZE,
    }


def _notes(members: Sequence[SnapshotFacts], others: Sequence[str] | None) -> list[str]:
    notes = [
        "deleting a snapshot alone frees what differs from both neighbours; deleting several frees more than the sum",
        "C12 is the estimate D12 - (S2 - S1), for comparison; it counts removed blocks twice and does not look back",
    ]
    if others is None:
        notes.append(
            f"{members[0].volume_id} is not the id of a volume: what the chain leaves out cannot be found by it"
        )
    elif others:
        notes.append(
            f"{len(others)} other snapshots of {members[0].volume_id} exist: they may hold the same blocks, and then "
            "less is freed; add them to the chain"
        )
    volumes = sorted({facts.volume_id for facts in members})
    if len(volumes) > 1:
        notes.append(f"the members name different volumes ({', '.join(volumes)}), but EBS takes them for one lineage")
    return notes


def _usd_month(blocks: int, region: str) -> float:
    return round(Bill().add("SnapshotStorage", region, gib(blocks)), 6)
