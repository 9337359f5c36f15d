"""An archive as a sink of blocks: the same segments whoever gives them in whatever order, in bounded memory."""

from __future__ import annotations

import gc
import io
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, cast

import pytest
from blockferry.aws.archives import Located
from blockferry.aws.objects import Bucket
from blockferry.aws.pieces import Pieces
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import Moved, move
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Clock, Deadline
from blockferry.formats.archive.index import Entry, Kind, RangeIndex
from blockferry.formats.archive.layout import ArchiveAddress, segment_name
from blockferry.formats.archive.segment import Segment
from blockferry.targets.segments import MOST_WAITING, SegmentSink
from fakes import MemorySource, content
from memory_s3 import MemoryS3

ADDRESS = ArchiveAddress("archives", "disks/", "snap-0123456789abcdef0-00000000")
WITHIN = BlockRange(0, 400)
THREADS = 8


class Archive:
    """The segments that a sink stores. ``sending`` is called by each PutObject, with its key."""

    def __init__(
        self, *, segment_blocks: int, within: BlockRange = WITHIN, base: Mapping[int, Located] | None = None
    ) -> None:
        self.s3 = MemoryS3()
        self.sending: Callable[[str], None] = lambda _key: None
        self.kept: list[tuple[RangeIndex, Mapping[int, str]]] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        self.sink = SegmentSink(
            Bucket(cast(Any, self), ADDRESS.bucket),
            ADDRESS,
            within,
            keep=lambda index, etags: self.kept.append((index, etags)),
            level=1,
            segment_blocks=segment_blocks,
            facts={"snapshot_id": "snap-0123456789abcdef0"},
            put={"StorageClass": "STANDARD_IA"},
            base=base,
        )

    @property
    def meta(self) -> Any:
        return self.s3.meta

    def put_object(self, **members: Any) -> Any:
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.sending(members["Key"])
            return self.s3.put_object(**members)
        finally:
            with self._lock:
                self.under_way -= 1

    def moves(self, source: Any, *, threads: int = THREADS, within: BlockRange = WITHIN) -> Moved:
        return move(
            within,
            source,
            [self.sink],
            holes=HolePolicy.PRESERVE,
            threads=threads,
            deadline=Deadline(None, clock=Clock()),
            ahead=MOST_WAITING,
        )

    def takes(self, *indices: int) -> None:
        for index in indices:
            self.sink.write(Block(index, content(index + 1), digest_of(content(index + 1))))

    @property
    def stored(self) -> list[str]:
        return sorted(key.removeprefix(ADDRESS.key()) for key in self.s3.objects)

    @property
    def done(self) -> list[tuple[BlockRange, list[int]]]:
        """The ranges that are kept, and the blocks in their indexes."""
        return [(index.range, [entry.block for entry in index.entries]) for index, _ in self.kept]


def others_have_to_wait() -> bool:
    """Whether every mover but this one waits for something, or has ended."""
    frames = sys._current_frames()
    # A frame that holds itself would keep all that it knows.
    del frames[threading.get_ident()]
    movers = {thread.ident for thread in threading.enumerate() if thread.name.startswith("mover-")}
    return all(_waits(frame) for ident, frame in frames.items() if ident in movers)


def _waits(top: FrameType) -> bool:
    if top.f_code is threading.Condition.wait.__code__:
        return True
    frame: FrameType | None = top
    while frame is not None and frame.f_code is not until_the_others_have_to_wait.__code__:
        frame = frame.f_back
    return frame is not None


def until_the_others_have_to_wait() -> None:
    # Twice: one that is woken up may have been seen before it goes on.
    seen = 0
    while seen < 2:
        seen = seen + 1 if others_have_to_wait() else 0
        time.sleep(0.001)


def until_all_are_started() -> None:
    while not any(thread.name == f"mover-{THREADS - 1}" for thread in threading.enumerate()):
        time.sleep(0.001)


class LateSource(MemorySource):
    """Of which some blocks take until another one is read, so that blocks come in no order."""

    def __init__(self, blocks: Mapping[int, bytes], late: Mapping[int, int]) -> None:
        super().__init__(blocks)
        self._late = late
        self._read = {index: threading.Event() for index in late.values()}

    def read(self, ref: BlockRef) -> Block:
        if ref.index in self._read:
            self._read[ref.index].set()
        if ref.index in self._late:
            assert self._read[self._late[ref.index]].wait(60)
        return super().read(ref)


def some_blocks(chance: random.Random) -> dict[int, bytes]:
    """Most of the range: blocks of data, and some of zeros."""
    return {index: content(chance.randrange(5) and index + 1) for index in sorted(chance.sample(range(400), 300))}


@pytest.mark.parametrize("seed", range(3))
def test_threads_in_any_order_with_slow_puts_store_the_segments_of_one_thread(seed: int) -> None:
    chance = random.Random(seed)
    blocks = some_blocks(chance)
    one, many = (Archive(segment_blocks=7) for _ in range(2))
    one.moves(MemorySource(blocks), threads=1)
    order = list(blocks)
    late = {order[n]: order[n + chance.randrange(1, 7)] for n in range(0, len(order) - 10, 10)}
    # Each takes as long as anything else can be done meanwhile.
    many.sending = lambda _key: until_the_others_have_to_wait()
    moved = many.moves(LateSource(blocks, late))
    assert moved.done
    assert many.s3.objects == one.s3.objects
    assert many.kept == one.kept
    assert len(one.s3.objects) > 20
    assert [entry.block for entry in many.kept[0][0].entries] == order


def test_one_segment_is_sent_at_a_time_whoever_has_just_looked_whether_one_is_full() -> None:
    archive = Archive(segment_blocks=1)
    for index in range(2):
        archive.sink.write(Block(index, content(1), digest_of(content(1))))
    looked, sending, may_end = threading.Event(), threading.Event(), threading.Event()

    def look_and_stop(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "return" and frame.f_code is SegmentSink._full.__code__:
            looked.set()
            assert sending.wait(60)
        return look_and_stop

    def look() -> None:
        sys.settrace(look_and_stop)
        archive.sink.reached(0)

    def slowly(_key: str) -> None:
        sending.set()
        assert may_end.wait(60)

    archive.sending = slowly
    looks = threading.Thread(target=look)
    looks.start()
    assert looked.wait(60)
    sends = threading.Thread(target=lambda: archive.sink.reached(1))
    sends.start()
    looks.join()
    assert sending.is_set()
    # In a thread of its own: whoever would send meanwhile would be held up, too.
    finds_it_busy = threading.Thread(target=lambda: archive.sink.reached(2))
    finds_it_busy.start()
    finds_it_busy.join(5)
    may_end.set()
    for thread in (finds_it_busy, sends):
        thread.join()
    assert archive.most_under_way == 1
    assert len(archive.s3.objects) == 2


class NoiseSource:
    """Blocks that do not compress, made when they are read. ``slow``: one that takes as long as others can go on."""

    def __init__(self, slow: int | None = None) -> None:
        self._slow = slow
        self.listed = 0
        self.listed_before_slow = 0

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        for index in range(within.first, within.stop):
            self.listed += 1
            yield BlockRef(index)

    def read(self, ref: BlockRef) -> Block:
        data = random.Random(ref.index).randbytes(BLOCK_SIZE)
        if ref.index == self._slow:
            until_all_are_started()
            until_the_others_have_to_wait()
            self.listed_before_slow = self.listed
        return Block(ref.index, data, digest_of(data))


def test_a_block_that_is_missing_holds_up_those_that_would_have_to_wait_for_it_in_memory() -> None:
    archive, source = Archive(segment_blocks=4), NoiseSource(slow=5)
    assert archive.moves(source).done
    assert MOST_WAITING < source.listed_before_slow - 5 <= MOST_WAITING + THREADS


@pytest.mark.parametrize("slow", [None, 100])
def test_memory_is_bounded_whatever_a_range_holds(slow: int | None) -> None:
    archive, segment_blocks = Archive(segment_blocks=8), 8
    stored: list[int] = []

    def sending(key: str) -> None:
        stored.append(len(archive.s3.objects.pop(stored_key, b"")) if (stored_key := last_key(archive)) else 0)
        # One that is sent, and the one before it, as long as the next is made.
        assert sum(isinstance(each, Segment) for each in gc.get_objects()) <= 2
        assert len(archive.sink._waiting) <= MOST_WAITING + THREADS
        until_the_others_have_to_wait()

    archive.sending = sending
    tracemalloc.start()
    try:
        moved = archive.moves(NoiseSource(slow))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert moved.done
    assert sum(stored) > 300 * BLOCK_SIZE
    # In hand of each thread a block and its frame; those that wait; one segment that is sent, once more as the request
    # and what is stored of it here, and one that is made.
    frames = 2 * THREADS + MOST_WAITING + THREADS + 4 * segment_blocks
    assert peak < frames * BLOCK_SIZE + (2 << 20)


def last_key(archive: Archive) -> str | None:
    return max(archive.s3.objects, default=None)


def test_where_a_range_goes_on_a_segment_that_is_not_full_is_left_to_the_next_call() -> None:
    archive = Archive(segment_blocks=2)
    archive.takes(0, 1, 2)
    assert archive.sink.finish(3) == 2
    assert (archive.stored, archive.done) == ([segment_name(0)], [(BlockRange(0, 2), [0, 1])])


def test_a_call_that_filled_no_segment_stores_what_it_has_all_the_same() -> None:
    archive = Archive(segment_blocks=2)
    archive.takes(1)
    assert archive.sink.finish(2) == 2
    assert (archive.stored, archive.done) == ([segment_name(1)], [(BlockRange(0, 2), [1])])


def test_where_a_range_ends_all_of_it_is_stored() -> None:
    archive = Archive(segment_blocks=2)
    archive.takes(0, 1, 2)
    assert archive.sink.finish(WITHIN.stop) == WITHIN.stop
    assert (archive.stored, archive.done) == ([segment_name(0), segment_name(2)], [(WITHIN, [0, 1, 2])])


def test_a_call_that_got_nowhere_keeps_nothing() -> None:
    archive = Archive(segment_blocks=2)
    assert archive.sink.finish(0) == 0
    assert (archive.stored, archive.kept) == ([], [])


def test_of_segments_that_could_not_be_stored_the_first_is_where_the_next_call_begins() -> None:
    archive = Archive(segment_blocks=2)
    stuck = {ADDRESS.key(segment_name(first)) for first in (2, 4)}

    def sending(key: str) -> None:
        if key in stuck:
            raise RuntimeError(f"{key} is not taken")

    archive.sending = sending
    archive.takes(*range(8))
    for first in (2, 4):
        with pytest.raises(RuntimeError, match=segment_name(first)):
            archive.sink.reached(8)
    # What comes behind them is sent, as nobody is at it any more, and does not count.
    assert archive.sink.finish(8) == 2
    assert (archive.stored, archive.done) == ([segment_name(0), segment_name(6)], [(BlockRange(0, 2), [0, 1])])


def test_of_what_the_base_has_only_what_differs_is_stored_and_what_is_not_given_as_removed() -> None:
    base = {
        index: Located(0, Entry(index, Kind.DATA, 0, 1, digest_of(content(seed))))
        for index, seed in {1: 2, 4: 9, 6: 7}.items()
    }
    archive = Archive(segment_blocks=64, base=base)
    archive.takes(0, 1, 4, 8)
    archive.sink.finish(WITHIN.stop)
    ((index, _),) = archive.kept
    assert [(entry.block, entry.kind) for entry in index.entries] == [
        (0, Kind.DATA),
        (4, Kind.DATA),
        (6, Kind.REMOVED),
        (8, Kind.DATA),
    ]


def test_nothing_is_compressed_that_is_not_stored() -> None:
    archive = Archive(segment_blocks=64, base={1: Located(0, Entry(1, Kind.DATA, 0, 1, digest_of(content(2))))})
    archive.takes(1)
    archive.sink.write(Block(2, content(0), digest_of(content(0))))
    archive.sink.write(Block(3, b"", b"", removed=True))
    assert {index: kept[:2] for index, kept in archive.sink._waiting.items()} == {
        1: (Kind.DATA, b""),
        2: (Kind.ZEROS, b""),
        3: (Kind.REMOVED, b""),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_a_segment_are_read_and_read_again_as_one_file(seed: int) -> None:
    chance = random.Random(seed)
    parts = [chance.randbytes(chance.randrange(1, 9)) for _ in range(6)]
    body, model = Pieces(parts), io.BytesIO(b"".join(parts))
    assert len(body) == len(model.getvalue())
    assert body.readable()
    assert body.seekable()
    assert body.read() == model.read()
    for _ in range(200):
        if chance.random() < 0.5:
            whence = chance.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
            offset = chance.randrange(0, 40) if whence == io.SEEK_SET else chance.randrange(-10, 3)
            place = min(len(body), model.seek(max(offset, -model.tell()) if whence == io.SEEK_CUR else offset, whence))
            model.seek(place)
            assert body.seek(offset, whence) == place
        else:
            size = chance.choice([None, -1, -2, 0, 1, 3, 8, 100])
            assert body.read(size) == model.read(size)
        assert body.tell() == model.tell()
