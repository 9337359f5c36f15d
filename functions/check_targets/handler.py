"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, traced
from blockferry.transfer.check import check_targets


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return check_targets(
        job_id=event["job_id"], waited_seconds=event.get("waited_seconds"), aws=aws, workspace=workspace
    )
