"""Plan verification: open the archive, refuse what cannot be verified, write the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.jobs.execution import Execution
from blockferry.lambdas import Invocation, lambda_handler
from blockferry.verification.plan import plan_verification


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return plan_verification(
        invocation.of(event),
        Execution(event["execution_arn"]),
        started_at=event["started_at"],
        request=event["request"],
    )


handler = lambda_handler(step)
