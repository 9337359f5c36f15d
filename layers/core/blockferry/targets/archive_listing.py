"""The objects of an archive as its bucket lists them, held against what is on record of each range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from blockferry.aws.objects import Bucket, Stored
from blockferry.core.errors import IncompleteTransfer
from blockferry.formats.archive.layout import INDEX, SEGMENTS, ArchiveAddress, index_name, segment_name
from blockferry.formats.archive.manifest import IndexFacts
from blockferry.jobs.archived import Note


@dataclass(frozen=True)
class MadeOf:
    """What an archive is made of: the ``counts`` of its manifest but for the blocks of its source, and its indexes."""

    counts: Mapping[str, int]
    indexes: tuple[IndexFacts, ...]


class Listing:
    """The objects of an archive as its bucket lists them, walked through range by range."""

    def __init__(self, address: ArchiveAddress, bucket: Bucket) -> None:
        self._address = address
        self._indexes = self._walk(bucket, INDEX)
        self._segments = self._walk(bucket, SEGMENTS)
        self._next: dict[str, Stored | None] = {}

    def _walk(self, bucket: Bucket, name: str) -> Iterator[Stored]:
        return bucket.listed(self._address.key(name))

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
