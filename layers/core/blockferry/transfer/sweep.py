"""Sweep jobs: delete what abandoned jobs left behind, so that nothing leaks.

A failed or aborted job keeps its pending targets so that a redrive can go on. A job that is not resumed within the
resume window gets its pending targets deleted, and its plan and digests with them; ``job.json``, marked as swept,
stays until the bucket's lifecycle rule removes it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import snapshots
from blockferry.errors import BlockferryError
from blockferry.jobs import Job
from blockferry.sessions import Aws, Identity
from blockferry.transfer.discard import Discarded, discard
from blockferry.workspace import Workspace

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
    to seal, which may yet be completed. One job that cannot be swept does not stop the others; if any failed,
    ``BlockferryError`` names them at the end, so that the alarm on errors sees it.
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
                continue
            if workspace.read(job_id, "receipt.json") is not None:
                continue
            if not _given_up(job, aws, moment - resume_window):
                continue
            gone = _delete_targets(job, aws, workspace)
            # Marked before its objects go: a redrive must find out why, not stumble over a missing plan.
            workspace.save_job(job.model_copy(update={"swept_at": moment.isoformat()}))
            workspace.delete_all_but(job_id, keep=KEEP)
            swept.append(job_id)
            deleted += gone.gone
            kept += gone.kept
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


def _delete_targets(job: Job, aws: Aws, workspace: Workspace) -> Discarded:
    """Delete the pending targets of a job. Raises ``BlockferryError``, after all were tried, when some could not be."""
    # By tag, not by the record: a target may have been started by a plan that failed before it was recorded.
    pending: list[tuple[Identity, str]] = []
    failed: list[str] = []
    for identity in dict.fromkeys(target.identity for target in job.targets):
        try:
            pending += [(identity, found) for found in snapshots.pending_of_job(aws.ec2(identity), job.job_id)]
        except (ClientError, BotoCoreError) as error:
            failed.append(f"in {identity.region}: {error}")
    gone = discard(job.job_id, pending, aws=aws, workspace=workspace)
    failed += gone.failed
    if failed:
        raise BlockferryError(f"targets that could not be deleted: {'; '.join(failed)}")
    return gone
