"""The ways to copy what was inspected, what each costs, and which of them to take. No AWS in here.

AWS's own copy comes first: it costs no requests and runs no code. This software is recommended only where CopySnapshot
cannot do it, or where it costs more than this software, with the reason and the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from blockferry.core.counts import by_operation
from blockferry.core.holes import HolePolicy
from blockferry.cost.bill import Bill, gib, usd
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

NOTHING = "nothing"
"""What is recommended where every copy is there already."""

_BY_PREFERENCE = ("copy_snapshot", "sync", "direct")
"""The ways that are recommended, the first of those that cost the same."""


def copying(subject: Subject, destinations: Sequence[Destination]) -> tuple[Choice, ...]:
    """The ways to make the copies: in full and, with a delta, on top of earlier copies with this software; with
    CopySnapshot; with a time-based CopySnapshot."""
    return (
        _direct(subject.whole, destinations),
        *([_sync(subject, destinations)] if subject.delta is not None else []),
        copy_snapshot(subject, destinations),
        time_based_copy(subject, destinations),
    )


def _direct(subject: Subject, destinations: Sequence[Destination]) -> Choice:
    title = "blockferry copy"
    obstacle = _out_of_reach(subject, destinations)
    if obstacle is not None:
        return Choice(name="direct", title=title, why_not=obstacle)
    return _ours(subject, destinations, Choice(name="direct", title=title))


def _sync(subject: Subject, destinations: Sequence[Destination]) -> Choice:
    title = "blockferry sync"
    missing = [
        d.no_parent or f"no copy of {subject.base_snapshot_id} was seen" for d in destinations if not d.parent_id
    ]
    obstacle = _out_of_reach(subject, destinations) or next(iter(missing), None)
    if obstacle is not None:
        return Choice(name="sync", title=title, why_not=obstacle)
    return _ours(
        subject,
        destinations,
        Choice(
            name="sync",
            title=title,
            notes=[
                f"{d.name}: on top of {d.parent_id}, a proved copy of {subject.base_snapshot_id}" for d in destinations
            ],
            more={"parents": [d.parent_id for d in destinations]},
        ),
    )


def _out_of_reach(subject: Subject, destinations: Sequence[Destination]) -> str | None:
    here = partition_of(subject.home_region)
    beyond = next((d for d in destinations if partition_of(d.region) != here), None)
    if beyond is None:
        return None
    return (
        f"{beyond.name}: {beyond.region} is in partition {partition_of(beyond.region)}, where no role of {here} can be "
        "assumed; archive to S3, carry the objects over with credentials of the other partition, and restore there"
    )


def _ours(subject: Subject, destinations: Sequence[Destination], choice: Choice) -> Choice:
    """The choice with what a job of this software costs that moves the subject."""
    outline = direct_outline(subject, destinations)
    work = outline.work(HolePolicy.PRESERVE)
    bill, monthly = Bill(), Bill()
    charge(work, bill)
    add_machine(bill, subject)
    for target in destinations:
        monthly.add("SnapshotStorage", target.region, gib(subject.blocks_written))
    return replace(
        choice,
        conditions=["the reading role needs kms:Decrypt on the snapshot's key"] if subject.encrypted else [],
        requests=by_operation(work.requests),
        seconds=outline.seconds(HolePolicy.PRESERVE),
        bill=bill,
        monthly=monthly,
        more={**choice.more, "cost_usd": cost_of(work)},
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


def recommended(choices: Sequence[Choice], subject: Subject, destinations: Sequence[Destination]) -> dict[str, Any]:
    """``{"choice", "reason", "commands"}`` among the ways to copy; no choice when none is possible, and ``NOTHING``
    when every copy is there. ``commands`` make the copies, where no role has to be assumed for it."""
    if all(target.copy_id for target in destinations):
        there = ", ".join(f"{target.copy_id} in {target.region}" for target in destinations)
        which = "is a proved copy" if len(destinations) == 1 else "are proved copies"
        return {"choice": NOTHING, "reason": f"{there} {which} of it already", "commands": []}
    named = {choice.name: choice for choice in choices}
    native, direct = named["copy_snapshot"], named["direct"]
    ways = [named[name] for name in _BY_PREFERENCE if name in named and named[name].possible]
    if not ways:
        why = f"{native.why_not}; nor can this software: {direct.why_not}"
        return {"choice": None, "reason": why, "commands": []}
    best = min(ways, key=lambda way: way.year_usd)
    reason = f"{best.title} costs {usd(best.bill.usd)} once and {usd(best.year_usd)} over {MONTHS} months with storage"
    others = [f"{way.title} {usd(way.year_usd)}" for way in ways if way is not best]
    reason += f", {' and '.join(others)}" if others else ""
    if not native.possible:
        reason += f"; CopySnapshot is not possible at any price: {native.why_not}"
    elif best is not native:
        reason += f"; CopySnapshot would make {'; '.join(native.notes[:-1])}"
    elif native.conditions:
        reason += f"; on condition that {'; '.join(native.conditions)}"
    timed = named["time_based_copy"]
    if best is native and timed.possible:
        within = (timed.seconds or 0) // 60
        reason += (
            f"; if a deadline counts, {timed.title} is done within {within} minutes for {usd(timed.bill.usd)} once"
        )
    return {"choice": best.name, "reason": reason, "commands": _commands(best.name, subject, destinations)}


def _commands(name: str, subject: Subject, destinations: Sequence[Destination]) -> list[str]:
    if any(target.account != subject.owner_id for target in destinations):
        return []
    if name == "copy_snapshot":
        return [_copy_snapshot_command(subject, target) for target in destinations]
    words = ["blockferry", "sync" if name == "sync" else "copy", subject.snapshot_id]
    if subject.region != subject.home_region:
        words += ["--from", subject.region]
    if name == "sync":
        words += ["--base", str(subject.base_snapshot_id)]
        words += [word for target in destinations for word in ("--to", f"{target.region}={target.parent_id}")]
        return [" ".join(words)]
    words += [word for target in destinations for word in ("--to", target.region)]
    keys = [target.kms_key_arn for target in destinations if target.kms_key_arn]
    if any(target.encrypted is not None for target in destinations) or (keys and len(destinations) > 1):
        # Only an input as JSON tells these.
        return []
    return [" ".join([*words, *(word for key in keys for word in ("--kms-key-arn", key))])]


def _copy_snapshot_command(subject: Subject, target: Destination) -> str:
    words = ["aws ec2 copy-snapshot --source-region", subject.region, "--source-snapshot-id", subject.snapshot_id]
    # EC2's console describes copies so; by nothing else is it seen later what this one was made of.
    words += ["--region", target.region, "--description", f"'[Copied {subject.snapshot_id} from {subject.region}]'"]
    if target.kms_key_arn or target.encrypted:
        words.append("--encrypted")
    if target.kms_key_arn:
        words += ["--kms-key-id", target.kms_key_arn]
    return " ".join(words)
