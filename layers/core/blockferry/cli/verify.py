"""The command ``blockferry verify``: an archive against what it was."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.inputs import members
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "subject",
        nargs="?",
        metavar="ARCHIVE",
        help="s3://BUCKET/.../manifest.json of the archive, or the folder of one that flexible-snapshot-proxy has made",
    )
    command.add_argument("--snapshot", metavar="SNAPSHOT", help="compare it with this snapshot, block by block")
    command.add_argument("--against", metavar="MANIFEST", help="a second archive that must hold the same")
    command.add_argument(
        "--from", dest="source_region", metavar="REGION", help="region of what is read (default: --region)"
    )
    command.add_argument("--sample", type=float, metavar="PERCENT", help="check so much of it (default: 100)")
    command.add_argument("--seed", metavar="TEXT", help="of the sample (default: another one each time)")
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")
    command.set_defaults(dry_run=False)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject:
        raise InvalidRequest("name the archive's manifest, or give --input FILE")
    foreign = options.subject.endswith("/")
    return members(
        manifest_uri=None if foreign else options.subject,
        foreign_uri=options.subject if foreign else None,
        snapshot_id=options.snapshot,
        other_manifest_uri=options.against,
        source=members(region=options.source_region),
        sample_percent=options.sample,
        options=members(seed=options.seed),
    )


COMMAND = starting(
    "verify",
    add_options=_add_options,
    request=_request,
    examples=(
        "verify s3://example-archive-bucket/disks/nightly/manifest.json --wait",
        "verify s3://example-archive-bucket/disks/nightly/manifest.json --sample 5 --seed 2026-11",
        "verify s3://example-archive-bucket/disks/nightly/manifest.json --snapshot snap-0123456789abcdef0",
        "verify s3://example-old-archives/snap-0123456789abcdef0.8/ --wait",
    ),
)
