"""Sweep jobs: delete what abandoned jobs left behind. Started by the schedule, every hour."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from blockferry.lambdas import Invocation, lambda_handler
from blockferry.transfer.sweep import sweep_jobs


def step(_event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    window = timedelta(hours=float(os.environ["BLOCKFERRY_RESUME_WINDOW_HOURS"]))
    executions = os.environ["BLOCKFERRY_EXECUTIONS"]
    return sweep_jobs(invocation, invocation.workspace, executions=executions, resume_window=window)


handler = lambda_handler(step)
