"""An image on top of a parent: what is written, and what is the same already."""

from __future__ import annotations

from typing import Any, cast

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.sources.device_delta import ImageDelta
from blockferry.sources.snapshot import SnapshotSource
from fakes import MemorySource, content
from memory_ebs import MemoryEbs

Blocks = dict[int, bytes]


class Sparse(MemorySource):
    """An image: whatever it does not list reads as zeros."""

    def read(self, ref: Any) -> Any:
        self._blocks.setdefault(ref.index, content(0))
        return super().read(ref)


def delta(
    image: Blocks, parent: Blocks, *, fills: bool, within: BlockRange | None = None
) -> dict[int, tuple[Any, bool]]:
    """By index: the image's content, and whether the parent has it already."""
    held = SnapshotSource(cast(Any, MemoryEbs({"snap-p": parent})), "snap-p")
    source = ImageDelta(Sparse(image), held, fills=fills)
    read = [source.read(ref) for ref in source.blocks(within or BlockRange(0, 100))]
    found = {block.index: (block.data, block.unchanged) for block in read}
    assert [block.index for block in read] == sorted(found)
    return found


@pytest.mark.parametrize("fills", [False, True])
def test_every_block_that_one_of_them_holds_comes_with_the_images_content(fills: bool) -> None:
    image = {1: content(1), 2: content(2), 5: content(5)}
    parent = {2: content(2), 3: content(3), 4: content(0), 5: content(9)}
    assert delta(image, parent, fills=fills) == {
        1: (content(1), False),
        2: (content(2), True),
        3: (content(0), False),
        4: (content(0), True),
        5: (content(5), False),
    }


@pytest.mark.parametrize("fills", [False, True])
def test_zeros_go_over_a_hole_of_the_parent_only_where_they_fill_it(fills: bool) -> None:
    assert delta({1: content(0)}, {}, fills=fills) == {1: (content(0), not fills)}


def test_only_what_lies_in_the_range_is_listed() -> None:
    blocks = {index: content(1) for index in (1, 5, 9)}
    assert list(delta(blocks, blocks, fills=True, within=BlockRange(2, 9))) == [5]
