"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, call_again, done, progress_of, resources, traced
from blockferry.transfer.check import check_targets


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    progress = progress_of(event)
    found = check_targets(
        job_id=event["job_id"],
        waited_seconds=None if progress is None else progress["waited_seconds"],
        aws=aws,
        workspace=workspace,
    )
    if found["completed"]:
        return done(states=found["states"])
    wait_seconds = found["wait_seconds"]
    return call_again({"waited_seconds": wait_seconds}, wait_seconds=wait_seconds, states=found["states"])
