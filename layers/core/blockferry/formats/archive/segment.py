"""Segments: one zstd frame for each block with data, and a skippable frame with the segment's own index.

``zstd -d`` gives the blocks one after another, since it passes over skippable frames; one block is one frame, which a
ranged GET fetches (RFC 8878, sections 3.1.1 and 3.1.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import zstandard

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import ZERO_DIGEST, digest_of
from blockferry.core.errors import ArchiveDamaged
from blockferry.formats.archive.index import (
    MAX_SEGMENT_BLOCKS,
    MAX_SEGMENT_ENTRIES,
    Entry,
    Kind,
    SegmentFacts,
    pack_in_segment,
    unpack_in_segment,
)

SKIPPABLE = bytes.fromhex("5b2a4d18")
"""The magic number of the skippable frame of the index (0x184D2A5B, little-endian)."""

MIN_LEVEL, MAX_LEVEL, DEFAULT_LEVEL = 1, 19, 3
"""Levels of zstd; those above 19 take windows that a worker has no memory for."""


COMPRESSORS = 2
"""Blocks that are compressed at a time: a worker has one vCPU, and each compressor takes some MiB."""


class Compressor:
    """Compresses blocks to frames, for as many threads as ask."""

    def __init__(self, level: int) -> None:
        self._free: SimpleQueue[zstandard.ZstdCompressor] = SimpleQueue()
        for _ in range(COMPRESSORS):
            self._free.put(zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True))

    def frame(self, data: bytes) -> bytes:
        """The frame of a block: with its length, and with zstd's own checksum, so that ``zstd -d`` notices damage."""
        compressor = self._free.get()
        try:
            # A copy: what the library returns lies in a buffer for the worst case, whose rest would stay in use.
            return bytes(memoryview(compressor.compress(data)))
        finally:
            self._free.put(compressor)


def expand(frame: bytes | memoryview, entry: Entry, *, name: str) -> bytes:
    """The block in a frame, whose SHA-256 is checked. Never makes more than a block of it.

    Raises ``ArchiveDamaged``, naming the segment and the block.
    """
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != BLOCK_SIZE or parameters.dict_id:
            raise ValueError(f"its frame says that it holds {parameters.content_size} bytes")
        data = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        if len(data) != BLOCK_SIZE:
            raise ValueError(f"its frame holds {len(data)} bytes")
    except (zstandard.ZstdError, ValueError) as error:
        raise ArchiveDamaged(f"segment {name} is damaged at block {entry.block}: {error}") from error
    if digest_of(data) != entry.digest:
        raise ArchiveDamaged(
            f"segment {name} is damaged at block {entry.block}: the block does not have the SHA-256 of the index"
        )
    return data


@dataclass(frozen=True)
class Segment:
    """A segment to be stored: its parts one after another, and what the index says of it."""

    facts: SegmentFacts
    entries: tuple[Entry, ...]
    parts: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class SegmentBuilder:
    """Puts blocks, which come in ascending order, into segments of up to ``blocks`` with data.

    The same blocks give the same segments: what a second run of a worker stores replaces the same bytes.
    """

    def __init__(self, archive_id: str, facts: dict[str, Any], *, blocks: int = MAX_SEGMENT_BLOCKS) -> None:
        self._archive_id = archive_id
        self._facts = facts
        self._blocks = blocks
        self._begin()

    def _begin(self) -> None:
        self._entries: list[Entry] = []
        self._frames: list[bytes] = []
        self._length = 0
        self._sha256 = hashlib.sha256()

    @property
    def first(self) -> int | None:
        """The first block of the segment that is not full yet; ``None`` when there is none in it."""
        return self._entries[0].block if self._entries else None

    def add(self, index: int, kind: Kind, frame: bytes, digest: bytes) -> Segment | None:
        """Take the next block; returns the segment when it is full with it."""
        if kind is Kind.DATA:
            self._entries.append(Entry(index, kind, self._length, len(frame), digest))
            self._frames.append(frame)
            self._length += len(frame)
            self._sha256.update(frame)
        else:
            self._entries.append(Entry(index, kind, 0, 0, ZERO_DIGEST))
        if len(self._frames) < self._blocks and len(self._entries) < MAX_SEGMENT_ENTRIES:
            return None
        return self.close()

    def close(self) -> Segment | None:
        """The segment of what was taken since the last one, if there was anything."""
        if not self._entries:
            return None
        own = pack_in_segment(self._archive_id, self._entries, self._facts)
        skippable = SKIPPABLE + len(own).to_bytes(4, "little") + own
        self._sha256.update(skippable)
        facts = SegmentFacts(self._entries[0].block, self._length + len(skippable), self._sha256.hexdigest())
        segment = Segment(facts, tuple(self._entries), (*self._frames, skippable))
        self._begin()
        return segment


def check(data: bytes | memoryview, facts: SegmentFacts, entries: Sequence[Entry], *, name: str) -> None:
    """Hold a whole segment against the index of its range: length, SHA-256, its own index, and every block.

    Raises ``ArchiveDamaged``, naming the segment.
    """
    check_stored(data, facts, name=name)
    end = sum(entry.length for entry in entries)
    tail = memoryview(data)[end:]
    if bytes(tail[:4]) != SKIPPABLE or int.from_bytes(tail[4:8], "little") != len(tail) - 8:
        raise ArchiveDamaged(f"segment {name} is damaged: no index of its own ends it")
    if unpack_in_segment(tail[8:], name=name)[1] != tuple(entries):
        raise ArchiveDamaged(f"segment {name} is damaged: its own index is not that of its range")
    view = memoryview(data)
    for entry in entries:
        if entry.kind is Kind.DATA:
            expand(view[entry.offset : entry.offset + entry.length], entry, name=name)


def check_stored(data: bytes | memoryview, facts: SegmentFacts, *, name: str) -> None:
    """Hold the bytes of a segment against the length and the SHA-256 of the index. Raises ``ArchiveDamaged``."""
    if len(data) != facts.stored_bytes:
        raise ArchiveDamaged(f"segment {name} is damaged: it has {len(data)} bytes instead of {facts.stored_bytes}")
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise ArchiveDamaged(f"segment {name} is damaged: its SHA-256 is not that of the index")


def own_index(data: bytes, *, name: str) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """The line and the entries that a whole segment has of itself, found without any other object.

    Raises ``ArchiveDamaged`` when there is none.
    """
    # Frames tell their own ends; the index is the first frame that is skippable.
    offset = 0
    while offset < len(data) and data[offset : offset + 4] != SKIPPABLE:
        offset += _frame_bytes(data, offset, name)
    length = int.from_bytes(data[offset + 4 : offset + 8], "little")
    if not data[offset : offset + 4] or offset + 8 + length != len(data):
        raise ArchiveDamaged(f"segment {name} is damaged: no index of its own ends it")
    return unpack_in_segment(data[offset + 8 :], name=name)


def _frame_bytes(data: bytes, offset: int, name: str) -> int:
    """Bytes of the frame at ``offset``, by the headers of its blocks (RFC 8878, 3.1.1.2)."""
    try:
        header = zstandard.frame_header_size(data[offset : offset + 18])
        checksum = 4 if zstandard.get_frame_parameters(data[offset : offset + 18]).has_checksum else 0
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"segment {name} is damaged at byte {offset}: {error}") from error
    place, last = offset + header, False
    while not last:
        if place + 3 > len(data):
            raise ArchiveDamaged(f"segment {name} is damaged: it ends within a frame, at byte {len(data)}")
        bits = int.from_bytes(data[place : place + 3], "little")
        last, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
        place += 3 + (1 if kind == 1 else size)
    return place + checksum - offset
