"""Delete expired: delete what an earlier run has marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.backups.expire import delete_expired
from blockferry.backups.settings import settings_of_environment
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return delete_expired(
        invocation.of(event),
        event["record"],
        settings_of_environment(),
        region=invocation.aws.own_region,
        first=event["batch"]["first"],
    )


handler = lambda_handler(step)
