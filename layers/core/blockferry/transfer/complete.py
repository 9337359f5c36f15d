"""Complete transfer: hold what was moved against the source once more, then let EBS seal the targets.

The digests of all ranges are streamed in the order of their blocks. Each range is listed again, independently of
the worker that moved it: a block that is allocated but has no digest, or the other way round, fails the job before
any target is completed. EBS then gets the count and the LINEAR checksum and refuses a target that does not match.

A target that could not be written everywhere does not hold up the others: they are completed, and what it misses is
planned as ranges of its own. A job that a worker has refused ends here, with its targets deleted.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import snapshots
from blockferry.aws_errors import translated
from blockferry.blocks import BlockRange
from blockferry.checksums import ZERO_DIGEST, Linear
from blockferry.digests import Coverage, Stretch, joined
from blockferry.ebs.client import EbsDirect, RequestCounts
from blockferry.errors import BlockferryError, IncompleteTransfer, InvalidRequest, RequestRefused, TargetFailed
from blockferry.holes import HolePolicy
from blockferry.jobs import Job, JobSnapshot, JobTarget, Proof
from blockferry.models import taken_at_the_start
from blockferry.pacing import Pace
from blockferry.retry import Clock
from blockferry.sessions import Aws, Identity
from blockferry.transfer.sources import Listed, list_again
from blockferry.transfer.steps import recorded_job
from blockferry.transfer.targets import start_target
from blockferry.workspace import Workspace

AHEAD = 16
"""Digest objects in memory at a time (a range of 4,096 blocks is 147 KB): hides S3's answer time, bounds memory."""

LISTS_PER_SECOND = 25.0
"""Half of the account's quota for list requests, which other jobs share."""

A = TypeVar("A")
B = TypeVar("B")


def complete_transfer(
    *, job_id: str, missing_moved: bool = False, aws: Aws, workspace: Workspace, clock: Clock | None = None
) -> dict[str, object]:
    """Prove the transfer, complete every target that holds all blocks, and plan what the others miss.

    ``missing_moved`` says that missing ranges were moved before: then nothing may be missing any more. Returns
    ``{"job_id", "bucket", "missing_ranges", "missing_key", "blocks_written", "linear_checksum"}``. Called again it
    proves again and leaves targets that are sealed already.

    Raises ``IncompleteTransfer`` with no target completed, ``TargetFailed`` naming each target that could not be
    completed when the others are, ``RetryLater`` when a target that was never started still cannot be, and
    ``InvalidRequest`` with the pending targets deleted when a worker has refused the job.
    """
    clock = clock or Clock()
    job = recorded_job(workspace, job_id)
    refusal = workspace.refusal(job_id)
    if refusal is not None:
        raise InvalidRequest(f"{refusal}. {_discard(job, aws=aws, workspace=workspace)}")
    counts = RequestCounts()
    coverage = Coverage(targets=len(job.targets), total_blocks=job.total_blocks)
    proof = _prove(job, coverage, aws=aws, workspace=workspace, counts=counts, clock=clock)
    workspace.save_proof(job_id, proof)
    missing = coverage.missing_by_range(job.blocks_per_range)
    states = [_settle(target, coverage.missing(n), proof, aws, clock) for n, target in enumerate(job.targets)]
    workspace.write(job_id, "targets.json", json.dumps(states, indent=1).encode())
    failed = [state for state in states if state["error"]]
    if failed:
        raise TargetFailed(_named("targets that could not be completed (the others are)", failed))
    if missing and missing_moved:
        behind = [state for state in states if state["missing_ranges"]]
        raise IncompleteTransfer(_named("targets that miss blocks although every range was moved", behind))
    if missing:
        workspace.save_job(_all_started(job, aws=aws, counts=counts))
        workspace.save_missing(job_id, missing)
    return {
        "job_id": job_id,
        "bucket": workspace.bucket,
        "missing_ranges": len(missing),
        "missing_key": workspace.key(job_id, "missing.jsonl"),
        "blocks_written": proof.blocks_written,
        "linear_checksum": proof.linear_checksum,
    }


def _discard(job: Job, *, aws: Aws, workspace: Workspace) -> str:
    """Delete the targets of a job that cannot be done, but those that were completed before; says what was done."""
    body = workspace.read(job.job_id, "targets.json")
    kept = {state["snapshot_id"] for state in json.loads(body or b"[]") if state["completed"]}
    for target in job.targets:
        if target.snapshot_id and target.snapshot_id not in kept:
            snapshots.delete(aws.ec2(target.identity), target.snapshot_id)
    if not kept:
        return "Nothing is left of the job"
    return f"Completed before that, and kept: {', '.join(sorted(kept))}"


def _settle(target: JobTarget, missing: list[BlockRange], proof: Proof, aws: Aws, clock: Clock) -> dict[str, Any]:
    """Complete a target that misses nothing; its state for ``targets.json``, with the error if it has one."""
    error = None
    if not missing:
        try:
            _complete(target, proof, aws=aws, clock=clock)
        except BlockferryError as failure:
            error = str(failure)
        except (ClientError, BotoCoreError) as failure:
            error = str(translated(failure))
    return {
        "region": target.region,
        "snapshot_id": target.snapshot_id,
        "completed": not missing and error is None,
        "missing_ranges": len(missing),
        "error": error,
    }


def _named(what: str, states: list[dict[str, Any]]) -> str:
    lines = [f"- {s['snapshot_id']} in {s['region']}: {s['error'] or 'incomplete'}" for s in states]
    return "\n".join([f"{what}:", *lines])


def _all_started(job: Job, *, aws: Aws, counts: RequestCounts) -> Job:
    """The job with the targets started that could not be reached when it was planned."""
    targets = [
        target if target.snapshot_id else start_target(job, number, aws=aws, counts=counts)
        for number, target in enumerate(job.targets)
    ]
    return job.model_copy(update={"targets": tuple(targets)})


def _prove(
    job: Job, coverage: Coverage, *, aws: Aws, workspace: Workspace, counts: RequestCounts, clock: Clock
) -> Proof:
    pace = Pace(LISTS_PER_SECOND, clock=clock)
    linear = Linear()
    requests: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    allocated = read = removed = zeros = parent_blocks = 0
    gb_seconds = 0.0

    def ebs_for(identity: Identity) -> EbsDirect:
        return aws.ebs(identity, counts=counts, clock=clock)

    def recount(stretch: Stretch) -> tuple[Stretch, Listed]:
        pace.take()
        return stretch, list_again(job, ebs_for, stretch.first, stretch.stop)

    def covered(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
        for stretch in stretches:
            coverage.add(stretch)
            yield stretch

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="prove") as pool:
        stored = covered(_ahead(pool, workspace.stretch, workspace.stretch_keys(job.job_id)))
        for stretch, listed in _ahead(pool, recount, joined(stored, total_blocks=job.total_blocks)):
            _compare(job, stretch, listed.indices)
            allocated += listed.allocated
            removed += len(listed.removed)
            read += len(listed.indices) - len(listed.removed)
            requests.update(stretch.requests)
            retries.update(stretch.retries)
            parent_blocks += stretch.parent_blocks
            gb_seconds += stretch.gb_seconds
            for index, digest in stretch.digests:
                if index in listed.removed:
                    if digest != ZERO_DIGEST:
                        raise IncompleteTransfer(
                            f"block {index} is gone from {job.source.name}, but something else than zeros was written "
                            "there; no target was completed"
                        )
                else:
                    zeros += digest == ZERO_DIGEST
                if job.holes.writes(digest):
                    linear.add(index, digest)
    if allocated == 0 and isinstance(job.source, JobSnapshot) and job.source.full_size_bytes:
        raise IncompleteTransfer(
            f"{job.source.snapshot_id} lists no block, but EC2 says that it holds {job.source.full_size_bytes} bytes; "
            "an empty copy is refused"
        )
    requests.update(counts.requests)
    retries.update(counts.retries)
    return Proof(
        allocated_blocks=allocated,
        changed_blocks=linear.blocks - removed,
        removed_blocks=removed,
        zero_blocks=zeros,
        blocks_read=read,
        blocks_written=linear.blocks,
        parent_blocks=parent_blocks,
        linear_checksum=linear.value(),
        requests=dict(requests),
        retries=dict(retries),
        worker_gb_seconds=round(gb_seconds, 3),
    )


def _compare(job: Job, stretch: Stretch, listed: frozenset[int]) -> None:
    moved = {index for index, _ in stretch.digests}
    missing = listed - moved
    if missing:
        raise IncompleteTransfer(
            f"block {min(missing)} of {job.source.name} is {_due(job)} but was not moved ({len(missing)} such "
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
            f"block {min(moved - listed)} was moved but is not {_due(job)} in {job.source.name}; no target was "
            "completed"
        )


def _due(job: Job) -> str:
    return "changed" if isinstance(job.source, JobSnapshot) and job.source.base is not None else "allocated"


def _complete(target: JobTarget, proof: Proof, *, aws: Aws, clock: Clock) -> None:
    ec2 = aws.ec2(target.identity)
    if snapshots.describe(ec2, target.snapshot_id, region=target.region).state != "completed":
        # Only this step completes targets, always with count and checksum: one that is completed was so by an
        # earlier call.
        _seal(target, proof, aws=aws, clock=clock)
    # What a later sync trusts. If EBS should still find fault with the snapshot it is never completed, tag or not.
    proved = {snapshots.CHECKSUM_TAG: proof.linear_checksum, snapshots.PROVED_TAG: target.snapshot_id}
    late = {key: value for key, value in target.tags.items() if not taken_at_the_start(key, value)}
    snapshots.add_tags(ec2, target.snapshot_id, late | proved)


def _seal(target: JobTarget, proof: Proof, *, aws: Aws, clock: Clock) -> None:
    try:
        ebs = aws.ebs(target.identity, counts=RequestCounts(), clock=clock)
        ebs.was_started(target.snapshot_id, seconds_ago=target.started_seconds_ago(datetime.now(UTC)))
        ebs.complete_snapshot(
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
