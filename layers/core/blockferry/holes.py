"""Which blocks a transfer writes: the policy for zeros and holes.

Absent and all-zero are not the same thing: an allocated block of zeros is data (an encrypted or incremental
snapshot tells the two apart), so the default reproduces the exact allocated set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from blockferry.blocks import BlockRange
from blockferry.checksums import ZERO_DIGEST
from blockferry.ports import BlockRef


class HolePolicy(StrEnum):
    """``options.holes`` of a job."""

    PRESERVE = "preserve"
    """Write exactly the allocated blocks."""
    ZERO_FILL = "zero_fill"
    """Also write a block of zeros for every unallocated index."""
    SKIP_ZERO = "skip_zero"
    """Leave out allocated blocks that are all zeros; only where nothing can show through."""

    def writes(self, digest: bytes) -> bool:
        """Whether a block with this content is written."""
        return self is not HolePolicy.SKIP_ZERO or digest != ZERO_DIGEST


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
