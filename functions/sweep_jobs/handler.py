"""Sweep jobs: delete what abandoned jobs left behind. Started by the schedule, every hour."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from blockferry.lambdas import Context, resources, seconds_left, traced
from blockferry.transfer.sweep import sweep_jobs


@traced
def handler(_event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources("sweep-jobs")
    return sweep_jobs(
        aws=aws,
        workspace=workspace,
        resume_window=timedelta(hours=float(os.environ["BLOCKFERRY_RESUME_WINDOW_HOURS"])),
        time_left=lambda: seconds_left(context),
    )
