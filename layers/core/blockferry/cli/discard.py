"""The command ``blockferry discard``: what an archive command has left that died."""

from __future__ import annotations

import argparse

from blockferry.aws.sessions import Aws
from blockferry.cli.console import Command, region_of, show
from blockferry.local.discard import discard_left


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("archive", metavar="ARCHIVE", help="s3://BUCKET/PREFIX/ID/ of the archive")


def _run(options: argparse.Namespace) -> int:
    aws = Aws()
    done = discard_left(options.archive, region=region_of(options, aws.base), aws=aws)
    text = (
        f"{done.archive_uri} is finished and kept; its unfinished.json is deleted"
        if done.finished
        else f"what was begun of {done.archive_uri} is deleted, and nobody can finish it (begun by: {done.begun_by})"
    )
    show(vars(done), text=text, as_json=options.json)
    return 0


COMMAND = Command(
    name="discard",
    summary="delete what an archive of an image of this or another machine left that died",
    add_options=_add_options,
    run=_run,
    examples=("discard s3://example-archive-bucket/disks/disk.img-1a2b3c4d/",),
)
