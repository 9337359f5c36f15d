"""Plan backup: look at what asks for backups and write down what the slot lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.backups.backup import plan_backup
from blockferry.backups.settings import settings_of_environment
from blockferry.jobs.execution import Execution
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return plan_backup(
        invocation.of(event),
        invocation.workspace,
        Execution(event["execution_arn"]),
        settings_of_environment(),
        started_at=event["started_at"],
        request=event["request"],
    )


handler = lambda_handler(step)
