"""The command ``blockferry archive``: a snapshot, or what changed since an earlier archive, into an S3 bucket.

An image on this machine goes there from this machine; all else is a job.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from blockferry.aws.sessions import Aws
from blockferry.cli.console import done, region_of, say, show
from blockferry.cli.inputs import add_format, members, tags_of
from blockferry.cli.render import receipt_table
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.formats.archive.index import MAX_SEGMENT_BLOCKS
from blockferry.formats.archive.segment import DEFAULT_LEVEL
from blockferry.formats.recognise import ImageCodec
from blockferry.local.archive import archive_image
from blockferry.local.archive_estimate import estimate_archive
from blockferry.local.interrupts import Interrupts
from blockferry.requests.archive import LocalArchiveRequest
from blockferry.requests.objects import StorageClass
from blockferry.requests.parts import SNAPSHOT_ID, parse

_OF_JOBS = {"input": "--input", "name": "--name", "source_region": "--from", "codec": "--codec"}
"""Options that mean nothing for an image on this machine."""


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "subject",
        nargs="?",
        metavar="SOURCE",
        help="the snapshot, s3://BUCKET/KEY of an image, or a file or block device of this machine",
    )
    command.add_argument("--to", metavar="s3://BUCKET/PREFIX", help="where archives are kept")
    command.add_argument(
        "--from", dest="source_region", metavar="REGION", help="region of what is read (default: --region)"
    )
    command.add_argument(
        "--base",
        metavar="MANIFEST",
        help="earlier archive on top of which only what changed is stored: the address of its manifest, or auto for "
        "the newest of the same volume",
    )
    command.add_argument("--id", dest="archive_id", metavar="ID", help="name of the archive (default: made up)")
    command.add_argument(
        "--max-chain", type=int, metavar="N", help="archives of a chain at most; the next one is a full one (30)"
    )
    command.add_argument("--size-gib", type=int, metavar="N", help="volume size of an image (default: rounded up)")
    command.add_argument(
        "--holes",
        choices=[HolePolicy.PRESERVE.value],
        help="of a file, preserve: nobody wrote where it has holes (default: they are zeros)",
    )
    command.add_argument("--storage-class", choices=get_args(StorageClass), help="of the segments (STANDARD_IA)")
    command.add_argument("--level", type=int, metavar="N", help=f"compression, 1 to 19 (default: {DEFAULT_LEVEL})")
    command.add_argument(
        "--segment-blocks",
        type=int,
        metavar="N",
        help=f"blocks of 512 KiB in an object, at most (default: {MAX_SEGMENT_BLOCKS})",
    )
    command.add_argument("--kms-key-arn", metavar="ARN", help="key that encrypts the archive, in the bucket's region")
    command.add_argument("--codec", choices=get_args(ImageCodec), help="of an image (default: by its name)")
    add_format(command)
    command.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the objects; repeatable")
    command.add_argument("--dry-run", action="store_true", help="report requests, bytes and cost; start nothing")
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest("name the snapshot and --to s3://BUCKET/PREFIX, or give --input FILE")
    image = options.subject.startswith("s3://")
    return members(
        snapshot_id=None if image else options.subject,
        image_uri=options.subject if image else None,
        image_codec=options.codec,
        image_format=options.image_format,
        volume_size_gib=options.size_gib,
        source=members(region=options.source_region),
        **_archive(options),
    )


def _archive(options: argparse.Namespace) -> dict[str, Any]:
    """The members of an input that say what is made, and where."""
    scheme, _, place = options.to.partition("s3://")
    if scheme or not place:
        raise InvalidRequest(f"--to {options.to!r}: write s3://BUCKET/PREFIX")
    bucket, _, prefix = place.partition("/")
    return members(
        base_manifest_uri=options.base,
        archive=members(
            bucket=bucket,
            prefix=prefix,
            archive_id=options.archive_id,
            storage_class=options.storage_class,
            compression_level=options.level,
            segment_blocks=options.segment_blocks,
            kms_key_arn=options.kms_key_arn,
            tags=tags_of(options.tag),
        ),
        options=members(max_chain=options.max_chain, holes=options.holes),
    )


def is_local(subject: str | None) -> bool:
    """Whether this names an image on this machine. What looks like a snapshot's id is one: a file of such a name is
    given with its folder."""
    if not subject or subject.startswith("s3://") or re.fullmatch(SNAPSHOT_ID, subject):
        return False
    # An id with a typing error is told of as one.
    return "/" in subject or not subject.startswith("snap-") or Path(subject).exists()


def _of_this_machine(options: argparse.Namespace) -> int:
    image, aws = Path(options.subject), Aws()
    given = [text for name, text in _OF_JOBS.items() if getattr(options, name) is not None]
    if given:
        raise InvalidRequest(f"image {image} is on this machine, and no job reads it: leave out {', '.join(given)}")
    if not options.to:
        raise InvalidRequest("name the bucket: --to s3://BUCKET/PREFIX")
    asked = _archive(options) | members(volume_size_gib=options.size_gib)
    request = parse(LocalArchiveRequest, asked, what="archive")
    region, of = region_of(options, aws.base), options.image_format
    if options.dry_run:
        estimate = estimate_archive(image, request, region=region, aws=aws, image_format=of)
        show(estimate, text=receipt_table(estimate), as_json=options.json)
        return 0
    with Interrupts() as interrupts:
        receipt = archive_image(
            image,
            request,
            region=region,
            aws=aws,
            image_format=of,
            interrupts=interrupts,
            on_start=lambda uri: say(f"writing {uri}"),
        )
    with done(f"archive {receipt['manifest_uri']} is finished"):
        for warning in receipt["warnings"]:
            say(f"warning: {warning['message']}")
        show(receipt, text=receipt_table(receipt), as_json=options.json)
    return 0


_JOB = starting(
    "archive",
    add_options=_add_options,
    request=_request,
    examples=(
        "archive snap-0123456789abcdef0 --to s3://example-archive-bucket/disks --wait",
        "archive snap-0123456789abcdef0 --to s3://example-archive-bucket/disks --base auto --dry-run",
        "archive disk.img --to s3://example-archive-bucket/disks",
    ),
)


def _run(options: argparse.Namespace) -> int:
    return _of_this_machine(options) if is_local(options.subject) else _JOB.run(options)


COMMAND = replace(_JOB, run=_run)
