"""The command ``blockferry fanout``: a disk image in S3, or a snapshot, to many targets."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from blockferry.cli.inputs import add_format, add_holes, add_key, add_places, add_run, members, places
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest
from blockferry.formats.recognise import ImageCodec


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", metavar="SOURCE", help="s3://BUCKET/KEY of an image, or a snapshot")
    add_places(command)
    command.add_argument("--size-gib", type=int, metavar="N", help="volume size (default: the image's, rounded up)")
    command.add_argument("--codec", choices=get_args(ImageCodec), help="compression (default: by the image's name)")
    add_format(command)
    add_holes(command)
    add_key(command)
    add_run(command)


def _request(options: argparse.Namespace) -> dict[str, Any]:
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
    return members(
        image_uri=options.subject if image else None,
        snapshot_id=None if image else options.subject,
        image_codec=options.codec,
        image_format=options.image_format,
        volume_size_gib=options.size_gib,
        lineage=options.lineage,
        options=members(holes=options.holes),
        **places(options),
    )


COMMAND = starting(
    "fanout",
    add_options=_add_options,
    request=_request,
    examples=(
        "fanout s3://images/disk.img.zst --to eu-west-1 --to us-west-2 --wait",
        "fanout snap-0123456789abcdef0 --to eu-west-1",
    ),
)
