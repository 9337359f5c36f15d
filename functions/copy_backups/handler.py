"""Copy backups: begin copies, note those that are complete, hand protection on to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.backups.replicate import copy_backups
from blockferry.backups.settings import settings_of_environment
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return copy_backups(
        invocation.of(event),
        invocation.workspace,
        event["record"],
        settings_of_environment(),
        region=invocation.aws.own_region,
        first=event["batch"]["first"],
        now=lambda: datetime.now(UTC),
    )


handler = lambda_handler(step)
