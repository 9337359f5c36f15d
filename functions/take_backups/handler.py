"""Take backups: make those of a batch, each once in its slot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.backups.backup import take_backups
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return take_backups(
        invocation.of(event),
        invocation.workspace,
        event["record"],
        region=invocation.aws.own_region,
        first=event["batch"]["first"],
        now=lambda: datetime.now(UTC),
    )


handler = lambda_handler(step)
