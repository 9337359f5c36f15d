"""Inspect snapshots: refuse what cannot be read, count as far as the time allows, report at the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.core.errors import OutOfTime, RetryLater
from blockferry.core.reserves import INSPECT_SECONDS
from blockferry.inspection import access
from blockferry.inspection.count import ListReader, count_lists
from blockferry.inspection.inspected import look_at
from blockferry.inspection.page import report_page
from blockferry.inspection.progress import Progress
from blockferry.inspection.report import report_of
from blockferry.inspection.tuning import Tuning
from blockferry.inspection.zeros import count_zeros, refuse_endless
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution


def inspect_snapshots(
    call: JobCall,
    execution: Execution,
    *,
    started_at: str,
    request: Mapping[str, Any],
    progress: Mapping[str, Any] | None,
    now: datetime | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Any]:
    """Count on from ``progress`` (``None`` at first, then what the last call returned).

    Returns ``{"done": False, "progress": {...}}`` when the time is up, else ``{"done": True, "report": {...}}`` with
    the report stored beside. The first call raises ``InvalidRequest`` for everything that cannot be inspected.
    ``RetryLater`` when a whole invocation was not enough for anything.
    """
    clock, tuning = call.clock, tuning or Tuning()
    seconds_left = call.seconds_left
    deadline = call.reserving(INSPECT_SECONDS)
    what = look_at(request, execution.arn, call)
    lists = what.lists(tuning)
    ebs = call.until(deadline).ebs(what.identity)
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
            refuse_endless(what.source.snapshot_id, found.counts.allocated[what.source.snapshot_id])
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
    found.requests.update(call.counts.placed)
    if not done:
        if found.reached == begun:
            raise RetryLater(
                f"nothing could be counted behind block {max(begun)} within {seconds_left:.0f} seconds: EBS "
                f"throttles or fails ({dict(call.counts.retries) or 'no answer'})"
            )
        return {"done": False, "progress": found.to_json()}
    duration = ((now or datetime.now(UTC)) - datetime.fromisoformat(started_at)).total_seconds()
    report = report_of(what, found, call, duration=duration)
    return {"done": True, "report": call.folder.save_receipt(report, report_page)}
