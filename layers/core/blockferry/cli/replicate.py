"""The command ``blockferry replicate``: copies of backups where their tags want them."""

from __future__ import annotations

from blockferry.cli.backups import looking_after

COMMAND = looking_after(
    "replicate",
    dry_run="which copies would be begun, and what becomes of the others",
    examples=("replicate --dry-run", "replicate --wait"),
)
