"""Inspect snapshots: count blocks as far as the time allows, then report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.inspection.steps import inspect_snapshots
from blockferry.jobs.execution import Execution
from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    found = inspect_snapshots(
        invocation.of(event),
        Execution(event["execution_arn"]),
        started_at=event["started_at"],
        request=event["request"],
        progress=progress_of(event),
    )
    return done(report=found["report"]) if found["done"] else call_again(found["progress"])


handler = lambda_handler(step)
