"""The command ``blockferry inspect``: what snapshots hold, and what copying or keeping them costs."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.inputs import add_places, members, places
from blockferry.cli.start import starting
from blockferry.cli.watch import add_full
from blockferry.core.errors import InvalidRequest


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", metavar="SNAPSHOT", help="the snapshot (or give --input)")
    add_places(command, text="region that a copy would go to (default: one other region)")
    command.add_argument("--base", metavar="SNAPSHOT", help="also report what changed since this one")
    command.add_argument(
        "--chain",
        action="extend",
        nargs="+",
        metavar="SNAPSHOT",
        help="snapshots of one volume: what each holds and what deleting it frees",
    )
    command.add_argument(
        "--count-zeros",
        action="store_true",
        default=None,
        help="read every block and count those of zeros; this costs, and takes about four hours per TiB",
    )
    add_full(command)
    command.set_defaults(wait=True, dry_run=False)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject and not options.chain:
        raise InvalidRequest("name a snapshot, or a --chain of several, or give --input FILE")
    return members(
        snapshot_id=options.subject,
        base_snapshot_id=options.base,
        chain=options.chain,
        options=members(count_zeros=options.count_zeros),
        **places(options),
    )


COMMAND = starting(
    "inspect",
    add_options=_add_options,
    request=_request,
    examples=(
        "inspect snap-0123456789abcdef0",
        "inspect snap-0123456789abcdef0 --base snap-0123456789abcdef1 --to eu-west-1",
        "inspect --chain snap-0123456789abcdef1 snap-0123456789abcdef0",
    ),
)
