"""What a job reads, as a source of blocks for its workers and as a list for its proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange, blocks_of_volume
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.ports import BlockSource
from blockferry.core.retry import Clock, Deadline
from blockferry.jobs.record import BaseSnapshot, Job, JobImage, JobSnapshot
from blockferry.jobs.workspace import Workspace
from blockferry.sources.delta import DeltaSource
from blockferry.sources.equal import Clone, EqualSnapshots
from blockferry.sources.image import S3ImageSource, UnpackedImageSource
from blockferry.sources.snapshot import SnapshotSource

EbsFor = Callable[[Identity], EbsDirect]


def block_source(
    job: Job,
    *,
    ebs_for: EbsFor,
    aws: Aws,
    workspace: Workspace,
    counts: RequestCounts,
    clock: Clock,
    deadline: Deadline,
) -> BlockSource:
    """The source that a worker of the job reads."""
    source = job.source
    if isinstance(source, JobSnapshot):
        ebs = ebs_for(source.identity)
        if source.base is not None:
            return _delta(source, source.base, ebs)
        return SnapshotSource(ebs, source.snapshot_id)
    if source.codec != "raw":
        return UnpackedImageSource(
            workspace, job.job_id, source.raw_bytes, counts=counts, clock=clock, deadline=deadline
        )
    bucket, key = source.uri.removeprefix("s3://").split("/", 1)
    return S3ImageSource(
        aws.image_s3(source.identity),
        bucket,
        key,
        etag=source.etag,
        size_bytes=source.raw_bytes,
        counts=counts,
        clock=clock,
        deadline=deadline,
    )


def parents_beside_base(job: Job, targets: Sequence[int], *, ebs_for: EbsFor) -> EqualSnapshots:
    """The base of a sync and the parents of these targets, to be compared."""
    source = job.source
    if not isinstance(source, JobSnapshot) or source.base is None:
        raise IncompleteTransfer(f"job {job.job_id} has no base to compare parents with")
    base = SnapshotSource(
        ebs_for(source.identity), source.base.snapshot_id, total_blocks=blocks_of_volume(source.base.size_gib)
    )
    clones = []
    for number in targets:
        target = job.targets[number]
        name = f"targets[{number}].parent_snapshot_id {target.parent_snapshot_id} in {target.region}"
        blocks = blocks_of_volume(target.parent_size_gib)
        parent = SnapshotSource(ebs_for(target.identity), target.parent_snapshot_id or "", total_blocks=blocks)
        full_to = blocks if target.parent_is_full else 0
        clones.append(Clone(name, parent, target.parent_encrypted, full_to))
    return EqualSnapshots(f"base {source.base.snapshot_id}", base, clones)


@dataclass(frozen=True)
class Listed:
    """What a stretch of the source must have given: the blocks to move, those of them that only the base of a delta
    holds, and how many the source has allocated there."""

    indices: frozenset[int]
    removed: frozenset[int]
    allocated: int


def list_again(job: Job, ebs_for: EbsFor, first: int, stop: int) -> Listed:
    """List a stretch independently of the worker that moved it.

    A delta is held against the allocated blocks of its snapshot, which come from another list. Raises
    ``IncompleteTransfer`` when the two contradict each other.
    """
    if first >= stop:
        return Listed(frozenset(), frozenset(), 0)
    within = BlockRange(first, stop)
    source = job.source
    if isinstance(source, JobImage):
        indices = frozenset(range(first, min(stop, image_blocks(source))))
        return Listed(indices, frozenset(), len(indices))
    ebs = ebs_for(source.identity)
    total = blocks_of_volume(source.size_gib)
    allocated = frozenset(
        ref.index for ref in SnapshotSource(ebs, source.snapshot_id, total_blocks=total).blocks(within)
    )
    if source.base is None:
        return Listed(allocated, frozenset(), len(allocated))
    changes = {change.index: change for change in _delta(source, source.base, ebs).changes(within)}
    removed = frozenset(index for index, change in changes.items() if change.second_token is None)
    for index in changes:
        if (index in removed) == (index in allocated):
            raise IncompleteTransfer(
                f"the list of changes from {source.base.snapshot_id} says that block {index} is "
                f"{'not in' if index in removed else 'in'} {source.snapshot_id}, the list of its blocks says the "
                "opposite; no target was completed"
            )
    return Listed(frozenset(changes), removed, len(allocated))


def image_blocks(image: JobImage) -> int:
    """Blocks that the unpacked image touches, the unaligned tail included."""
    return -(-image.raw_bytes // BLOCK_SIZE)


def _delta(source: JobSnapshot, base: BaseSnapshot, ebs: EbsDirect) -> DeltaSource:
    return DeltaSource(
        ebs, base.snapshot_id, source.snapshot_id, total_blocks=blocks_of_volume(max(source.size_gib, base.size_gib))
    )
