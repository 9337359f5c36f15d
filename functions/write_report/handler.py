"""Write report: every thing that a run looked at, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.backups.report import write_report
from blockferry.lambdas import Invocation, lambda_handler


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return write_report(invocation.of(event), event["record"])


handler = lambda_handler(step)
