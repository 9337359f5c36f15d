"""Move blocks: one range, or what is left of it; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.lambdas import (
    Context,
    call_again,
    done,
    memory_gb,
    progress_of,
    publish_counts,
    resources,
    seconds_left,
    traced,
)
from blockferry.transfer.move import move_range


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    progress = progress_of(event)
    counts = RequestCounts()
    try:
        moved = move_range(
            job_id=event["job_id"],
            within=BlockRange(event["range"]["first"], event["range"]["stop"]),
            next_index=None if progress is None else progress["next_index"],
            targets=tuple(event["range"]["targets"]) if "targets" in event["range"] else None,
            seconds_left=seconds_left(context),
            memory_gb=memory_gb(),
            aws=aws,
            workspace=workspace,
            counts=counts,
        )
    finally:
        publish_counts(counts)
    facts = {name: moved[name] for name in ("blocks_read", "blocks_written")}
    if moved["done"]:
        return done(outcome=moved["outcome"], **facts)
    return call_again({"next_index": moved["next_index"]}, **facts)
