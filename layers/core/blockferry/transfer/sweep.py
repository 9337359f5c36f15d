"""Sweep jobs: delete what abandoned jobs left behind, so that nothing leaks.

A failed or aborted job keeps its pending targets so that a redrive can go on. A job that is not resumed within the
resume window gets its targets that are pending or in ``error`` deleted, and its plan and digests with them;
``job.json``, marked as swept, stays until the bucket's lifecycle rule removes it. Targets that EBS was asked to seal
are kept and looked at by later sweeps, until each is completed, or has failed and is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.errors import BlockferryError
from blockferry.jobs.record import Job
from blockferry.jobs.workspace import Workspace
from blockferry.transfer.discard import discard

KEEP = frozenset({"job.json"})


def sweep_jobs(
    *,
    aws: Aws,
    workspace: Workspace,
    resume_window: timedelta,
    time_left: Callable[[], float],
    now: datetime | None = None,
) -> dict[str, Any]:
    """Look at every job of the region's work bucket and clean up those that were given up.

    ``time_left`` gives the seconds left of the invocation; what is not reached is left to the next run. Returns
    ``{"jobs", "swept", "deleted_snapshots", "kept_snapshots", "failed"}``; kept are pending targets that EBS was asked
    to seal, which may yet be completed, of this sweep and of earlier ones. One job that cannot be swept does not stop
    the others; if any failed, ``BlockferryError`` names them at the end, so that the alarm on errors sees it.
    """
    moment = now or datetime.now(UTC)
    seen = 0
    swept: list[str] = []
    deleted: list[str] = []
    kept: list[str] = []
    failed: list[str] = []
    for job_id in workspace.job_ids():
        if time_left() < 30:
            break
        seen += 1
        try:
            job = workspace.job(job_id)
            if job is None:
                continue
            if job.swept_at is not None:
                # An earlier run may have ended after the mark, and a late worker may have stored digests since.
                workspace.delete_all_but(job_id, keep=KEEP)
                if job.kept_at_sweep:
                    gone, left = _delete_targets(job, aws, workspace, pending_too=False)
                    deleted += gone
                    kept += left
                    if not left:
                        workspace.save_job(job.model_copy(update={"kept_at_sweep": False}))
                continue
            if workspace.read(job_id, "receipt.json") is not None:
                continue
            if not _given_up(job, aws, moment - resume_window):
                continue
            gone, left = _delete_targets(job, aws, workspace, pending_too=True)
            # Marked before its objects go: a redrive must find out why, not stumble over a missing plan.
            mark = {"swept_at": moment.isoformat(), "kept_at_sweep": bool(left)}
            workspace.save_job(job.model_copy(update=mark))
            workspace.delete_all_but(job_id, keep=KEEP)
            swept.append(job_id)
            deleted += gone
            kept += left
        except (ClientError, BotoCoreError, BlockferryError, RuntimeError) as error:
            failed.append(f"{job_id}: {error}")
    if failed:
        raise BlockferryError("jobs that could not be swept:\n" + "\n".join(f"- {f}" for f in failed))
    return {"jobs": seen, "swept": swept, "deleted_snapshots": deleted, "kept_snapshots": kept, "failed": failed}


def _given_up(job: Job, aws: Aws, before: datetime) -> bool:
    """Whether the job ended without a receipt before that moment."""
    if datetime.fromisoformat(job.started_at) > before:
        return False
    region = job.execution_arn.split(":")[3]
    try:
        execution = aws.step_functions(region).describe_execution(executionArn=job.execution_arn)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            # Histories are kept for 90 days, or the state machine was deleted: nobody can redrive it.
            return True
        raise
    stopped = execution.get("stopDate")
    return execution["status"] != "RUNNING" and stopped is not None and stopped < before


def _delete_targets(
    job: Job, aws: Aws, workspace: Workspace, *, pending_too: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete the targets of a job that are in ``error``, and the pending ones that EBS was not asked to seal; without
    ``pending_too`` none of those, as the record of what EBS was asked for is gone.

    Returns the ids of what is gone, and what is kept with the reason. Raises ``BlockferryError``, after all were tried,
    when some could not be deleted.
    """
    # By tag, not by the record: a target may have been started by a plan that failed before it was recorded.
    doomed: list[tuple[Identity, str]] = []
    kept: list[str] = []
    failed: list[str] = []
    for identity in dict.fromkeys(target.identity for target in job.targets):
        try:
            found = snapshots.unfinished_of_job(aws.ec2(identity), job.job_id)
        except (ClientError, BotoCoreError) as error:
            failed.append(f"in {identity.region}: {error}")
            continue
        for facts in found:
            if pending_too or facts.state == "error":
                doomed.append((identity, facts.snapshot_id))
            else:
                kept.append(f"{facts.snapshot_id} in {identity.region} (kept by an earlier sweep, still pending)")
    gone = discard(job.job_id, doomed, aws=aws, workspace=workspace)
    failed += gone.failed
    if failed:
        raise BlockferryError(f"targets that could not be deleted: {'; '.join(failed)}")
    return gone.gone, (*gone.kept, *kept)
