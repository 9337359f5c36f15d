"""The index of a range: what an archive holds of each block, and in which segment.

Layout: one line of JSON (UTF-8, ends with ``\\n``), then 48 bytes for each entry, ascending by block. An entry is the
block's index (unsigned 32 bits), its kind (one byte: 0 data, 1 zeros, 2 removed), three bytes of zero, the offset and
the length of its frame within its segment (32 bits each; zero where there is no frame), and the SHA-256 of the block
as it reads (32 bytes). Numbers are big-endian. The line holds ``format``, ``archive_id``, ``first`` and ``stop`` (the
range), ``entries`` (how many follow) and ``segments``, ascending, each ``[first block, stored bytes, SHA-256 (hex)]``;
a segment holds the entries from its first block up to the next segment's.
"""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.errors import ArchiveDamaged

FORMAT = "blockferry-index-1"
SEGMENT_FORMAT = "blockferry-segment-1"

ENTRY = struct.Struct(">IB3sII32s")

_PADDING = bytes(3)

MAX_FRAME = BLOCK_SIZE + 1_024
"""Bytes of a frame at most: zstd adds some 20 to what it cannot compress."""

MAX_SEGMENT_BLOCKS = 64
"""Blocks with data in a segment: 32 MiB before compression."""

MAX_SEGMENT_ENTRIES = 4_096
"""Entries of a segment, those of zeros and of removed blocks included, which are no data."""

MAX_SEGMENT_BYTES = MAX_SEGMENT_BLOCKS * MAX_FRAME + MAX_SEGMENT_ENTRIES * ENTRY.size + 65_536

_HEX = re.compile(r"[0-9a-f]{64}")

_LONGEST_LINE = 16 << 20


class Kind(IntEnum):
    """What an archive says of a block."""

    DATA = 0
    ZEROS = 1
    """Allocated, and all zeros: no frame is stored."""
    REMOVED = 2
    """Held by the base and by the snapshot no more."""


class Entry(NamedTuple):
    """What an archive has of the block with this index; ``offset`` and ``length`` are of its frame in the segment."""

    block: int
    kind: Kind
    offset: int
    length: int
    digest: bytes


class SegmentFacts(NamedTuple):
    """A stored segment: its first block, its length in bytes, and its SHA-256 (hex)."""

    first: int
    stored_bytes: int
    sha256: str


@dataclass(frozen=True)
class RangeIndex:
    """The entries of a range and the segments that they are in."""

    archive_id: str
    range: BlockRange
    segments: tuple[SegmentFacts, ...]
    entries: tuple[Entry, ...]

    def segment_of(self, index: int) -> SegmentFacts:
        """The segment that has an entry of this index. Raises ``KeyError`` when none can."""
        place = bisect_right(self.segments, index, key=lambda segment: segment.first)
        if place == 0:
            raise KeyError(index)
        return self.segments[place - 1]

    def entries_of(self, number: int) -> Sequence[Entry]:
        """The entries of a segment, by its position."""
        first = self.segments[number].first
        stop = self.segments[number + 1].first if number + 1 < len(self.segments) else self.range.stop
        left = bisect_right(self.entries, first - 1, key=lambda entry: entry.block)
        right = bisect_right(self.entries, stop - 1, key=lambda entry: entry.block)
        return self.entries[left:right]


def pack(index: RangeIndex) -> bytes:
    """The index object."""
    return _pack(
        {
            "format": FORMAT,
            "archive_id": index.archive_id,
            "first": index.range.first,
            "stop": index.range.stop,
            "entries": len(index.entries),
            "segments": [list(segment) for segment in index.segments],
        },
        index.entries,
    )


def unpack(data: bytes | memoryview, *, name: str) -> RangeIndex:
    """The index in an object. Raises ``ArchiveDamaged`` for anything that ``pack`` does not make, naming the object."""
    line, entries = _unpack(data, FORMAT, name)
    try:
        within = BlockRange(_count(line, "first"), _count(line, "stop"))
        segments = tuple(_segment(each) for each in line["segments"])
        archive_id = line["archive_id"]
        if not isinstance(archive_id, str):
            raise ValueError("archive_id is no text")
        index = RangeIndex(archive_id, within, segments, entries)
        _check(index)
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"index {name} is damaged: {error}") from error
    return index


def joined(parts: Sequence[RangeIndex], within: BlockRange) -> RangeIndex:
    """The index of a range from those of consecutive parts of it. Raises ``ValueError`` where they do not fit."""
    due = within.first
    for part in parts:
        if part.range.first != due:
            raise ValueError(f"the index of blocks {due} to {part.range.first - 1} is missing")
        due = part.range.stop
    if due != within.stop:
        raise ValueError(f"the index ends at block {due} of a range that ends at {within.stop}")
    return RangeIndex(
        parts[0].archive_id,
        within,
        tuple(segment for part in parts for segment in part.segments),
        tuple(entry for part in parts for entry in part.entries),
    )


def pack_in_segment(archive_id: str, entries: Sequence[Entry], facts: dict[str, Any]) -> bytes:
    """The index that a segment has of itself; ``facts`` say what snapshot it is of, for whom the manifest is lost."""
    line = {
        "format": SEGMENT_FORMAT,
        "archive_id": archive_id,
        "first": entries[0].block,
        "stop": entries[-1].block + 1,
        "entries": len(entries),
        "facts": facts,
    }
    return _pack(line, entries)


def unpack_in_segment(data: bytes | memoryview, *, name: str) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """The line and the entries that a segment has of itself. Raises ``ArchiveDamaged``."""
    line, entries = _unpack(data, SEGMENT_FORMAT, name)
    try:
        within = BlockRange(_count(line, "first"), _count(line, "stop"))
        _check_entries(entries, within)
        if not entries:
            raise ValueError("it has no entry")
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"segment {name} is damaged: its index: {error}") from error
    return line, entries


def _pack(line: dict[str, Any], entries: Sequence[Entry]) -> bytes:
    head = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join([head, b"\n", *(ENTRY.pack(block, kind, _PADDING, *where) for block, kind, *where in entries)])


def _unpack(data: bytes | memoryview, form: str, name: str) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    raw = memoryview(data)
    head, newline, _ = bytes(raw[:_LONGEST_LINE]).partition(b"\n")
    try:
        line = json.loads(head) if newline else None
        if not isinstance(line, dict):
            raise ValueError("it does not begin with a line of JSON")
        if line.get("format") != form:
            raise ValueError(f"its format is {line.get('format')!r}, this version of Blockferry reads {form!r}")
        records = raw[len(head) + 1 :]
        if len(records) != _count(line, "entries") * ENTRY.size:
            raise ValueError(f"{len(records)} bytes of entries, {line['entries']} entries have {ENTRY.size} each")
        # Of bytes: CPython 3.11 crashes when the collector meets an unfinished iter_unpack over a memoryview.
        entries = tuple(_entry(*record) for record in ENTRY.iter_unpack(bytes(records)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveDamaged(f"index {name} is damaged: {error}") from error
    return line, entries


_KINDS = {kind.value: kind for kind in Kind}


def _entry(block: int, kind: int, padding: bytes, offset: int, length: int, digest: bytes) -> Entry:
    if padding != _PADDING or kind not in _KINDS:
        raise ValueError(f"the entry of block {block} has the kind {kind} {padding.hex()}")
    return Entry(block, _KINDS[kind], offset, length, digest)


def _count(line: dict[str, Any], name: str) -> int:
    value = line[name]
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError(f"{name} is {value!r:.40}")
    return value


def _segment(each: Any) -> SegmentFacts:
    first, stored_bytes, sha256 = each
    if not (type(first) is int and type(stored_bytes) is int and isinstance(sha256, str) and _HEX.fullmatch(sha256)):
        raise ValueError(f"a segment is {each!r:.120}")
    if not 0 < stored_bytes <= MAX_SEGMENT_BYTES:
        raise ValueError(f"the segment of block {first} is said to have {stored_bytes} bytes")
    return SegmentFacts(first, stored_bytes, sha256)


def _check(index: RangeIndex) -> None:
    _check_entries(index.entries, index.range)
    last = -1
    for segment in index.segments:
        if not max(last, index.range.first - 1) < segment.first < index.range.stop:
            raise ValueError(f"the segment of block {segment.first} is out of order or range")
        last = segment.first
    if bool(index.entries) != bool(index.segments):
        raise ValueError(f"{len(index.entries)} entries in {len(index.segments)} segments")
    if index.entries and index.entries[0].block != index.segments[0].first:
        raise ValueError(f"block {index.entries[0].block} is before the first segment")
    for number, segment in enumerate(index.segments):
        own = index.entries_of(number)
        if not own or own[0].block != segment.first:
            raise ValueError(f"the segment of block {segment.first} does not begin with it")
        _check_frames(own, segment)


def _check_frames(entries: Sequence[Entry], segment: SegmentFacts) -> None:
    end = 0
    for entry in entries:
        if entry.kind is Kind.DATA:
            if entry.offset != end:
                raise ValueError(f"the frame of block {entry.block} is at {entry.offset}, the one before ends at {end}")
            end += entry.length
    if end >= segment.stored_bytes:
        raise ValueError(f"the frames of the segment of block {segment.first} end behind its end")


def _check_entries(entries: Sequence[Entry], within: BlockRange) -> None:
    last = within.first - 1
    for entry in entries:
        if not last < entry.block < within.stop:
            raise ValueError(f"block {entry.block} is out of order or range")
        last = entry.block
        if entry.kind is Kind.DATA:
            if not 0 < entry.length <= MAX_FRAME:
                raise ValueError(f"the frame of block {entry.block} is said to have {entry.length} bytes")
        elif entry.length or entry.offset or entry.digest != ZERO_DIGEST:
            raise ValueError(f"block {entry.block} has no data, but says where it is")
