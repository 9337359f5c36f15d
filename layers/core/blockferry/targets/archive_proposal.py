"""The archive that a request asks for: its place, which nobody else may have, and what it is made of."""

from __future__ import annotations

import re
from typing import Protocol

from blockferry.aws.archives import bucket_of
from blockferry.aws.call import Call
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import blocks_of_volume
from blockferry.core.errors import (
    InvalidRequest,
    RequestRefused,
)
from blockferry.core.holes import HoleDecision
from blockferry.core.words import counted
from blockferry.formats.archive.layout import (
    UNFINISHED,
    ArchiveAddress,
    with_slash,
)
from blockferry.formats.archive.manifest import Member, SourceFacts
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.requests.archive import ArchivePlace, ArchiveRequest
from blockferry.sources.archiving import ForArchive
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_claim import claimed_by, machine_of, whose
from blockferry.targets.proposal import Proposal

MOST_SEGMENTS = 2**21
"""Segments of an archive: as many as 64 TiB have of 64 blocks each. All of them are listed when the archive is sealed,
which is one invocation of Complete transfer: at 1,000 a request two million take some minutes of it."""


def propose_archive(
    request: ArchiveRequest, found: ForArchive, execution: Execution, call: JobCall
) -> Proposal[ArchiveTarget]:
    """The archive that a request asks for. Raises ``InvalidRequest`` when its bucket cannot be used, or there is one of
    its name."""
    asked = request.archive
    if asked.bucket == call.folder.bucket:
        raise InvalidRequest(
            f"archive.bucket: {asked.bucket} is the work bucket of this deployment, whose objects expire; name another"
        )
    target = new_archive(
        request.archive,
        found,
        call,
        home=call.aws.own_region,
        size_gib=found.size_gib,
        job_id=execution.job_id,
        mark=execution.mark,
    )
    return Proposal((target,), found.holes, warnings=found.warnings)


class Contents(Protocol):
    """What an archive is to hold: what its manifest says of the source, what holes stand for, the archives that it is
    built upon, the nearest first, and whether these are compared by digest."""

    @property
    def facts(self) -> SourceFacts: ...

    @property
    def holes(self) -> HoleDecision: ...

    @property
    def base(self) -> tuple[Member, ...]: ...

    @property
    def compares(self) -> bool: ...


def new_archive(
    asked: ArchivePlace,
    found: Contents,
    call: Call,
    *,
    home: str,
    size_gib: int | None,
    job_id: str,
    mark: str,
    machine: str | None = None,
) -> ArchiveTarget:
    """The archive in the place that is ``asked`` for, which nobody has yet. ``home`` is the Region to ask from.

    Raises ``InvalidRequest`` when its bucket cannot be used, or there is one of its name.
    """
    _refuse_too_small_segments(asked.segment_blocks, size_gib)
    own = Identity(home, asked.role_arn, asked.external_id)
    bucket = bucket_of(call, own, asked.bucket)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.facts.name.rsplit("/", 1)[-1]).lstrip("._-") or "image"
    address = ArchiveAddress(asked.bucket, with_slash(asked.prefix), asked.archive_id or f"{name[:100]}-{mark[:8]}")
    try:
        region = assuming(lambda: bucket.region(default=own.region), f"archive.bucket {asked.bucket}")
        there = next(bucket.listed(address.key()), None)
    except RequestRefused as error:
        raise InvalidRequest(f"archive.bucket: {error}; nothing was started") from error
    if asked.kms_key_arn is not None and asked.kms_key_arn.split(":")[3] != region:
        raise InvalidRequest(
            f"archive.kms_key_arn names a key in {asked.kms_key_arn.split(':')[3]}, the bucket {asked.bucket} is in "
            f"{region}: name a key there"
        )
    claim = b"" if there is None else bucket.get(address.key(UNFINISHED)) or b""
    # What this execution has claimed itself is no obstacle: its plan is repeated.
    if there is not None and claimed_by(claim) != mark:
        dead = f". It is being written by {whose(claim, address)}" if machine_of(claim) else ""
        raise InvalidRequest(
            f"archive.archive_id: there is something below {address.uri()} already ({there.key}), and an archive is "
            f"never written over: name another id, or leave archive_id out{dead}"
        )
    return ArchiveTarget(
        region=region,
        role_arn=asked.role_arn,
        external_id=asked.external_id,
        bucket=address.bucket,
        prefix=address.prefix,
        archive_id=address.archive_id,
        storage_class=asked.storage_class,
        kms_key_arn=asked.kms_key_arn,
        level=asked.compression_level,
        segment_blocks=asked.segment_blocks,
        object_tags=dict(asked.tags),
        source=found.facts,
        holes=found.holes.left,
        base=found.base,
        compares=found.compares,
        job_id=job_id,
        execution=mark,
        machine=machine,
        size_gib=size_gib,
    )


def _refuse_too_small_segments(segment_blocks: int, size_gib: int | None) -> None:
    """``size_gib`` is ``None`` until an image is unpacked; then it is asked again."""
    blocks = 0 if size_gib is None else blocks_of_volume(size_gib)
    if -(-blocks // segment_blocks) > MOST_SEGMENTS:
        raise InvalidRequest(
            f"archive.segment_blocks: a volume of {size_gib} GiB may have {-(-blocks // segment_blocks)} segments of "
            f"{counted(segment_blocks, 'block')}, and an archive has {MOST_SEGMENTS} at most, as all of them "
            f"are listed at its end: name {-(-blocks // MOST_SEGMENTS)} or more, or leave segment_blocks out"
        )
