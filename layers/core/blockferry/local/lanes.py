"""The ranges of an image on this machine, written into an archive, several at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from blockferry.aws.archives import Chain
from blockferry.aws.call import Call
from blockferry.core.blocks import BlockRange, split
from blockferry.core.errors import BlockferryError, IncompleteTransfer
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.core.retry import Clock, Deadline
from blockferry.core.words import counted
from blockferry.jobs.archived import Note, Part
from blockferry.local.interrupts import Interrupts
from blockferry.local.tuning import ArchiveTuning
from blockferry.targets.archive import ArchiveTarget


@dataclass(frozen=True)
class Stored:
    """A range that is in the archive: the ``note`` of it, the raw ``digests`` of all that the image has there, 32 bytes
    each and ascending, and how many blocks were read."""

    note: Note
    digests: bytes
    blocks_read: int


class Lanes:
    """Threads that write ranges of ``source``, each with readers of its own, so that one segment of each is sent at a
    time while the next ones are compressed.

    Whoever has enough of it calls ``stop``: when that returns, nothing is written any more. They end by themselves when
    one of the ``interrupts`` is pending, which is raised then.
    """

    def __init__(self, source: BlockSource, call: Call, tuning: ArchiveTuning, interrupts: Interrupts) -> None:
        self._stopping = threading.Event()
        self._interrupts = interrupts
        self._inside = _Inside()
        self._source = _WhileWanted(source, self._unwanted)
        self._listed = source
        self._call = call.until(Until(self._unwanted, clock=call.clock))
        self._tuning = tuning
        self._pool = ThreadPoolExecutor(tuning.lanes, thread_name_prefix="lane")
        self._first: list[BaseException] = []

    def _unwanted(self) -> bool:
        return self._stopping.is_set() or self._interrupts.pending

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way; harmless when all is done."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        # A signal may have ended submit after a thread was started and before the pool knew of it.
        self._inside.close()

    def stored(self, target: ArchiveTarget, blocks_per_range: int) -> Iterator[Stored]:
        """Write the image into the archive, and give what is stored of each range, in order.

        Raises what reading and storing raise, ``Interrupted``, and ``IncompleteTransfer`` when a range is not all
        there.
        """
        # Once: with ranges of half a GiB, the manifests of a long chain are more than what is stored.
        chain = target.chain(self._call)
        under_way: deque[Future[Stored]] = deque()
        for within in split(target.total_blocks, blocks_per_range):
            self._interrupts.check()
            under_way.append(self._pool.submit(self._range, target, chain, within))
            # Those that are done wait for the ones before them; what they keep is 32 bytes a block.
            if len(under_way) > 2 * self._tuning.lanes:
                yield self._result(under_way.popleft())
        while under_way:
            yield self._result(under_way.popleft())

    def _result(self, future: Future[Stored]) -> Stored:
        if future.exception() is not None:
            self._interrupts.check()
            # That of another range, perhaps, which has stopped this one.
            raise self._first[0]
        return future.result()

    def _range(self, target: ArchiveTarget, chain: Chain, within: BlockRange) -> Stored:
        try:
            with self._inside:
                return self._moved(target, chain, within)
        except _NotWanted:
            raise
        except BaseException as error:
            self._first.append(error)
            self._stopping.set()
            raise

    def _moved(self, target: ArchiveTarget, chain: Chain, within: BlockRange) -> Stored:
        parts: list[Part] = []
        moved = move(
            within,
            self._source,
            [target.segments(self._call, within, keep=parts.append, chain=chain)],
            holes=HolePolicy.PRESERVE,
            threads=self._tuning.threads,
            deadline=Deadline(None, clock=self._call.clock),
            ahead=target.most_ahead,
        )
        # Listed once more: what became data meanwhile, or is no data any more, is noticed where the file tells it.
        listed = [ref.index for ref in self._listed.blocks(within)]
        if not moved.done or listed != [index for index, _ in moved.digests]:
            raise IncompleteTransfer(
                f"{target.source.name} has data in {counted(len(listed), 'block')} between {within.first} and "
                f"{within.stop}, and {len(moved.digests)} were read: begin again while nobody writes to it"
            )
        # Whatever it is built upon, all of the image was read.
        note, _ = target.held(self._call, parts, within, moved.digests, len(listed), chain=chain)
        return Stored(note, b"".join(digest for _, digest in moved.digests), moved.blocks_read)


class _NotWanted(BlockferryError):
    """Nobody wants the blocks of an image any more."""


class _Inside:
    """Where threads write; who finds it closed does not come in."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._number = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._turn:
            if self._closed:
                raise _NotWanted("the archive is not written on")
            self._number += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._number -= 1
            self._turn.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait until all have left."""
        with self._turn:
            self._closed = True
            self._turn.wait_for(lambda: self._number == 0)


class _WhileWanted:
    """The blocks of a source, until they are ``unwanted``."""

    def __init__(self, source: BlockSource, unwanted: Callable[[], bool]) -> None:
        self._source = source
        self._unwanted = unwanted

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        self._refuse()
        return self._source.blocks(within)

    def read(self, ref: BlockRef) -> Block:
        self._refuse()
        return self._source.read(ref)

    def _refuse(self) -> None:
        if self._unwanted():
            raise _NotWanted("the archive is not written on")


class Until(Deadline):
    """No deadline until something is ``unwanted``, and then one that has passed: nothing is tried again."""

    def __init__(self, unwanted: Callable[[], bool], *, clock: Clock) -> None:
        super().__init__(None, clock=clock)
        self._unwanted = unwanted

    def remaining(self) -> float:
        return -1.0 if self._unwanted() else super().remaining()
