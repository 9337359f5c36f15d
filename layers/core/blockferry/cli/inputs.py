"""Groups of options that several operations have, and the parts of an input that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.formats.recognise import ImageFormat


def add_places(command: argparse.ArgumentParser, *, to: str = "REGION", text: str = "target region") -> None:
    """The options that say where to write, ``to`` with an explanation, and where to read."""
    command.add_argument("--to", action="append", metavar=to, help=f"{text}; repeat for several")
    command.add_argument(
        "--from", dest="source_region", metavar="REGION", help="region of what is read (default: --region)"
    )


def add_format(command: argparse.ArgumentParser) -> None:
    """The option ``--format``, with which an operator insists that an image is a raw disk."""
    command.add_argument(
        "--format",
        dest="image_format",
        choices=get_args(ImageFormat),
        help="raw: it is a raw disk, also if it looks like another kind of file",
    )


def add_holes(command: argparse.ArgumentParser) -> None:
    """The option ``--holes`` of whatever is copied in full."""
    command.add_argument(
        "--holes",
        choices=[policy.value for policy in HolePolicy],
        help="preserve: write what the source holds; zero_fill: every block of the volume; skip_zero: no blocks of "
        "zeros (default: decided so that no zeros that somebody wrote are lost; --dry-run prices each)",
    )


def add_key(command: argparse.ArgumentParser) -> None:
    """The option ``--kms-key-arn``, which names the key of a single target."""
    command.add_argument(
        "--kms-key-arn", metavar="ARN", help="key of the target, in its region; with a single --to only"
    )


def add_run(command: argparse.ArgumentParser, *, lineage: bool = True) -> None:
    """The options of every transfer: tags, ``lineage`` where it has one, and whether to wait."""
    command.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the targets; repeatable")
    if lineage:
        command.add_argument(
            "--lineage", metavar="NAME", help="chain of copies of a snapshot, which sync --follow finds again"
        )
    command.add_argument("--dry-run", action="store_true", help="report requests, bytes and cost; start nothing")
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")


def tags_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """The tags of ``--tag KEY=VALUE``. Raises ``InvalidRequest``."""
    tags: dict[str, str] = {}
    wrong = []
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            wrong.append(f"--tag {pair!r}: write KEY=VALUE")
        elif key in tags:
            wrong.append(f"--tag {pair!r}: {key} is given twice")
        tags[key] = value
    if wrong:
        raise InvalidRequest("\n".join(wrong))
    return tags


def places(options: argparse.Namespace) -> dict[str, Any]:
    """The members ``source`` and ``targets`` of an input; every target has the same tags. Raises ``InvalidRequest``."""
    regions = options.to or []
    key = getattr(options, "kms_key_arn", None)
    if key and len(regions) > 1:
        raise InvalidRequest("--kms-key-arn belongs to one region: use it with a single --to, or use --input")
    tags = tags_of(getattr(options, "tag", None))
    return {
        "targets": [members(region=region, kms_key_arn=key, tags=tags) for region in regions],
        "source": members(region=options.source_region),
    }


def members(**given: Any) -> dict[str, Any]:
    """The members of an input that are given: without those that are ``None`` or empty."""
    return {name: value for name, value in given.items() if value is not None and value not in ({}, [])}
