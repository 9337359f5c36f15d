"""Read a snapshot back, independently of the software that wrote it: plain boto3, nothing of the mover."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_ebs import EBSClient

BLOCK = 524_288
THREADS = 4


@dataclass(frozen=True)
class Comparison:
    """What two snapshots of the same disk and the disk's image have in common, and every difference found."""

    blocks: int
    differences: tuple[str, ...]


def client(region: str) -> EBSClient:
    config = Config(max_pool_connections=THREADS, retries={"mode": "standard", "total_max_attempts": 5})
    return boto3.client("ebs", region_name=region, config=config)


def allocated(ebs: EBSClient, snapshot_id: str) -> dict[int, str]:
    """Every allocated block of a snapshot with its token."""
    blocks: dict[int, str] = {}
    more: dict[str, Any] = {}
    while True:
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot_id, **more)
        blocks |= {block["BlockIndex"]: block["BlockToken"] for block in page["Blocks"]}
        if not page.get("NextToken"):
            return blocks
        more = {"NextToken": page["NextToken"]}


def read(ebs: EBSClient, snapshot_id: str, index: int, token: str) -> bytes:
    """One block; its bytes are held against the checksum that came with them."""
    answer = ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
    data = answer["BlockData"].read()
    if base64.b64encode(hashlib.sha256(data).digest()).decode() != answer["Checksum"]:
        raise ValueError(f"block {index} of {snapshot_id}: the bytes do not have the checksum sent with them")
    return data


def restore(
    ebs: EBSClient, snapshot_id: str, image: Path, *, size: int, visit: Callable[[int, bytes], None] = lambda *_: None
) -> int:
    """Write a snapshot to a new sparse image of ``size`` bytes; returns the number of blocks read."""
    blocks = allocated(ebs, snapshot_id)
    descriptor = os.open(image, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(descriptor, size)

        def one(entry: tuple[int, str]) -> None:
            data = read(ebs, snapshot_id, *entry)
            visit(entry[0], data)
            os.pwrite(descriptor, data, entry[0] * BLOCK)

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(one, blocks.items()):
                pass
    finally:
        os.close(descriptor)
    return len(blocks)


def compare_blocks(source: tuple[EBSClient, str], copy: tuple[EBSClient, str], *, limit: int = 10) -> Comparison:
    """Hold two snapshots against each other: the allocated sets, then every block byte for byte."""
    ours, theirs = allocated(*source), allocated(*copy)
    differences = [f"block {index} is only in {source[1]}" for index in sorted(ours.keys() - theirs.keys())]
    differences += [f"block {index} is only in {copy[1]}" for index in sorted(theirs.keys() - ours.keys())]
    both = sorted(ours.keys() & theirs.keys())

    def same(index: int) -> bool:
        return read(*source, index, ours[index]) == read(*copy, index, theirs[index])

    with ThreadPoolExecutor(THREADS) as pool:
        differences += [
            f"block {index} differs" for index, equal in zip(both, pool.map(same, both), strict=True) if not equal
        ]
    return Comparison(len(both), tuple(differences[:limit]))


@dataclass(frozen=True)
class Changes:
    """How two images of the same size differ, in blocks: in both with other content, only in the second, only in the
    first (all zeros in the other)."""

    overwritten: int
    added: int
    zeroed: int

    @property
    def total(self) -> int:
        return self.overwritten + self.added + self.zeroed


def compare_images(first: Path, second: Path) -> Changes:
    """Read two images side by side. Raises ``ValueError`` when their sizes differ."""
    if first.stat().st_size != second.stat().st_size:
        raise ValueError(f"{first.name} and {second.name} have different sizes")
    overwritten = added = zeroed = 0
    with first.open("rb") as left, second.open("rb") as right:
        while a := left.read(BLOCK):
            b = right.read(BLOCK)
            if a == b:
                continue
            if not any(a):
                added += 1
            elif not any(b):
                zeroed += 1
            else:
                overwritten += 1
    return Changes(overwritten, added, zeroed)


def data_blocks(image: Path) -> frozenset[int]:
    """Indices of the blocks of an image that are not all zeros."""
    found: set[int] = set()
    with image.open("rb") as handle:
        for index in itertools.count():
            block = handle.read(BLOCK)
            if not block:
                return frozenset(found)
            if any(block):
                found.add(index)
    raise AssertionError("unreachable")


def holds_image(ebs: EBSClient, snapshot_id: str, image: Path, *, data: frozenset[int]) -> bool:
    """Whether a snapshot reads as the image, whose blocks with data are given: every block that it has is compared
    byte for byte, and every block with data must be there."""
    blocks = allocated(ebs, snapshot_id)
    if not data <= blocks.keys():
        return False
    with image.open("rb") as handle:

        def same(entry: tuple[int, str]) -> bool:
            there = os.pread(handle.fileno(), BLOCK, entry[0] * BLOCK).ljust(BLOCK, b"\0")
            return there == read(ebs, snapshot_id, *entry)

        with ThreadPoolExecutor(THREADS) as pool:
            return all(pool.map(same, blocks.items()))


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have the same length and bytes; holes count as the zeros that they read as."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            a, b = left.read(2**20), right.read(2**20)
            if a != b:
                return False
            if not a:
                return True
