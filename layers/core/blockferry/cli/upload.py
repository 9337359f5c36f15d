"""The command ``blockferry upload``: an image on this machine becomes a snapshot."""

from __future__ import annotations

import argparse
from pathlib import Path

from blockferry.aws.sessions import Aws
from blockferry.cli.console import Command, done, region_of, say, show
from blockferry.cli.inputs import add_format, add_holes, tags_of
from blockferry.cli.render import upload_table
from blockferry.core.holes import HolePolicy
from blockferry.core.words import counted
from blockferry.local.estimate import estimate_upload
from blockferry.local.interrupts import Interrupts
from blockferry.local.upload import upload_image
from blockferry.transfer.sentences import holes_line


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", type=Path, metavar="IMAGE", help="file or block device")
    command.add_argument("--parent", metavar="SNAPSHOT", help="put only what differs from this one, on top of it")
    command.add_argument(
        "--size-gib", type=int, metavar="N", help="volume size (default: the image's, rounded up, or the parent's)"
    )
    add_format(command)
    command.add_argument("--description", metavar="TEXT", default="", help="of the snapshot, up to 255 characters")
    command.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the snapshot; repeatable")
    add_holes(command)
    command.add_argument("--dry-run", action="store_true", help="read the image, report blocks and cost; start nothing")


def _run(options: argparse.Namespace) -> int:
    aws = Aws()
    region, holes = region_of(options, aws.base), None if options.holes is None else HolePolicy(options.holes)
    if options.dry_run:
        estimate = estimate_upload(
            options.image,
            region=region,
            aws=aws,
            volume_size_gib=options.size_gib,
            parent_snapshot_id=options.parent,
            holes=holes,
            image_format=options.image_format,
        )
        show(estimate, text=upload_table(estimate), as_json=options.json)
        return 0
    with Interrupts() as interrupts:
        made = upload_image(
            options.image,
            region=region,
            aws=aws,
            volume_size_gib=options.size_gib,
            parent_snapshot_id=options.parent,
            holes=holes,
            description=options.description,
            tags=tags_of(options.tag),
            image_format=options.image_format,
            interrupts=interrupts,
            on_start=lambda snapshot_id: say(f"writing {snapshot_id} in {region}"),
        )
    with done(f"snapshot {made.snapshot_id} in {made.region} is completed"):
        text = (
            f"{made.snapshot_id} in {made.region}, {made.volume_size_gib} GiB: {counted(made.blocks, 'block')} written"
        )
        if made.parent_snapshot_id is not None:
            text += f" on top of {made.parent_snapshot_id}"
        text += f"\nholes: {holes_line(vars(made))}"
        for warning in made.warnings:
            say(f"warning: {warning['message']}")
        show(vars(made), text=text, as_json=options.json)
    return 0


COMMAND = Command(
    name="upload",
    summary="make a snapshot of a raw disk image",
    add_options=_add_options,
    run=_run,
    examples=("upload disk.img --region eu-west-1", "upload disk.img --parent snap-0123456789abcdef0 --dry-run"),
)
