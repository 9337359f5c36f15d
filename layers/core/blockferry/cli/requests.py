"""The input of a job from the command line: from options, or the whole of it from a file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.formats.recognise import ImageCodec, ImageFormat
from blockferry.requests.copy import CopyRequest
from blockferry.requests.fanout import FanoutRequest
from blockferry.requests.inspect import InspectRequest
from blockferry.requests.parts import parse
from blockferry.requests.sync import SyncRequest

_MODELS: Mapping[str, type[BaseModel]] = {
    "copy": CopyRequest,
    "sync": SyncRequest,
    "fanout": FanoutRequest,
    "inspect": InspectRequest,
}

_LONGEST_NAME = 48
"""Of what is read, in a job id made of it: Step Functions takes 80 characters with operation and time."""

_GIVEN = {
    "subject": "the snapshot or image",
    "to": "--to",
    "source_region": "--from",
    "base": "--base",
    "follow": "--follow",
    "chain": "--chain",
    "verify_parent": "--verify-parent",
    "count_zeros": "--count-zeros",
    "size_gib": "--size-gib",
    "codec": "--codec",
    "image_format": "--format",
    "holes": "--holes",
    "kms_key_arn": "--kms-key-arn",
    "tag": "--tag",
    "lineage": "--lineage",
}
"""Options that make up an input, as an error names them. All are ``None`` when they are not given."""

_TO = {
    "sync": ("REGION=PARENT", "target region and the parent there; with --follow the region alone"),
    "inspect": ("REGION", "region that a copy would go to (default: one other region)"),
}


def add_options(command: argparse.ArgumentParser, operation: str) -> None:
    """The options of an operation's input, and those of every job."""
    if operation == "fanout":
        command.add_argument("subject", nargs="?", metavar="SOURCE", help="s3://BUCKET/KEY of an image, or a snapshot")
    else:
        command.add_argument("subject", nargs="?", metavar="SNAPSHOT", help="the snapshot (or give --input)")
    to, text = _TO.get(operation, ("REGION", "target region"))
    command.add_argument("--to", action="append", metavar=to, help=f"{text}; repeat for several")
    command.add_argument(
        "--from", dest="source_region", metavar="REGION", help="region of what is read (default: --region)"
    )
    _OPTIONS[operation](command)
    command.add_argument("--input", type=Path, metavar="FILE", help="the whole input as JSON ('-': standard input)")
    command.add_argument("--name", help="job id (default: made from the operation, what is read, and the time)")


def add_format(command: argparse.ArgumentParser) -> None:
    """The option with which an operator insists."""
    command.add_argument(
        "--format",
        dest="image_format",
        choices=get_args(ImageFormat),
        help="raw: it is a raw disk, also if it looks like another kind of file",
    )


def request_of(operation: str, options: argparse.Namespace) -> dict[str, Any]:
    """The input, checked as the first state checks it, before an execution is spent on a typing error.

    Raises ``InvalidRequest``.
    """
    request = _REQUESTS[operation](options) if options.input is None else _from_file(options)
    more = request.get("options")
    if options.dry_run and (more is None or isinstance(more, dict)):
        request["options"] = {**(more or {}), "dry_run": True}
    parse(_MODELS[operation], request, what=operation)
    return request


def is_dry_run(request: Mapping[str, Any]) -> bool:
    """Whether the job will only report."""
    return bool((request.get("options") or {}).get("dry_run"))


def job_id_of(operation: str, request: Mapping[str, Any], now: datetime) -> str:
    """A job id that tells the operation, what it reads, and when it was started."""
    read = request.get("snapshot_id") or (request.get("image_uri") or "").rsplit("/", 1)[-1]
    read = read or (request.get("chain") or ["image"])[-1]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", read)[:_LONGEST_NAME]
    return f"{operation}-{name}-{now.strftime('%Y%m%dT%H%M%SZ')}"


def tags_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """The tags of ``--tag KEY=VALUE``. Raises ``InvalidRequest``."""
    tags = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidRequest(f"--tag {pair!r}: write KEY=VALUE")
        tags[key] = value
    return tags


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the targets; repeatable")
    command.add_argument(
        "--lineage", metavar="NAME", help="chain of copies of a snapshot, which sync --follow finds again"
    )
    command.add_argument("--dry-run", action="store_true", help="report requests, bytes and cost; start nothing")
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--kms-key-arn", metavar="ARN", help="key of the target, in its region; with a single --to only"
    )


def add_holes(command: argparse.ArgumentParser) -> None:
    """``--holes`` of whatever is copied in full."""
    command.add_argument(
        "--holes",
        choices=[policy.value for policy in HolePolicy],
        help="preserve: write what the source holds; zero_fill: every block of the volume; skip_zero: no blocks of "
        "zeros (default: decided so that no zeros that somebody wrote are lost; --dry-run prices each)",
    )


def _add_copy(command: argparse.ArgumentParser) -> None:
    add_holes(command)
    _add_key(command)
    _add_run(command)


def _add_sync(command: argparse.ArgumentParser) -> None:
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
    _add_run(command)


def _add_fanout(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size-gib", type=int, metavar="N", help="volume size (default: the image's, rounded up)")
    command.add_argument("--codec", choices=get_args(ImageCodec), help="compression (default: by the image's name)")
    add_format(command)
    add_holes(command)
    _add_key(command)
    _add_run(command)


def _add_inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("--base", metavar="SNAPSHOT", help="also report what changed since this one")
    command.add_argument(
        "--chain",
        action="extend",
        nargs="+",
        metavar="SNAPSHOT",
        help="snapshots of one volume: what each holds and what deleting it frees",
    )
    command.add_argument(
        "--count-zeros", action="store_true", default=None, help="read every block and count those of zeros; this costs"
    )
    command.set_defaults(wait=True, dry_run=False)


_OPTIONS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "copy": _add_copy,
    "sync": _add_sync,
    "fanout": _add_fanout,
    "inspect": _add_inspect,
}


def _copy(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest("name the snapshot and at least one --to REGION, or give --input FILE")
    return _members(
        snapshot_id=options.subject,
        lineage=options.lineage,
        options=_members(holes=options.holes),
        **_places(options),
    )


def _sync(options: argparse.Namespace) -> dict[str, Any]:
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
        targets.append(_members(region=region, parent_snapshot_id=parent or None, tags=tags))
    return _members(
        snapshot_id=options.subject,
        base_snapshot_id=options.base,
        follow=options.follow,
        lineage=options.lineage,
        targets=targets,
        source=_members(region=options.source_region),
        options=_members(verify_parent=options.verify_parent, holes=options.holes),
    )


def _fanout(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest(
            "name an image (s3://BUCKET/KEY) or a snapshot and at least one --to REGION, or --input FILE"
        )
    image = options.subject.startswith("s3://")
    if not image and not options.subject.startswith("snap-"):
        raise InvalidRequest(
            f"{options.subject!r} is neither s3://BUCKET/KEY nor the id of a snapshot; an image on this machine is "
            "uploaded with: blockferry upload"
        )
    return _members(
        image_uri=options.subject if image else None,
        snapshot_id=None if image else options.subject,
        image_codec=options.codec,
        image_format=options.image_format,
        volume_size_gib=options.size_gib,
        lineage=options.lineage,
        options=_members(holes=options.holes),
        **_places(options),
    )


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject and not options.chain:
        raise InvalidRequest("name a snapshot, or a --chain of several, or give --input FILE")
    return _members(
        snapshot_id=options.subject,
        base_snapshot_id=options.base,
        chain=options.chain,
        options=_members(count_zeros=options.count_zeros),
        **_places(options),
    )


_REQUESTS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "copy": _copy,
    "sync": _sync,
    "fanout": _fanout,
    "inspect": _inspect,
}


def _places(options: argparse.Namespace) -> dict[str, Any]:
    """Where to read and where to write; every target has the same tags."""
    regions = options.to or []
    key = getattr(options, "kms_key_arn", None)
    if key and len(regions) > 1:
        raise InvalidRequest("--kms-key-arn belongs to one region: use it with a single --to, or use --input")
    tags = tags_of(getattr(options, "tag", None))
    return {
        "targets": [_members(region=region, kms_key_arn=key, tags=tags) for region in regions],
        "source": _members(region=options.source_region),
    }


def _members(**members: Any) -> dict[str, Any]:
    """Without those that are not given."""
    return {name: value for name, value in members.items() if value is not None and value not in ({}, [])}


def _from_file(options: argparse.Namespace) -> dict[str, Any]:
    given = [text for name, text in _GIVEN.items() if getattr(options, name, None) is not None]
    if given:
        raise InvalidRequest(f"--input holds the whole input: leave out {', '.join(given)}")
    text = sys.stdin.read() if str(options.input) == "-" else _read(options.input)
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{options.input} is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidRequest(f"{options.input} must hold a JSON object")
    return request


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON: {error}") from error
