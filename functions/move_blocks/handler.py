"""Move blocks: one range, or what is left of it; says where to go on, or notes that the range could not be moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.transfer.move import move_range, stop_moving

NO_PLACE = "Lambda.TooManyRequestsException"
"""The error of a worker that had no place to run for a day: now that this runs, there is one."""


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    within = BlockRange(event["range"]["first"], event["range"]["stop"])
    progress = progress_of(event)
    if "failure" in event:
        failure = event["failure"]
        if failure["Error"] == NO_PLACE:
            return call_again(progress or {"next_index": within.first})
        stopped = stop_moving(invocation.of(event), within, error=failure["Error"], cause=failure.get("Cause") or "")
        return done(outcome=stopped["outcome"])
    moved = move_range(
        invocation.of(event),
        event["record"],
        within=within,
        next_index=None if progress is None else progress["next_index"],
        targets=tuple(event["range"]["targets"]) if "targets" in event["range"] else None,
    )
    facts = {name: moved[name] for name in ("blocks_read", "blocks_written")}
    if moved["done"]:
        return done(outcome=moved["outcome"], **facts)
    return call_again({"next_index": moved["next_index"]}, **facts)


handler = lambda_handler(step)
