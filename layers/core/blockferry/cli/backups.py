"""What the commands share that look after backups by tag."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.console import Command
from blockferry.cli.inputs import members
from blockferry.cli.start import starting


def looking_after(operation: str, *, dry_run: str, examples: tuple[str, ...]) -> Command:
    """A command that starts such a machine; ``dry_run`` says what that option lists."""

    def add_options(command: argparse.ArgumentParser) -> None:
        command.add_argument("--dry-run", action="store_true", help=f"list {dry_run}, and do nothing")
        command.add_argument("--as-of", metavar="TIME", help="act as if it were then (where the deployment allows it)")
        command.add_argument("--wait", action="store_true", help="show progress and print the numbers at the end")

    return starting(operation, add_options=add_options, request=_request, examples=examples)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    return members(dry_run=options.dry_run or None, as_of=options.as_of)
