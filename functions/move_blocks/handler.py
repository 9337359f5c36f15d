"""Move blocks: one range, or what is left of it; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.transfer.move import move_range


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    progress = progress_of(event)
    moved = move_range(
        invocation.of(event),
        event["record"],
        within=BlockRange(event["range"]["first"], event["range"]["stop"]),
        next_index=None if progress is None else progress["next_index"],
        targets=tuple(event["range"]["targets"]) if "targets" in event["range"] else None,
    )
    facts = {name: moved[name] for name in ("blocks_read", "blocks_written")}
    if moved["done"]:
        return done(outcome=moved["outcome"], **facts)
    return call_again({"next_index": moved["next_index"]}, **facts)


handler = lambda_handler(step)
