"""The ways to copy what was inspected, what each costs, and which of them to take. No AWS in here.

AWS's own copy comes first: it costs no requests and runs no code. This software is recommended only where CopySnapshot
cannot do it, or where it costs more than this software, with the reason and the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.cost.choice import (
    MONTHS,
    Choice,
    Destination,
    Subject,
    add_run,
    gib,
)
from blockferry.cost.native import copy_snapshot, time_based_copy
from blockferry.cost.prices import Bill, partition_of


def copying(subject: Subject, destinations: Sequence[Destination]) -> tuple[Choice, Choice, Choice]:
    """The ways to make the copies: with this software, with CopySnapshot, with a time-based CopySnapshot."""
    return (
        _direct(subject, destinations),
        copy_snapshot(subject, destinations),
        time_based_copy(subject, destinations),
    )


def _direct(subject: Subject, destinations: Sequence[Destination]) -> Choice:
    here = partition_of(subject.home_region)
    beyond = [d for d in destinations if partition_of(d.region) != here]
    if beyond:
        return Choice(
            name="direct",
            why_not=f"{beyond[0].name}: {beyond[0].region} is in partition {partition_of(beyond[0].region)}, where no "
            f"role of {here} can be assumed; archive to S3, carry the objects over with credentials of the other "
            "partition, and restore there",
        )
    requests = {
        **subject.lists,
        "GetSnapshotBlock": subject.blocks_read,
        "PutSnapshotBlock": subject.blocks_written * len(destinations),
    }
    bill, monthly = Bill(), Bill()
    for operation, count in requests.items():
        if operation != "PutSnapshotBlock":
            bill.add(operation, subject.region, count)
    bill.transfer(subject.region, subject.home_region, subject.blocks_read * BLOCK_SIZE)
    for target in destinations:
        bill.add("PutSnapshotBlock", target.region, subject.blocks_written)
        bill.transfer(subject.home_region, target.region, subject.blocks_written * BLOCK_SIZE)
        monthly.add("SnapshotStorage", target.region, gib(subject.blocks_written))
    add_run(bill, subject, subject.blocks_written * len(destinations))
    conditions = []
    if subject.delta is not None:
        conditions.append(
            f"each target needs a parent there that equals {subject.base_snapshot_id} and has the key that the copy is "
            "to have"
        )
    if subject.encrypted:
        conditions.append("the reading role needs kms:Decrypt on the snapshot's key")
    shared = max(Counter((d.region, d.account) for d in destinations).values())
    blocks = max(subject.blocks_read, subject.blocks_written * shared)
    return Choice(
        name="direct",
        conditions=conditions,
        requests=requests,
        seconds=math.ceil(blocks / BLOCKS_PER_SECOND),
        bill=bill,
        monthly=monthly,
    )


def recommended(direct: Choice, native: Choice, timed: Choice) -> dict[str, str | None]:
    """``{"choice", "reason"}`` among the ways to copy; no choice when none is possible."""

    def figures(name: str, choice: Choice) -> str:
        return f"{name} ${choice.bill.usd:.6f} once and ${choice.year_usd:.6f} over {MONTHS} months with storage"

    if not native.possible:
        if not direct.possible:
            return {"choice": None, "reason": f"{native.why_not}; nor can this software: {direct.why_not}"}
        return {
            "choice": direct.name,
            "reason": f"CopySnapshot is not possible at any price: {native.why_not}; "
            + figures("this software", direct),
        }
    if not direct.possible or native.year_usd <= direct.year_usd:
        reason = f"{figures('CopySnapshot', native)}, " + (
            figures("this software", direct) if direct.possible else f"this software cannot: {direct.why_not}"
        )
        if native.conditions:
            reason += f"; on condition that {'; '.join(native.conditions)}"
        if timed.possible:
            within = (timed.seconds or 0) // 60
            reason += f"; if a deadline counts, time_based_copy is done within {within} minutes for "
            reason += f"${timed.bill.usd:.6f} once"
        return {"choice": native.name, "reason": reason}
    return {
        "choice": direct.name,
        "reason": f"{figures('this software', direct)}, {figures('CopySnapshot', native)}: "
        + "; ".join(native.notes[:-1]),
    }
