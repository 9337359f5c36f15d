"""Plan transfer: refuse what cannot work, start the targets, cut the volume into ranges.

Everything that can be known to be wrong is found before the first StartSnapshot, so that a refused job has
started nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import snapshots
from blockferry.blocks import BLOCK_SIZE, BlockRange, blocks_of_volume, blocks_per_range, split
from blockferry.cost import request_cost
from blockferry.ebs.client import EbsDirect, RequestCounts
from blockferry.errors import InvalidRequest, RequestRefused, RetryLater
from blockferry.holes import HolePolicy
from blockferry.jobs import Job, JobSource, JobTarget
from blockferry.models import CONTROL_PREFIX, MAX_TAGS, Target, parse
from blockferry.requests import CopyRequest
from blockferry.sessions import Aws, Identity
from blockferry.sources.snapshot import SnapshotSource
from blockferry.transfer.targets import assuming, start_target
from blockferry.workspace import Workspace

SNAPSHOT_QUOTA_PER_SECOND = 1_000
"""GetSnapshotBlock and PutSnapshotBlock per snapshot, everywhere, not adjustable; per account it is the same in
most regions (EBS user guide, quotas)."""

REQUEST_SECONDS = 0.03
"""Answer time of a block request inside a region, for Little's law."""

MIN_THREADS, MAX_THREADS = 4, 32
"""A worker has at most one vCPU; more than 32 threads gain nothing at 30 ms and cost memory."""


@dataclass(frozen=True)
class PlanInput:
    """What the state machine passes: the execution's own name, ARN and start, and the operator's input."""

    job_id: str
    execution_arn: str
    started_at: str
    request: Mapping[str, Any]


def plan_transfer(event: PlanInput, *, aws: Aws, workspace: Workspace) -> dict[str, Any]:
    """Plan a copy and start its targets.

    Returns the pointer that the state machine passes on: ``{"job_id", "bucket", "plan_key", "results_prefix",
    "max_concurrency", "dry_run", "estimate"}``; ``estimate`` is set for a dry run only, which writes nothing at all.
    Called again for the same job it finds the same targets. Raises ``InvalidRequest`` with nothing left behind.
    """
    request = parse(CopyRequest, event.request, what="copy")
    region = request.source.region or aws.own_region
    source = Identity(region, request.source.role_arn, request.source.external_id)
    counts = RequestCounts()
    _refuse_unknown_regions(aws, [region, *(target.region for target in request.targets)])
    facts = assuming(
        lambda: snapshots.describe(aws.ec2(source), request.snapshot_id, region=region), f"source in {region}"
    )
    snapshots.refuse_unreadable(facts, region=region)
    ebs = aws.ebs(source, counts=counts)
    _refuse_no_access(ebs, request.snapshot_id)
    if request.options.holes is HolePolicy.SKIP_ZERO and facts.encrypted:
        raise InvalidRequest(
            f"options.holes: skip_zero is not safe: {request.snapshot_id} is encrypted, and so are its copies; "
            "use preserve"
        )
    total = blocks_of_volume(facts.size_gib)
    length = blocks_per_range(total, request.options.blocks_per_range)
    workers = min(request.options.max_concurrency, math.ceil(total / length))
    targets = tuple(_target(target, facts, event.job_id, region) for target in request.targets)
    share = _share(workers, targets)
    job = Job(
        job_id=event.job_id,
        operation="copy",
        execution_arn=event.execution_arn,
        started_at=event.started_at,
        fingerprint=hashlib.sha256(json.dumps(event.request, sort_keys=True).encode()).hexdigest(),
        source=JobSource(
            snapshot_id=facts.snapshot_id,
            region=region,
            role_arn=source.role_arn,
            external_id=source.external_id,
            owner_id=facts.owner_id,
            volume_id=facts.volume_id,
            size_gib=facts.size_gib,
            start_time=facts.start_time.isoformat(),
            encrypted=facts.encrypted,
            full_size_bytes=facts.full_size_bytes,
        ),
        targets=targets,
        total_blocks=total,
        blocks_per_range=length,
        max_concurrency=workers,
        blocks_per_second=share,
        threads=_threads(share, len(targets)),
        holes=request.options.holes,
    )
    pointer: dict[str, Any] = {
        "job_id": job.job_id,
        "bucket": workspace.bucket,
        "plan_key": workspace.key(job.job_id, "plan.jsonl"),
        "results_prefix": workspace.key(job.job_id, "results"),
        "max_concurrency": workers,
        "dry_run": request.options.dry_run,
        "estimate": None,
    }
    if request.options.dry_run:
        pointer["estimate"] = _estimate(job, ebs)
        return pointer
    earlier = workspace.job(job.job_id)
    if earlier is not None and earlier.fingerprint != job.fingerprint:
        raise InvalidRequest(
            f"a job named {job.job_id} with another input is recorded in {workspace.uri(job.job_id, '')}; "
            "start the execution under another name"
        )
    # The record comes first: whatever is started after it can be found again by the sweeper.
    workspace.save_job(job)
    job = _start_targets(job, aws=aws, counts=counts)
    workspace.save_job(job)
    workspace.save_plan(job.job_id, split(total, length))
    return pointer


def _refuse_unknown_regions(aws: Aws, regions: list[str]) -> None:
    try:
        answer = aws.ec2(Identity(aws.own_region)).describe_regions(AllRegions=True)
    except (ClientError, BotoCoreError) as error:
        raise RequestRefused(f"DescribeRegions in {aws.own_region}: {error}") from error
    known = {r["RegionName"]: r.get("OptInStatus", "opt-in-not-required") for r in answer["Regions"]}
    for region in dict.fromkeys(regions):
        if region not in known:
            raise InvalidRequest(
                f"region {region} is unknown to AWS (seen from {aws.own_region}); check its spelling. Regions of "
                "another partition cannot be reached with a role"
            )
        if known[region] == "not-opted-in":
            raise InvalidRequest(f"region {region} is not enabled in this account; enable it or choose another one")


def _refuse_no_access(ebs: EbsDirect, snapshot_id: str) -> None:
    """Describing a snapshot and reading it are different permissions: try one page before anything is started."""
    try:
        ebs.list_blocks(snapshot_id, window=1)
    except RequestRefused as error:
        raise InvalidRequest(
            f"snapshot {snapshot_id} in {ebs.region} cannot be read through the EBS direct APIs: {error}. The reading "
            "role needs ebs:ListSnapshotBlocks and ebs:GetSnapshotBlock on it and kms:Decrypt on its key; public "
            "snapshots and those on Outposts are not supported by EBS"
        ) from error


def _target(target: Target, facts: snapshots.SnapshotFacts, job_id: str, region: str) -> JobTarget:
    tags = {k: v for k, v in facts.tags.items() if not k.lower().startswith(("aws:", CONTROL_PREFIX))}
    tags |= target.tags
    tags |= {
        snapshots.JOB_TAG: job_id,
        snapshots.SOURCE_TAG: facts.snapshot_id,
        snapshots.SOURCE_REGION_TAG: region,
    }
    # One place is kept for the checksum that the receipt adds.
    if len(tags) + 1 > MAX_TAGS:
        raise InvalidRequest(
            f"target in {target.region}: {len(tags) + 1} tags (the source's, the target's and 4 of the job), EC2 keeps "
            f"{MAX_TAGS}; name fewer tags or remove some from {facts.snapshot_id}"
        )
    encrypted = target.encrypted
    if encrypted is None and target.kms_key_arn is None and facts.encrypted:
        # The account's default may be no encryption: a copy is never less protected unless it is asked for.
        encrypted = True
    return JobTarget(
        region=target.region,
        role_arn=target.role_arn,
        external_id=target.external_id,
        kms_key_arn=target.kms_key_arn,
        encrypted=encrypted,
        description=facts.description if target.description is None else target.description,
        tags=tags,
    )


def _share(workers: int, targets: tuple[JobTarget, ...]) -> float:
    """Blocks per second of one worker: the quota divided by the workers and by the targets that share an account."""
    per_account: dict[tuple[str, str | None], int] = {}
    for target in targets:
        place = (target.region, target.role_arn)
        per_account[place] = per_account.get(place, 0) + 1
    return SNAPSHOT_QUOTA_PER_SECOND / workers / max(per_account.values())


def _threads(blocks_per_second: float, targets: int) -> int:
    """Little's law: requests in flight = rate x answer time, doubled for slower answers."""
    in_flight = 2 * blocks_per_second * REQUEST_SECONDS * (1 + targets)
    return max(MIN_THREADS, min(MAX_THREADS, math.ceil(in_flight)))


def _start_targets(job: Job, *, aws: Aws, counts: RequestCounts) -> Job:
    """Start every target.

    If one is refused for good, those started before are deleted and nothing is left. One that cannot be reached at
    present is left to the end of the job, unless it is the only one or none can be reached.
    """
    targets = list(job.targets)
    unreachable: RetryLater | None = None
    for number, target in enumerate(job.targets):
        try:
            targets[number] = start_target(job, number, aws=aws, counts=counts)
        except RetryLater as error:
            unreachable = unreachable or error
        except (RequestRefused, InvalidRequest) as error:
            _undo(targets, aws)
            raise InvalidRequest(
                f"targets[{number}] in {target.region} cannot be started, nothing is left of the job: {error}"
            ) from error
    if unreachable is not None and not any(target.snapshot_id for target in targets):
        raise unreachable
    return job.model_copy(update={"targets": tuple(targets)})


def _undo(started: list[JobTarget], aws: Aws) -> None:
    for target in started:
        if target.snapshot_id:
            snapshots.delete(aws.ec2(target.identity), target.snapshot_id)


def _estimate(job: Job, ebs: EbsDirect) -> dict[str, Any]:
    """Requests, bytes, time at the quota and dollars of the job, from counts and not from guesses."""
    allocated, basis = _allocated(job, ebs)
    written = job.total_blocks if job.holes is HolePolicy.ZERO_FILL else allocated
    requests = {
        # The range's own list, the recount's, and one page for each further 10,000 indices of a long range.
        "ListSnapshotBlocks": 2 * math.ceil(job.total_blocks / min(job.blocks_per_range, 10_000)) + 1,
        "GetSnapshotBlock": allocated,
        "PutSnapshotBlock": written * len(job.targets),
    }
    rate = job.blocks_per_second * job.max_concurrency
    return {
        "job_id": job.job_id,
        "operation": job.operation,
        "status": "DRY_RUN",
        "source": {"snapshot_id": job.source.snapshot_id, "region": job.source.region},
        "targets": [{"region": target.region} for target in job.targets],
        "allocated_blocks": allocated,
        "allocated_blocks_from": basis,
        "bytes_read": allocated * BLOCK_SIZE,
        "bytes_written": requests["PutSnapshotBlock"] * BLOCK_SIZE,
        "requests": requests,
        "seconds_at_quota": math.ceil(max(allocated, written) / rate),
        "cost_usd": request_cost(requests),
    }


def _allocated(job: Job, ebs: EbsDirect) -> tuple[int, str]:
    if job.source.full_size_bytes is not None:
        return -(-job.source.full_size_bytes // BLOCK_SIZE), "FullSnapshotSizeInBytes"
    source = SnapshotSource(ebs, job.source.snapshot_id)
    listed = sum(1 for _ in source.blocks(BlockRange(0, job.total_blocks)))
    return listed, "ListSnapshotBlocks"
