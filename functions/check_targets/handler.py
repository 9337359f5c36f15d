"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, call_again, done, lambda_handler, progress_of
from blockferry.transfer.check import check_targets


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    progress = progress_of(event)
    waited = None if progress is None else progress["waited_seconds"]
    found = check_targets(invocation.of(event), event["record"], waited)
    if found["completed"]:
        return done(states=found["states"])
    wait_seconds = found["wait_seconds"]
    return call_again({"waited_seconds": wait_seconds}, wait_seconds=wait_seconds, states=found["states"])


handler = lambda_handler(step)
