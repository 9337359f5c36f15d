"""Copies by EC2 itself: where CopySnapshot can make them, in full or not, and at what price. No AWS in here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.quotas import COPIES_MIB_PER_SECOND, COPY_MAX_MINUTES, COPY_MIB_PER_SECOND, COPY_STEP_MINUTES
from blockferry.cost.bill import Bill, gib, usd
from blockferry.cost.choice import Choice, Destination, Subject
from blockferry.cost.prices import Price, partition_of, prices


def _no_native(subject: Subject, target: Destination) -> str | None:
    """Why CopySnapshot cannot make this copy; ``None`` when it can."""
    ours, theirs = partition_of(subject.region), partition_of(target.region)
    if ours != theirs:
        return f"{target.name}: CopySnapshot does not lead from partition {ours} to {theirs} ({target.region})"
    if subject.encrypted and target.encrypted is False:
        return f"{target.name}: a copy of an encrypted snapshot by CopySnapshot is always encrypted"
    if subject.encrypted and target.account != subject.owner_id and subject.key_manager == "AWS":
        return (
            f"{target.name}: {subject.snapshot_id} is encrypted with an AWS managed key (aws/ebs), which cannot be "
            f"shared with account {target.account}"
        )
    return None


def _native_conditions(subject: Subject, target: Destination) -> list[str]:
    conditions = []
    if target.account != subject.owner_id:
        conditions.append(f"{subject.snapshot_id} must be shared with account {target.account}, which makes the copy")
        if subject.encrypted:
            unknown = (
                ""
                if subject.key_manager == "CUSTOMER"
                else " (it could not be looked up; with an AWS managed key this is impossible)"
            )
            conditions.append(
                f"the snapshot's key must be customer managed and shared with account {target.account}{unknown}"
            )
    if subject.encrypted and _at_home(subject, target) and target.kms_key_arn is None:
        conditions.append("CopySnapshot has to be told the source's key, else it takes the account's default key")
    if _incremental(subject, target):
        conditions.append(f"{target.native_base_id} is the latest copy of the volume in {target.region}")
        if target.kms_key_arn is None and (subject.encrypted or target.encrypted):
            conditions.append(f"CopySnapshot is told the key of {target.native_base_id}")
    return conditions


def _incremental(subject: Subject, target: Destination) -> bool:
    """Whether a copy in another Region or account builds on an earlier one, as far as can be seen."""
    return subject.delta is not None and target.native_base_id is not None and not _at_home(subject, target)


def _at_home(subject: Subject, target: Destination) -> bool:
    return target.region == subject.region and target.account == subject.owner_id


def _changes_key(subject: Subject, target: Destination) -> bool:
    if target.kms_key_arn is not None:
        return target.kms_key_arn != subject.kms_key_id
    return bool(target.encrypted) and not subject.encrypted


@dataclass(frozen=True)
class _Native:
    """Blocks that CopySnapshot copies to one target, those that are stored there anew, and why."""

    copied: int
    stored: int
    note: str


def _native(subject: Subject, target: Destination) -> _Native:
    """How much CopySnapshot copies (EBS user guide, "Incremental snapshot copying")."""
    full = subject.allocated_blocks
    if _at_home(subject, target):
        if _changes_key(subject, target):
            return _Native(full, full, f"{target.name}: full, because the copy gets another key")
        return _Native(
            subject.blocks_read, 0, f"{target.name}: shares the blocks of the source, so it stores nothing of its own"
        )
    if _incremental(subject, target):
        return _Native(
            subject.blocks_read,
            subject.blocks_read,
            f"{target.name}: incremental on top of {target.native_base_id}, a copy of {subject.base_snapshot_id} by "
            "CopySnapshot",
        )
    if subject.delta is not None:
        return _Native(
            full,
            full,
            f"{target.name}: full, because no copy of {subject.base_snapshot_id} by CopySnapshot was seen there (only "
            "the usual description tells what such a copy was made of)",
        )
    return _Native(
        full, full, f"{target.name}: full, unless CopySnapshot has copied an earlier snapshot of the volume there"
    )


def copy_snapshot(subject: Subject, destinations: Sequence[Destination]) -> Choice:
    """CopySnapshot without a promised time."""
    title = "CopySnapshot"
    obstacle = _first_obstacle(subject, destinations)
    if obstacle is not None:
        return Choice(name="copy_snapshot", title=title, why_not=obstacle)
    bill, monthly = Bill(), Bill()
    notes = []
    for target in destinations:
        native = _native(subject, target)
        bill.transfer(subject.region, target.region, native.copied * BLOCK_SIZE)
        monthly.add("SnapshotStorage", target.region, gib(native.stored))
        notes.append(native.note)
    notes.append("AWS promises no time; at most 20 copies at the same time to a destination; tags are not copied")
    return Choice(
        name="copy_snapshot",
        title=title,
        conditions=_all_conditions(subject, destinations),
        bill=bill,
        monthly=monthly,
        notes=notes,
    )


def time_based_copy(subject: Subject, destinations: Sequence[Destination]) -> Choice:
    """CopySnapshot within a duration that is asked for and paid."""
    title = "time-based CopySnapshot"
    obstacle = _first_obstacle(subject, destinations)
    if obstacle is not None:
        return Choice(name="time_based_copy", title=title, why_not=obstacle)
    natives = [(target, _native(subject, target)) for target in destinations]
    together = Counter(target.region for target in destinations)
    needed = max(_minutes_needed(native.copied, together[target.region]) for target, native in natives)
    bands = [
        _Band(price, minutes, _band_bill(subject, natives, number))
        for number, (price, minutes) in enumerate(_durations(subject.region, needed))
    ]
    feasible = [band for band in bands if band.minutes is not None]
    if not feasible:
        return Choice(
            name="time_based_copy",
            title=title,
            why_not=f"it would take {needed} minutes at the throughput that AWS allows, and at most {COPY_MAX_MINUTES} "
            "can be asked for",
        )
    fastest, cheapest = feasible[0], min(feasible, key=lambda band: band.bill.usd)
    monthly = Bill()
    for target, native in natives:
        monthly.add("SnapshotStorage", target.region, gib(native.stored))
    return Choice(
        name="time_based_copy",
        title=title,
        conditions=_all_conditions(subject, destinations),
        seconds=60 * (fastest.minutes or 0),
        bill=fastest.bill,
        monthly=monthly,
        notes=[
            *(native.note for _, native in natives),
            f"figures of the fastest: {fastest.minutes} minutes, {usd(fastest.bill.usd)}; the cheapest: "
            f"{cheapest.minutes} minutes, {usd(cheapest.bill.usd)}",
        ],
        more={
            "fastest": fastest.to_json(),
            "cheapest": cheapest.to_json(),
            "bands": [band.to_json() for band in bands],
        },
    )


@dataclass(frozen=True)
class _Band:
    """Durations of one price; ``minutes`` is the shortest of them that is feasible, if any is."""

    price: Price
    minutes: int | None
    bill: Bill

    def to_json(self) -> dict[str, Any]:
        """The band as reports carry it; without a feasible duration it has no bill."""
        return {
            "minutes_from": self.price.minutes_from,
            "minutes": self.minutes,
            "usd_per_gib": self.price.usd,
            "one_time_usd": None if self.minutes is None else round(self.bill.usd, 6),
        }


def _durations(region: str, needed: int) -> list[tuple[Price, int | None]]:
    rows = prices().all("TimeBasedCopy", region)
    ends = [row.minutes_from - COPY_STEP_MINUTES for row in rows[1:]] + [COPY_MAX_MINUTES]
    return [
        (row, max(row.minutes_from, needed) if needed <= end else None) for row, end in zip(rows, ends, strict=True)
    ]


def _band_bill(subject: Subject, natives: Sequence[tuple[Destination, _Native]], number: int) -> Bill:
    bill = Bill()
    for target, native in natives:
        bill.transfer(subject.region, target.region, native.copied * BLOCK_SIZE)
        bill.take(subject.region, prices().all("TimeBasedCopy", subject.region)[number], gib(native.copied))
    return bill


def _minutes_needed(blocks: int, copies: int) -> int:
    rate = min(COPY_MIB_PER_SECOND, COPIES_MIB_PER_SECOND / copies)
    minutes = blocks * BLOCK_SIZE / 2**20 / rate / 60
    return max(1, math.ceil(minutes / COPY_STEP_MINUTES)) * COPY_STEP_MINUTES


def _first_obstacle(subject: Subject, destinations: Sequence[Destination]) -> str | None:
    return next((why for target in destinations if (why := _no_native(subject, target)) is not None), None)


def _all_conditions(subject: Subject, destinations: Sequence[Destination]) -> list[str]:
    return list(dict.fromkeys(text for target in destinations for text in _native_conditions(subject, target)))
