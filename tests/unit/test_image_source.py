from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import InvalidRequest, SourceChanged, UnreadableSource
from blockferry.core.ports import BlockRef
from blockferry.formats.recognise import HEAD_BYTES, TAIL_BYTES
from blockferry.sources.device import ImageSource
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


def test_written_zeros_are_data_and_holes_are_not(tmp_path: Path) -> None:
    blocks = {0: content(1), 5: content(0), 6: content(2), 2000: content(3)}
    path = image(tmp_path, blocks, size=2048 * BLOCK_SIZE)
    assert read(path, 0, 2048) == blocks
    assert read(path, 1, 2000) == {5: content(0), 6: content(2)}


def test_holes_and_what_lies_behind_the_end_can_be_read_as_zeros(tmp_path: Path) -> None:
    path = image(tmp_path, {0: content(1), 2: b"tail"}, size=2 * BLOCK_SIZE + 4)
    with ImageSource(path) as source:
        assert [source.read(BlockRef(index)).data for index in (1, 3, 4_000)] == [content(0)] * 3


def test_where_nobody_tells_holes_all_of_it_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lseek

    def seek(fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            # What Linux answers for a block device.
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, offset, whence)

    path = image(tmp_path, {1: content(1)}, size=3 * BLOCK_SIZE)
    monkeypatch.setattr(os, "lseek", seek)
    assert read(path, 0, 2048) == {0: content(0), 1: content(1), 2: content(0)}


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


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is a directory"):
        ImageSource(tmp_path)


def test_a_pipe_and_standard_input_are_refused_with_the_ways_that_work(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, name in ((pipe, str(pipe)), (Path("-"), "standard input")):
        with pytest.raises(InvalidRequest, match=rf"image {name} is a stream.*write it to a file.*blockferry fanout"):
            ImageSource(path)


def test_an_image_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = image(tmp_path, {1: content(1)}, size=2 * BLOCK_SIZE)
    with ImageSource(path) as source:
        os.truncate(path, BLOCK_SIZE + 5)
        with pytest.raises(SourceChanged, match=r"changed while it was read .its size from 1048576 to 524293 bytes"):
            source.read(BlockRef(1))


def test_an_image_that_nobody_touches_has_not_changed(tmp_path: Path) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    with ImageSource(path) as source:
        path.read_bytes()
        source.refuse_changed()


def rewritten(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.write(b"other")


def written_and_set_back(path: Path) -> None:
    before = path.stat()
    rewritten(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other.img")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: os.truncate(path, 2 * BLOCK_SIZE), f"its size from {BLOCK_SIZE} to {2 * BLOCK_SIZE} bytes"),
        (rewritten, "its time of modification"),
        (written_and_set_back, "its time of change"),
        (replaced, "it was replaced or removed"),
        (Path.unlink, "it was replaced or removed"),
    ],
)
def test_an_image_that_changes_is_told_by_what_changed(
    tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    # Times go by ticks of the clock: an hour ago is another one than now.
    os.utime(path, (path.stat().st_atime - 3600, path.stat().st_mtime - 3600))
    with ImageSource(path) as source:
        _next_tick(path)
        change(path)
        with pytest.raises(SourceChanged, match=re.escape(f"image {path} changed while it was read (") + ".*" + told):
            source.refuse_changed()


def _next_tick(beside: Path) -> None:
    """Until files that are made now have a later time than this one."""
    probe = beside.with_name("probe")
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > beside.stat().st_ctime_ns:
            return


# -- what the system says ----------------------------------------------------------------------------------------------


def test_an_image_that_may_not_be_opened_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InvalidRequest, match=re.escape(f"image {path}: Permission denied")):
        ImageSource(path)


def test_an_image_is_closed_at_the_end_and_an_empty_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ImageSource(image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)) as source:
        descriptor = source.fileno()
        os.fstat(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    opened: list[int] = []
    real = os.open

    def opening(*given: Any) -> int:
        opened.append(real(*given))
        return opened[-1]

    empty = tmp_path / "empty.img"
    empty.touch()
    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(InvalidRequest, match="is empty"):
        ImageSource(empty)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_the_ends_of_an_image_are_its_first_and_last_bytes(tmp_path: Path) -> None:
    data = random.Random(7).randbytes(5_000)
    for size in (1, HEAD_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 5_000):
        path = tmp_path / "disk.img"
        path.write_bytes(data[:size])
        with ImageSource(path) as source:
            assert source.ends() == (data[:size][:HEAD_BYTES], data[:size][-TAIL_BYTES:])


def test_a_block_device_is_taken_and_does_not_tell_that_it_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    monkeypatch.setattr("stat.S_ISREG", lambda _mode: False)
    monkeypatch.setattr("stat.S_ISBLK", lambda _mode: True)
    with ImageSource(path) as source:
        os.truncate(path, 2 * BLOCK_SIZE)
        source.refuse_changed()


def test_that_an_image_was_replaced_is_told_first(tmp_path: Path) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    with ImageSource(path) as source:
        os.truncate(path, 2 * BLOCK_SIZE)
        path.unlink()
        with pytest.raises(SourceChanged, match=r"\(it was replaced or removed, its size from"):
            source.refuse_changed()


def test_a_block_that_comes_in_pieces_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(8).randbytes(2 * BLOCK_SIZE)
    path = tmp_path / "disk.img"
    path.write_bytes(data)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 100_000), offset))
    assert read(path, 0, 9) == {0: data[:BLOCK_SIZE], 1: data[BLOCK_SIZE:]}


def test_an_image_that_ends_early_though_nothing_says_that_it_changed_is_not_filled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with ImageSource(path) as source, pytest.raises(SourceChanged, match="became shorter while block 0 was read"):
        source.read(BlockRef(0))


def test_a_block_that_the_disk_cannot_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    path = image(tmp_path, {0: content(1)}, size=BLOCK_SIZE)
    monkeypatch.setattr(os, "pread", broken)
    told = re.escape(f"image {path}: block 0 cannot be read (Input/output error)")
    with ImageSource(path) as source, pytest.raises(UnreadableSource, match=told):
        source.read(BlockRef(0))
