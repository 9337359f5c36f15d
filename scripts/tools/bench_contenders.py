"""One contender of ``scripts/bench copy``, in a process of its own: prints one JSON object."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import boto3
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.retry import Clock, Deadline
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.sink import SnapshotSink
from botocore.config import Config

from tools.bench_requests import Heads
from tools.readback import allocated

REGION = "us-east-1"
WARM_UP = 32


def main() -> None:
    """Run one contender, as the arguments say: ``CONTENDER SNAPSHOT BLOCKS THREADS``; ``fill`` makes the snapshot to
    copy."""
    contender, snapshot_id, blocks, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if contender in ("fill", "fill-halves"):
        print(json.dumps({"snapshot_id": fill(blocks, noise=1.0 if contender == "fill" else 0.5)}))
        return
    copy = {"worker": worker, "boto3": plain_boto3, "floor": floor}[contender](snapshot_id, blocks, threads)
    copy(0, WARM_UP)
    before, began = _cpu(), time.perf_counter()
    copy(WARM_UP, blocks)
    wall, cpu = time.perf_counter() - began, _cpu() - before
    moved = blocks - WARM_UP
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"cpu_ms_per_block": 1000 * cpu / moved, "blocks_per_second": moved / wall, "peak_mib": peak}
    print(json.dumps(result))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def start_target(*, region: str = REGION, volume_gib: int = 64) -> str:
    ebs = Aws().ebs(Identity(region), counts=RequestCounts())
    return ebs.start_snapshot(NewSnapshot(volume_gib, os.urandom(16).hex(), "bench", {})).snapshot_id


def fill(blocks: int, *, region: str = REGION, volume_gib: int = 64, noise: float = 1.0) -> str:
    """A completed snapshot whose first ``blocks`` blocks are allocated and all different; so much of each is noise,
    which nothing compresses."""
    ebs = Aws().ebs(Identity(region), counts=RequestCounts())
    snapshot_id = start_target(region=region, volume_gib=volume_gib)
    hard = random.Random(1).randbytes(int(BLOCK_SIZE * noise))  # noqa: S311 - test data
    for index in range(blocks):
        data = (index.to_bytes(8, "big") + hard[8:]).ljust(BLOCK_SIZE, index.to_bytes(8, "big")[-1:])
        ebs.put_block(snapshot_id, index, data, hashlib.sha256(data).digest())
    ebs.complete_snapshot(snapshot_id, changed_blocks=blocks, linear_checksum=None)
    ec2 = boto3.client("ec2", region_name=region)
    while ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"] != "completed":
        time.sleep(0.05)
    return snapshot_id


Copy = Callable[[int, int], None]


def worker(snapshot_id: str, _blocks: int, threads: int) -> Copy:
    """The contender that is this software: what ``move_blocks`` runs for a range."""
    aws, counts, clock = Aws(), RequestCounts(), Clock()

    def client() -> Any:
        return aws.ebs(Identity(REGION), counts=counts, connections=threads)

    source, sink = SnapshotSource(client(), snapshot_id), SnapshotSink(client(), start_target())

    def copy(first: int, stop: int) -> None:
        moved = move(
            BlockRange(first, stop),
            source,
            [sink],
            holes=HolePolicy.PRESERVE,
            threads=threads,
            deadline=Deadline(None, clock=clock),
        )
        if moved.blocks_written != stop - first:
            raise RuntimeError(f"{moved.blocks_written} blocks moved, {stop - first} expected")

    return copy


def plain_boto3(snapshot_id: str, _blocks: int, threads: int) -> Copy:
    """The contender that a careful script would be: one client, one checksum per block, as many connections as
    threads."""
    ebs = boto3.client("ebs", region_name=REGION, config=Config(max_pool_connections=threads))
    target = start_target()
    tokens = allocated(ebs, snapshot_id)

    def one(index: int) -> None:
        got = ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=tokens[index])
        data = got["BlockData"].read()
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if checksum != got["Checksum"]:
            raise RuntimeError(f"block {index} is altered")
        ebs.put_snapshot_block(
            SnapshotId=target,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=checksum,
            ChecksumAlgorithm="SHA256",
        )

    def copy(first: int, stop: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, range(first, stop)):
                pass

    return copy


def floor(snapshot_id: str, _blocks: int, _threads: int) -> Copy:
    """The contender that does the least: one connection each way, requests written and signed by hand, bodies received
    into one buffer, one SHA-256."""
    address = urlsplit(os.environ["AWS_ENDPOINT_URL_EBS"])
    heads = Heads(os.environ["AWS_ENDPOINT_URL_EBS"], os.environ, region=REGION)
    tokens = allocated(boto3.client("ebs", region_name=REGION), snapshot_id)
    target = start_target()
    reader = socket.create_connection((address.hostname or "", address.port or 80))
    writer = socket.create_connection((address.hostname or "", address.port or 80))
    buffer = memoryview(bytearray(BLOCK_SIZE + 4096))

    def answer(connection: socket.socket) -> tuple[bytes, int, int]:
        """An answer: its head, where its body begins, and where it ends in the buffer."""
        end, have = -1, 0
        while end < 0:
            have += connection.recv_into(buffer[have:])
            end = bytes(buffer[: min(have, 4096)]).find(b"\r\n\r\n")
        head = bytes(buffer[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while have < end + 4 + length:
            have += connection.recv_into(buffer[have:])
        return head, end + 4, end + 4 + length

    def copy(first: int, stop: int) -> None:
        for index in range(first, stop):
            reader.sendall(heads.get(snapshot_id, index, tokens[index]))
            _, begin, end = answer(reader)
            body = buffer[begin:end]
            checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
            writer.sendall(heads.put(target, index, checksum))
            writer.sendall(body)
            head, _, _ = answer(writer)
            if b" 201 " not in head.split(b"\r\n")[0]:
                raise RuntimeError(f"block {index}: {head!r}")

    return copy


if __name__ == "__main__":
    main()
