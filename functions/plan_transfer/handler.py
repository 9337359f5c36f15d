"""Plan transfer: refuse what cannot work, start the targets, write the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Context, resources, traced
from blockferry.transfer.plan import PlanInput, plan_transfer


@traced
def handler(event: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    aws, workspace = resources(event["job_id"])
    return plan_transfer(
        PlanInput(
            operation=event["operation"],
            job_id=event["job_id"],
            execution_arn=event["execution_arn"],
            started_at=event["started_at"],
            request=event["request"],
        ),
        aws=aws,
        workspace=workspace,
    )
