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

from botocore.exceptions import BotoCoreError

from blockferry.aws.sessions import Aws
from blockferry.core.blocks import blocks_per_range, split
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import EncryptionDiffers, InvalidRequest, RequestRefused, RetryLater
from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.core.reserves import START_SECONDS
from blockferry.core.retry import Clock, Deadline
from blockferry.jobs.record import Job, JobTarget
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.discard import discard, started
from blockferry.transfer.estimate import estimate, question
from blockferry.transfer.steps import refuse_swept
from blockferry.transfer.subject import Subject, subject_of
from blockferry.transfer.targets import start_target
from blockferry.transfer.turns import in_turn
from blockferry.transfer.workers import plan_workers

REQUEST_SECONDS = 0.03
"""Answer time of a block request inside a region, for Little's law."""

MIN_THREADS, MAX_THREADS = 4, 32
"""A worker has at most one vCPU; more than 32 threads gain nothing at 30 ms and cost memory."""


@dataclass(frozen=True)
class PlanInput:
    """What the state machine passes: which operation, the execution's own name, ARN and start, the operator's input."""

    operation: str
    job_id: str
    execution_arn: str
    started_at: str
    request: Mapping[str, Any]


def plan_transfer(event: PlanInput, *, aws: Aws, workspace: Workspace) -> dict[str, Any]:
    """Plan a copy, sync or fanout and start its targets.

    Returns the pointer that the state machine passes on: ``{"job_id", "bucket", "plan_key", "results_prefix",
    "max_concurrency", "unpack", "dry_run", "estimate"}``; ``estimate`` is set for a dry run only, which writes nothing
    at all. ``unpack`` says that the image must be unpacked before anything can be started: plan again then. Called
    again for the same job it finds the same targets. Raises ``InvalidRequest`` with nothing left behind.
    """
    counts = RequestCounts()
    earlier = _earlier(event, workspace)
    dry_run, possible = False, tuple(HolePolicy)
    if earlier is not None and earlier.total_blocks:
        # What was found then holds: a base or parent that is looked for again might be another one by now.
        job = earlier
    else:
        subject = subject_of(
            event.operation,
            event.request,
            job_id=event.job_id,
            own_account=event.execution_arn.split(":")[4],
            aws=aws,
            workspace=workspace,
            counts=counts,
        )
        job, dry_run, possible = _job(event, subject, aws), subject.options.dry_run, subject.holes.possible
        if subject.holes.policy is None:
            raise InvalidRequest(question(job, subject.holes, aws=aws))
    pointer: dict[str, Any] = {
        "job_id": job.job_id,
        "bucket": workspace.bucket,
        "plan_key": workspace.key(job.job_id, "plan.jsonl"),
        "results_prefix": workspace.key(job.job_id, "results"),
        "max_concurrency": job.max_concurrency,
        "unpack": job.total_blocks == 0,
        "dry_run": dry_run,
        "estimate": None,
    }
    if dry_run:
        pointer["estimate"] = estimate(job, possible, aws=aws)
        return pointer
    # The record comes first: whatever is started after it can be found again by the sweeper.
    workspace.save_job(job)
    if pointer["unpack"]:
        return pointer
    job = _start_targets(job, aws=aws, workspace=workspace, counts=counts)
    workspace.save_job(job)
    workspace.save_plan(job.job_id, split(job.total_blocks, job.blocks_per_range))
    return pointer


def _earlier(event: PlanInput, workspace: Workspace) -> Job | None:
    """The record of an earlier plan of the same job. Raises ``InvalidRequest`` when it is that of another input, and
    ``IncompleteTransfer`` when the job was given up."""
    earlier = workspace.job(event.job_id)
    if earlier is None:
        return None
    if earlier.fingerprint != _fingerprint(event):
        raise InvalidRequest(
            f"a job named {event.job_id} with another input is recorded in {workspace.uri(event.job_id, '')}; "
            "start the execution under another name"
        )
    refuse_swept(earlier)
    return earlier


def _fingerprint(event: PlanInput) -> str:
    return hashlib.sha256(json.dumps(event.request, sort_keys=True).encode()).hexdigest()


def _job(event: PlanInput, subject: Subject, aws: Aws) -> Job:
    options = subject.options
    length = blocks_per_range(subject.total_blocks, options.blocks_per_range)
    home = event.execution_arn.split(":")[3]
    workers = plan_workers(
        options.max_concurrency,
        ranges=math.ceil(subject.total_blocks / length),
        client=lambda: aws.functions(home),
        region=home,
    )
    share = _share(workers.count, subject.targets)
    return Job(
        job_id=event.job_id,
        operation=event.operation,
        execution_arn=event.execution_arn,
        started_at=event.started_at,
        fingerprint=_fingerprint(event),
        source=subject.source,
        targets=subject.targets,
        total_blocks=subject.total_blocks,
        blocks_per_range=length,
        max_concurrency=workers.count,
        workers_because=workers.because,
        warnings=workers.warnings,
        blocks_per_second=share,
        threads=_threads(share, len(subject.targets)),
        holes=subject.holes.policy or HolePolicy.PRESERVE,
        holes_taken_for=subject.holes.taken_for,
        holes_decided_by=subject.holes.by,
        holes_reason=subject.holes.reason,
        verify_parents=subject.verify_parents,
    )


def _share(workers: int, targets: tuple[JobTarget, ...]) -> float:
    """Blocks per second of one worker: the quota divided by the workers and by the targets that share an account."""
    per_account: dict[tuple[str, str | None], int] = {}
    for target in targets:
        place = (target.region, target.role_arn)
        per_account[place] = per_account.get(place, 0) + 1
    return BLOCKS_PER_SECOND / workers / max(per_account.values())


def _threads(blocks_per_second: float, targets: int) -> int:
    """Little's law: requests in flight = rate x answer time, doubled for slower answers."""
    in_flight = 2 * blocks_per_second * REQUEST_SECONDS * (1 + targets)
    return max(MIN_THREADS, min(MAX_THREADS, math.ceil(in_flight)))


def _start_targets(job: Job, *, aws: Aws, workspace: Workspace, counts: RequestCounts) -> Job:
    """Start every target.

    If one is refused for good, or comes out with another encryption than was asked for, those started before are
    deleted and nothing is left. One that cannot be reached at present is left to the end of the job, unless it is the
    only one or none can be reached; so are others in its region when that has taken too long.
    """
    targets = list(job.targets)
    unreachable: RetryLater | None = None

    def attempt(number: int) -> bool:
        nonlocal unreachable
        try:
            targets[number] = start_target(job, number, aws=aws, counts=counts)
        except RetryLater as error:
            unreachable = unreachable or error
            return False
        except BotoCoreError as error:
            unreachable = unreachable or RetryLater(f"target in {job.targets[number].region}: {error}")
            return False
        except (RequestRefused, InvalidRequest, EncryptionDiffers) as error:
            gone = discard(job.job_id, started(targets), aws=aws, workspace=workspace)
            raise InvalidRequest(
                f"targets[{number}] in {job.targets[number].region} cannot be started: {error}. {gone.told()}"
            ) from error
        return True

    until = Deadline(START_SECONDS, clock=Clock())
    in_turn(
        (number for number, target in enumerate(job.targets) if not target.snapshot_id),
        region=lambda number: job.targets[number].region,
        attempt=attempt,
        time_left=lambda: not until.passed(),
    )
    if unreachable is not None and not any(target.snapshot_id for target in targets):
        raise unreachable
    return job.model_copy(update={"targets": tuple(targets)})
