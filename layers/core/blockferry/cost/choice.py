"""The terms in which ways to copy and keep a snapshot are compared: subject, destination, choice. No AWS in here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from blockferry.core.blocks import blocks_per_range
from blockferry.core.delta import Delta
from blockferry.cost.bill import Bill
from blockferry.sources.reading import Reading, reading_snapshot

MONTHS = 12
"""Months of keeping that ways are compared over."""

BLOCKS_PER_RANGE = 4_096
"""Block indices of a range, as a job has them that does not ask for others."""

TRANSITIONS_PER_RANGE = 4
"""State transitions of a range: start and end of the child, the task and its choice."""

KeyManager = Literal["AWS", "CUSTOMER"]
"""Who manages a key, as KMS calls them (DescribeKey)."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A snapshot that is to be copied or kept, or with ``delta`` its difference to ``base_snapshot_id``.

    ``home_region`` is where workers run; ``key_manager`` is ``None`` when it could not be found out.
    """

    snapshot_id: str
    region: str
    home_region: str
    owner_id: str
    total_blocks: int
    allocated_blocks: int
    encrypted: bool = False
    kms_key_id: str | None = None
    key_manager: KeyManager | None = None
    base_snapshot_id: str | None = None
    delta: Delta | None = None

    @property
    def whole(self) -> Subject:
        """The snapshot itself, whatever it is compared with."""
        return replace(self, base_snapshot_id=None, delta=None)

    @property
    def blocks_read(self) -> int:
        """Blocks that a job asks for."""
        return self.allocated_blocks if self.delta is None else self.delta.read

    @property
    def blocks_written(self) -> int:
        """Blocks that a job writes to each target: what only the base holds is written as zeros."""
        return self.allocated_blocks if self.delta is None else self.delta.blocks

    @property
    def blocks_per_range(self) -> int:
        """Block indices of each range but the last."""
        return blocks_per_range(self.total_blocks, BLOCKS_PER_RANGE)

    @property
    def ranges(self) -> int:
        """Ranges that a job is cut into."""
        return math.ceil(self.total_blocks / self.blocks_per_range)

    @property
    def reading(self) -> Reading:
        """The requests that read the subject once, with the counts that they come from."""
        return Reading(
            allocated=self.allocated_blocks,
            read=self.blocks_read,
            removed=0 if self.delta is None else self.delta.removed,
            basis="the inspection",
            requests=reading_snapshot(
                self.region,
                read=self.blocks_read,
                total_blocks=self.total_blocks,
                blocks_per_range=self.blocks_per_range,
                changes=self.delta is not None,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The place of a copy, and what stands there. ``account`` is the copy's owner, ``name`` what texts call it.

    ``copy_id`` is a proved copy of the subject, and ``parent_id`` one of its base that a sync can go on top of, without
    which ``no_parent`` says why. ``native_base_id`` is a copy of the base by CopySnapshot. All are encrypted as the
    copy is to be, and ``None`` where none was seen. Without a base, ``earlier_id`` is an earlier snapshot of the volume
    of which a proved copy stands. ``seen`` false: it could not be looked at.
    """

    name: str
    region: str
    account: str
    kms_key_arn: str | None = None
    encrypted: bool | None = None
    copy_id: str | None = None
    parent_id: str | None = None
    no_parent: str | None = None
    native_base_id: str | None = None
    earlier_id: str | None = None
    seen: bool = True


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to copy or keep a subject, which texts call ``title``. Without ``possible`` the figures are ``None``.

    ``planned``: it is priced, and whether it can be done is not known here.
    ``seconds`` is ``None`` where nobody promises a time; ``requests`` is set where this software makes them.
    """

    name: str
    title: str
    why_not: str | None = None
    conditions: Sequence[str] = ()
    requests: Mapping[str, int] | None = None
    seconds: int | None = None
    bill: Bill = field(default_factory=Bill)
    monthly: Bill = field(default_factory=Bill)
    restore: Bill = field(default_factory=Bill)
    minimum_days: int = 0
    planned: bool = False
    notes: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def possible(self) -> bool:
        """Whether nothing forbids this way; ``conditions`` may have to hold all the same."""
        return self.why_not is None

    @property
    def year_usd(self) -> float:
        """Dollars over twelve months: made once, kept so long, restored once."""
        return round(self.bill.usd + MONTHS * self.monthly.usd + self.restore.usd, 6)

    @property
    def unverified(self) -> list[str]:
        """The items of its bills whose price no price list at hand confirms."""
        return sorted({item for bill in (self.bill, self.monthly, self.restore) for item in bill.unverified})

    def to_json(self) -> dict[str, Any]:
        """The choice as reports carry it."""

        def usd(amount: float) -> float | None:
            return round(amount, 6) if self.possible else None

        notes = list(self.notes)
        if self.unverified:
            notes.append(f"not verified: the price of {', '.join(self.unverified)}")
        return {
            "name": self.name,
            "title": self.title,
            "possible": self.possible,
            "planned": self.planned,
            "why_not": self.why_not,
            "conditions": list(self.conditions) if self.possible else [],
            "requests": dict(self.requests) if self.requests is not None and self.possible else None,
            "seconds": self.seconds if self.possible else None,
            "one_time_usd": usd(self.bill.usd),
            "monthly_usd": usd(self.monthly.usd),
            "restore_usd": usd(self.restore.usd),
            "minimum_days": self.minimum_days,
            "year_usd": usd(self.year_usd),
            "notes": notes if self.possible else [],
            **(self.more if self.possible else {}),
        }


def add_machine(bill: Bill, subject: Subject) -> None:
    """Put on the bill what the state machine of a job costs: its transitions, and the calls of its functions."""
    bill.add("LambdaRequest", subject.home_region, subject.ranges)
    bill.add("StateTransition", subject.home_region, subject.ranges * TRANSITIONS_PER_RANGE)
