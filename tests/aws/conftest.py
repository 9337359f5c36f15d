"""Tests of a real account run only when they are asked for: README.md of this folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SWITCH, REGION = "BLOCKFERRY_AWS_TESTS", "BLOCKFERRY_AWS_TESTS_REGION"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave this folder out unless the switch is set, and show that in the count of deselected tests."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    if not ours:
        return
    if os.environ.get(SWITCH) != "1":
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)
    elif not os.environ.get(REGION):
        raise pytest.UsageError(f"{SWITCH}=1 needs {REGION}: the Region in which test snapshots are made")
