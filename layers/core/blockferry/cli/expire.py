"""The command ``blockferry expire``: backups by tag whose days are over."""

from __future__ import annotations

from blockferry.cli.backups import looking_after

COMMAND = looking_after(
    "expire",
    dry_run="what would go and why the rest stays",
    examples=("expire --dry-run", "expire --wait", "expire --dry-run --as-of 2026-12-31T02:00:00Z"),
)
