"""Plan transfer: refuse what cannot work, start the targets, write the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, lambda_handler
from blockferry.transfer.plan import PlanInput, plan_transfer


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return plan_transfer(
        PlanInput(
            operation=event["operation"],
            job_id=event["job_id"],
            execution_arn=event["execution_arn"],
            started_at=event["started_at"],
            request=event["request"],
        ),
        aws=invocation.aws,
        workspace=invocation.workspace,
    )


handler = lambda_handler(step)
