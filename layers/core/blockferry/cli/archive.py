"""The command ``blockferry archive``: a snapshot, or what changed since an earlier archive, into an S3 bucket."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from blockferry.cli.inputs import add_format, members, tags_of
from blockferry.cli.start import starting
from blockferry.core.errors import InvalidRequest
from blockferry.formats.archive.segment import DEFAULT_LEVEL
from blockferry.formats.recognise import ImageCodec
from blockferry.requests.archive import StorageClass


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("subject", nargs="?", metavar="SOURCE", help="the snapshot, or s3://BUCKET/KEY of an image")
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
    command.add_argument("--storage-class", choices=get_args(StorageClass), help="of the segments (STANDARD_IA)")
    command.add_argument("--level", type=int, metavar="N", help=f"compression, 1 to 19 (default: {DEFAULT_LEVEL})")
    command.add_argument("--kms-key-arn", metavar="ARN", help="key that encrypts the archive, in the bucket's region")
    command.add_argument("--codec", choices=get_args(ImageCodec), help="of an image (default: by its name)")
    add_format(command)
    command.add_argument("--tag", action="append", metavar="KEY=VALUE", help="tag of the objects; repeatable")
    command.add_argument("--dry-run", action="store_true", help="report requests, bytes and cost; start nothing")
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt at the end")


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if not options.subject or not options.to:
        raise InvalidRequest("name the snapshot and --to s3://BUCKET/PREFIX, or give --input FILE")
    scheme, _, place = options.to.partition("s3://")
    if scheme or not place:
        raise InvalidRequest(f"--to {options.to!r}: write s3://BUCKET/PREFIX")
    bucket, _, prefix = place.partition("/")
    image = options.subject.startswith("s3://")
    return members(
        snapshot_id=None if image else options.subject,
        image_uri=options.subject if image else None,
        image_codec=options.codec,
        image_format=options.image_format,
        source=members(region=options.source_region),
        base_manifest_uri=options.base,
        archive=members(
            bucket=bucket,
            prefix=prefix,
            archive_id=options.archive_id,
            storage_class=options.storage_class,
            compression_level=options.level,
            kms_key_arn=options.kms_key_arn,
            tags=tags_of(options.tag),
        ),
    )


COMMAND = starting(
    "archive",
    add_options=_add_options,
    request=_request,
    examples=(
        "archive snap-0123456789abcdef0 --to s3://example-archive-bucket/disks --wait",
        "archive snap-0123456789abcdef0 --to s3://example-archive-bucket/disks --base auto --dry-run",
    ),
)
