"""The objects of an archive as its bucket lists them, held against what is on record of each range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile

from blockferry.aws.objects import Bucket, Stored
from blockferry.core.blocks import BlockRange, split
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.together import ahead
from blockferry.formats.archive.layout import INDEX, SEGMENTS, ArchiveAddress, index_name, segment_name
from blockferry.formats.archive.manifest import IndexFacts
from blockferry.jobs.archived import Note


@dataclass(frozen=True)
class MadeOf:
    """What an archive is made of: the ``counts`` of its manifest but for the blocks of its source, and its indexes."""

    counts: Mapping[str, int]
    indexes: tuple[IndexFacts, ...]


SPAN_SEGMENTS = 8_192
"""Segments, where all blocks are data, that one thread lists one after another: some nine pages, and 3 MiB in memory.
The two million of the largest archive are 2,100 pages, for which one after another takes most of an invocation."""

SPANS_AHEAD = 4
"""Spans that are listed before they are needed."""


class Listing:
    """The objects of an archive of so many blocks, ``segment_blocks`` at most in a segment, as its bucket lists them,
    walked through range by range.

    Used within ``with``: threads list ahead of the walk.
    """

    def __init__(self, address: ArchiveAddress, bucket: Bucket, total_blocks: int, *, segment_blocks: int) -> None:
        self._address = address
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(SPANS_AHEAD, thread_name_prefix="listing")
        self._indexes = bucket.listed(address.key(INDEX))
        spans = split(total_blocks, SPAN_SEGMENTS * segment_blocks)
        self._segments = (each for some in ahead(self._pool, self._span, spans, most=SPANS_AHEAD) for each in some)
        self._next: dict[str, Stored | None] = {}

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _span(self, span: BlockRange) -> list[Stored]:
        """The segments that begin within a span of blocks."""
        prefix = self._address.key(SEGMENTS)
        after = self._address.key(segment_name(span.first - 1)) if span.first else ""
        end = self._address.key(segment_name(span.stop))
        return list(takewhile(lambda each: each.key < end, self._bucket.listed(prefix, after=after)))

    def check(self, note: Note) -> None:
        """Hold the objects of a range against the note of it. Raises ``IncompleteTransfer``.

        Objects of nobody's, which a worker has left that died, are passed over: the index names what counts.
        """
        address = self._address
        own = {*self._up_to("index", self._indexes, address.key(index_name(note.stop)))}
        own |= {*self._up_to("segments", self._segments, address.key(segment_name(note.stop)))}
        for each in note.objects:
            if Stored(*each) not in own:
                raise IncompleteTransfer(
                    f"archive {address.uri()}: {each[0]} is not what was stored there, or is gone; start a new job"
                )

    def _up_to(self, name: str, found: Iterator[Stored], end: str) -> Iterator[Stored]:
        while True:
            each = self._next.pop(name, None) or next(found, None)
            if each is None:
                return
            if each.key >= end:
                self._next[name] = each
                return
            yield each
