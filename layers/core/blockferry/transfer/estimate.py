"""What a job would take, and the question about holes that only an operator can answer. Nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.sessions import Aws, Identity
from blockferry.cli.render import choice_line
from blockferry.core.blocks import BLOCK_SIZE, split
from blockferry.core.counts import RequestCounts
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.pacing import Pace
from blockferry.core.quotas import DRY_RUN_LISTS_PER_SECOND, MAX_PAGE
from blockferry.core.retry import Clock
from blockferry.cost import estimate as cost
from blockferry.cost.estimate import Outline, Reading
from blockferry.jobs.record import Job, JobImage, JobSnapshot
from blockferry.sources.image import BLOCKS_PER_READ
from blockferry.sources.unpack import CHUNK_BLOCKS
from blockferry.transfer.receipt import choices, object_bytes, source_facts
from blockferry.transfer.sources import image_blocks, list_again


def estimate(job: Job, possible: Sequence[HolePolicy], *, aws: Aws) -> dict[str, Any]:
    """The outcome of a dry run: the members of a receipt that can be known before. Nothing is started or written.

    ``possible`` are the policies for holes that the operator may choose. Of an image that is compressed nothing is
    known before it is unpacked: counts are ``None`` then. What an image has of zeros is not known either, so its writes
    are an upper bound.
    """
    known: dict[str, Any] = {
        "job_id": job.job_id,
        "operation": job.operation,
        "status": "DRY_RUN",
        "source": source_facts(job.source),
        "targets": [
            {"region": t.region, "parent_snapshot_id": t.parent_snapshot_id, "volume_size_gib": t.size_gib or None}
            for t in job.targets
        ],
        **choices(job),
        "warnings": [warning.model_dump() for warning in job.warnings],
    }
    if job.total_blocks == 0:
        unplanned = {"workers": None, "workers_because": None}
        return known | cost.unknown() | unplanned | {"holes_choices": _holes_choices(job, None, possible)}
    outline = _outline(job, aws)
    return known | cost.estimate(outline, job.holes) | {"holes_choices": _holes_choices(job, outline, possible)}


def question(job: Job, decision: HoleDecision, *, aws: Aws) -> str:
    """What an operator is asked who alone can know what the holes of the source stand for, with the prices."""
    price = {
        each["holes"]: choice_line(each | {"chosen": False})
        for each in _holes_choices(job, _outline(job, aws), decision.possible)
    }
    return (
        f"options.holes: {decision.reason}. A target is or may be encrypted, and a hole reads as noise there, not as "
        "zeros, so this has to be decided (on the command line with --holes); nothing was started:\n"
        f"- {price['preserve']}; right if nobody relies on zeros where the source has holes\n"
        f"- {price['zero_fill']}; right in any case"
    )


def _holes_choices(job: Job, outline: Outline | None, possible: Sequence[HolePolicy]) -> list[dict[str, Any]]:
    delta = isinstance(job.source, JobSnapshot) and job.source.base is not None
    policies = (HolePolicy.PRESERVE,) if delta else tuple(HolePolicy)
    return cost.holes_choices(outline, policies, chosen=job.holes, possible=possible)


def _outline(job: Job, aws: Aws) -> Outline:
    return Outline(
        reading=_reading(job, aws),
        targets=tuple(target.region for target in job.targets),
        home=job.execution_arn.split(":")[3],
        total_blocks=job.total_blocks,
        sharing=max(Counter((target.region, target.role_arn) for target in job.targets).values()),
    )


def _reading(job: Job, aws: Aws) -> Reading:
    source = job.source
    if isinstance(source, JobImage):
        blocks = image_blocks(source)
        raw = source.codec == "raw"
        return Reading(
            allocated=blocks,
            read=blocks,
            basis="size of the image",
            requests=cost.reading_objects(
                source.region if raw else job.execution_arn.split(":")[3],
                read=blocks,
                blocks_per_request=BLOCKS_PER_READ if raw else CHUNK_BLOCKS,
            ),
            object_bytes=object_bytes(source, blocks * BLOCK_SIZE),
        )
    if source.base is None and source.full_size_bytes is not None:
        allocated, read, removed = -(-source.full_size_bytes // BLOCK_SIZE), None, 0
        basis = "FullSnapshotSizeInBytes"
    else:
        allocated, read, removed = _listed(job, aws)
        basis = "ListSnapshotBlocks" if source.base is None else "ListChangedBlocks and ListSnapshotBlocks"
    read = allocated if read is None else read
    requests = cost.reading_snapshot(
        source.region,
        read=read,
        total_blocks=job.total_blocks,
        blocks_per_range=job.blocks_per_range,
        changes=source.base is not None,
    )
    if job.verify_parents:
        requests += cost.comparing(
            (source.region, *(target.region for target in job.targets)),
            total_blocks=job.total_blocks,
            blocks_per_range=job.blocks_per_range,
        )
    return Reading(allocated=allocated, read=read, removed=removed, basis=basis, requests=requests)


def _listed(job: Job, aws: Aws) -> tuple[int, int, int]:
    """Blocks that are allocated, to be read, and only in the base, from the lists of the source."""
    counts = RequestCounts()
    pace = Pace(DRY_RUN_LISTS_PER_SECOND, clock=Clock())

    def ebs_for(identity: Identity) -> EbsDirect:
        return aws.ebs(identity, counts=counts)

    allocated = read = removed = 0
    # By windows: the list of a whole volume would not fit into memory.
    for window in split(job.total_blocks, MAX_PAGE):
        pace.take()
        listed = list_again(job, ebs_for, window.first, window.stop)
        allocated += listed.allocated
        read += len(listed.indices) - len(listed.removed)
        removed += len(listed.removed)
    return allocated, read, removed
