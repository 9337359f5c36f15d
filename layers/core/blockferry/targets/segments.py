"""An archive as a sink of blocks: packs them into segments, stores each when it is full, and keeps what it stored."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

from blockferry.aws.archives import Located
from blockferry.aws.objects import Bucket
from blockferry.aws.pieces import Pieces
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.ports import Block
from blockferry.formats.archive.index import Entry, Kind, RangeIndex, SegmentFacts
from blockferry.formats.archive.layout import ArchiveAddress, segment_name
from blockferry.formats.archive.segment import Compressor, Segment, SegmentBuilder

Keep = Callable[[RangeIndex, Mapping[int, str]], None]
"""Keeps the index of what was stored, and the ETag of each segment by its first block."""


MOST_WAITING = 16
"""Blocks that wait while a segment is sent, or for one before them: a quarter of a segment, 8 MiB at most."""


class SegmentSink:
    """Stores the blocks of ``within`` in segments, which begin and end at the same blocks whatever interrupts the work.

    What ``base`` holds with the same content is not stored again, and what of it the source does not give is stored as
    removed; without a base, the source says what is removed. ``keep`` gets the index of what a call has stored. One
    segment is sent at a time, and little more is compressed meanwhile, so that memory stays bounded, if whoever gives
    blocks is no more than ``MOST_WAITING`` ahead of the one that is still missing.
    """

    def __init__(
        self,
        bucket: Bucket,
        address: ArchiveAddress,
        within: BlockRange,
        *,
        keep: Keep,
        level: int,
        segment_blocks: int,
        facts: dict[str, Any],
        put: Mapping[str, Any],
        base: Mapping[int, Located] | None = None,
    ) -> None:
        self._bucket = bucket
        self._address = address
        self._within = within
        self._keep = keep
        self._put = put
        self._base = base
        self._base_left = sorted(base or (), reverse=True)
        self._compressor = Compressor(level)
        self._builder = SegmentBuilder(address.archive_id, facts, blocks=segment_blocks)
        self._turn = threading.Condition()
        self._reached = within.first
        self._sending = False
        self._waiting: dict[int, tuple[Kind, bytes, bytes]] = {}
        self._stored: dict[int, tuple[SegmentFacts, tuple[Entry, ...]]] = {}
        self._etags: dict[int, str] = {}
        self._unsent: int | None = None

    def write(self, block: Block) -> None:
        """Compress a block; it is stored with its neighbours."""
        if block.removed:
            kept = (Kind.REMOVED, b"", ZERO_DIGEST)
        elif block.digest == ZERO_DIGEST:
            kept = (Kind.ZEROS, b"", ZERO_DIGEST)
        elif self._held(block):
            kept = (Kind.DATA, b"", block.digest)
        else:
            kept = (Kind.DATA, self._compressor.frame(block.data), block.digest)
        with self._turn:
            # Only while a segment is sent, whose end nobody here can hold up: the block that all wait for may be this.
            self._turn.wait_for(lambda: not self._sending or len(self._waiting) < MOST_WAITING)
            self._waiting[block.index] = kept

    def _held(self, block: Block) -> bool:
        located = None if self._base is None else self._base.get(block.index)
        return located is not None and located.entry.digest == block.digest

    def reached(self, index: int) -> None:
        """Store what is full of the blocks before it. Raises what ``Bucket.put`` raises."""
        with self._turn:
            self._reached = max(self._reached, index)
            if self._sending:
                # Who is at it looks again when its segment is sent.
                return
            self._sending = True
        try:
            while (segment := self._full()) is not None:
                self._send(segment)
        except BaseException:
            with self._turn:
                self._sent()
            raise

    def _sent(self) -> None:
        self._sending = False
        self._turn.notify_all()

    def _full(self) -> Segment | None:
        """The next full segment of what was reached."""
        with self._turn:
            while (index := self._due()) is not None:
                segment = self._add(index)
                if segment is not None:
                    return segment
            # Before the lock is given back, and not again behind it: what is reached from now on is somebody else's.
            self._sent()
        return None

    def _due(self) -> int | None:
        """The next block that belongs into a segment, of the source or of the base."""
        index = min([*self._waiting, *self._base_left[-1:]], default=self._reached)
        return index if index < self._reached else None

    def _add(self, index: int) -> Segment | None:
        in_base = bool(self._base_left) and self._base_left[-1] == index
        if in_base:
            self._base_left.pop()
        kept = self._waiting.pop(index, None)
        if kept is None:
            return self._builder.add(index, Kind.REMOVED, b"", ZERO_DIGEST)
        kind, frame, digest = kept
        if self._base is not None and in_base and self._base[index].entry.digest == digest:
            return None
        return self._builder.add(index, kind, frame, digest)

    def _send(self, segment: Segment) -> None:
        facts = segment.facts
        try:
            etag = self._bucket.put(
                self._address.key(segment_name(facts.first)),
                cast("IO[bytes]", Pieces(segment.parts)),
                sha256=base64.b64encode(bytes.fromhex(facts.sha256)).decode(),
                **self._put,
            )
        except BaseException:
            self._unsent = facts.first if self._unsent is None else self._unsent
            raise
        # One at a time sends, and ``finish`` comes when nobody does.
        # Without the frames, of which a range has more than there is memory.
        self._stored[facts.first] = (facts, segment.entries)
        self._etags[facts.first] = str(etag)

    def finish(self, next_index: int) -> int:
        """Store what is left of a range that ends here, and keep the index of all that was stored.

        Where the range goes on, a segment that is not full is left to the next call, unless nothing else was stored.
        Raises what ``Bucket.put`` raises.
        """
        self.reached(next_index)
        ends = next_index >= self._within.stop
        if ends or not self._stored:
            last = self._builder.close()
            if last is not None:
                self._send(last)
        open_at = self._builder.first
        stored_to = min(each for each in (next_index, open_at, self._unsent) if each is not None)
        if stored_to > self._within.first:
            self._keep(*self._index(BlockRange(self._within.first, stored_to)))
        return stored_to

    def _index(self, done: BlockRange) -> tuple[RangeIndex, Mapping[int, str]]:
        stored = [kept for first, kept in sorted(self._stored.items()) if first < done.stop]
        entries = tuple(entry for _, some in stored for entry in some)
        facts = tuple(each for each, _ in stored)
        etags = {each.first: self._etags[each.first] for each in facts}
        return RangeIndex(self._address.archive_id, done, facts, entries), etags
