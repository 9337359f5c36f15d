"""What a job would take: requests, bytes, time at the quotas and dollars, from counts and not from guesses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
from blockferry.cost.prices import request_cost, storage_a_month
from blockferry.jobs.record import Job, JobImage, JobSnapshot
from blockferry.sources.image import BLOCKS_PER_READ
from blockferry.sources.unpack import CHUNK_BLOCKS
from blockferry.transfer.receipt import choices, source_facts, transferred
from blockferry.transfer.sources import image_blocks, list_again

UNPACKED_FIRST = "unknown until the image is unpacked"


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
        unknown = ("allocated_blocks", "changed_blocks", "removed_blocks", "bytes_read", "bytes_written")
        return (
            known
            | dict.fromkeys((*unknown, "seconds_at_quota", "workers", "workers_because"))
            | {
                "allocated_blocks_from": UNPACKED_FIRST,
                "holes_choices": _choices(job, None, possible),
                "requests": {},
                "cost_usd": request_cost({}),
            }
        )
    found = _counted(job, aws)
    written = found.written(job, job.holes)
    requests = _requests(job, read=found.read, written=written)
    rate = job.blocks_per_second * job.max_concurrency
    return known | {
        "allocated_blocks": found.allocated,
        "allocated_blocks_from": found.basis,
        "changed_blocks": written - found.removed,
        "removed_blocks": found.removed,
        "bytes_read": found.read * BLOCK_SIZE,
        "bytes_written": written * len(job.targets) * BLOCK_SIZE,
        "requests": requests,
        "seconds_at_quota": math.ceil(max(found.read, written) / rate),
        "cost_usd": request_cost(
            requests, region=job.source.region, transfer=transferred(job, read=found.read, written=written)
        ),
        "holes_choices": _choices(job, found, possible),
    }


def question(job: Job, decision: HoleDecision, *, aws: Aws) -> str:
    """What an operator is asked who alone can know what the holes of the source stand for, with the prices."""
    found = _counted(job, aws)
    price = {each["holes"]: choice_line(each | {"chosen": False}) for each in _choices(job, found, decision.possible)}
    return (
        f"options.holes: {decision.reason}. A target is or may be encrypted, and a hole reads as noise there, not as "
        "zeros, so this has to be decided (on the command line with --holes); nothing was started:\n"
        f"- {price['preserve']}; right if nobody relies on zeros where the source has holes\n"
        f"- {price['zero_fill']}; right in any case"
    )


def _choices(job: Job, found: _Counted | None, possible: Sequence[HolePolicy]) -> list[dict[str, Any]]:
    """What each policy for holes would write and cost, once and a month; ``None`` where that cannot be known."""
    delta = isinstance(job.source, JobSnapshot) and job.source.base is not None
    return [
        _choice(job, found, policy, possible=policy in possible)
        for policy in ((HolePolicy.PRESERVE,) if delta else HolePolicy)
    ]


def _choice(job: Job, found: _Counted | None, policy: HolePolicy, *, possible: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"holes": policy.value, "possible": possible, "chosen": policy is job.holes}
    if found is None or policy is HolePolicy.SKIP_ZERO:
        told = UNPACKED_FIRST if found is None else "unknown until the blocks are read: those of zeros are not counted"
        return choice | {"blocks_written": None, "blocks_written_from": told, "usd_once": None, "usd_a_month": None}
    written = found.written(job, policy)
    once = request_cost(
        _requests(job, read=found.read, written=written),
        region=job.source.region,
        transfer=transferred(job, read=found.read, written=written),
    )
    return choice | {
        "blocks_written": written,
        "blocks_written_from": found.basis if policy is HolePolicy.PRESERVE else "size of the volume",
        "usd_once": once["total"],
        "usd_a_month": storage_a_month([target.region for target in job.targets], written * BLOCK_SIZE),
    }


@dataclass(frozen=True)
class _Counted:
    """Blocks that the source has allocated, that are to be read, and that only the base holds; and who says so."""

    allocated: int
    read: int
    removed: int
    basis: str

    def written(self, job: Job, policy: HolePolicy) -> int:
        """Blocks to each target; at most, where zeros are left out."""
        return job.total_blocks if policy is HolePolicy.ZERO_FILL else self.read + self.removed


def _counted(job: Job, aws: Aws) -> _Counted:
    source = job.source
    if isinstance(source, JobImage):
        blocks = image_blocks(source)
        return _Counted(blocks, blocks, 0, "size of the image")
    if source.base is None and source.full_size_bytes is not None:
        full = -(-source.full_size_bytes // BLOCK_SIZE)
        return _Counted(full, full, 0, "FullSnapshotSizeInBytes")
    counts = RequestCounts()
    clock = Clock()
    pace = Pace(DRY_RUN_LISTS_PER_SECOND, clock=clock)

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
    basis = "ListSnapshotBlocks" if source.base is None else "ListChangedBlocks and ListSnapshotBlocks"
    return _Counted(allocated, read, removed, basis)


def _requests(job: Job, *, read: int, written: int) -> dict[str, int]:
    # The range's own list, the recount's, and one page for each further 10,000 indices of a long range.
    lists = 2 * math.ceil(job.total_blocks / min(job.blocks_per_range, MAX_PAGE)) + 1
    requests = {"PutSnapshotBlock": written * len(job.targets)}
    if isinstance(job.source, JobImage):
        return requests | {
            "GetObject": math.ceil(read / (BLOCKS_PER_READ if job.source.codec == "raw" else CHUNK_BLOCKS))
        }
    requests |= {"GetSnapshotBlock": read, "ListSnapshotBlocks": lists}
    if job.source.base is not None:
        requests |= {"ListChangedBlocks": lists, "ListSnapshotBlocks": lists // 2 + 1}
    if job.verify_parents:
        # At most: every index of the base and of each parent.
        pairs = 1 + len(job.targets)
        requests["GetSnapshotBlock"] += pairs * job.total_blocks
        requests["ListSnapshotBlocks"] += pairs * (lists // 2)
    return requests
