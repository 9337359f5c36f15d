"""Move blocks: one range, or what is left of it; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.lambdas import Context, memory_gb, publish_counts, resources, seconds_left, traced
from blockferry.transfer.move import move_range


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    counts = RequestCounts()
    try:
        moved = move_range(
            job_id=event["job_id"],
            within=BlockRange(event["range"]["first"], event["range"]["stop"]),
            next_index=event.get("next_index"),
            targets=tuple(event["range"]["targets"]) if "targets" in event["range"] else None,
            seconds_left=seconds_left(context),
            memory_gb=memory_gb(),
            aws=aws,
            workspace=workspace,
            counts=counts,
        )
    finally:
        publish_counts(counts)
    # The answer is the next call's event: the state machine passes it back while the range is not done.
    return {"job_id": event["job_id"], "range": event["range"], **moved}
