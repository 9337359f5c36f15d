"""Complete transfer: hold what was moved against the source once more, then let EBS seal the targets.

The digests of all ranges are streamed in the order of their blocks. Each range is listed again, independently of
the worker that moved it: a block that is allocated but has no digest, or the other way round, fails the job before
any target is completed. EBS then gets the count and the LINEAR checksum and refuses a target that does not match.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from blockferry import snapshots
from blockferry.blocks import BlockRange
from blockferry.checksums import ZERO_DIGEST, Linear
from blockferry.digests import Stretch, joined
from blockferry.ebs.client import RequestCounts
from blockferry.errors import IncompleteTransfer, RequestRefused, TargetFailed
from blockferry.holes import HolePolicy
from blockferry.jobs import Job, JobTarget, Proof
from blockferry.pacing import Pace
from blockferry.ports import BlockSource
from blockferry.retry import Clock
from blockferry.sessions import Aws
from blockferry.sources.snapshot import SnapshotSource
from blockferry.transfer.steps import recorded_job
from blockferry.workspace import Workspace

AHEAD = 16
"""Digest objects in memory at a time (a range of 4,096 blocks is 147 KB): hides S3's answer time, bounds memory."""

LISTS_PER_SECOND = 25.0
"""Half of the account's quota for list requests, which other jobs share."""

A = TypeVar("A")
B = TypeVar("B")


def complete_transfer(*, job_id: str, aws: Aws, workspace: Workspace, clock: Clock | None = None) -> dict[str, object]:
    """Prove the transfer and complete every target.

    Returns ``{"allocated_blocks", "blocks_written", "linear_checksum"}``. Called again it proves again and leaves
    targets that are sealed already. Raises ``IncompleteTransfer`` with no target completed, ``TargetFailed`` when a
    target is no longer pending and not completed.
    """
    clock = clock or Clock()
    job = recorded_job(workspace, job_id)
    counts = RequestCounts()
    proof = _prove(job, aws=aws, workspace=workspace, counts=counts, clock=clock)
    workspace.save_proof(job_id, proof)
    for target in job.targets:
        _complete(target, proof, aws=aws, clock=clock)
    return {
        "allocated_blocks": proof.allocated_blocks,
        "blocks_written": proof.blocks_written,
        "linear_checksum": proof.linear_checksum,
    }


def _prove(job: Job, *, aws: Aws, workspace: Workspace, counts: RequestCounts, clock: Clock) -> Proof:
    source = SnapshotSource(aws.ebs(job.source.identity, counts=counts, clock=clock), job.source.snapshot_id)
    pace = Pace(LISTS_PER_SECOND, clock=clock)
    linear = Linear()
    requests: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    allocated = zeros = 0

    def recount(stretch: Stretch) -> tuple[Stretch, frozenset[int]]:
        pace.take()
        return stretch, _listed(source, stretch)

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="prove") as pool:
        stored = _ahead(pool, workspace.stretch, workspace.stretch_keys(job.job_id))
        for stretch, listed in _ahead(pool, recount, joined(stored, total_blocks=job.total_blocks)):
            _compare(job, stretch, listed)
            allocated += len(listed)
            requests.update(stretch.requests)
            retries.update(stretch.retries)
            for index, digest in stretch.digests:
                zeros += digest == ZERO_DIGEST
                if job.holes.writes(digest):
                    linear.add(index, digest)
    if allocated == 0 and job.source.full_size_bytes:
        raise IncompleteTransfer(
            f"{job.source.snapshot_id} lists no block, but EC2 says that it holds {job.source.full_size_bytes} bytes; "
            "an empty copy is refused"
        )
    requests.update(counts.requests)
    retries.update(counts.retries)
    return Proof(
        allocated_blocks=allocated,
        zero_blocks=zeros,
        blocks_written=linear.blocks,
        linear_checksum=linear.value(),
        requests=dict(requests),
        retries=dict(retries),
    )


def _listed(source: BlockSource, stretch: Stretch) -> frozenset[int]:
    if stretch.first == stretch.stop:
        return frozenset()
    return frozenset(ref.index for ref in source.blocks(BlockRange(stretch.first, stretch.stop)))


def _compare(job: Job, stretch: Stretch, listed: frozenset[int]) -> None:
    moved = {index for index, _ in stretch.digests}
    missing = listed - moved
    if missing:
        raise IncompleteTransfer(
            f"block {min(missing)} of {job.source.snapshot_id} is allocated but was not moved ({len(missing)} such "
            f"blocks between {stretch.first} and {stretch.stop}); no target was completed"
        )
    if job.holes is HolePolicy.ZERO_FILL:
        if len(moved) != stretch.stop - stretch.first:
            raise IncompleteTransfer(
                f"holes are to be filled, but only {len(moved)} blocks between {stretch.first} and {stretch.stop} were "
                "moved; no target was completed"
            )
    elif moved - listed:
        raise IncompleteTransfer(
            f"block {min(moved - listed)} was moved but is not allocated in {job.source.snapshot_id}; no target was "
            "completed"
        )


def _complete(target: JobTarget, proof: Proof, *, aws: Aws, clock: Clock) -> None:
    if snapshots.describe(aws.ec2(target.identity), target.snapshot_id, region=target.region).state == "completed":
        # Only this step completes targets, always with count and checksum: an earlier call got this far.
        return
    try:
        aws.ebs(target.identity, counts=RequestCounts(), clock=clock).complete_snapshot(
            target.snapshot_id, changed_blocks=proof.blocks_written, linear_checksum=proof.linear_checksum
        )
    except RequestRefused as error:
        # An earlier call may have reached EBS although its answer was lost.
        facts = snapshots.describe(aws.ec2(target.identity), target.snapshot_id, region=target.region)
        if facts.state == "completed":
            return
        raise TargetFailed(
            f"target {target.snapshot_id} in {target.region} (state {facts.state}) was not completed: {error}"
        ) from error


def _ahead(pool: ThreadPoolExecutor, call: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Results of ``call`` in the order of ``items``, at most ``AHEAD`` of them under way or waiting."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
