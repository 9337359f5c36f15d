"""The ways to keep what was inspected at less than the price of a standard snapshot. No AWS in here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from blockferry.core.counts import by_operation
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.cost.bill import Bill, gib, usd
from blockferry.cost.choice import (
    MONTHS,
    Choice,
    Subject,
    add_machine,
)
from blockferry.cost.estimate import writing
from blockferry.cost.prices import prices
from blockferry.cost.work import Work, charge, expected_gb_seconds

CLASSES = {
    "STANDARD": "Standard",
    "INTELLIGENT_TIERING": "Intelligent-Tiering",
    "STANDARD_IA": "Standard-IA",
    "ONEZONE_IA": "One Zone-IA",
    "GLACIER_IR": "Glacier Instant Retrieval",
    "GLACIER": "Glacier Flexible Retrieval",
    "DEEP_ARCHIVE": "Glacier Deep Archive",
}
"""Storage classes of S3 that an archive may be kept in, and what AWS calls them."""

BLOCKS_PER_OBJECT = 64
"""Blocks of one object of an archive."""

_WAITS = {
    "GLACIER": "objects have to be restored first, in 3 to 5 hours; the restored copies cost extra while they exist",
    "DEEP_ARCHIVE": "objects have to be restored first, within 12 hours; the restored copies cost extra while they "
    "exist",
    "ONEZONE_IA": "kept in a single availability zone: gone if that zone is",
}


def keeping(subject: Subject) -> tuple[Choice, ...]:
    """EBS's archive tier, and an archive by this software in each storage class of S3."""
    return (_archive_tier(subject), *(_s3(subject, name) for name in CLASSES))


def cheapest_keep(choices: Sequence[Choice], subject: Subject, *, frees_blocks: int | None) -> dict[str, Any]:
    """The cheapest way to keep a subject for twelve months and restore it once, beside the price of leaving it alone.

    ``frees_blocks`` is what deleting the snapshot frees, where a chain told it.
    """
    best = min((choice for choice in choices if choice.possible), key=lambda choice: choice.year_usd)
    caveats = [
        "paid on top of the snapshot until that is deleted",
        *best.conditions,
        *best.notes,
    ]
    if best.minimum_days:
        caveats.append(f"at least {best.minimum_days} days are billed")
    if best.unverified:
        sure = min((c for c in choices if c.possible and not c.unverified), key=lambda choice: choice.year_usd)
        caveats.append(
            f"not verified: the price of {', '.join(best.unverified)}; the cheapest at verified prices is {sure.title} "
            f"at {usd(sure.year_usd)}"
        )
    as_it_is = Bill()
    as_it_is.add("SnapshotStorage", subject.region, MONTHS * gib(subject.allocated_blocks))
    frees = None
    if frees_blocks is None:
        caveats.append(
            f"leaving it as it is costs at most {usd(as_it_is.usd)}: blocks that it shares with other snapshots of the "
            "volume cost nothing more, and deleting it does not free them; name the chain to know"
        )
    else:
        freed = Bill()
        frees = freed.add("SnapshotStorage", subject.region, MONTHS * gib(frees_blocks))
        if frees <= best.year_usd:
            caveats.append("it costs more than deleting the snapshot saves: leave it as it is")
    return {
        "choice": best.name,
        "year_usd": best.year_usd,
        "monthly_usd": round(best.monthly.usd, 6),
        "standard_year_usd": round(as_it_is.usd, 6),
        "deleting_frees_year_usd": None if frees is None else round(frees, 6),
        "caveats": caveats,
    }


def _archive_tier(subject: Subject) -> Choice:
    monthly, restore = Bill(), Bill()
    size = gib(subject.allocated_blocks)
    monthly.add("SnapshotArchiveStorage", subject.region, size)
    restore.add("SnapshotArchiveRestore", subject.region, size)
    return Choice(
        name="snapshot_archive_tier",
        title="EBS Snapshots Archive",
        conditions=[f"only the owner, account {subject.owner_id}, can archive it"],
        monthly=monthly,
        restore=restore,
        minimum_days=prices().find("SnapshotArchiveStorage", subject.region).minimum_days,
        notes=[
            "always the full snapshot, also of an incremental one",
            "restoring takes up to 72 hours; while archived it cannot be copied, shared or read",
        ],
    )


def _s3(subject: Subject, storage_class: str) -> Choice:
    """An archive in the home region, at compression ratio 1."""
    place, item = subject.home_region, f"S3.{storage_class}"
    objects = math.ceil(subject.blocks_written / BLOCKS_PER_OBJECT)
    described = subject.ranges + 1
    sent = Counter(subject.reading.requests)
    bill, monthly, restore = Bill(), Bill(), Bill()
    charge(Work(requests=sent, home=place, gb_seconds=expected_gb_seconds(sent)), bill)
    add_machine(bill, subject)
    bill.add(f"{item}.put", place, objects)
    # The index of each range and the manifest stay in a class that is always readable.
    bill.add("S3.STANDARD.put", place, described)
    _store(monthly, item, place, gib(subject.blocks_read), objects)

    # A delta is restored on top of everything that it builds on.
    stored = math.ceil(subject.allocated_blocks / BLOCKS_PER_OBJECT)
    restore.add(f"{item}.retrieval", place, gib(subject.allocated_blocks))
    restore.add(f"{item}.restore", place, stored)
    restore.add(f"{item}.get", place, stored)
    restore.add("S3.STANDARD.get", place, described)
    written = writing([subject.region], subject.allocated_blocks)
    charge(Work(requests=written, home=place, gb_seconds=expected_gb_seconds(written)), restore)
    add_machine(restore, subject)

    conditions = []
    if subject.delta is not None:
        conditions.append(f"an archive of {subject.base_snapshot_id} exists and is kept as long as this one")
    if subject.encrypted:
        conditions.append("the reading role needs kms:Decrypt on the snapshot's key")
    notes = ["size at compression ratio 1, an upper bound; without the 40 KiB that S3 adds to an archived object"]
    if storage_class in _WAITS:
        notes.append(_WAITS[storage_class])
    if storage_class == "INTELLIGENT_TIERING":
        notes.append("the average of the first year if nothing is read: 1 month frequent, 2 infrequent, 9 instant")
    return Choice(
        name=f"s3_{storage_class.lower()}",
        title=f"an archive in S3 {CLASSES[storage_class]}",
        conditions=conditions,
        requests={**by_operation(sent), "PutObject": objects + described},
        seconds=math.ceil(subject.blocks_read / BLOCKS_PER_SECOND),
        bill=bill,
        monthly=monthly,
        restore=restore,
        minimum_days=prices().find(f"{item}.storage", place).minimum_days,
        planned=subject.delta is not None,
        notes=notes,
    )


def _store(monthly: Bill, item: str, place: str, size: float, objects: int) -> None:
    if item != "S3.INTELLIGENT_TIERING":
        monthly.add(f"{item}.storage", place, size)
        return
    for tier, months in (("storage", 1), ("infrequent", 2), ("instant", 9)):
        monthly.add(f"{item}.{tier}", place, size * months / MONTHS)
    monthly.add(f"{item}.monitoring", place, objects)
