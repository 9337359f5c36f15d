from __future__ import annotations

from pathlib import Path

import pytest
from blockferry.blocks import BLOCK_SIZE, BlockRange
from blockferry.errors import InvalidRequest
from blockferry.sources.image import ImageSource
from fakes import content


def image(folder: Path, blocks: dict[int, bytes], *, size: int) -> Path:
    path = folder / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(size)
        for index, data in blocks.items():
            handle.seek(index * BLOCK_SIZE)
            handle.write(data)
    return path


def read(path: Path, first: int, stop: int) -> dict[int, bytes]:
    with ImageSource(path) as source:
        return {ref.index: source.read(ref).data for ref in source.blocks(BlockRange(first, stop))}


def test_blocks_with_data_are_found_between_holes_and_written_zeros(tmp_path: Path) -> None:
    blocks = {0: content(1), 5: content(0), 6: content(2), 2000: content(3)}
    path = image(tmp_path, blocks, size=2048 * BLOCK_SIZE)
    assert read(path, 0, 2048) == {0: content(1), 6: content(2), 2000: content(3)}
    assert read(path, 1, 2000) == {6: content(2)}


def test_an_unaligned_tail_is_kept_and_filled_up_with_zeros(tmp_path: Path) -> None:
    path = image(tmp_path, {0: content(1), 1: b"tail"}, size=BLOCK_SIZE + 4)
    assert read(path, 0, 10)[1] == b"tail" + bytes(BLOCK_SIZE - 4)


@pytest.mark.parametrize("size", [0, None])
def test_an_empty_or_missing_image_is_refused_by_name(tmp_path: Path, size: int | None) -> None:
    path = tmp_path / "disk.img"
    if size is not None:
        path.touch()
    with pytest.raises(InvalidRequest, match=r"disk\.img"):
        ImageSource(path)
