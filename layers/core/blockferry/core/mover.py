"""The loop of every transfer: for each block in a range, read it, give it to all sinks at once, and keep its digest.

Threads share one lazy list of blocks. Each holds one block at a time until every sink has it, so memory is threads x
512 KiB plus one list page plus 36 bytes per block of the range, whatever the size of the volume and the number of
sinks. The slowest sink sets the pace, not the sum of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST
from blockferry.core.errors import OutOfTime
from blockferry.core.holes import HolePolicy, with_holes
from blockferry.core.pacing import Pace
from blockferry.core.ports import Block, BlockRef, BlockSink, BlockSource
from blockferry.core.retry import Deadline


@dataclass(frozen=True)
class Moved:
    """What happened to a range: every block of ``range.first <= index < next_index`` is stored in every sink that is
    not in ``failed_sinks`` (position in the sinks, and its first error).

    ``digests`` holds ``(index, raw SHA-256)`` of the blocks that the source holds there (with ``zero_fill``: of
    every index), ascending, without those that are ``unchanged``; ``next_index`` is ``range.stop`` when the range is
    done, else where to go on.
    """

    range: BlockRange
    next_index: int
    digests: tuple[tuple[int, bytes], ...]
    blocks_read: int
    blocks_written: int
    failed_sinks: Mapping[int, Exception]

    @property
    def done(self) -> bool:
        return self.next_index >= self.range.stop


def move(
    within: BlockRange,
    source: BlockSource,
    sinks: Sequence[BlockSink],
    *,
    holes: HolePolicy,
    threads: int,
    deadline: Deadline,
    pace: Pace | None = None,
    writers: int = 0,
    spare_others: bool = False,
    ahead: int | None = None,
) -> Moved:
    """Carry the blocks of ``within`` from the source to every sink, ``threads`` blocks at a time.

    With several sinks up to ``writers`` requests to them are under way beside those of the threads; with none a block
    is given to one sink after the other.

    Stops cleanly when the deadline passes. The first error of a source or sink stops the loop and is raised after
    the blocks in flight have ended; nothing is reported as moved then, and moving the range again is harmless.
    With ``spare_others`` a sink that fails is left out from there on and reported, so that one of many does not
    spoil the rest. When none is left the loop ends: nothing is moved, and ``failed_sinks`` has them all.

    With ``ahead`` no more blocks than that are given before one that is still missing: a sink that packs them in their
    order has to keep them. Without it one slow block holds up nothing.
    """
    spare = len(sinks) if spare_others else 0
    work = _Work(within, source, holes=holes, deadline=deadline, spare=spare, ahead=ahead)

    def run() -> None:
        while (item := work.take()) is not None:
            index, ref = item
            try:
                if pace is not None:
                    pace.take()
                removed = ref is not None and ref.removed
                held = None if removed else ref
                block = (
                    source.read(held) if held is not None else Block(index, ZERO_BLOCK, ZERO_DIGEST, removed=removed)
                )
                if block.unchanged:
                    _tell(work, sinks, work.unchanged(index))
                    continue
                written = holes.writes(block.digest)
                if written:
                    _write(work, sinks, block, pool)
                below = work.finished(index, block.digest, read=held is not None, written=written)
                _tell(work, sinks, below)
            except OutOfTime:
                work.unfinished(index)
            except BaseException as error:
                work.fail(error)

    beside = min(writers, threads * (len(sinks) - 1))
    with ThreadPoolExecutor(beside, thread_name_prefix="writer") if beside > 0 else nullcontext() as pool:
        if threads == 1:
            run()
        else:
            movers = [threading.Thread(target=run, name=f"mover-{n}", daemon=True) for n in range(threads)]
            try:
                for thread in movers:
                    thread.start()
                for thread in movers:
                    thread.join()
            except Exception as error:
                # A thread could not be started. Whoever is told so clears away the sinks, behind the others.
                work.fail(error)
                for thread in movers:
                    if thread.is_alive():
                        thread.join()
                raise
            except BaseException as interrupt:
                # Whoever is interrupted clears away the sinks: nothing more may be written to them.
                work.fail(interrupt)
                raise
    return work.outcome(sinks)


def _write(work: _Work, sinks: Sequence[BlockSink], block: Block, pool: ThreadPoolExecutor | None) -> None:
    """Give the block to every sink that takes blocks; returns or raises when none is writing any more."""
    numbers = [number for number in range(len(sinks)) if number not in work.failed_sinks]
    if pool is None:
        for number in numbers:
            _write_one(work, number, sinks[number], block)
        return
    under_way = [pool.submit(_write_one, work, number, sinks[number], block) for number in numbers[1:]]
    try:
        for number in numbers[:1]:
            _write_one(work, number, sinks[number], block)
    finally:
        wait(under_way)
    for each in under_way:
        each.result()


def _write_one(work: _Work, number: int, sink: BlockSink, block: Block) -> None:
    _one(work, number, lambda: sink.write(block))


def _one(work: _Work, number: int, give: Callable[[], None]) -> None:
    """Give a sink something. Raises what it raises, unless it may fail alone."""
    try:
        give()
    except OutOfTime:
        raise
    except Exception as error:
        if not work.spares_others:
            raise
        work.sink_failed(number, error)


def _tell(work: _Work, sinks: Sequence[BlockSink], below: int | None) -> None:
    """Tell every sink that takes blocks how far all were given, when that is farther than before."""
    if below is None:
        return
    for number in [number for number in range(len(sinks)) if number not in work.failed_sinks]:
        _one(work, number, partial(sinks[number].reached, below))


class _Work:
    """The blocks still to move, handed out one by one, and what became of those handed out."""

    def __init__(
        self,
        within: BlockRange,
        source: BlockSource,
        *,
        holes: HolePolicy,
        deadline: Deadline,
        spare: int,
        ahead: int | None,
    ) -> None:
        self._spare = spare
        self._ahead = ahead
        self._early: set[int] = set()
        self.failed_sinks: dict[int, Exception] = {}
        self._within = within
        self._deadline = deadline
        self._turn = threading.Condition()
        refs = source.blocks(within)
        self._items: Iterator[tuple[int, BlockRef | None]] = (
            with_holes(refs, within) if holes is HolePolicy.ZERO_FILL else ((ref.index, ref) for ref in refs)
        )
        self._next = within.first
        self._stopped = False
        self._error: BaseException | None = None
        self._left: list[int] = []
        self._in_flight: set[int] = set()
        self._told = within.first
        self._digests: list[tuple[int, bytes]] = []
        self._read = 0
        self._written = 0

    def take(self) -> tuple[int, BlockRef | None] | None:
        """The next block to move; ``None`` at the end, after an error, or when time is up."""
        with self._turn:
            # Another one is under way then, which ends, or stops the work.
            self._turn.wait_for(lambda: self._ended or self._ahead is None or len(self._early) < self._ahead)
            if self._ended:
                return None
            if self._deadline.passed():
                return None
            try:
                item = next(self._items, None)
            except OutOfTime:
                self._stopped = True
                self._turn.notify_all()
                return None
            except BaseException as error:
                self._error = error
                self._turn.notify_all()
                return None
            if item is None:
                self._next = self._within.stop
                return None
            self._next = item[0] + 1
            self._in_flight.add(item[0])
            return item

    @property
    def _ended(self) -> bool:
        return self._stopped or self._error is not None

    def finished(self, index: int, digest: bytes, *, read: bool, written: bool) -> int | None:
        """Note a block that every sink was given; returns the index below which all were, if that has moved on."""
        with self._turn:
            self._digests.append((index, digest))
            self._read += read
            self._written += written
            return self._given(index)

    def unchanged(self, index: int) -> int | None:
        """Note a block that is not to be written; returns the same as ``finished``."""
        with self._turn:
            self._read += 1
            return self._given(index)

    def _given(self, index: int) -> int | None:
        # One that was left unfinished stays in flight: nothing behind it is ever told.
        self._in_flight.discard(index)
        below = min(self._in_flight, default=self._next)
        if self._ahead is not None:
            self._early = {given for given in (*self._early, index) if given > below}
            self._turn.notify_all()
        if below <= self._told:
            return None
        self._told = below
        return below

    def unfinished(self, index: int) -> None:
        with self._turn:
            self._stopped = True
            self._left.append(index)
            self._turn.notify_all()

    @property
    def spares_others(self) -> bool:
        """Whether a sink may fail alone."""
        return self._spare > 0

    def sink_failed(self, number: int, error: Exception) -> None:
        with self._turn:
            self.failed_sinks.setdefault(number, error)
            if len(self.failed_sinks) == self._spare:
                self._stopped = True
                self._turn.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._turn:
            # The first error is the cause; what follows is mostly its echo in the other threads.
            self._error = self._error or error
            self._turn.notify_all()

    def outcome(self, sinks: Sequence[BlockSink]) -> Moved:
        if self._error is not None:
            raise self._error
        reached = min([self._next, *self._left])
        next_index = min([reached, *self._stored(sinks, reached)])
        digests = tuple(sorted(entry for entry in self._digests if entry[0] < next_index))
        return Moved(self._within, next_index, digests, self._read, self._written, self.failed_sinks)

    def _stored(self, sinks: Sequence[BlockSink], reached: int) -> list[int]:
        """How far each sink that takes blocks has stored them."""
        stored = []
        for number, sink in enumerate(sinks):
            if number in self.failed_sinks:
                continue
            try:
                stored.append(max(self._within.first, sink.finish(reached)))
            except OutOfTime:
                stored.append(self._within.first)
            except Exception as error:
                if not self.spares_others:
                    raise
                self.sink_failed(number, error)
        return stored
