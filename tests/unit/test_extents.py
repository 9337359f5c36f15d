"""What of a file on this machine counts as written."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import UnreadableSource
from blockferry.sources import extents
from blockferry.sources.device import ImageSource
from blockferry.sources.extents import WholeImage, WrittenImage, tells_extents
from fakes import content

Mapped = list[tuple[int, int]]

UNWRITTEN, LAST = 0x800, 0x1


class FileSystem:
    """Answers FIEMAP for a file with these extents of (offset, length), so many at a time."""

    def __init__(self, mapped: Mapped, *, refuses: bool = False) -> None:
        self.mapped, self.refuses, self.asked = mapped, refuses, list[tuple[int, int]]()

    def ioctl(self, _fd: int, request: int, buffer: bytearray) -> int:
        if self.refuses:
            raise OSError(95, "Operation not supported")
        start, length, flags, _, room, _ = struct.unpack_from("=QQLLLL", buffer)
        assert (request, flags) == (0xC020660B, 1)
        self.asked.append((start, length))
        touched = [e for e in self.mapped if e[0] < start + length and e[0] + e[1] > start]
        for number, (offset, size) in enumerate(touched[:room]):
            last = LAST if (offset, size) == self.mapped[-1] else 0
            struct.pack_into("=QQQQQLLLL", buffer, 32 + 56 * number, offset, 0, size, 0, 0, UNWRITTEN | last, 0, 0, 0)
        struct.pack_into("=L", buffer, 20, min(room, len(touched)))
        return 0


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[ImageSource]:
    """An image of forty blocks and a tail, with data in the fourth block only."""
    path = tmp_path / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(40 * BLOCK_SIZE + 5)
        handle.seek(3 * BLOCK_SIZE)
        handle.write(content(1))
    with ImageSource(path) as source:
        yield source


def listed(source: WrittenImage | WholeImage, first: int, stop: int) -> list[int]:
    return [ref.index for ref in source.blocks(BlockRange(first, stop))]


def test_blocks_that_an_extent_touches_are_written_and_those_in_real_holes_are_not(
    sparse: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_kib = 4096
    mapped = [
        (3 * BLOCK_SIZE, BLOCK_SIZE),
        (5 * BLOCK_SIZE + four_kib, four_kib),
        (5 * BLOCK_SIZE + 3 * four_kib, four_kib),
        (7 * BLOCK_SIZE - four_kib, 2 * four_kib),
        # Allocated behind the end, as fallocate with KEEP_SIZE does.
        (40 * BLOCK_SIZE, 3 * BLOCK_SIZE),
    ]
    monkeypatch.setattr("fcntl.ioctl", FileSystem(mapped).ioctl)
    assert listed(WrittenImage(sparse), 0, 2048) == [3, 5, 6, 7, 40]
    assert listed(WrittenImage(sparse), 4, 7) == [5, 6]
    assert listed(WrittenImage(sparse), 6, 40) == [6, 7]
    assert listed(WrittenImage(sparse), 41, 2048) == []


def test_more_extents_than_one_answer_holds_are_asked_for_until_the_last(
    sparse: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = [(index * BLOCK_SIZE + part * 8192, 4096) for index in range(0, 40, 2) for part in range(3)]
    files = FileSystem(mapped)
    monkeypatch.setattr("fcntl.ioctl", files.ioctl)
    assert listed(WrittenImage(sparse, extents_per_call=7), 0, 2048) == sorted({3, *range(0, 40, 2)})
    assert len(files.asked) == 9
    assert [start for start, _ in files.asked] == sorted({start for start, _ in files.asked})


def test_nothing_is_asked_for_behind_the_last_extent_or_the_end(
    sparse: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = [(index * BLOCK_SIZE, 4096) for index in range(7)]
    for more, stop in (([], 40 * BLOCK_SIZE), ([(20 * BLOCK_SIZE, 4096)], 6 * BLOCK_SIZE + 4096)):
        files = FileSystem([*mapped, *more])
        monkeypatch.setattr("fcntl.ioctl", files.ioctl)
        assert list(extents.extents(sparse.fileno(), 8, stop, per_call=7)) == mapped
        assert files.asked == [(8, stop - 8)]


def test_what_was_written_is_read_as_the_image_has_it(sparse: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.ioctl", FileSystem([(5 * BLOCK_SIZE, 4096)]).ioctl)
    written = WrittenImage(sparse)
    assert [written.read(ref).data for ref in written.blocks(BlockRange(0, 9))] == [content(1), content(0)]


def test_data_that_no_extent_tells_of_yet_is_written_all_the_same(
    sparse: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.ioctl", FileSystem([]).ioctl)
    assert listed(WrittenImage(sparse), 0, 2048) == [3]


def test_a_file_system_without_extents_is_found_out_before_anything_is_listed(
    sparse: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.ioctl", FileSystem([]).ioctl)
    assert tells_extents(sparse.fileno())
    monkeypatch.setattr("fcntl.ioctl", FileSystem([], refuses=True).ioctl)
    assert not tells_extents(sparse.fileno())
    with pytest.raises(UnreadableSource, match=r"its extents are not told .*Operation not supported"):
        listed(WrittenImage(sparse), 0, 2048)


def test_extents_that_lead_nowhere_end_the_search(sparse: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(FileSystem):
        def ioctl(self, _fd: int, request: int, buffer: bytearray) -> int:
            assert len(self.asked) < 5
            self.asked.append((0, 0))
            for number in range(256):
                struct.pack_into("=QQQQQLLLL", buffer, 32 + 56 * number, BLOCK_SIZE, 0, 0, 0, 0, 0, 0, 0, 0)
            struct.pack_into("=L", buffer, 20, 256)
            return 0

    monkeypatch.setattr("fcntl.ioctl", Stuck([]).ioctl)
    with pytest.raises(UnreadableSource, match="an extent of 0 bytes"):
        listed(WrittenImage(sparse), 0, 2048)


def test_unwritten_extents_of_a_real_file_are_written_zeros(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(20 * BLOCK_SIZE)
        os.posix_fallocate(handle.fileno(), 10 * BLOCK_SIZE, 2 * BLOCK_SIZE)
    with ImageSource(path) as source:
        if not tells_extents(source.fileno()):
            pytest.skip("the file system of the temporary folder has no FIEMAP")
        assert [ref.index for ref in source.blocks(BlockRange(0, 20))] == []
        assert listed(WrittenImage(source), 0, 20) == [10, 11]


def test_the_whole_image_is_every_block_up_to_where_it_is_to_end(sparse: ImageSource) -> None:
    assert listed(WholeImage(sparse, 41), 0, 2048) == list(range(41))
    assert listed(WholeImage(sparse, 41), 30, 35) == list(range(30, 35))
    assert listed(WholeImage(sparse, 41), 41, 60) == []
    whole = WholeImage(sparse, 60)
    read = {ref.index: whole.read(ref).data for ref in whole.blocks(BlockRange(2, 60))}
    assert read[3] == content(1)
    assert read[2] == read[40] == read[59] == content(0)
