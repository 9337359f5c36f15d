"""Complete transfer: prove what was moved, let EBS seal the targets that hold it all, plan what the others miss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.transfer.complete import complete_transfer


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    # What it planned the last time was moved in the meantime.
    missing_moved = progress_of(event) is not None
    proved = complete_transfer(invocation.of(event), event["record"], missing_moved=missing_moved)
    names = ("blocks_written", "linear_checksum", "record", "proof")
    facts: dict[str, Any] = {name: proved[name] for name in names if name in proved}
    if proved["missing_ranges"]:
        return call_again({"missing_ranges": proved["missing_ranges"]}, plan_key=proved["missing_key"], **facts)
    return done(**facts)


handler = lambda_handler(step)
