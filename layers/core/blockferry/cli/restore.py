"""The command ``blockferry restore``: an archive to snapshots, or to a raw disk image in S3."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import Any, get_args

from blockferry.cli.inputs import add_holes, add_key, add_places, add_run, members, places
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest
from blockferry.formats.archive.layout import MANIFEST
from blockferry.requests.objects import StorageClass


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "subject",
        nargs="?",
        metavar="MANIFEST",
        help="s3://BUCKET/.../manifest.json of the archive, or the folder or image that another tool has made",
    )
    add_places(command, to="REGION|s3://BUCKET/KEY", text="target region, or the object of a raw disk image")
    command.add_argument("--storage-class", choices=get_args(StorageClass), help="of the object (default: STANDARD)")
    add_holes(command)
    add_key(command)
    add_run(command, lineage=False)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest("name the archive's manifest and at least one --to REGION, or give --input FILE")
    objects = [place for place in options.to if place.startswith("s3://")]
    if options.storage_class and not objects:
        raise InvalidRequest("--storage-class belongs to --to s3://BUCKET/KEY: a snapshot has none")
    if objects and len(objects) < len(options.to):
        raise InvalidRequest("--to: snapshots and objects are not made by one job: start one for each")
    folder, _, name = options.subject.rpartition("/")
    own = name == MANIFEST
    if not own and get_close_matches(name, [MANIFEST], cutoff=0.8):
        raise InvalidRequest(f"{options.subject!r} is no archive's manifest: did you mean {folder}/{MANIFEST}?")
    return members(
        manifest_uri=options.subject if own else None,
        foreign_uri=None if own else options.subject,
        options=members(holes=options.holes),
        **_places(options),
    )


def _places(options: argparse.Namespace) -> dict[str, Any]:
    named = places(options)
    if not options.to[0].startswith("s3://"):
        return named
    targets = [
        members(image_uri=each.pop("region"), storage_class=options.storage_class, **each) for each in named["targets"]
    ]
    return {**named, "targets": targets}


COMMAND = starting(
    "restore",
    add_options=_add_options,
    request=_request,
    examples=(
        "restore s3://example-archive-bucket/disks/nightly/manifest.json --to eu-west-1 --wait",
        "restore s3://example-archive-bucket/disks/nightly/manifest.json --to eu-west-1 --dry-run",
        "restore s3://example-archive-bucket/disks/nightly/manifest.json --to s3://example-images/nightly.img --wait",
    ),
)
