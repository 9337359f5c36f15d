"""Conclude verification: write down what was found, and fail if anything was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.lambdas import Invocation, lambda_handler
from blockferry.verification.conclude import conclude_verification


def step(event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
    return conclude_verification(invocation.of(event), event["record"])


handler = lambda_handler(step)
