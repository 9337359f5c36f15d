"""Complete transfer: prove what was moved, let EBS seal the targets that hold it all, plan what the others miss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, seconds_left, traced
from blockferry.transfer.complete import complete_transfer


@traced
def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return complete_transfer(
        job_id=event["job_id"],
        missing_moved=event["missing_moved"],
        seconds_left=seconds_left(context),
        aws=aws,
        workspace=workspace,
    )
