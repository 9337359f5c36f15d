"""Arithmetic of blocks and ranges: pure numbers, no AWS.

A *block* is 512 KiB of a volume, its index is ``offset // 524288`` (EBS user guide, direct APIs). A *range* is
a run of consecutive indices handled by one task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockferry.core.quotas import MAX_VOLUME_GIB

BLOCK_SIZE = 524_288
"""Bytes of a block; the EBS direct APIs know no other size."""

BLOCKS_PER_GIB = 2_048

MAX_RANGES = 10_000
"""No job is cut into more ranges: the map's children and the recounts that the last step fetches stay countable."""


@dataclass(frozen=True, order=True)
class BlockRange:
    """The blocks ``first <= index < stop``; never empty."""

    first: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.stop:
            raise ValueError(f"a range needs 0 <= first < stop, not first={self.first}, stop={self.stop}")

    def __len__(self) -> int:
        return self.stop - self.first

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self.first <= index < self.stop

    def after(self, index: int) -> BlockRange | None:
        """What is left of the range from ``index`` on; ``None`` when nothing is."""
        return BlockRange(max(self.first, index), self.stop) if index < self.stop else None

    def before(self, index: int) -> BlockRange | None:
        """What of the range lies below ``index``; ``None`` when nothing does."""
        return BlockRange(self.first, min(self.stop, index)) if index > self.first else None


def blocks_of_volume(size_gib: int) -> int:
    """Number of block indices of a volume. Raises ``ValueError`` outside 1 GiB to 64 TiB."""
    if not 1 <= size_gib <= MAX_VOLUME_GIB:
        raise ValueError(f"a volume has 1 to {MAX_VOLUME_GIB} GiB, not {size_gib}")
    return size_gib * BLOCKS_PER_GIB


def blocks_per_range(total_blocks: int, asked: int) -> int:
    """The range length to use: ``asked``, made longer only where it would give over ``MAX_RANGES`` ranges."""
    return max(asked, -(-total_blocks // MAX_RANGES))


def split(total_blocks: int, length: int) -> Iterator[BlockRange]:
    """Cut ``0 <= index < total_blocks`` into consecutive ranges of ``length``, the last one as short as it is.

    Lazy: a 64 TiB volume is planned without a list. Raises ``ValueError`` for sizes below one.
    """
    if total_blocks < 1 or length < 1:
        raise ValueError(f"nothing to split: {total_blocks} blocks into ranges of {length}")
    for first in range(0, total_blocks, length):
        yield BlockRange(first, min(first + length, total_blocks))
