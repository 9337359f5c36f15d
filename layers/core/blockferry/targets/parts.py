"""An object in S3 as a sink of blocks: puts them into the parts of an upload, holes as zeros."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import IO, cast

from blockferry.aws.pieces import Pieces
from blockferry.aws.uploads import SentPart, UploadBucket
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST
from blockferry.core.errors import OutOfTime, TargetFailed
from blockferry.core.ports import Block
from blockferry.core.retry import Deadline
from blockferry.jobs.object_parts import PartNote
from blockferry.targets.segments import MOST_WAITING

Keep = Callable[[BlockRange, Sequence[PartNote]], None]
"""Keeps what a call has sent of a range."""


@dataclass(frozen=True)
class Place:
    """The upload that parts are sent to. Part ``n`` has the blocks from ``(n - 1) * part_blocks`` on."""

    bucket: UploadBucket
    key: str
    upload_id: str
    part_blocks: int
    storage_class: str


class PartSink:
    """Sends the blocks of ``within``, which begins and ends where parts do.

    One part is sent at a time, so that memory is bounded by it, if whoever gives blocks is no more than
    ``MOST_WAITING`` ahead of the one that is still missing; holes take none. A part that S3 has with the same content
    is not sent again. When the deadline has passed nothing more is sent, and what is not sent is moved again.
    """

    def __init__(self, place: Place, within: BlockRange, *, keep: Keep, deadline: Deadline) -> None:
        self._place = place
        self._within = within
        self._keep = keep
        self._deadline = deadline
        self._turn = threading.Condition()
        self._reached = self._next = self._sent_to = within.first
        self._sending = self._ended = False
        self._waiting: dict[int, tuple[bytes, bytes]] = {}
        self._part: list[tuple[bytes, bytes]] = []
        self._notes: list[PartNote] = []

    def write(self, block: Block) -> None:
        """Take a block. Raises ``OutOfTime`` once nothing more is sent."""
        # Blocks of zeros are one and the same: a part of them takes no memory.
        data = ZERO_BLOCK if block.digest == ZERO_DIGEST else block.data
        with self._turn:
            self._turn.wait_for(lambda: self._ended or not self._sending or len(self._waiting) < MOST_WAITING)
            if self._ended:
                raise OutOfTime(f"block {block.index} is left to the next call: no part is sent any more")
            self._waiting[block.index] = (data, block.digest)

    def reached(self, index: int) -> None:
        """Send the parts that are full of the blocks before it. Raises what ``UploadBucket.send`` raises."""
        with self._turn:
            self._reached = max(self._reached, index)
            if self._sending:
                # Who is at it looks again when its part is sent.
                return
            self._sending = True
        try:
            while (full := self._full()) is not None:
                self._send(full)
        except BaseException:
            with self._turn:
                self._ended = True
                self._done()
            raise

    def finish(self, next_index: int) -> int:
        """Send what is full, and keep what was sent. A part that is not full is moved again as a whole."""
        self.reached(next_index)
        if self._sent_to > self._within.first:
            self._keep(BlockRange(self._within.first, self._sent_to), self._notes)
        return self._sent_to

    def _full(self) -> list[tuple[bytes, bytes]] | None:
        """The blocks of the next part that is full, with their digests."""
        with self._turn:
            if self._deadline.passed():
                self._ended = True
            while not self._ended and self._next < self._reached:
                self._part.append(self._waiting.pop(self._next, (ZERO_BLOCK, ZERO_DIGEST)))
                self._next += 1
                if self._next % self._place.part_blocks == 0 or self._next == self._within.stop:
                    full, self._part = self._part, []
                    return full
            # Before the lock is given back, and not again behind it: what is reached from now on is somebody else's.
            self._done()
        return None

    def _done(self) -> None:
        self._sending = False
        self._turn.notify_all()

    def _send(self, blocks: Sequence[tuple[bytes, bytes]]) -> None:
        place = self._place
        sha256, content = _zeros(len(blocks)) if all(data is ZERO_BLOCK for data, _ in blocks) else _sums(blocks)
        number = self._sent_to // place.part_blocks + 1
        size = len(blocks) * BLOCK_SIZE
        there = self._there.get(number)
        if there is None or (there.size, there.sha256) != (size, sha256):
            body = cast("IO[bytes]", Pieces([data for data, _ in blocks]))
            sent = place.bucket.send(
                place.key, place.upload_id, number, body, sha256=sha256, storage_class=place.storage_class
            )
            if sent is None:
                raise gone(place.bucket.uri(place.key))
        # One at a time sends, and ``finish`` comes when nobody does.
        self._notes.append(PartNote(number=number, size=size, sha256=sha256, content=content))
        self._sent_to += len(blocks)

    @cached_property
    def _there(self) -> Mapping[int, SentPart]:
        """The parts of the range that a call has sent of which nobody heard any more."""
        place = self._place
        first = self._within.first // place.part_blocks + 1
        most = -(-len(self._within) // place.part_blocks)
        found = place.bucket.sent(place.key, place.upload_id, first=first, most=most)
        if found is None:
            raise gone(place.bucket.uri(place.key))
        return {each.number: each for each in found}


def _sums(blocks: Sequence[tuple[bytes, bytes]]) -> tuple[str, str]:
    """The SHA-256 of the bytes of blocks (base64), and over their digests (hex)."""
    bytes_of, digests = hashlib.sha256(), hashlib.sha256()
    for data, digest in blocks:
        bytes_of.update(data)
        digests.update(digest)
    return base64.b64encode(bytes_of.digest()).decode(), digests.hexdigest()


@cache
def _zeros(blocks: int) -> tuple[str, str]:
    """The same of so many holes: most of many a volume is nothing else."""
    return _sums([(ZERO_BLOCK, ZERO_DIGEST)] * blocks)


def gone(uri: str) -> TargetFailed:
    """The error of an object whose upload is no more."""
    return TargetFailed(f"the upload of {uri} was aborted by somebody else, with all its parts; start a new job")
