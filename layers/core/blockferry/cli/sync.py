"""The command ``blockferry sync``: what changed between two snapshots, on top of earlier copies."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.inputs import add_places, add_run, members, tags_of
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", metavar="SNAPSHOT", help="the snapshot (or give --input)")
    add_places(command, to="REGION=PARENT", text="target region and the parent there; with --follow the region alone")
    command.add_argument("--base", metavar="SNAPSHOT", help="the earlier snapshot that the parents equal")
    command.add_argument(
        "--follow",
        action="store_true",
        default=None,
        help="find base and parents: the newest snapshot that every --to REGION has a copy of",
    )
    command.add_argument(
        "--verify-parent",
        action="store_true",
        default=None,
        help="read base and parents in full and compare them, instead of relying on tags",
    )
    command.add_argument(
        "--holes",
        choices=[HolePolicy.PRESERVE.value],
        help="preserve: nobody relies on zeros where the source has holes (default: refused where that is not known)",
    )
    add_run(command)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest(
            "name the snapshot, --base SNAPSHOT and at least one --to REGION=PARENT, or --follow and at least one --to "
            "REGION, or give --input FILE"
        )
    if not options.base and not options.follow:
        raise InvalidRequest("name the earlier snapshot with --base, or let --follow find it and the parents")
    if options.base and options.follow:
        raise InvalidRequest("--follow finds the base by itself: leave out --base or --follow")
    tags = tags_of(options.tag)
    targets = []
    for place in options.to:
        region, separator, parent = place.partition("=")
        if options.follow and separator:
            raise InvalidRequest(f"--to {place}: --follow finds the parents by itself, write --to {region}")
        if not options.follow and not parent:
            raise InvalidRequest(
                f"--to {place}: write REGION=PARENT, the parent being a snapshot there that equals {options.base}; or "
                "let --follow find it"
            )
        targets.append(members(region=region, parent_snapshot_id=parent or None, tags=tags))
    return members(
        snapshot_id=options.subject,
        base_snapshot_id=options.base,
        follow=options.follow,
        lineage=options.lineage,
        targets=targets,
        source=members(region=options.source_region),
        options=members(verify_parent=options.verify_parent, holes=options.holes),
    )


COMMAND = starting(
    "sync",
    add_options=_add_options,
    request=_request,
    examples=(
        "sync snap-0123456789abcdef0 --follow --to eu-west-1 --wait",
        "sync snap-0123456789abcdef0 --base snap-0123456789abcdef1 --to eu-west-1=snap-0123456789abcdef2",
    ),
)
