"""Write receipt: confirm the targets, tag them, store and return the receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, traced
from blockferry.transfer.receipt import write_receipt


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return write_receipt(job_id=event["job_id"], aws=aws, workspace=workspace)
