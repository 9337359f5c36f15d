"""Sweep jobs: delete what abandoned jobs left behind, so that nothing leaks.

A failed or aborted job keeps its pending targets so that a redrive can go on. A job that is not resumed within the
resume window gets its targets that are pending or in ``error`` deleted, and its plan and digests with them; the record
and the mark ``swept.json`` stay until the bucket's lifecycle rule removes them. Targets that EBS was asked to seal are
kept and looked at by later sweeps, until each is completed, or has failed and is deleted.

The record alone is not believed. It must be that of the execution that the folder is named after, and of what that
execution was started with: no role is assumed that the operator's input does not name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.errors import BlockferryError, IncompleteTransfer, OutOfTime
from blockferry.core.reserves import SWEEP_SECONDS
from blockferry.core.together import together
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import JOB, RECEIPT, STARTED, SWEPT, JobFolder
from blockferry.jobs.record import Swept
from blockferry.jobs.workspace import Workspace
from blockferry.targets.kind import JobTarget, Leftover
from blockferry.transfer.discard import discard_all
from blockferry.transfer.job import Job, planned_job
from blockferry.transfer.plan import fingerprint_of

KEEP = frozenset({JOB, STARTED, SWEPT})


@dataclass(frozen=True)
class _Ended:
    """A job that was given up, and the places in which the input of its execution lets it have targets. Those that are
    ``unknown`` nobody can tell any more."""

    places: tuple[Identity, ...]
    unknown: tuple[Identity, ...] = ()


def sweep_jobs(
    call: Call, workspace: Workspace, *, executions: str, resume_window: timedelta, now: datetime | None = None
) -> dict[str, Any]:
    """Look at every job of the region's work bucket and clean up those that were given up.

    ``executions`` is how the ARN of every execution of this deployment begins, up to the name of the operation.

    What is not reached in the call's time is left to the next run, which begins there. So does one after a call that
    died: behind the job that it died of. Returns ``{"jobs", "left", "swept", "deleted_snapshots", "kept_snapshots",
    "earlier_versions", "failed"}``: the numbers of jobs that were looked at and that were not reached; kept are targets
    that EBS was asked to seal, which may yet be completed, and those that may not be touched, of this sweep and of
    earlier ones. One job that cannot be swept does not stop the others; if any failed, ``BlockferryError`` names them
    at the end, so that the alarm on errors sees it.
    """
    moment = now or datetime.now(UTC)
    seen = 0
    swept: list[str] = []
    deleted: list[str] = []
    kept: list[str] = []
    failed: list[str] = []
    folders = workspace.folders_in_turn()
    for folder, following in zip(folders, folders[1:] + folders[:1], strict=True):
        if call.seconds_left < SWEEP_SECONDS:
            workspace.go_on_at(folder)
            break
        seen += 1
        try:
            if folder.read(RECEIPT) is not None:
                # Most are: they cost one small request.
                continue
            # Noted before, so that a job that ends the sweeper does so once in a round, and not for all behind it.
            workspace.go_on_at(following)
            done = _sweep(_for(folder, call), executions, moment, resume_window)
        except (ClientError, BotoCoreError, BlockferryError) as error:
            failed.append(f"{folder.operation} {folder.job_id}: {error}")
            continue
        if done is not None:
            swept += [folder.job_id] if done.new else []
            deleted += done.gone
            kept += done.kept
    if failed:
        raise BlockferryError("jobs that could not be swept:\n" + "\n".join(f"- {f}" for f in failed))
    return {
        "jobs": seen,
        "left": len(folders) - seen,
        "swept": swept,
        "deleted_snapshots": deleted,
        "kept_snapshots": kept,
        "earlier_versions": workspace.earlier_versions(),
        "failed": failed,
    }


@dataclass(frozen=True)
class _Swept:
    """What became of one job; ``new`` when it was given up now, and not by an earlier sweep."""

    new: bool
    gone: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def _for(folder: JobFolder, call: Call) -> JobCall:
    return JobCall.of(call, folder)


def _sweep(call: JobCall, executions: str, moment: datetime, resume_window: timedelta) -> _Swept | None:
    folder = call.folder
    job = planned_job(folder)
    if job is None:
        return None
    mark = folder.swept()
    if mark is not None:
        # An earlier run may have ended after the mark, and a late worker may have stored digests since.
        _delete_objects(call)
        if not mark.kept:
            return None
        ended = _ended(job, call, executions, moment)
        if ended is None:
            return None
        left = _delete_targets(job, call, ended, pending_too=False)
        if not left.kept:
            folder.save_swept(mark.model_copy(update={"kept": False}))
        return left
    ended = _ended(job, call, executions, moment - resume_window)
    if ended is None:
        return None
    left = _delete_targets(job, call, ended, pending_too=True)
    # Marked before its objects go: a redrive must find out why, not stumble over a missing plan.
    folder.save_swept(Swept(at=moment.isoformat(), kept=bool(left.kept)))
    _delete_objects(call)
    return left


def _delete_objects(call: JobCall) -> None:
    """Delete what nobody needs of a job that is marked as swept. What the time does not allow is left to the next
    sweep, which finds the mark."""
    with suppress(OutOfTime):
        call.folder.delete_all_but(keep=KEEP, late=lambda: call.seconds_left < SWEEP_SECONDS)


def _ended(job: Job, call: JobCall, executions: str, before: datetime) -> _Ended | None:
    """The job, if its execution ended before that moment; ``None`` when it goes on or may be resumed.

    Raises ``IncompleteTransfer`` when the record is not that of the execution.
    """
    if datetime.fromisoformat(job.started_at) > before:
        return None
    execution = Execution(f"{executions}{call.folder.operation}:{call.folder.job_id}")
    if job.execution_arn != execution.arn:
        raise IncompleteTransfer(
            f"{call.folder.uri(JOB)} is the record of {job.execution_arn}, and not of {execution.arn}, after which its "
            "folder is named; nothing is deleted by it"
        )
    places = tuple(dict.fromkeys(target.identity for target in job.targets))
    try:
        found = call.aws.step_functions(execution.region).describe_execution(executionArn=execution.arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        # Histories are kept for 90 days, or the state machine was deleted: nobody can redrive it, and nobody can tell
        # any more which roles its operator named.
        own = tuple(place for place in places if place.role_arn is None)
        return _Ended(own, tuple(place for place in places if place.role_arn is not None))
    stopped = found.get("stopDate")
    if found["status"] == "RUNNING" or stopped is None or stopped >= before:
        return None
    _refuse_other_input(job, json.loads(found.get("input") or "null"), call.folder)
    return _Ended(places)


def _refuse_other_input(job: Job, given: Any, folder: JobFolder) -> None:
    """Raise ``IncompleteTransfer`` unless the record was made of this input and names no place that it does not."""
    same = fingerprint_of(given) == job.fingerprint
    # The input may have been refused by its job: nobody has made sure of its shape.
    others = [target for target in job.targets if not (isinstance(given, dict) and target.asked_for(given))]
    if not same or others:
        what = f"names {others[0].role_arn or 'a target'} in {others[0].region}" if others else "has another input"
        raise IncompleteTransfer(
            f"{folder.uri(JOB)} {what}, which {job.execution_arn} was not started with; nothing is deleted by it"
        )


def _delete_targets(job: Job, call: JobCall, ended: _Ended, *, pending_too: bool) -> _Swept:
    """Delete the targets of a job that are in ``error``, and the pending ones that EBS was not asked to seal; without
    ``pending_too`` none of those, as the record of what EBS was asked for is gone.

    Raises ``BlockferryError``, after all were tried, when some could not be deleted.
    """
    doomed: list[Leftover] = []
    lost = "the execution that named the role is not known any more"
    kept = [f"in {place.region}, as {place.role_arn} ({lost})" for place in ended.unknown]
    failed: list[str] = []
    kind: type[JobTarget] = type(job.targets[0])

    def look(identity: Identity) -> Sequence[Leftover] | str:
        try:
            there = [target for target in job.targets if target.identity == identity]
            return kind.left_behind(there, identity, call, mark=job.execution.mark)
        except (ClientError, BotoCoreError) as error:
            return f"in {identity.region}: {error}"

    for found in together(look, ended.places, most=call.throughput.places_at_a_time):
        if isinstance(found, str):
            failed.append(found)
            continue
        for left in found:
            if pending_too or left.failed:
                doomed.append(left)
            else:
                kept.append(f"{left.name} (kept by an earlier sweep, still pending)")
    gone = discard_all(doomed, call, job)
    for told, error in zip(gone.failed, gone.errors, strict=True):
        # What there was no time for is no failure: the next sweep goes on.
        (kept if isinstance(error, OutOfTime) else failed).append(told)
    if failed:
        raise BlockferryError(f"targets that could not be deleted: {'; '.join(failed)}")
    return _Swept(pending_too, gone.gone, (*gone.kept, *kept))
