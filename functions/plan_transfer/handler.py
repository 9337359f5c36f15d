"""Plan transfer: refuse what cannot work, start the targets, write the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.jobs.execution import Execution
from blockferry.lambdas import Invocation, lambda_handler, progress_of
from blockferry.operations import pairing_of
from blockferry.transfer.plan import PlanInput, plan_transfer


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    asked = PlanInput(
        execution=Execution(event["execution_arn"]),
        started_at=event["started_at"],
        request=event["request"],
        progress=progress_of(event),
    )
    return plan_transfer(invocation.of(event), pairing_of(event["operation"]), asked)


handler = lambda_handler(step)
