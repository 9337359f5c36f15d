"""What share of the quotas a worker reaches that has its planned share of them, with one target and with many.

One worker of those that the plan asks for moves blocks from a snapshot to targets in Regions of their own, against the
EBS server of the local cloud in a process of its own: 30 ms for a read, 100 ms for a write, and the worker's share of
the quotas of EBS, so that whatever is above it is refused. EBS seals every target with the count and the checksum that
were moved, and its blocks are read back and compared.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.pacing import Pace
from blockferry.core.rates import blocks_in_flight, rate_of
from blockferry.core.retry import Clock, Deadline
from blockferry.core.tuning import Throughput
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.sink import SnapshotSink

from tools.bench_aims import add_outcome, told
from tools.bench_server import contend, control, ebs_server, environment

REGIONS = ("eu-west-1", "us-west-2", "us-east-2", "eu-central-1", "eu-west-2", "eu-west-3", "eu-north-1",
           "ca-central-1", "ap-southeast-1", "ap-southeast-2")  # fmt: skip
HOME = "us-east-1"

READ_MS, WRITE_MS = 30, 100

LEAST_OF_QUOTA = 0.97
"""Aim: the part of the binding quota that is reached."""

MOST_REFUSED = 0.01
"""Aim: the part of the requests that are refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets", type=int, nargs="+", default=[1, 3, 10], help="numbers of targets (default: 1 3 10)"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a run (default: 15)")
    parser.add_argument("--rounds", type=int, default=3, help="runs with each number of targets (default: 3)")
    add_outcome(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if an aim is missed."""
    result = bench_saturate(targets=options.targets, seconds=options.seconds, rounds=options.rounds)
    missed = [
        f"with {targets} targets"
        for targets, of in result.items()
        if of["of_quota"] < LEAST_OF_QUOTA or of["refused"] > MOST_REFUSED or not of["equal"]
    ]
    reached = ", ".join(f"{of['of_quota']:.1%} with {targets}" for targets, of in result.items())
    reached += f" targets, of the binding quota (at least {LEAST_OF_QUOTA:.0%}, under {MOST_REFUSED:.0%} refused)"
    return told(options, result, table, reached=reached, missed=missed)


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    head = (
        f"{'targets':>7} {'workers':>7} {'share/s':>8} {'threads':>7} {'reached/s':>9} {'of quota':>8} {'refused':>8}"
    )
    rows = [
        f"{targets:>7} {of['workers']:>7} {of['share']:>8.1f} {of['threads']:>7} {of['blocks_per_second']:>9.1f} "
        f"{of['of_quota']:>8.1%} {of['refused']:>8.2%}"
        for targets, of in result.items()
    ]
    return "\n".join([head, *rows])


def bench_saturate(*, targets: list[int], seconds: float, rounds: int) -> dict[str, Any]:
    """Medians for each number of targets: blocks a second of one worker, what part of its share, what was refused."""
    result = {}
    for number in targets:
        rate = rate_of(REGIONS[:number])
        workers = rate.workers
        share = rate.share(workers)
        threads = Throughput().threads(blocks_in_flight(share, far=True))
        runs = [_run(number, share=share, threads=threads, seconds=seconds) for _ in range(rounds)]
        reached = statistics.median(each["blocks_per_second"] for each in runs)
        result[str(number)] = {
            "workers": workers,
            "share": share,
            "threads": threads,
            "blocks_per_second": reached,
            "of_quota": reached / share,
            "refused": max(each["refused"] for each in runs),
            "equal": all(each["equal"] for each in runs),
        }
    return result


def _run(number: int, *, share: float, threads: int, seconds: float) -> dict[str, Any]:
    blocks = math.ceil(share * seconds)
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-") as name, ebs_server(Path(name)) as url:
        source = contend("fill", url, snapshot="-", blocks=blocks, threads=4)["snapshot_id"]
        os.environ.update(environment(url))
        aws, counts, clock = Aws(), RequestCounts(), Clock()
        most = Throughput().max_writers

        def ebs(region: str, counted: RequestCounts) -> EbsDirect:
            return aws.ebs(Identity(region), counts=counted, clock=clock, connections=most)

        apart = RequestCounts()
        targets = [(region, ebs(region, apart).start_snapshot(_new(region)).snapshot_id) for region in REGIONS[:number]]
        limits = ("get_per_account", "put_per_account", "get_per_snapshot", "put_per_snapshot")
        control(url, "config", {"quotas_enabled": True, **dict.fromkeys(limits, share)})
        for operation, latency_ms in (("GetSnapshotBlock", READ_MS), ("PutSnapshotBlock", WRITE_MS)):
            control(url, "faults", {"operation": operation, "action": "latency", "latency_ms": latency_ms})
        began = time.perf_counter()
        moved = move(
            BlockRange(0, blocks),
            SnapshotSource(ebs(HOME, counts), source),
            [SnapshotSink(ebs(region, counts), snapshot_id) for region, snapshot_id in targets],
            holes=HolePolicy.PRESERVE,
            threads=threads,
            deadline=Deadline(None, clock=clock),
            pace=Pace(share, clock=clock),
            writers=most,
        )
        took = time.perf_counter() - began
        control(url, "config", {"quotas_enabled": False})
        control(url, "faults", method="DELETE")
        equal = _sealed_and_equal(moved.digests, [(ebs(region, apart), name) for region, name in targets])
    sent = sum(count for name, count in counts.requests.items() if name in ("GetSnapshotBlock", "PutSnapshotBlock"))
    return {"blocks_per_second": blocks / took, "refused": sum(counts.retries.values()) / sent, "equal": equal}


def _new(region: str) -> NewSnapshot:
    return NewSnapshot(volume_size_gib=64, client_token=f"bench-{region}", description="bench", tags={})


def _sealed_and_equal(moved: tuple[tuple[int, bytes], ...], targets: list[tuple[EbsDirect, str]]) -> bool:
    """Whether EBS takes count and checksum of every target, and each block reads as it was moved."""
    linear = Linear()
    for index, digest in moved:
        linear.add(index, digest)
    for ebs, snapshot_id in targets:
        ebs.complete_snapshot(snapshot_id, changed_blocks=linear.blocks, linear_checksum=linear.value())
        page = ebs.list_blocks(snapshot_id)
        held = {index: digest_of(ebs.get_block(snapshot_id, index, token)[0]) for index, token in page.entries}
        if held != dict(moved):
            return False
    return True
