"""The ways to copy what was inspected, what each costs, and which of them to take. No AWS in here.

AWS's own copy comes first: it costs no requests and runs no code. This software is recommended only where CopySnapshot
cannot do it, or where it costs more than this software, with the reason and the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from blockferry.core.counts import by_operation
from blockferry.core.holes import HolePolicy
from blockferry.cost.bill import Bill, gib
from blockferry.cost.choice import (
    MONTHS,
    Choice,
    Destination,
    Subject,
    add_machine,
)
from blockferry.cost.estimate import Outline
from blockferry.cost.native import copy_snapshot, time_based_copy
from blockferry.cost.prices import partition_of
from blockferry.cost.work import charge, cost_of


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
    outline = direct_outline(subject, destinations)
    work = outline.work(HolePolicy.PRESERVE)
    bill, monthly = Bill(), Bill()
    charge(work, bill)
    add_machine(bill, subject)
    for target in destinations:
        monthly.add("SnapshotStorage", target.region, gib(subject.blocks_written))
    conditions = []
    if subject.delta is not None:
        conditions.append(
            f"each target needs a parent there that equals {subject.base_snapshot_id} and has the key that the copy is "
            "to have"
        )
    if subject.encrypted:
        conditions.append("the reading role needs kms:Decrypt on the snapshot's key")
    return Choice(
        name="direct",
        conditions=conditions,
        requests=by_operation(work.requests),
        seconds=outline.seconds(HolePolicy.PRESERVE),
        bill=bill,
        monthly=monthly,
        more={"cost_usd": cost_of(work)},
    )


def direct_outline(subject: Subject, destinations: Sequence[Destination]) -> Outline:
    """The job of this software that would make the copies."""
    return Outline(
        reading=subject.reading,
        targets=tuple(target.region for target in destinations),
        home=subject.home_region,
        total_blocks=subject.total_blocks,
        sharing=max(Counter((target.region, target.account) for target in destinations).values()),
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
