"""Plan transfer: refuse what cannot work, start the targets, cut the volume into ranges.

Everything that can be known to be wrong is found before the first StartSnapshot, so that a refused job has
started nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.core.blocks import blocks_per_range, split
from blockferry.core.errors import BlockferryError, EncryptionDiffers, InvalidRequest, RequestRefused, RetryLater
from blockferry.core.holes import HolePolicy
from blockferry.core.rates import blocks_in_flight, rate_of
from blockferry.core.reserves import PLAN_SECONDS
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, RESULTS
from blockferry.jobs.running import Running
from blockferry.sources.kind import Tally
from blockferry.transfer.discard import discard
from blockferry.transfer.estimate import estimate, question
from blockferry.transfer.job import Job, Target, planned_job, record_digest, refuse_swept, save_job, save_started
from blockferry.transfer.pairing import Pairing, Subject
from blockferry.transfer.room import refuse_without_room
from blockferry.transfer.turns import side_by_side
from blockferry.transfer.workers import plan_workers, slow_warning


@dataclass(frozen=True)
class PlanInput:
    """What the state machine passes: the execution and its start (ISO 8601), the operator's input, and the progress
    that the last call returned, ``None`` at first."""

    execution: Execution
    started_at: str
    request: Mapping[str, Any]
    progress: Mapping[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the input."""
        return fingerprint_of(self.request)


def fingerprint_of(request: Any) -> str:
    """The SHA-256 (hex) of an operator's input, whatever the order of its members."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def plan_transfer(call: JobCall, pairing: Pairing[Any, Any], event: PlanInput) -> dict[str, Any]:
    """Plan a transfer and start its targets.

    Returns the pointer that the state machine passes on: ``{"done", "job_id", "bucket", "plan_key", "results_prefix",
    "max_concurrency", "unpack", "dry_run", "estimate", "record"}``; ``estimate`` is set for a dry run only, which
    writes nothing at all. ``unpack`` says that the source must be unpacked before anything can be started: plan again
    then. ``record`` is the SHA-256 of what every later step goes by. Called again for the same job it finds the same
    targets. ``{"done": False, "progress", "record": None}`` when the lists that a dry run or a question about holes
    counts take longer than the call. Raises ``InvalidRequest`` with nothing left behind, and ``RetryLater`` when a
    whole call was not enough for one list.
    """
    folder = call.folder
    earlier = _earlier(call, event)
    dry_run, possible = False, tuple(HolePolicy)
    if earlier is not None and earlier.source.prepared:
        # What was found then holds: a base or parent that is looked for again might be another one by now.
        job = earlier
    else:
        subject = pairing.subject(event.request, event.execution, call)
        job, dry_run, possible = _job(call, event, subject), subject.options.dry_run, subject.holes.possible
        if subject.holes.policy is None:
            tally = _tally(job, event)
            asked = question(job, subject.holes, call.until(call.reserving(PLAN_SECONDS)), tally)
            if asked is None:
                return _counting_goes_on(job, event, tally)
            raise InvalidRequest(asked)
    pointer: dict[str, Any] = {
        "done": True,
        "job_id": job.job_id,
        "bucket": folder.bucket,
        "plan_key": folder.key(RANGES),
        "results_prefix": folder.key(RESULTS),
        "max_concurrency": job.max_concurrency,
        "unpack": not job.source.prepared,
        "dry_run": dry_run,
        "estimate": None,
        "record": None,
    }
    if dry_run:
        tally = _tally(job, event)
        estimated = estimate(job, possible, call.until(call.reserving(PLAN_SECONDS)), tally)
        return _counting_goes_on(job, event, tally) if estimated is None else pointer | {"estimate": estimated}
    if job is not earlier:
        refuse_without_room(job, call)
    # The record comes first: whatever is started after it can be found again by the sweeper.
    if job is not earlier:
        save_job(folder, job)
    if not job.source.prepared:
        return pointer | {"record": record_digest(folder)}
    record = _start_targets(job, call)
    folder.save_ranges(split(job.blocks, job.blocks_per_range))
    return pointer | {"record": record}


def _tally(job: Job, event: PlanInput) -> Tally:
    """What earlier calls counted of this source; nothing, if ``follow`` has found another base since then."""
    if event.progress is None or event.progress["source"] != _source_digest(job):
        return Tally()
    return Tally(**event.progress["counted"])


def _counting_goes_on(job: Job, event: PlanInput, tally: Tally) -> dict[str, Any]:
    if tally.next_index == _tally(job, event).next_index:
        raise RetryLater(f"nothing of {job.source.name} could be counted behind block {tally.next_index}: no list came")
    progress = {"source": _source_digest(job), "counted": tally.to_json()}
    return {"done": False, "progress": progress, "record": None}


def _source_digest(job: Job) -> str:
    return hashlib.sha256(job.source.model_dump_json().encode()).hexdigest()


def _earlier(call: JobCall, event: PlanInput) -> Job | None:
    """The record of an earlier plan of the same job. Raises ``InvalidRequest`` when it is that of another input or
    execution, and ``IncompleteTransfer`` when the job was given up."""
    earlier = planned_job(call.folder)
    if earlier is None:
        return None
    here = (event.execution.arn, event.started_at, event.fingerprint)
    if (earlier.execution_arn, earlier.started_at, earlier.fingerprint) != here:
        what = "with another input" if earlier.fingerprint != event.fingerprint else f"of {earlier.execution_arn}"
        raise InvalidRequest(
            f"a job named {call.folder.job_id} {what} is recorded in {call.folder.uri()}; start the execution under "
            "another name"
        )
    refuse_swept(call.folder)
    return earlier


def _job(call: JobCall, event: PlanInput, subject: Subject) -> Job:
    options = subject.options
    total = subject.total_blocks or 0
    step = max(target.in_steps_of for target in subject.targets)
    length = math.ceil(blocks_per_range(total, options.blocks_per_range) / step) * step
    home = event.execution.region
    rate = rate_of(target.quota(event.execution.account) for target in subject.targets)
    workers = plan_workers(
        options.max_concurrency,
        useful=rate.workers,
        ranges=math.ceil(total / length),
        client=lambda: call.aws.functions(home),
        region=home,
        others=_other_workers(call),
    )
    share = rate.share(workers.count)
    slow = slow_warning(rate.seconds(total, workers.count))
    far = any(place.region != home for place in (subject.source, *subject.targets))
    return Job(
        operation=call.folder.operation,
        job_id=call.folder.job_id,
        execution_arn=event.execution.arn,
        started_at=event.started_at,
        fingerprint=event.fingerprint,
        source=subject.source,
        targets=tuple(subject.targets),
        total_blocks=subject.total_blocks,
        blocks_per_range=length,
        max_concurrency=workers.count,
        workers_because=workers.because,
        warnings=(*subject.warnings, *workers.warnings, *(() if slow is None else (slow,))),
        blocks_per_second=share,
        threads=call.throughput.threads(blocks_in_flight(share, far=far)),
        holes=subject.holes.policy or HolePolicy.PRESERVE,
        holes_taken_for=subject.holes.taken_for,
        holes_decided_by=subject.holes.by,
        holes_reason=subject.holes.reason,
        verify_parents=subject.compared,
    )


def _other_workers(call: JobCall) -> int:
    """Workers of other jobs that run in this Region. Those that cannot be seen are not counted: the state machine waits
    where Lambda has no room."""
    folder = call.folder
    try:
        return Running(folder.bucket, folder.s3).look().others((folder.operation, folder.job_id))
    except (ClientError, BotoCoreError):
        return 0


def _start_targets(job: Job, call: JobCall) -> str:
    """Start every target; returns the SHA-256 of the record with those that are started.

    Each is on record as soon as it is started, so that a repeated plan starts only the others; of one that was started
    when the call died before that, EBS gives the same one for the same token. If one is refused for good, or comes out
    with another encryption than was asked for, those started before are deleted and nothing is left. One that cannot be
    reached at present is left to the end of the job, unless it is the only one or none can be reached; so are others in
    a region that is dead.
    """
    targets = list(job.targets)
    unreachable: RetryLater | None = None
    refused: dict[int, BlockferryError] = {}
    recording = threading.Lock()
    record: str | None = None

    def begun() -> Job:
        return job.model_copy(update={"targets": tuple(targets)})

    def attempt(number: int) -> bool:
        nonlocal unreachable, record
        try:
            target = start(job, number, call)
        except RetryLater as error:
            unreachable = unreachable or error
            return False
        except BotoCoreError as error:
            unreachable = unreachable or RetryLater(f"target in {job.targets[number].region}: {error}")
            return False
        except (RequestRefused, InvalidRequest, EncryptionDiffers) as error:
            refused[number] = error
            raise
        with recording:
            targets[number] = target
            record = save_started(call.folder, begun())
        return True

    until = Deadline(call.waits.start_seconds, clock=call.clock)
    try:
        side_by_side(
            (number for number in range(len(targets)) if number not in job.started),
            region=lambda number: job.targets[number].region,
            attempt=attempt,
            time_left=lambda: not until.passed(),
            most=call.throughput.starts_at_a_time,
        )
    except BlockferryError as error:
        if not refused:
            raise
        number = min(refused)
        gone = discard(job, targets, call, new=True)
        # What is gone must not be found by a plan that is repeated.
        save_started(
            call.folder,
            job.model_copy(update={"targets": tuple(t.model_copy(update={"started": None}) for t in targets)}),
        )
        raise InvalidRequest(
            f"targets[{number}] in {job.targets[number].region} cannot be started: "
            f"{str(refused[number]).rstrip('.')}. {gone.told()}"
        ) from error
    if unreachable is not None and not begun().started:
        raise unreachable
    return record or save_started(call.folder, begun())


def start(job: Job, number: int, call: JobCall) -> Target:
    """Start the target at this position, or find the one that was started before. Raises what its ``start`` raises."""
    return job.targets[number].start(call, token=job.execution.client_token(number), mark=job.execution.mark)
