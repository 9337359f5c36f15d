"""Ranges that are written several at a time: which error is told, and when nothing is written any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.archives import Chain
from blockferry.aws.call import Call
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.ports import Block, BlockRef
from blockferry.jobs.archived import Note
from blockferry.jobs.record import Sealing
from blockferry.local.claimed import Claimed
from blockferry.local.interrupts import Interrupts
from blockferry.local.lanes import Lanes, Stored
from blockferry.local.tuning import ArchiveTuning
from fakes import ManualClock
from job_records import archive

LENGTH = 8
"""Blocks of a range."""


class Zeros:
    """An image of zeros; ``lists`` says which blocks each look at a range gives."""

    def __init__(self) -> None:
        self.lists: Callable[[BlockRange], range] = lambda within: range(within.first, within.stop)

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        return iter([BlockRef(index) for index in self.lists(within)])

    def read(self, ref: BlockRef) -> Block:
        return Block(ref.index, ZERO_BLOCK, ZERO_DIGEST)


class Archive:
    """An archive of two ranges. ``write`` is called with the index of each block that is written."""

    total_blocks = 2 * LENGTH
    most_ahead = None
    source = SimpleNamespace(name="disk.img")

    def __init__(self, write: Callable[[int], None]) -> None:
        self.write = write
        self.calls: list[Call] = []

    def chain(self, call: Call) -> Chain:
        return Chain(())

    def segments(self, call: Call, within: BlockRange, *, keep: Any, chain: Chain) -> Any:
        self.calls.append(call)
        return SimpleNamespace(
            write=lambda block: self.write(block.index), reached=lambda _index: None, finish=lambda index: index
        )

    def held(
        self, call: Call, parts: Any, within: BlockRange, entries: Any, allocated: int, *, chain: Chain
    ) -> tuple[Note, bytes]:
        assert len(entries) == allocated
        return Note(first=within.first, stop=within.stop), b""


def lanes(source: Zeros, *, most: int = 2) -> Lanes:
    call = Call(aws=cast(Any, None), clock=ManualClock())
    return Lanes(source, call, ArchiveTuning(lanes=most, threads=1), Interrupts())


def stored(of: Lanes, target: Archive) -> list[Stored]:
    return list(of.stored(cast(Any, target), LENGTH))


def still_running() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("lane", "mover"))]


def test_ranges_come_in_their_order_whichever_ends_first() -> None:
    second_ends = threading.Event()

    def write(index: int) -> None:
        if index == 0:
            assert second_ends.wait(10)
        if index == 2 * LENGTH - 1:
            second_ends.set()

    running = lanes(Zeros())
    found = stored(running, Archive(write))
    running.stop()
    assert [(each.note.first, each.blocks_read, each.digests) for each in found] == [
        (0, LENGTH, ZERO_DIGEST * LENGTH),
        (LENGTH, LENGTH, ZERO_DIGEST * LENGTH),
    ]
    assert still_running() == []


def test_the_error_of_a_later_range_stops_the_earlier_ones_and_is_the_one_that_is_told() -> None:
    written: list[int] = []
    running = lanes(Zeros())

    def write(index: int) -> None:
        written.append(index)
        if index == 0:
            assert running._stopping.wait(10)
        if index == LENGTH:
            raise IncompleteTransfer("planted")

    with pytest.raises(IncompleteTransfer, match="planted"):
        stored(running, Archive(write))
    running.stop()
    assert sorted(written) == [0, LENGTH]


def test_when_it_is_stopped_what_was_under_way_has_ended_and_nothing_is_tried_again() -> None:
    begun = threading.Event()
    written: list[int] = []
    running = lanes(Zeros(), most=1)

    def write(index: int) -> None:
        begun.set()
        assert running._stopping.wait(10)
        written.append(index)

    target = Archive(write)
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            stored(running, target)
        except BaseException as error:
            errors.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert begun.wait(10)
    (call,) = target.calls
    assert call.deadline is not None
    assert not call.deadline.passed()
    running.stop()
    assert still_running() == []
    assert call.deadline.passed()
    consumer.join(10)
    assert written == [0]
    assert len(errors) == 1


def test_blocks_that_are_data_only_when_they_are_listed_again_are_noticed() -> None:
    looks: list[int] = []
    source = Zeros()

    def lists(within: BlockRange) -> range:
        looks.append(within.first)
        return range(within.first, within.stop - (1 if looks.count(within.first) == 1 else 0))

    source.lists = lists
    running = lanes(source, most=1)
    with pytest.raises(IncompleteTransfer, match=r"has data in 8 blocks between 0 and 8, and 7 were read"):
        stored(running, Archive(lambda _index: None))
    running.stop()


@pytest.mark.parametrize("how", ["clear", "tell"])
def test_an_archive_that_is_finished_is_kept_whatever_comes_then_and_a_claim_that_is_left_is_told_of(how: str) -> None:
    # It can be asked about nothing.
    claimed = Claimed(archive(), Call(aws=cast(Any, None)))
    claimed.save_sealing("archive-1", Sealing(state="accepted", changed_blocks=0, linear_checksum=""))
    error = KeyboardInterrupt()
    (claimed.clear if how == "clear" else claimed.tell)(error)
    (note,) = error.__notes__
    assert note.startswith(
        "archive s3://archives/disks/archive-1/ is finished and kept: s3://archives/disks/archive-1/manifest.json; its "
        "unfinished.json could not be deleted ("
    )
