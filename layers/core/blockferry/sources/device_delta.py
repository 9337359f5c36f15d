"""What an image changes in a snapshot, as a source of blocks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import replace

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.sources.snapshot import SnapshotSource


class ImageDelta:
    """Every block that the image or the parent holds, with what the image has there: zeros where only the parent has
    something, also behind the image's end. Blocks that the parent has with the same content come as ``unchanged``.

    A block of zeros changes nothing where the parent has a hole, unless it ``fills`` holes: of an encrypted parent a
    volume reads there what decrypting nothing gives (coldsnap, issue 395). What the image does not list stays a hole.
    """

    def __init__(self, image: BlockSource, parent: SnapshotSource, *, fills: bool) -> None:
        self._image = image
        self._parent = parent
        self._fills = fills

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The union of both in ``within``, ascending; the handle is the parent's, empty where the parent has a hole."""
        # The merge is stable: of two equal indices the parent's comes last.
        merged = heapq.merge(self._image.blocks(within), self._parent.blocks(within), key=_index)
        for _, refs in itertools.groupby(merged, key=_index):
            *_, last = refs
            yield last

    def read(self, ref: BlockRef) -> Block:
        """The image's block, compared with the parent's. Raises what both sources raise."""
        block = self._image.read(ref)
        if ref.handle:
            unchanged = self._parent.read(ref).digest == block.digest
        else:
            unchanged = block.digest == ZERO_DIGEST and not self._fills
        return replace(block, unchanged=unchanged)


def _index(ref: BlockRef) -> int:
    return ref.index
