"""Upload: a raw disk image on this machine becomes a snapshot."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blockferry import snapshots
from blockferry.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, BlockRange, blocks_of_volume
from blockferry.checksums import Linear
from blockferry.ebs.client import NewSnapshot, RequestCounts
from blockferry.errors import InvalidRequest, TargetFailed
from blockferry.holes import HolePolicy
from blockferry.mover import move
from blockferry.retry import Clock, Deadline
from blockferry.sessions import Aws, Identity
from blockferry.sinks.snapshot import SnapshotSink
from blockferry.sources.image import ImageSource

THREADS = 16
POLL_SECONDS = 2.0
SEAL_SECONDS = 3_600.0
"""How long sealing is waited for before the command gives up waiting; the snapshot is complete by then."""

STRETCH = 64 * BLOCKS_PER_GIB
"""Blocks moved at a time, so that digests of a huge image are folded into the checksum as they come."""


@dataclass(frozen=True)
class Uploaded:
    """The new snapshot; ``blocks`` written of ``volume_size_gib * 2048``, the rest are holes."""

    snapshot_id: str
    region: str
    volume_size_gib: int
    blocks: int
    linear_checksum: str


def upload_image(
    image: Path,
    *,
    region: str,
    aws: Aws,
    volume_size_gib: int | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Uploaded:
    """Make a snapshot of ``image`` in ``region`` and wait until EC2 calls it completed.

    Blocks of zeros become holes. Without ``volume_size_gib`` the volume is the image's size, rounded up. If
    anything fails the pending snapshot is deleted. Raises ``InvalidRequest`` for an unusable image or size.
    """
    clock = clock or Clock()
    with ImageSource(image) as source:
        size = volume_size_gib or -(-source.size // (BLOCK_SIZE * BLOCKS_PER_GIB))
        try:
            total = blocks_of_volume(size)
        except ValueError as error:
            raise InvalidRequest(f"image {image}: {error}") from error
        if source.total_blocks > total:
            raise InvalidRequest(f"image {image} has {source.size} bytes, more than a volume of {size} GiB holds")
        identity = Identity(region)
        ebs = aws.ebs(identity, counts=RequestCounts(), clock=clock, connections=THREADS)
        token = secrets.token_hex(32)
        snapshot_id = ebs.start_snapshot(NewSnapshot(size, token, description, tags or {}))
        try:
            linear = Linear()
            sink = SnapshotSink(ebs, snapshot_id)
            for first in range(0, total, STRETCH):
                moved = move(
                    BlockRange(first, min(first + STRETCH, total)),
                    source,
                    [sink],
                    holes=HolePolicy.PRESERVE,
                    threads=THREADS,
                    deadline=Deadline(None, clock=clock),
                )
                for index, digest in moved.digests:
                    linear.add(index, digest)
            ebs.complete_snapshot(snapshot_id, changed_blocks=linear.blocks, linear_checksum=linear.value())
        except BaseException:
            snapshots.delete(aws.ec2(identity), snapshot_id)
            raise
    _wait(snapshot_id, region=region, aws=aws, clock=clock)
    return Uploaded(snapshot_id, region, size, linear.blocks, linear.value())


def _wait(snapshot_id: str, *, region: str, aws: Aws, clock: Clock) -> None:
    ec2 = aws.ec2(Identity(region))
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
