"""The command ``blockferry expire``: backups by tag whose days are over."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.inputs import members
from blockferry.cli.start import starting


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dry-run", action="store_true", help="list what would go and why the rest stays, and do nothing"
    )
    command.add_argument("--as-of", metavar="TIME", help="act as if it were then (where the deployment allows it)")
    command.add_argument("--wait", action="store_true", help="show progress and print the numbers at the end")


def _request(options: argparse.Namespace) -> dict[str, Any]:
    return members(dry_run=options.dry_run or None, as_of=options.as_of)


COMMAND = starting(
    "expire",
    add_options=_add_options,
    request=_request,
    examples=("expire --dry-run", "expire --wait", "expire --dry-run --as-of 2026-12-31T02:00:00Z"),
)
