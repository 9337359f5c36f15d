"""Whatever a snapshot holds, and however the work is cut: what is read from its archive is what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.archives import open_chain
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import IncompleteTransfer, OutOfTime
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Deadline
from blockferry.core.tuning import Throughput
from blockferry.formats.archive.layout import MANIFEST, SEGMENTS, UNFINISHED, index_name, segment_name
from blockferry.formats.archive.manifest import Member, SourceFacts
from blockferry.jobs.archived import PARTS
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
    """Of which some PutObject of a segment comes too late. ``listings`` are those of segments: what each begins behind,
    and the keys on its page."""

    left: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.listings: list[tuple[str, list[str]]] = []

    def list_objects_v2(self, *, Prefix: str, **members: Any) -> Any:
        answer = super().list_objects_v2(Prefix=Prefix, **members)
        if Prefix.endswith(SEGMENTS):
            self.listings.append((members.get("StartAfter", ""), [each["Key"] for each in answer.get("Contents", ())]))
        return answer

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

    def begun(self, night: Night) -> tuple[ArchiveTarget, JobCall]:
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
        return target, call

    def archive(self, night: Night, before: Blocks | None) -> ArchiveTarget:
        target, call = self.begun(night)
        cuts = iter(night.cuts)
        for within in night.ranges:
            entries = self.moved(target, call, night, before, within, cuts)
            self.counted(target, call, night, within, entries)
        self.sealed(target, call, night)
        target.mark_proved(call, sums_of(night))
        self.made.append(target)
        manifest = open_chain(call, target.identity, target.address.manifest_uri).manifest
        self.members = (Member(manifest_uri=target.address.manifest_uri, sha256=manifest.sha256), *target.base)
        return target

    def counted(
        self, target: ArchiveTarget, call: JobCall, night: Night, within: BlockRange, entries: Mapping[int, bytes]
    ) -> None:
        allocated = sum(index in within for index in night.blocks)
        target.counted(call, 0, within, sorted(entries.items()), allocated)

    def sealed(self, target: ArchiveTarget, call: JobCall, night: Night) -> None:
        target.seal(call, 0, sums_of(night), call.folder)

    def moved(
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


def sums_of(night: Night) -> Sums:
    """What the proof says of all blocks that were moved: of what is built upon another archive, only of those."""
    if night.how == "full":
        return Sums(blocks_written=len(night.blocks), linear_checksum=linear(night.blocks))
    return Sums(blocks_written=10_000, linear_checksum="that of what was moved")


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


def of_ten_blocks(*cuts: Cut) -> list[Night]:
    """Two segments and a half."""
    return [Night(dict.fromkeys(range(10), 1), segment_blocks=4, cuts=cuts)]


def shorter_each_time(*lost: int) -> list[Night]:
    """A call stores some and dies, and the next ones store fewer."""
    return of_ten_blocks(*(Cut(after, lost=True) for after in lost), Cut(2), Cut(3))


@settings(max_examples=60)
@given(nights(), BOUNDS)
@example(of_ten_blocks(Cut(6)), ())
@example(of_ten_blocks(Cut(0, sending=True)), ())
@example(of_ten_blocks(Cut(1, sending=True)), ())
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


NIGHTS = {
    "full": [Night({0: 1, 1: 2, 5: 0, 9: 3})],
    "delta": [Night({0: 1, 1: 2, 5: 0, 7: 4}), Night({0: 1, 1: 3, 5: 0, 9: 3}, how="delta")],
    "compared": [Night({0: 1, 1: 2, 5: 0, 7: 4}), Night({0: 1, 1: 3, 5: 0, 9: 3}, how="compared")],
}
"""Whose last archive stores block 1, and block 9 in another segment."""

WHOLE = BlockRange(0, BLOCKS_PER_GIB)


def moved_last(kind: str) -> tuple[World, ArchiveTarget, JobCall, Night, dict[int, bytes]]:
    """A world in which the last archive is moved, and not counted yet."""
    world, before = World(), None
    *earlier, night = NIGHTS[kind]
    for each in earlier:
        world.archive(each, None)
        before = each.blocks
    night = replace(night, segment_blocks=1)
    target, call = world.begun(night)
    return world, target, call, night, dict(world.moved(target, call, night, before, WHOLE, iter(())))


def segments_of(world: World, target: ArchiveTarget) -> list[str]:
    return [key for key in world.archives.objects if key.startswith(target.address.key(SEGMENTS))]


def changed(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("kind", NIGHTS)
def test_a_block_that_is_not_in_the_archive_as_it_was_read_fails_the_count(kind: str) -> None:
    world, target, call, night, entries = moved_last(kind)
    entries[1] = digest(8)
    with pytest.raises(IncompleteTransfer, match=r"archive-\d/ does not have block 1 as it was read"):
        world.counted(target, call, night, WHOLE, entries)


@pytest.mark.parametrize("kind", NIGHTS)
@pytest.mark.parametrize("odd", [-1, 1])
def test_a_count_that_is_not_that_of_the_source_fails(kind: str, odd: int) -> None:
    _, target, call, _, entries = moved_last(kind)
    with pytest.raises(IncompleteTransfer, match=rf"has 4 blocks between 0 and 2048.*snap-\d has {4 + odd}"):
        target.counted(call, 0, WHOLE, sorted(entries.items()), 4 + odd)


@pytest.mark.parametrize("kind", NIGHTS)
@pytest.mark.parametrize("gone", [False, True])
def test_a_segment_that_is_not_there_as_it_was_stored_fails_the_count(kind: str, gone: bool) -> None:
    world, target, call, night, entries = moved_last(kind)
    for key in segments_of(world, target):
        body = world.archives.objects.pop(key)
        if not gone:
            world.archives.objects[key] = changed(body)
        with pytest.raises(IncompleteTransfer) as caught:
            world.counted(target, call, night, WHOLE, entries)
        assert f"s3://archives/{key} is not what was stored; start a new job" in str(caught.value)
        world.archives.objects[key] = body
    world.counted(target, call, night, WHOLE, entries)


@pytest.mark.parametrize("kind", NIGHTS)
@pytest.mark.parametrize("gone", [False, True])
def test_no_manifest_is_written_when_anything_that_it_names_is_not_there_as_it_was_counted(
    kind: str, gone: bool
) -> None:
    world, target, call, night, entries = moved_last(kind)
    world.counted(target, call, night, WHOLE, entries)
    named = [*segments_of(world, target), target.address.key(index_name(0))]
    assert len(named) > 2
    for key in named:
        body = world.archives.objects.pop(key)
        if not gone:
            world.archives.objects[key] = changed(body)
        with pytest.raises(IncompleteTransfer, match=f"{key} is not what was stored there, or is gone; start a new jo"):
            world.sealed(target, call, night)
        assert target.address.key(MANIFEST) not in world.archives.objects
        world.archives.objects[key] = body
    # Nobody's objects, as a worker leaves them that died, are no obstacle.
    world.archives.objects[target.address.key(segment_name(3))] = b"x"
    world.sealed(target, call, night)
    written = open_chain(call, target.identity, target.address.manifest_uri).manifest
    assert (written.linear_checksum, written.counts.allocated_blocks) == (linear(night.blocks), len(night.blocks))


@pytest.mark.parametrize(("missing", "blocks"), [(0, "0 to 511"), (1, "512 to 1023"), (2, "1024 to 2047")])
def test_no_manifest_is_written_before_every_range_is_counted(missing: int, blocks: str) -> None:
    world, night = World(), Night({0: 1, 600: 2, 2_000: 3}, bounds=(512, 1_024))
    target, call = world.begun(night)
    moved = {within: world.moved(target, call, night, None, within, iter(())) for within in night.ranges}
    for number, within in enumerate(night.ranges):
        if number != missing:
            world.counted(target, call, night, within, moved[within])
    with pytest.raises(IncompleteTransfer, match=f"blocks {blocks} were not counted"):
        world.sealed(target, call, night)
    within = night.ranges[missing]
    world.counted(target, call, night, within, moved[within])
    # However few of the counts are in memory at a time.
    world.sealed(target, replace(call, throughput=Throughput(proving_ahead=2)), night)
    written = open_chain(call, target.identity, target.address.manifest_uri).manifest
    assert written.linear_checksum == linear(night.blocks)


def test_a_range_of_which_a_call_is_missing_is_not_counted() -> None:
    world, night = World(), Night(dict.fromkeys(range(6), 1), segment_blocks=1)
    target, call = world.begun(night)
    entries = world.moved(target, call, night, None, WHOLE, iter([Cut(2), Cut(2)]))
    second = call.folder.key(f"{PARTS.format(0)}0000000002-0000000004.bin")
    body = world.work.objects.pop(second)
    with pytest.raises(
        IncompleteTransfer, match="does not have blocks 0 to 2047: nobody stored all of them; start a n"
    ):
        world.counted(target, call, night, WHOLE, entries)
    world.work.objects[second] = body
    world.counted(target, call, night, WHOLE, entries)


def test_the_count_of_a_range_lists_the_segments_of_that_range_alone() -> None:
    # Its own begin and end with it, and there are others on both sides.
    blocks = dict.fromkeys((0, 510, 511, 512, 513, 1023, 1024, 1025, 1026, 1027, 2000), 1)
    world, night = World(), Night(blocks, bounds=(512, 1_024), segment_blocks=1)
    target, call = world.begun(night)
    moved = {within: world.moved(target, call, night, None, within, iter(())) for within in night.ranges}
    world.archives.listings.clear()
    world.counted(target, call, night, night.ranges[1], moved[night.ranges[1]])
    names = [target.address.key(segment_name(first)) for first in (512, 513, 1_023, 1_024)]
    assert [after for after, _ in world.archives.listings] == [target.address.key(segment_name(511))] * 2
    assert [name for _, page in world.archives.listings for name in page] == names
    world.archives.listings.clear()
    world.counted(target, call, night, night.ranges[0], moved[night.ranges[0]])
    assert world.archives.listings[0][0] == target.address.key(SEGMENTS)
    world.counted(target, call, night, night.ranges[2], moved[night.ranges[2]])
    world.sealed(target, call, night)


def test_a_range_of_which_a_call_found_nothing_is_counted_and_an_empty_one_without_a_listing() -> None:
    world, night = World(), Night({600: 1}, bounds=(1_024,))
    target, call = world.begun(night)
    first, empty = night.ranges
    entries = world.moved(target, call, night, None, first, iter([Cut(0)]))
    world.counted(target, call, night, first, entries)
    assert [page for _, page in world.archives.listings] == [[target.address.key(segment_name(600))]]
    world.archives.listings.clear()
    world.counted(target, call, night, empty, world.moved(target, call, night, None, empty, iter(())))
    assert world.archives.listings == []
