"""Whatever a snapshot holds, and however the work is cut: what is read from its archive is what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

from blockferry.aws.archives import open_chain
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import OutOfTime
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Deadline
from blockferry.formats.archive.layout import UNFINISHED
from blockferry.formats.archive.manifest import Member, SourceFacts
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Sums
from blockferry.sources.archive import ArchiveSource
from blockferry.targets.archive import ArchiveTarget
from fakes import ManualClock, content
from hypothesis import example, given, settings
from hypothesis import strategies as st
from job_records import EXECUTION, archive, job_call
from memory_s3 import MemoryS3

Blocks = Mapping[int, int]
"""The blocks of a snapshot by index: the seed of each one's content, 0 for zeros."""

data_of = cache(content)


@cache
def digest(seed: int) -> bytes:
    return digest_of(data_of(seed))


@dataclass(frozen=True)
class Cut:
    """One call of a worker that comes to an early end: no time is left for the ``after``-th block that is read, or
    segment that is sent. ``lost``: it also died before anybody heard of what it had stored."""

    after: int
    sending: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Night:
    """A snapshot to be archived: its blocks, where its ranges are cut, how full segments are, what it is built upon,
    and the calls that come to an early end."""

    blocks: Blocks
    bounds: tuple[int, ...] = ()
    segment_blocks: int = 2
    how: str = "full"
    cuts: tuple[Cut, ...] = ()

    @property
    def ranges(self) -> list[BlockRange]:
        places = sorted({0, *self.bounds, BLOCKS_PER_GIB})
        return [BlockRange(first, stop) for first, stop in pairwise(places)]


class Source:
    """The blocks that are read of a snapshot: all of them, or what changed since ``before``."""

    def __init__(self, blocks: Blocks, before: Blocks | None, cut: Cut | None) -> None:
        self._blocks = blocks
        self._before = before
        self._left = None if cut is None or cut.sending else cut.after

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        before = {} if self._before is None else self._before
        for index in sorted({*self._blocks, *before}):
            if index in within and (self._before is None or self._blocks.get(index) != before.get(index)):
                yield BlockRef(index, removed=index not in self._blocks)

    def read(self, ref: BlockRef) -> Block:
        if self._left is not None:
            if self._left == 0:
                raise OutOfTime("cut by the test")
            self._left -= 1
        seed = self._blocks[ref.index]
        return Block(ref.index, data_of(seed), digest(seed))


class ArchiveS3(MemoryS3):
    """Of which some PutObject of a segment comes too late."""

    left: int | None = None

    def put_object(self, *, Key: str, **members: Any) -> Any:
        if self.left is not None and "/segments/" in Key:
            if self.left == 0:
                raise OutOfTime("cut by the test")
            self.left -= 1
        return super().put_object(Key=Key, **members)


@dataclass
class World:
    """The archives of a chain of snapshots, made as workers and the last step make them, without the steps."""

    archives: ArchiveS3 = field(default_factory=ArchiveS3)
    work: MemoryS3 = field(default_factory=MemoryS3)
    made: list[ArchiveTarget] = field(default_factory=list)
    members: tuple[Member, ...] = ()

    def call(self, job_id: str) -> JobCall:
        aws = SimpleNamespace(image_s3=lambda _identity: self.archives)
        return job_call(aws, JobFolder("work", cast(Any, self.work), "archive", job_id), clock=ManualClock())

    def archive(self, night: Night, before: Blocks | None) -> ArchiveTarget:
        number = len(self.made)
        call = self.call(f"job-{number}")
        target = archive(
            archive_id=f"archive-{number}",
            started_at="",
            segment_blocks=night.segment_blocks,
            source=SourceFacts(snapshot_id=f"snap-{number}"),
            base=self.members if night.how != "full" else (),
            compares=night.how == "compared",
        ).start(call, token="", mark=EXECUTION.mark)
        cuts = iter(night.cuts)
        for within in night.ranges:
            entries = self._moved(target, call, night, before, within, cuts)
            allocated = sum(index in within for index in night.blocks)
            target.counted(call, 0, within, sorted(entries.items()), allocated)
        sums = Sums(blocks_written=len(night.blocks), linear_checksum=linear(night.blocks))
        target.seal(call, 0, sums, call.folder)
        target.mark_proved(call, sums)
        self.made.append(target)
        manifest = open_chain(call, target.identity, target.address.manifest_uri).manifest
        self.members = (Member(manifest_uri=target.address.manifest_uri, sha256=manifest.sha256), *target.base)
        return target

    def _moved(
        self,
        target: ArchiveTarget,
        call: JobCall,
        night: Night,
        before: Blocks | None,
        within: BlockRange,
        cuts: Iterator[Cut],
    ) -> Mapping[int, bytes]:
        """Call after call, until the range is moved; returns the digests that are on record of it."""
        entries: dict[int, bytes] = {}
        rest: BlockRange | None = within
        while rest is not None:
            cut = next(cuts, None)
            self.archives.left = cut.after if cut is not None and cut.sending else None
            moved = move(
                rest,
                Source(night.blocks, before if night.how == "delta" else None, cut),
                [target.sink(call, number=0, within=rest)],
                holes=HolePolicy.PRESERVE,
                threads=1,
                deadline=Deadline(None, clock=call.clock),
            )
            self.archives.left = None
            if cut is None or not cut.lost:
                entries.update(moved.digests)
                rest = within.after(moved.next_index)
        return entries

    def read(self, target: ArchiveTarget, ranges: list[BlockRange]) -> dict[int, bytes]:
        """All that an archive holds, as a restore of these ranges reads it."""
        source = ArchiveSource(open_chain(self.call("read"), target.identity, target.address.manifest_uri))
        return {ref.index: source.read(ref).data for within in ranges for ref in list(source.blocks(within))}


def linear(blocks: Blocks) -> str:
    found = Linear()
    for index, seed in sorted(blocks.items()):
        found.add(index, digest(seed))
    return found.value()


INDICES = st.one_of(st.integers(0, 30), st.integers(2_030, 2_047), st.sampled_from([511, 512, 1_023, 1_024]))

CUTS = st.lists(st.builds(Cut, st.integers(0, 7), st.booleans(), st.booleans()), max_size=8).map(tuple)

BOUNDS = st.lists(st.one_of(INDICES, st.just(512), st.just(1_024)), max_size=4).map(tuple)


@st.composite
def nights(draw: st.DrawFn) -> list[Night]:
    """A full archive, and up to four on top of it."""
    blocks: dict[int, int] = draw(st.dictionaries(INDICES, st.integers(0, 4), max_size=20))
    found = []
    for number in range(draw(st.integers(1, 5))):
        if number:
            changes = draw(st.dictionaries(INDICES, st.none() | st.integers(0, 4), max_size=8))
            merged: dict[int, int | None] = {**blocks, **changes}
            blocks = {index: seed for index, seed in sorted(merged.items()) if seed is not None}
        how = draw(st.sampled_from(["delta", "compared"])) if number else "full"
        found.append(Night(blocks, draw(BOUNDS), draw(st.sampled_from([1, 2, 3, 64])), how, draw(CUTS)))
    return found


def shorter_each_time(*lost: int) -> list[Night]:
    """Of ten blocks in a segment, a call stores some and dies, and the next ones store fewer."""
    cuts = (*(Cut(after, lost=True) for after in lost), Cut(2), Cut(3))
    return [Night(dict.fromkeys(range(10), 1), segment_blocks=4, cuts=cuts)]


@settings(max_examples=60)
@given(nights(), BOUNDS)
@example(shorter_each_time(3), ())
@example(shorter_each_time(9, 6, 3), ())
def test_what_is_restored_is_what_was_archived(chain: list[Night], read_in: tuple[int, ...]) -> None:
    world, before = World(), None
    for night in chain:
        target = world.archive(night, before)
        before = night.blocks
        expected = {index: data_of(seed) for index, seed in night.blocks.items()}
        assert world.read(target, Night({}, read_in).ranges) == expected
        found = open_chain(world.call("read"), target.identity, target.address.manifest_uri)
        assert found.manifest.linear_checksum == linear(night.blocks)
        assert found.manifest.counts.allocated_blocks == len(night.blocks)
        assert target.address.key(UNFINISHED) not in world.archives.objects
    # What was built upon holds what it held.
    for night, target in zip(chain, world.made, strict=True):
        assert world.read(target, Night({}).ranges).keys() == night.blocks.keys()
