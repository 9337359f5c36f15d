"""Upload: a raw disk image on this machine becomes a snapshot, alone or on top of an earlier one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blockferry import snapshots
from blockferry.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, blocks_of_volume, split
from blockferry.checksums import Linear
from blockferry.ebs.client import EbsDirect, NewSnapshot, RequestCounts
from blockferry.errors import IncompleteTransfer, InvalidRequest, TargetFailed
from blockferry.holes import HolePolicy
from blockferry.images.formats import ImageFormat, looks_like, refusal
from blockferry.models import check_tags
from blockferry.mover import move
from blockferry.ports import BlockSource
from blockferry.retry import Clock, Deadline
from blockferry.sessions import Aws, Identity
from blockferry.sinks.snapshot import SnapshotSink
from blockferry.snapshots import SnapshotFacts
from blockferry.sources.image import ImageSource
from blockferry.sources.image_delta import ImageDelta
from blockferry.sources.snapshot import SnapshotSource
from blockferry.transfer.examine import refuse_no_access

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

THREADS = 16
POLL_SECONDS = 2.0
SEAL_SECONDS = 3_600.0
"""How long sealing is waited for before the command gives up waiting; the snapshot is complete by then."""

STRETCH = 64 * BLOCKS_PER_GIB
"""Blocks moved at a time, so that digests of a huge image are folded into the checksum as they come."""


@dataclass(frozen=True)
class Uploaded:
    """The new snapshot; ``blocks`` were put, with ``linear_checksum`` over them. All others of the
    ``volume_size_gib * 2048`` are the parent's, or holes."""

    snapshot_id: str
    region: str
    volume_size_gib: int
    blocks: int
    linear_checksum: str
    parent_snapshot_id: str | None = None


def upload_image(
    image: Path,
    *,
    region: str,
    aws: Aws,
    volume_size_gib: int | None = None,
    parent_snapshot_id: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    image_format: ImageFormat | None = None,
    clock: Clock | None = None,
) -> Uploaded:
    """Make a snapshot of ``image`` in ``region`` and wait until EC2 calls it completed.

    With a parent only blocks that differ from it are put. The volume is as large as the image, rounded up, and the
    parent, if no more is asked for. Blocks of zeros become holes where holes are read as zeros; where the snapshot
    will be encrypted they are not (coldsnap, issue 395), and only holes of the file stay holes.

    If anything fails the pending snapshot is deleted. Raises ``InvalidRequest`` for an unusable image, size or parent,
    also for an image that looks like another kind of file, unless ``image_format`` says that it is raw, and
    ``SourceChanged`` for a file that changes meanwhile.
    """
    clock = clock or Clock()
    identity = Identity(region)
    _refuse_tags(tags or {})
    with ImageSource(image) as source:
        # What is wrong with the image is told before AWS is asked for anything.
        if image_format is None:
            _refuse_other_format(image, source)
        size = _volume_size(image, source, volume_size_gib)
        ec2 = aws.ec2(identity)
        ebs = aws.ebs(identity, counts=RequestCounts(), clock=clock, connections=THREADS)
        encrypts = snapshots.encrypted_by_default(ec2)
        parent = None
        if parent_snapshot_id is not None:
            parent = _parent(ec2, ebs, parent_snapshot_id, asked_gib=volume_size_gib, encrypts=encrypts)
            size = max(size, parent.size_gib)
        encrypted = encrypts is not False if parent is None else parent.encrypted
        blocks, holes = _blocks(source, parent, ebs, encrypted=encrypted)
        new = NewSnapshot(size, secrets.token_hex(32), description, tags or {}, parent_snapshot_id=parent_snapshot_id)
        source.refuse_changed()
        snapshot_id = ebs.start_snapshot(new).snapshot_id
        try:
            linear = _put(blocks, holes, SnapshotSink(ebs, snapshot_id), size_gib=size, clock=clock)
            source.refuse_changed()
            ebs.complete_snapshot(snapshot_id, changed_blocks=linear.blocks, linear_checksum=linear.value())
        except BaseException:
            snapshots.delete(ec2, snapshot_id)
            raise
    _wait(ec2, snapshot_id, region=region, clock=clock)
    return Uploaded(snapshot_id, region, size, linear.blocks, linear.value(), parent_snapshot_id)


def _refuse_other_format(image: Path, source: ImageSource) -> None:
    found = looks_like(*source.ends())
    if found is not None:
        unpacked = "put it into S3, where `blockferry fanout` unpacks it"
        raise InvalidRequest(refusal(str(image), found, file=str(image), insist="--format raw", unpack=unpacked))


def _refuse_tags(tags: Mapping[str, str]) -> None:
    try:
        check_tags(tags)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _volume_size(image: Path, source: ImageSource, asked_gib: int | None) -> int:
    size = -(-source.size // (BLOCK_SIZE * BLOCKS_PER_GIB)) if asked_gib is None else asked_gib
    try:
        total = blocks_of_volume(size)
    except ValueError as error:
        raise InvalidRequest(f"image {image}: {error}") from error
    if source.total_blocks > total:
        raise InvalidRequest(f"image {image} has {source.size} bytes, more than a volume of {size} GiB holds")
    return size


def _parent(
    ec2: EC2Client, ebs: EbsDirect, snapshot_id: str, *, asked_gib: int | None, encrypts: bool | None
) -> SnapshotFacts:
    """The facts of a parent that a snapshot can be made on top of. Raises ``InvalidRequest`` for any other."""
    region = ebs.region
    name = f"parent {snapshot_id} in {region}"
    found = snapshots.existing(ec2, [snapshot_id])
    if not found:
        raise InvalidRequest(
            f"{name}: EC2 does not know it. Check the id and the region: a parent is in the region and account of the "
            "new snapshot"
        )
    facts = found[0]
    if not _own(ec2, snapshot_id):
        raise InvalidRequest(
            f"{name} belongs to account {facts.owner_id}, and EBS takes a parent of the same account only: copy it "
            "into this one first, with the operation copy"
        )
    snapshots.refuse_unreadable(facts, region=region)
    if asked_gib is not None and facts.size_gib > asked_gib:
        raise InvalidRequest(
            f"{name} has {facts.size_gib} GiB, more than the {asked_gib} GiB that were asked for; a snapshot is never "
            "smaller than its parent"
        )
    if encrypts and not facts.encrypted:
        raise InvalidRequest(
            f"{name} is not encrypted, and the account encrypts by default in {region}: there EBS refuses a snapshot "
            "on top of an unencrypted parent. Upload without a parent, or on top of an encrypted copy of it"
        )
    refuse_no_access(ebs, snapshot_id)
    return facts


def _own(ec2: EC2Client, snapshot_id: str) -> bool:
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "snapshot-id", "Values": [snapshot_id]}]
    )
    return any(page["Snapshots"] for page in pages)


def _blocks(
    image: ImageSource, parent: SnapshotFacts | None, ebs: EbsDirect, *, encrypted: bool
) -> tuple[BlockSource, HolePolicy]:
    if parent is not None:
        below = SnapshotSource(ebs, parent.snapshot_id, total_blocks=blocks_of_volume(parent.size_gib))
        return ImageDelta(image, below, encrypted=encrypted), HolePolicy.PRESERVE
    return image, HolePolicy.PRESERVE if encrypted else HolePolicy.SKIP_ZERO


def _put(source: BlockSource, holes: HolePolicy, sink: SnapshotSink, *, size_gib: int, clock: Clock) -> Linear:
    """Put every block that has to be; returns their number and checksum."""
    linear = Linear()
    written = 0
    for stretch in split(blocks_of_volume(size_gib), STRETCH):
        moved = move(stretch, source, [sink], holes=holes, threads=THREADS, deadline=Deadline(None, clock=clock))
        written += moved.blocks_written
        for index, digest in moved.digests:
            if holes.writes(digest):
                linear.add(index, digest)
        if not moved.done or written != linear.blocks:
            raise IncompleteTransfer(
                f"{written} blocks were put up to block {moved.next_index} of {stretch.stop}, not {linear.blocks}"
            )
    return linear


def _wait(ec2: EC2Client, snapshot_id: str, *, region: str, clock: Clock) -> None:
    deadline = Deadline(SEAL_SECONDS, clock=clock)
    while True:
        facts = snapshots.describe(ec2, snapshot_id, region=region)
        if facts.state == "completed":
            return
        if facts.state != "pending" or deadline.passed():
            raise TargetFailed(
                f"{snapshot_id} in {region} is in state {facts.state}, not completed: {facts.state_message}"
            )
        clock.sleep(POLL_SECONDS)
