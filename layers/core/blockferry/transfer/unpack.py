"""Unpack image: make the source of a job readable by many workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.jobs.call import JobCall
from blockferry.transfer.job import recorded_job


def unpack(call: JobCall, record: str, progress: Mapping[str, Any] | None) -> dict[str, Any]:
    """Prepare the job's source as far as the time allows.

    Returns ``{"done", "progress", "raw_bytes"}``; when not ``done``, call again with ``progress``. Raises
    ``InvalidRequest`` when the image cannot be unpacked, with what was unpacked of it left to the sweeper, and
    ``IncompleteTransfer`` when the job's record is gone or there is nothing to unpack.
    """
    return recorded_job(call, record).source.prepare(call, progress)
