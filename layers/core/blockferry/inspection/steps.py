"""Inspect snapshots: refuse what cannot be read, count as far as the time allows, report at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.aws.sessions import Aws
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import OutOfTime, RetryLater
from blockferry.core.reserves import INSPECT_SECONDS
from blockferry.core.retry import Clock, Deadline
from blockferry.inspection import access
from blockferry.inspection.count import ListReader, count_lists
from blockferry.inspection.inspected import look_at
from blockferry.inspection.page import report_page
from blockferry.inspection.progress import Progress
from blockferry.inspection.report import report_of
from blockferry.inspection.tuning import Tuning
from blockferry.inspection.zeros import count_zeros
from blockferry.jobs.workspace import Workspace


def inspect_snapshots(
    *,
    job_id: str,
    execution_arn: str,
    started_at: str,
    request: Mapping[str, Any],
    progress: Mapping[str, Any] | None,
    seconds_left: float,
    aws: Aws,
    workspace: Workspace,
    counts: RequestCounts | None = None,
    now: datetime | None = None,
    clock: Clock | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Any]:
    """Count on from ``progress`` (``None`` at first, then what the last call returned).

    Returns ``{"done": False, "progress": {...}}`` when the time is up, else ``{"done": True, "report": {...}}`` with
    the report stored beside. The first call raises ``InvalidRequest`` for everything that cannot be inspected.
    ``RetryLater`` when a whole invocation was not enough for anything.
    """
    clock, tuning = clock or Clock(), tuning or Tuning()
    deadline = Deadline(max(seconds_left - INSPECT_SECONDS, 1.0), clock=clock)
    sent = counts or RequestCounts()
    what = look_at(request, execution_arn, aws=aws)
    lists = what.lists(tuning)
    ebs = aws.ebs(what.identity, counts=sent, clock=clock, deadline=deadline)
    if progress is None:
        try:
            access.refuse_no_access(ebs, list(what.facts), lists.pairs)
        except OutOfTime as error:
            raise RetryLater(str(error)) from error
        found = Progress()
    else:
        found = Progress.from_json(progress)
    begun = found.reached
    done = False
    if found.counts.next_index < lists.total_blocks:
        count_lists(lists, found.counts, ListReader(ebs, lists, clock=clock), deadline=deadline)
    if found.counts.next_index >= lists.total_blocks:
        done = True
        if what.request.options.count_zeros:
            count_zeros(
                what.source.snapshot_id,
                what.total_blocks,
                found.zeros,
                ebs,
                deadline=deadline,
                clock=clock,
                tuning=tuning,
            )
            done = found.zeros.next_index >= what.total_blocks
    found.requests.update(sent.placed)
    if not done:
        if found.reached == begun:
            raise RetryLater(
                f"nothing could be counted behind block {max(begun)} within {seconds_left:.0f} seconds: EBS "
                f"throttles or fails ({dict(sent.retries) or 'no answer'})"
            )
        return {"done": False, "progress": found.to_json()}
    duration = ((now or datetime.now(UTC)) - datetime.fromisoformat(started_at)).total_seconds()
    report = report_of(what, found, aws=aws, workspace=workspace, job_id=job_id, duration=duration)
    workspace.write(job_id, "report.md", report_page(report).encode(), content_type="text/markdown; charset=utf-8")
    workspace.write(job_id, "receipt.json", json.dumps(report, indent=1).encode())
    return {"done": True, "report": report}
