"""Inspect snapshots: count blocks as far as the time allows, then report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.counts import RequestCounts
from blockferry.inspection.steps import inspect_snapshots
from blockferry.lambdas import Context, call_again, done, progress_of, publish_counts, resources, seconds_left, traced


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    counts = RequestCounts()
    try:
        found = inspect_snapshots(
            job_id=event["job_id"],
            execution_arn=event["execution_arn"],
            started_at=event["started_at"],
            request=event["request"],
            progress=progress_of(event),
            seconds_left=seconds_left(context),
            aws=aws,
            workspace=workspace,
            counts=counts,
        )
    finally:
        publish_counts(counts)
    return done(report=found["report"]) if found["done"] else call_again(found["progress"])
