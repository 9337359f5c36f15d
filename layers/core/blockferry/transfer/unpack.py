"""Unpack image: make a compressed image of a job readable by many workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.aws.sessions import Aws
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.core.retry import Clock
from blockferry.jobs.record import JobImage
from blockferry.jobs.workspace import Workspace
from blockferry.sources.address import Image, parse_address
from blockferry.sources.unpack import unpack_image


def unpack(
    *,
    job_id: str,
    progress: Mapping[str, Any] | None,
    seconds_left: float,
    memory_gb: float = 0.0,
    aws: Aws,
    workspace: Workspace,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Unpack the job's image as far as the time allows.

    Returns ``{"job_id", "done", "progress", "raw_bytes"}``; when not ``done``, call again with ``progress``. Raises
    ``InvalidRequest`` when the image cannot be unpacked, with what was unpacked of it left to the sweeper, and
    ``IncompleteTransfer`` when the job's record is gone.
    """
    job = workspace.job(job_id)
    if job is None or job.swept_at is not None or not isinstance(job.source, JobImage):
        raise IncompleteTransfer(
            f"{workspace.uri(job_id, 'job.json')} names no image to unpack: the job was swept or its record deleted. "
            "Start a new job"
        )
    source = job.source
    address = parse_address(source.uri)
    image = Image(address.bucket, address.key, source.etag, source.size_bytes, source.codec, "", source.believed_raw)
    done = unpack_image(
        job_id=job_id,
        image=image,
        s3=aws.image_s3(source.identity),
        workspace=workspace,
        seconds_left=seconds_left,
        progress=progress,
        max_bytes=MAX_VOLUME_GIB * 2**30,
        memory_gb=memory_gb,
        clock=clock,
    )
    return {"job_id": job_id, **done}
