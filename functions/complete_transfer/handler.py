"""Complete transfer: prove that everything was moved, then let EBS seal the targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, traced
from blockferry.transfer.complete import complete_transfer


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return complete_transfer(job_id=event["job_id"], aws=aws, workspace=workspace)
