"""Write receipt: confirm the targets, tag them, store and return the receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, lambda_handler
from blockferry.transfer.receipt import write_receipt


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return write_receipt(invocation.of(event), event["record"], event["proof"])


handler = lambda_handler(step)
