"""What every step after planning needs: the job's record, or a clear word that it is gone."""

from __future__ import annotations

from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.record import Job
from blockferry.jobs.workspace import Workspace


def refuse_swept(job: Job) -> None:
    """Raise ``IncompleteTransfer`` for a job that was given up."""
    if job.swept_at is not None:
        raise IncompleteTransfer(
            f"job {job.job_id} was not resumed in time and was swept at {job.swept_at}: its targets are deleted. Start "
            "a new job"
        )


def recorded_job(workspace: Workspace, job_id: str) -> Job:
    """The record of a planned job. Raises ``IncompleteTransfer`` when it is gone, swept or without targets."""
    job = workspace.job(job_id)
    if job is None:
        raise IncompleteTransfer(
            f"{workspace.uri(job_id, 'job.json')} is gone: the job was swept or its record deleted. Start a new job; "
            "a redrive cannot go on without the record"
        )
    refuse_swept(job)
    if not any(target.snapshot_id for target in job.targets):
        raise IncompleteTransfer(f"{workspace.uri(job_id, 'job.json')} names targets that were never started")
    return job
