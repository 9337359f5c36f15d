"""Complete transfer: prove what was moved, let EBS seal the targets that hold it all, plan what the others miss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, traced
from blockferry.transfer.complete import complete_transfer


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return complete_transfer(job_id=event["job_id"], missing_moved=event["missing_moved"], aws=aws, workspace=workspace)
