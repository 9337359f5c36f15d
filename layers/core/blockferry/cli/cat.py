"""The command ``blockferry cat``: bytes of an archive, on standard output."""

from __future__ import annotations

import argparse
import re
import sys

from blockferry.aws.call import Call
from blockferry.aws.sessions import Aws, Identity
from blockferry.cli.console import Command, region_of, say
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import InvalidRequest
from blockferry.local.cat import ByteRange, open_disk


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("manifest", metavar="MANIFEST", help="s3://BUCKET/.../manifest.json of the archive")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--range", metavar="FIRST-LAST", help="bytes of the disk, counted from 0 (default: all)")
    which.add_argument("--blocks", metavar="FIRST-LAST", help="blocks of 512 KiB, counted from 0")


def _run(options: argparse.Namespace) -> int:
    if sys.stdout.isatty():
        raise InvalidRequest("these are bytes of a disk, which no terminal can show: write them to a file or a program")
    wanted: ByteRange | None = None
    if options.range is not None:
        wanted = _parsed(options.range, 1, "--range")
    elif options.blocks is not None:
        wanted = _parsed(options.blocks, BLOCK_SIZE, "--blocks")
    aws = Aws()
    disk = open_disk(Call(aws=aws), Identity(region_of(options, aws.base)), options.manifest)
    if not disk.holes_read_as_zeros:
        say("holes come as zeros, and the archive does not say that they read as zeros in the snapshot")
    for piece in disk.pieces(wanted or ByteRange(0, disk.size)):
        sys.stdout.buffer.write(piece)
    return 0


def _parsed(text: str, size: int, option: str) -> ByteRange:
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise InvalidRequest(f"{option} {text!r}: write FIRST-LAST, both counted from 0, the first not behind the last")
    return ByteRange(int(found[1]) * size, (int(found[2]) + 1) * size)


COMMAND = Command(
    name="cat",
    summary="write bytes of an archived disk to standard output",
    add_options=_add_options,
    run=_run,
    examples=(
        "cat s3://example-archive-bucket/disks/nightly/manifest.json --range 0-511",
        "cat s3://example-archive-bucket/disks/nightly/manifest.json",
    ),
)
