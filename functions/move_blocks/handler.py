"""Move blocks: one range, or what is left of it; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.blocks import BlockRange
from blockferry.lambdas import Context, resources, seconds_left, traced
from blockferry.transfer.move import move_range


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    moved = move_range(
        job_id=event["job_id"],
        within=BlockRange(event["range"]["first"], event["range"]["stop"]),
        next_index=event.get("next_index"),
        seconds_left=seconds_left(context),
        aws=aws,
        workspace=workspace,
    )
    # The answer is the next call's event: the state machine passes it back while the range is not done.
    return {"job_id": event["job_id"], "range": event["range"], **moved}
