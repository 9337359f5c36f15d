"""Verify blocks: check what the archive has of one range; says where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.verification.check import verify_range


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    checked = verify_range(
        invocation.of(event),
        event["record"],
        within=BlockRange(event["range"]["first"], event["range"]["stop"]),
        progress=progress_of(event),
    )
    return done() if checked["done"] else call_again(checked["progress"])


handler = lambda_handler(step)
