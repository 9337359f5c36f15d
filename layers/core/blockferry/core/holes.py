"""Which blocks a transfer writes: the policy for zeros and holes, and what the holes of a snapshot stand for.

Absent and all-zero are not the same thing. A hole of an unencrypted snapshot reads as zeros, one of an encrypted
snapshot as noise (coldsnap, issues 395 and 470): zeros that somebody wrote must not become a hole that reads as noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.ports import BlockRef

FULL_COPY = (
    "make a full copy with the operation copy and options.holes: zero_fill, and sync on top of that one from then on"
)
"""The way out of a chain whose holes do not read as those of its source."""


class HolePolicy(StrEnum):
    """``options.holes`` of a job."""

    PRESERVE = "preserve"
    """Write exactly the blocks that the source holds."""
    ZERO_FILL = "zero_fill"
    """Also write a block of zeros for every unallocated index."""
    SKIP_ZERO = "skip_zero"
    """Leave out allocated blocks that are all zeros; only where nothing can show through."""

    def writes(self, digest: bytes) -> bool:
        """Whether a block with this content is written."""
        return self is not HolePolicy.SKIP_ZERO or digest != ZERO_DIGEST


class HoleMeaning(StrEnum):
    """What the holes of a snapshot stand for, from the best to the worst."""

    NONE = "none"
    """There are none: every block is allocated."""
    NOISE = "noise"
    """Nobody wrote there, so it does not matter what is read there."""
    UNKNOWN = "unknown"
    """Nothing is known of who made the snapshot, and how."""
    ZEROS = "zeros"
    """Zeros that somebody wrote may have been left out."""


def worst(*meanings: HoleMeaning) -> HoleMeaning:
    """The meaning that claims least of several."""
    order = list(HoleMeaning)
    return max(meanings, key=order.index)


@dataclass(frozen=True)
class HoleDecision:
    """What a job does about holes, and why.

    ``taken_for`` is what the source's holes are taken to stand for, ``left`` what those of the targets stand for.
    ``possible`` are the policies that the operator may choose. Without a ``policy`` only the operator can decide.
    """

    policy: HolePolicy | None
    taken_for: HoleMeaning
    left: HoleMeaning
    by: Literal["request", "default"]
    reason: str
    possible: tuple[HolePolicy, ...] = tuple(HolePolicy)


def with_holes(refs: Iterable[BlockRef], within: BlockRange) -> Iterator[tuple[int, BlockRef | None]]:
    """Every index of ``within`` in order, with its block, or ``None`` where the source holds nothing."""
    due = within.first
    for ref in refs:
        for index in range(due, ref.index):
            yield index, None
        yield ref.index, ref
        due = ref.index + 1
    for index in range(due, within.stop):
        yield index, None
