"""An archive of flexible-snapshot-proxy in S3 as a source: what a job records of it, and its blocks."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from blockferry.aws import snapshots
from blockferry.aws.archives import bucket_of
from blockferry.aws.objects import Bucket
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange, blocks_of_volume
from blockferry.core.checksums import digest_of
from blockferry.core.counts import at
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, RequestRefused
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.core.quotas import MAX_TAG_VALUE, MAX_VOLUME_GIB
from blockferry.core.words import counted
from blockferry.formats.foreign import (
    SEGMENT_BLOCKS,
    ForeignSegment,
    expand,
    in_order,
    parse_folder,
    parse_segment,
    refuse_impossible,
)
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import JobWarning
from blockferry.sources.address import Address, parse_address
from blockferry.sources.chunks import SharedChunks
from blockferry.sources.kind import NOTHING_LISTED, Examined, Extent, JobSource, Listed, Tally, range_of
from blockferry.sources.meaning import for_holes
from blockferry.sources.reading import Reading

_RUN_BITS = 7
"""Bits that hold how many blocks an object has, 64 at most."""

KEPT_SEGMENTS = 2
"""Segments kept besides those being fetched: each has 32 MiB when it is unpacked."""


class JobForeign(JobSource):
    """The archive that is read, by its folder, and what is in it."""

    kind: Literal["foreign"] = "foreign"
    uri: str
    snapshot_id: str
    size_gib: int
    allocated_blocks: int
    objects: int
    stored_bytes: int

    @property
    def name(self) -> str:
        return self.uri

    def objects_of(self, call: JobCall) -> ForeignObjects:
        address = parse_address(self.uri)
        return ForeignObjects(bucket_of(call, self.identity, address.bucket), address, blocks_of_volume(self.size_gib))

    def open(self, call: JobCall) -> BlockSource:
        return ForeignSource(self.objects_of(call))

    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        within = range_of(first, stop)
        if within is None:
            return NOTHING_LISTED
        held = frozenset(
            index
            for segment in self.objects_of(call).within(within)
            for index in range(segment.first, segment.stop)
            if index in within
        )
        return Listed(held, frozenset(), len(held))

    def contradiction(self, allocated: int, linear_checksum: str, holes: HolePolicy) -> str | None:
        """Raises ``ArchiveDamaged``: a range lists its own objects only, and one that was deleted since the plan is
        missing in every list."""
        if allocated == self.allocated_blocks:
            return None
        raise ArchiveDamaged(
            f"the objects below {self.uri} hold {counted(allocated, 'block')}, and held {self.allocated_blocks} when "
            "the job was planned: the archive was changed meanwhile. Start a new job"
        )

    def pages(self, blocks: int) -> int:
        return 0

    @property
    def read_from_ebs(self) -> bool:
        return False

    @property
    def may_change(self) -> bool:
        return True

    @property
    def due(self) -> str:
        return "held"

    def reading(self, call: JobCall, extent: Extent, tally: Tally) -> Reading:
        # Each range lists its own twice, and the plan all of them.
        ranges = -(-extent.total_blocks // extent.blocks_per_range)
        lists = 2 * ranges + 3 * -(-self.objects // 1_000)
        return Reading(
            allocated=self.allocated_blocks,
            read=self.allocated_blocks,
            basis="the names of its objects",
            requests=Counter({at("GetObject", self.region): self.objects, at("ListObjectsV2", self.region): lists}),
            object_bytes={self.region: self.stored_bytes},
        )

    def object_bytes(self, raw_bytes: int) -> Mapping[str, int]:
        return {self.region: self.stored_bytes}

    def facts(self) -> dict[str, Any]:
        return {
            "name": f"archive {self.uri}",
            "foreign_uri": self.uri,
            "region": self.region,
            "archived_snapshot_id": self.snapshot_id,
            "volume_size_gib": self.size_gib,
            "objects": self.objects,
            "stored_bytes": self.stored_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class ExaminedForeign(Examined[JobForeign]):
    """A foreign archive that was looked at for a restore: nothing in it tells what its holes stand for."""

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        reason = f"nothing in {self.source.uri} tells what its holes stand for"
        return for_holes(asked, HoleMeaning.UNKNOWN, reason, encrypted=False, may_be_encrypted=may_be_encrypted)


@dataclass
class _Found:
    """What is below a folder. ``runs`` has eight bytes for each object: a volume of 64 TiB may have two million."""

    runs: array[int]
    strangers: int = 0
    stranger: str = ""
    stored_bytes: int = 0


def _listed(bucket: Bucket, address: Address) -> _Found:
    found = _Found(array("Q"))
    # With the slash: another archive's name may begin with this one's.
    for each in bucket.listed(address.key):
        name = each.key.removeprefix(address.key)
        segment = parse_segment(name)
        if segment is None:
            found.strangers += 1
            found.stranger = found.stranger or name
            continue
        found.runs.append(segment.first << _RUN_BITS | segment.blocks)
        found.stored_bytes += each.size
    return found


def _runs(found: _Found, total_blocks: int, *, name: str) -> tuple[int, int]:
    """How many blocks the objects hold, and where the last of them ends. Raises ``ArchiveDamaged`` as ``in_order``."""
    held = last = 0
    for run in sorted(found.runs):
        first, blocks = run >> _RUN_BITS, run & (1 << _RUN_BITS) - 1
        refuse_impossible(first, blocks, last, total_blocks, name=name)
        held, last = held + blocks, first + blocks
    return held, last


def examine_foreign(uri: str, identity: Identity, call: JobCall) -> ExaminedForeign:
    """Look at a foreign archive that is to be restored. Raises ``InvalidRequest`` when it cannot be."""
    address = parse_address(uri)
    folder = parse_folder(address.key.rstrip("/").rsplit("/", 1)[-1]) if address.key.endswith("/") else None
    if folder is None or not 1 <= folder[1] <= MAX_VOLUME_GIB:
        raise InvalidRequest(
            f"foreign_uri: {uri!r} is not the folder of an archive of flexible-snapshot-proxy "
            "(s3://<bucket>/<snapshot>.<GiB>/, with the slash), nor the key of an image (.img, .img.lz4, .img.zstd)"
        )
    snapshot_id, size_gib = folder
    try:
        found = _listed(bucket_of(call, identity, address.bucket), address)
        held, end = _runs(found, blocks_of_volume(size_gib), name=uri)
    except ArchiveDamaged as error:
        raise InvalidRequest(f"foreign_uri: {error}; nothing was started") from error
    except RequestRefused as error:
        raise InvalidRequest(f"foreign_uri: {error}; nothing was started") from error
    if not found.runs:
        raise InvalidRequest(f"foreign_uri: there is no segment below {uri}; check bucket and name")
    if found.strangers:
        more = f", nor is what has {counted(found.strangers - 1, 'other name')}" if found.strangers > 1 else ""
        raise InvalidRequest(
            f"foreign_uri: {found.stranger!r} below {uri} is no segment{more}: nobody knows what that stands for; move "
            "it elsewhere"
        )
    source = JobForeign(
        region=identity.region,
        role_arn=identity.role_arn,
        external_id=identity.external_id,
        uri=uri,
        snapshot_id=snapshot_id,
        size_gib=size_gib,
        allocated_blocks=held,
        objects=len(found.runs),
        stored_bytes=found.stored_bytes,
    )
    return ExaminedForeign(
        source=source,
        size_gib=size_gib,
        description=uri[:MAX_TAG_VALUE],
        own_tags={snapshots.ARCHIVE_TAG: uri[:MAX_TAG_VALUE]},
        warnings=(_may_end_early(uri, end, size_gib),),
    )


def _may_end_early(uri: str, end: int, size_gib: int) -> JobWarning:
    """What nothing in the archive can show: that its last segment is missing, or one in between."""
    total = blocks_of_volume(size_gib)
    unseen = "nothing in it can show that an object is missing that was deleted since"
    if end == total:
        return JobWarning(code="archive_may_be_incomplete", message=f"{uri}: {unseen}")
    return JobWarning(
        code="last_segment_may_be_missing",
        message=f"{uri}: the tool that made it leaves out the last segment of every archive, up to 64 blocks that "
        f"would have been among {end} to {total - 1}, and {unseen}. Compare what is restored with another copy, if you "
        "have one",
    )


class ForeignObjects:
    """The objects of an archive, listed where they are needed."""

    def __init__(self, bucket: Bucket, address: Address, total_blocks: int) -> None:
        self._bucket = bucket
        self._address = address
        self._total_blocks = total_blocks

    def within(self, within: BlockRange) -> list[ForeignSegment]:
        """Those that hold blocks of ``within``, ascending. Raises ``ArchiveDamaged`` as ``in_order``.

        Numbers in keys are not padded: those of a range with the same number of digits follow each other in a listing,
        among some that are longer and begin alike.
        """
        prefix = self._address.key
        # A run never crosses a multiple of the largest.
        first = within.first - within.first % SEGMENT_BLOCKS
        found: list[ForeignSegment] = []
        for digits in range(len(str(first)), len(str(within.stop - 1)) + 1):
            low = max(first, 10 ** (digits - 1) if digits > 1 else 0)
            high = min(within.stop - 1, 10**digits - 1)
            end = f"{prefix}{high}/"  # behind the dot that follows a number, and before its further digits
            for each in self._bucket.listed(prefix, after=f"{prefix}{low}"):
                if each.key > end:
                    break
                segment = parse_segment(each.key.removeprefix(prefix))
                if segment is not None and low <= segment.first <= high and segment.stop > within.first:
                    found.append(segment)
        return in_order(found, self._total_blocks, name=self._bucket.uri(prefix))

    def fetch(self, segment: ForeignSegment) -> tuple[bytes, int]:
        """The blocks of an object, and the bytes that it has. Raises ``ArchiveDamaged``."""
        key = f"{self._address.key}{segment.name}"
        body = self._bucket.get(key)
        if body is None:
            raise ArchiveDamaged(
                f"{self._bucket.uri(key)} is missing; blocks {segment.first} to {segment.stop - 1} cannot be read"
            )
        return expand(body, segment, name=self._bucket.uri(key)), len(body)


class ForeignSource:
    """The blocks of a foreign archive, each object of which is checked against the SHA-256 of its name.

    Raises ``ArchiveDamaged`` for an object that is missing or damaged, and else what ``Bucket.get`` raises.
    """

    def __init__(self, objects: ForeignObjects) -> None:
        self._objects = objects
        self._of: dict[int, ForeignSegment] = {}
        self._shared: SharedChunks[ForeignSegment, bytes] = SharedChunks(self._fetch, keep=KEPT_SEGMENTS)

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The blocks held in ``within``, ascending."""
        self._of = {
            index: segment
            for segment in self._objects.within(within)
            for index in range(max(segment.first, within.first), min(segment.stop, within.stop))
        }
        return (BlockRef(index) for index in self._of)

    def read(self, ref: BlockRef) -> Block:
        """The content of a listed block."""
        segment = self._of[ref.index]
        listed = [index for index in range(segment.first, segment.stop) if index in self._of]
        raw = self._shared.take(segment, listed, ref.index)
        place = (ref.index - segment.first) * BLOCK_SIZE
        data = raw[place : place + BLOCK_SIZE]
        return Block(ref.index, data, digest_of(data))

    def _fetch(self, segment: ForeignSegment) -> bytes:
        return self._objects.fetch(segment)[0]
