"""An archive in S3, or the newest of a chain, as a source: what a job records of it, and its blocks."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError

from blockferry.aws import snapshots
from blockferry.aws.archives import Archive, Chain, Located, open_chain
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST
from blockferry.core.counts import at
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, RequestRefused
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.core.quotas import MAX_TAG_VALUE
from blockferry.formats.archive.index import Entry, Kind, RangeIndex, SegmentFacts
from blockferry.formats.archive.layout import SEGMENTS
from blockferry.formats.archive.manifest import SourceFacts
from blockferry.jobs.call import JobCall
from blockferry.sources.chunks import SharedChunks
from blockferry.sources.kind import NOTHING_LISTED, Examined, Extent, JobSource, Listed, Tally, range_of
from blockferry.sources.meaning import for_holes
from blockferry.sources.reading import Reading

FRAMES_PER_READ = 16
"""8 MiB of a disk per request, before compression."""

ACCESS = (
    "If that is a matter of permission: an archive takes s3:GetObject and s3:ListBucket on its bucket, and kms:Decrypt "
    "on its key. Buckets and keys of this account are named in the Terraform variables archive_bucket_names and "
    "archive_kms_key_arns; for another account's name a role of it in {}.role_arn"
)
"""What to do where an archive cannot be read; the member of the input that has the role is filled in."""


def refused_archive(field: str, error: RequestRefused, *, role_of: str) -> InvalidRequest:
    """The refusal of an input whose ``field`` names an archive that S3 does not give; ``role_of`` is the member of the
    input that has the role. A bucket that is not there is no matter of permissions."""
    cause = error.__cause__
    if isinstance(cause, ClientError) and cause.response["Error"]["Code"] == "NoSuchBucket":
        return InvalidRequest(f"{field}: {error}; check the name of the bucket. Nothing was started")
    return InvalidRequest(f"{field}: {error}. {ACCESS.format(role_of)}; nothing was started")


FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that are read only after a restore (S3 user guide, archived objects)."""


class JobArchive(JobSource):
    """The archive that is read. ``sha256`` is its manifest's; ``depth`` the archives of its chain, itself included, and
    ``stored_bytes`` what their segments have in all."""

    kind: Literal["archive"] = "archive"
    manifest_uri: str
    sha256: str
    depth: int
    size_gib: int
    allocated_blocks: int
    stored_bytes: int
    linear_checksum: str
    snapshot_id: str | None

    @property
    def name(self) -> str:
        return self.manifest_uri

    def chain(self, call: JobCall) -> Chain:
        """The archive and those that it is built upon, as they were. Raises ``ArchiveDamaged``."""
        try:
            found = open_chain(call, self.identity, self.manifest_uri)
        except InvalidRequest as error:
            raise ArchiveDamaged(f"{self.manifest_uri} was deleted while it was read: {error}") from error
        if found.manifest.sha256 != self.sha256:
            raise ArchiveDamaged(f"{self.manifest_uri} was replaced while it was read; start a new job")
        return found

    def open(self, call: JobCall) -> BlockSource:
        return ArchiveSource(self.chain(call))

    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        within = range_of(first, stop)
        if within is None:
            return NOTHING_LISTED
        held = frozenset(self.chain(call).held(within))
        return Listed(held, frozenset(), len(held))

    def pages(self, blocks: int) -> int:
        return 0

    def contradiction(self, allocated: int, linear_checksum: str, holes: HolePolicy) -> str | None:
        """Raises ``ArchiveDamaged``: each block was held against its index, so it comes out the same again."""
        if allocated != self.allocated_blocks:
            raise ArchiveDamaged(
                f"{self.manifest_uri} is damaged: its indexes, and those of its bases, have {allocated} blocks, and it "
                f"says that there are {self.allocated_blocks}"
            )
        if holes is HolePolicy.PRESERVE and linear_checksum != self.linear_checksum:
            raise ArchiveDamaged(
                f"{self.manifest_uri} is damaged: the LINEAR checksum over all blocks of its indexes, and those of its "
                f"bases, is {linear_checksum}, and it says {self.linear_checksum}"
            )
        return None

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
        ranges = -(-extent.total_blocks // extent.blocks_per_range)
        gets = -(-self.allocated_blocks // FRAMES_PER_READ) + ranges * self.depth * 4
        return Reading(
            allocated=self.allocated_blocks,
            read=self.allocated_blocks,
            basis="the manifest",
            requests=Counter({at("GetObject", self.region): gets}),
            object_bytes={self.region: self.stored_bytes},
        )

    def object_bytes(self, raw_bytes: int) -> Mapping[str, int]:
        return {self.region: self.stored_bytes}

    def facts(self) -> dict[str, Any]:
        return {
            "name": f"archive {self.manifest_uri}",
            "manifest_uri": self.manifest_uri,
            "region": self.region,
            "archived_snapshot_id": self.snapshot_id,
            "volume_size_gib": self.size_gib,
            "archives": self.depth,
            "stored_bytes": self.stored_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class ExaminedArchive(Examined[JobArchive]):
    """An archive that was looked at for a job. ``meaning`` is what its holes stand for."""

    meaning: HoleMeaning

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        reason = f"the manifest of {self.source.name} says that its holes stand for {self.meaning.value}"
        return for_holes(asked, self.meaning, reason, encrypted=self.encrypted, may_be_encrypted=may_be_encrypted)


def examine_archive(manifest_uri: str, identity: Identity, call: JobCall) -> ExaminedArchive:
    """Look at an archive that is to be read. Raises ``InvalidRequest`` when it is not there, damaged, or frozen."""
    try:
        chain = open_chain(call, identity, manifest_uri)
    except ArchiveDamaged as error:
        raise InvalidRequest(f"manifest_uri: {error}; nothing was started") from error
    except RequestRefused as error:
        raise refused_archive("manifest_uri", error, role_of="source") from error
    refuse_frozen(chain)
    manifest = chain.manifest
    source = JobArchive(
        region=identity.region,
        role_arn=identity.role_arn,
        external_id=identity.external_id,
        manifest_uri=manifest_uri,
        sha256=manifest.sha256,
        depth=len(chain.members),
        size_gib=manifest.volume_size_gib,
        allocated_blocks=manifest.counts.allocated_blocks,
        stored_bytes=sum(each.manifest.counts.stored_bytes for each in chain.members),
        linear_checksum=manifest.linear_checksum,
        snapshot_id=manifest.source.snapshot_id,
    )
    return ExaminedArchive(
        source=source,
        size_gib=manifest.volume_size_gib,
        description=manifest.source.description or manifest_uri[:MAX_TAG_VALUE],
        tags=manifest.source.tags,
        own_tags=_own_tags(manifest_uri, manifest.source),
        encrypted=manifest.source.encrypted,
        meaning=manifest.holes,
    )


def _own_tags(uri: str, of: SourceFacts) -> dict[str, str]:
    """The tags by which what is restored is found again: as a copy of the snapshot that was archived."""
    tags = {snapshots.ARCHIVE_TAG: uri[:MAX_TAG_VALUE]}
    if of.snapshot_id is not None and of.region is not None:
        tags |= {snapshots.SOURCE_TAG: of.snapshot_id, snapshots.SOURCE_REGION_TAG: of.region}
        own = of.volume_id if of.volume_id and snapshots.has_volume(of.volume_id) else None
        tags[snapshots.LINEAGE_TAG] = own or of.tags.get(snapshots.LINEAGE_TAG) or of.snapshot_id
    return tags


def refuse_frozen(chain: Chain) -> None:
    """Raise ``InvalidRequest`` when segments are in a class that has to be thawed first, naming all archives of which
    that is so: thawing takes hours."""
    frozen: dict[str, list[str]] = {}
    classes: set[str] = set()
    for archive in chain.members:
        prefix = archive.address.key(SEGMENTS)
        first = next(archive.bucket.listed(prefix), None)
        if first is not None and first.storage_class in FROZEN and not archive.bucket.thawed(first.key):
            frozen.setdefault(archive.address.bucket, []).append(prefix)
            classes.add(first.storage_class)
    if not frozen:
        return
    places = [f"s3://{bucket}/{prefix}" for bucket, prefixes in frozen.items() for prefix in prefixes]
    raise InvalidRequest(
        f"manifest_uri: the segments in {', '.join(places)} are in {' and '.join(sorted(classes))} and cannot be read "
        "before they are thawed; nothing was started. To thaw them for a week:\n"
        + "\n".join(_thawing(bucket, prefixes) for bucket, prefixes in frozen.items())
        + "\nThat takes up to 5 hours in GLACIER and 12 in DEEP_ARCHIVE; then start the job again. Where it was asked "
        "for already, wait"
    )


def _thawing(bucket: str, prefixes: Sequence[str]) -> str:
    """The command for a shell that thaws all objects below these prefixes."""
    return (
        f"for prefix in {' '.join(map(shlex.quote, prefixes))}; do aws s3api list-objects-v2 --bucket {bucket} "
        "--prefix \"$prefix\" --query 'Contents[].[Key]' --output text | tr '\\n' '\\0' | xargs -0 -P 16 -I{} aws "
        f"s3api restore-object --bucket {bucket} --key {{}} --restore-request Days=7; done"
    )


@dataclass(frozen=True, eq=False)
class _Group:
    """Frames that lie one behind another in a segment, and are fetched by one request."""

    archive: Archive
    facts: SegmentFacts
    entries: tuple[Entry, ...]


class ArchiveSource:
    """The allocated blocks of an archive or chain, each checked against its SHA-256.

    Raises ``ArchiveDamaged`` for whatever is not what was written, and else what ``Bucket.get`` raises.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._groups: dict[int, _Group] = {}
        self._shared: SharedChunks[_Group, Mapping[int, bytes]] = SharedChunks(_fetch)

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The blocks held in ``within``, ascending; the indexes are read when the first one is asked for."""
        held, indexes = self._chain.indexed(within)
        self._groups = _grouped(self._chain, held, indexes)
        return (BlockRef(block) for block in held)

    def read(self, ref: BlockRef) -> Block:
        """The content of a listed block."""
        group = self._groups.get(ref.index)
        if group is None:
            return Block(ref.index, ZERO_BLOCK, ZERO_DIGEST)
        blocks = [entry.block for entry in group.entries]
        data = self._shared.take(group, blocks, ref.index)[ref.index]
        return Block(ref.index, data, group.entries[blocks.index(ref.index)].digest)


def _fetch(group: _Group) -> Mapping[int, bytes]:
    found = group.archive.frames(group.facts, group.entries)
    return {entry.block: data for entry, data in zip(group.entries, found, strict=True)}


def _grouped(
    chain: Chain, held: Mapping[int, Located], indexes: tuple[tuple[RangeIndex, ...], ...]
) -> dict[int, _Group]:
    """The group of each block with data: neighbours of one segment whose frames are neighbours, too."""
    groups: dict[int, _Group] = {}
    run: list[Entry] = []
    place: tuple[int, SegmentFacts] | None = None

    def close() -> None:
        if place is not None and run:
            group = _Group(chain.members[place[0]], place[1], tuple(run))
            groups.update(dict.fromkeys((entry.block for entry in run), group))
            run.clear()

    for block, (member, entry) in held.items():
        if entry.kind is not Kind.DATA:
            continue
        index = next(each for each in indexes[member] if block in each.range)
        here = (member, index.segment_of(block))
        behind = bool(run) and here == place and entry.offset == run[-1].offset + run[-1].length
        if not behind or len(run) == FRAMES_PER_READ:
            close()
        place = here
        run.append(entry)
    close()
    return groups
