"""The command ``blockferry copy``: a snapshot to other regions, accounts or keys."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.inputs import add_holes, add_key, add_places, add_run, members, places
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", metavar="SNAPSHOT", help="the snapshot (or give --input)")
    add_places(command)
    add_holes(command)
    add_key(command)
    add_run(command)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest("name the snapshot and at least one --to REGION, or give --input FILE")
    return members(
        snapshot_id=options.subject,
        lineage=options.lineage,
        options=members(holes=options.holes),
        **places(options),
    )


COMMAND = starting(
    "copy",
    add_options=_add_options,
    request=_request,
    examples=(
        "copy snap-0123456789abcdef0 --to eu-west-1 --to us-west-2 --wait",
        "copy snap-0123456789abcdef0 --to eu-west-1 --dry-run",
        "copy --input request.json --name nightly",
    ),
)
