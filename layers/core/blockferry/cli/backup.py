"""The command ``blockferry backup``: what asks for backups by its tags."""

from __future__ import annotations

from blockferry.cli.backups import looking_after

COMMAND = looking_after(
    "backup",
    dry_run="which volumes the present slot of the schedule lacks a backup of",
    examples=("backup --dry-run", "backup --wait"),
)
