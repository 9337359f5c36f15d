"""Plan replication: look at what wants copies and at the copies that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.backups.replicate import plan_replication
from blockferry.backups.settings import settings_of_environment
from blockferry.jobs.execution import Execution
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return plan_replication(
        invocation.of(event),
        invocation.workspace,
        Execution(event["execution_arn"]),
        settings_of_environment(),
        started_at=event["started_at"],
        request=event["request"],
    )


handler = lambda_handler(step)
