"""Archives in S3, read: manifests, indexes and segments, each held against what names it.

A manifest proves itself; it names every index with its SHA-256, an index every segment with its own, and an entry the
SHA-256 of its block. So whatever is missing, cut off, changed or swapped is noticed where it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blockferry.aws.call import Call
from blockferry.aws.objects import Bucket
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import ArchiveDamaged, InvalidRequest
from blockferry.formats.archive import index, manifest, segment
from blockferry.formats.archive.index import Entry, Kind, RangeIndex, SegmentFacts
from blockferry.formats.archive.layout import MANIFEST, ArchiveAddress, parse_manifest_uri, segment_name
from blockferry.formats.archive.manifest import IndexFacts, Manifest


class Located(NamedTuple):
    """A block of an archive or chain: which archive has it (0 is the one that was asked for), and its entry."""

    member: int
    entry: Entry


def bucket_of(call: Call, identity: Identity, name: str) -> Bucket:
    """A bucket whose requests are counted, and end with the call."""
    return Bucket(
        call.aws.image_s3(identity),
        name,
        counts=call.counts,
        clock=call.clock,
        deadline=call.deadline,
        policy=call.waits.requests,
    )


@dataclass(frozen=True)
class Archive:
    """An archive whose manifest was read, and the bucket that it is in."""

    address: ArchiveAddress
    manifest: Manifest
    bucket: Bucket

    def index(self, facts: IndexFacts) -> RangeIndex:
        """One of its indexes. Raises ``ArchiveDamaged`` when that is not what the manifest names."""
        name = self.address.uri(facts.name)
        body = self.bucket.get(self.address.key(facts.name))
        told = f"index {name}, of blocks {facts.first} to {facts.stop - 1} of {self.manifest.source.name},"
        if body is None:
            raise ArchiveDamaged(f"{told} is missing")
        if len(body) != facts.bytes:
            raise ArchiveDamaged(f"{told} is damaged: it has {len(body)} bytes instead of {facts.bytes}")
        if hashlib.sha256(body).hexdigest() != facts.sha256:
            raise ArchiveDamaged(f"{told} is damaged: its SHA-256 is not that of the manifest")
        found = index.unpack(body, name=name)
        if (found.archive_id, found.range) != (self.address.archive_id, facts.range):
            raise ArchiveDamaged(f"{told} is damaged: it is that of another range or archive")
        return found

    def indexes(self, within: BlockRange) -> list[RangeIndex]:
        """The indexes that have anything of a range, ascending. Raises what ``index`` raises."""
        return [self.index(facts) for facts in self.manifest.overlapping(within)]

    def segment(self, found: RangeIndex, number: int) -> bytes:
        """A whole segment, held against its index with every block in it.

        Raises ``ArchiveDamaged``, saying which blocks are lost with it.
        """
        facts, entries = found.segments[number], found.entries_of(number)
        name = self.address.uri(segment_name(facts.first))
        body = self.bucket.get(self.address.key(segment_name(facts.first)))
        if body is None:
            raise ArchiveDamaged(f"segment {name} is missing: {lost(entries)}")
        try:
            segment.check(body, facts, entries, name=name)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"{error}: {lost(entries)}") from error
        return body

    def frames(self, facts: SegmentFacts, entries: Sequence[Entry]) -> list[bytes]:
        """The blocks of entries whose frames lie one behind another in a segment, by one ranged GET.

        Raises ``ArchiveDamaged``, saying which blocks are lost.
        """
        name = self.address.uri(segment_name(facts.first))
        first = entries[0].offset
        length = sum(entry.length for entry in entries)
        body = self.bucket.get(self.address.key(segment_name(facts.first)), first=first, length=length)
        if body is None:
            raise ArchiveDamaged(f"segment {name} is missing or cut off: {lost(entries)}")
        view = memoryview(body)
        return [
            segment.expand(view[entry.offset - first : entry.offset - first + entry.length], entry, name=name)
            for entry in entries
        ]


def lost(entries: Sequence[Entry]) -> str:
    """What is lost with entries, for the text of an error."""
    count = len(entries)
    where = (
        f"block {entries[0].block}" if count == 1 else f"{count} blocks from {entries[0].block} to {entries[-1].block}"
    )
    return (
        f"{where} cannot be read (bytes {entries[0].block * BLOCK_SIZE} to {(entries[-1].block + 1) * BLOCK_SIZE - 1})"
    )


@dataclass(frozen=True)
class Chain:
    """An archive and those that it is built upon, the nearest first and a full one last."""

    members: tuple[Archive, ...]

    @property
    def newest(self) -> Archive:
        return self.members[0]

    @property
    def manifest(self) -> Manifest:
        return self.newest.manifest

    def held(self, within: BlockRange) -> Mapping[int, Located]:
        """The allocated blocks of a range, ascending, and where each is. Raises what ``Archive.index`` raises."""
        newest: dict[int, Located] = {}
        # One archive after another: of a chain of 30 all indexes of a range may be some 100 MiB in memory.
        for member, archive in enumerate(self.members):
            _add(newest, member, archive.indexes(within), within)
        return _allocated(newest)

    def indexed(self, within: BlockRange) -> tuple[Mapping[int, Located], tuple[tuple[RangeIndex, ...], ...]]:
        """The same as ``held``, and the indexes that it comes from, by member."""
        newest: dict[int, Located] = {}
        indexes = tuple(tuple(archive.indexes(within)) for archive in self.members)
        for member, some in enumerate(indexes):
            _add(newest, member, some, within)
        return _allocated(newest), indexes


def _add(newest: dict[int, Located], member: int, indexes: Iterable[RangeIndex], within: BlockRange) -> None:
    """Add the entries of an archive of blocks that no nearer one has an entry of."""
    for each in indexes:
        for entry in each.entries:
            if entry.block in within and entry.block not in newest:
                newest[entry.block] = Located(member, entry)


def _allocated(newest: Mapping[int, Located]) -> Mapping[int, Located]:
    return {block: located for block, located in sorted(newest.items()) if located.entry.kind is not Kind.REMOVED}


def open_archive(call: Call, identity: Identity, uri: str, *, what: str = "manifest_uri") -> Archive:
    """The archive whose manifest this names.

    Raises ``InvalidRequest`` when there is none, and ``ArchiveDamaged`` when it is not what was written.
    """
    address = parse_manifest_uri(uri, what=what)
    bucket = bucket_of(call, identity, address.bucket)
    body = bucket.get(address.key(MANIFEST))
    if body is None:
        raise InvalidRequest(
            f"{what}: there is no {uri}: an archive without its manifest was never finished; check the address"
        )
    if manifest.is_given_up(body):
        raise InvalidRequest(f"{what}: {uri} is no archive: it was given up before it was finished")
    found = manifest.load(body, name=uri)
    if found.archive_id != address.archive_id:
        raise ArchiveDamaged(f"manifest {uri} is damaged: it is that of archive {found.archive_id}")
    return Archive(address, found, bucket)


def open_chain(call: Call, identity: Identity, uri: str, *, what: str = "manifest_uri") -> Chain:
    """An archive and its bases, all of whose manifests are what they were when it was written.

    Raises what ``open_archive`` raises, and ``ArchiveDamaged`` for a base that is gone or another one.
    """
    newest = open_archive(call, identity, uri, what=what)
    members = [newest]
    for number, base in enumerate(newest.manifest.base):
        try:
            member = open_archive(call, identity, base.manifest_uri, what="base")
        except InvalidRequest as error:
            raise ArchiveDamaged(
                f"archive {uri} is built upon {base.manifest_uri}, which is gone: what did not change since that one "
                "cannot be read any more. If it was deleted or moved, bring it back to that address"
            ) from error
        rest = newest.manifest.base[number + 1 :]
        if member.manifest.sha256 != base.sha256 or member.manifest.base != rest:
            raise ArchiveDamaged(f"archive {uri} is built upon {base.manifest_uri}, and that is another archive now")
        members.append(member)
    return Chain(tuple(members))
