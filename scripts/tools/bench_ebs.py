"""How many blocks per second the local EBS server gives and takes on one core.

The server is a process of its own, pinned to one core, with quotas and latency off. The client writes requests by
hand to kept connections and stays off that core where there is another one, so that what is measured is the server.
Every answer must be a success of the right length;
every write carries its checksum, which the server checks.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from blockferry.core.blocks import BLOCK_SIZE

from tools.bench_aims import add_outcome, told
from tools.bench_requests import Heads
from tools.bench_server import contend, ebs_server, environment
from tools.readback import allocated

REGION = "us-east-1"
_DIFFERENT = 64
"""Different blocks in turn: equal ones would share their place on disk."""

LEAST = {"GetSnapshotBlock": 400.0, "PutSnapshotBlock": 300.0}
"""Aims: blocks a second on one core."""

Request = tuple[bytes, bytes]
"""A request as it goes out: head and body."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blocks", type=int, default=1_000, help="blocks per run (default: 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each operation (default: 5)")
    parser.add_argument("--connections", type=int, default=4, help="connections of the client (default: 4)")
    for name, least in LEAST.items():
        option = f"--min-{name[:3].lower()}"
        parser.add_argument(option, type=float, default=least, help=f"aim for {name} (default: {least:.0f})")
    add_outcome(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if a median is below its aim."""
    result = bench_ebs(blocks=options.blocks, rounds=options.rounds, connections=options.connections)
    aims = {"GetSnapshotBlock": options.min_get, "PutSnapshotBlock": options.min_put}
    missed = [name for name, least in aims.items() if result[name]["median"] < least]
    reached = ", ".join(f"{name} {result[name]['median']:.0f}/s (at least {least:.0f})" for name, least in aims.items())
    return told(options, result, table, reached=reached, missed=missed)


def bench_ebs(*, blocks: int, rounds: int, connections: int) -> dict[str, Any]:
    """Blocks per second: median, min, max of the runs, reading and writing in turn."""
    rates: dict[str, list[float]] = {"GetSnapshotBlock": [], "PutSnapshotBlock": []}
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-") as name, _server_on_one_core(Path(name)) as url:
        source = contend("fill", url, snapshot="-", blocks=blocks, threads=1)["snapshot_id"]
        credentials = environment()
        ebs = boto3.client(
            "ebs",
            region_name=REGION,
            endpoint_url=url,
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        )
        heads = Heads(url, credentials, region=REGION)
        tokens = sorted(allocated(ebs, source).items())
        bodies = [random.Random(seed).randbytes(BLOCK_SIZE) for seed in range(_DIFFERENT)]  # noqa: S311 - test data
        sums = [base64.b64encode(hashlib.sha256(body).digest()).decode() for body in bodies]
        for _ in range(rounds):
            # Signed anew in every round: a signature is good for five minutes.
            reads = [(heads.get(source, index, token), b"") for index, token in tokens]
            rates["GetSnapshotBlock"].append(_rate(url, reads, connections, expected=BLOCK_SIZE))
            target = ebs.start_snapshot(VolumeSize=64)["SnapshotId"]
            writes = [(heads.put(target, n, sums[n % _DIFFERENT]), bodies[n % _DIFFERENT]) for n in range(blocks)]
            rates["PutSnapshotBlock"].append(_rate(url, writes, connections, expected=0))
    return {
        "blocks": blocks,
        "rounds": rounds,
        "connections": connections,
        **{
            operation: {
                "median": round(statistics.median(measured), 1),
                "min": round(min(measured), 1),
                "max": round(max(measured), 1),
            }
            for operation, measured in rates.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['blocks']} blocks of 512 KiB, {result['rounds']} runs, {result['connections']} connections, "
        "server on one core; blocks per second",
        f"{'':18} {'median':>8} {'min':>8} {'max':>8}",
    ]
    for name in ("GetSnapshotBlock", "PutSnapshotBlock"):
        row = result[name]
        lines.append(f"{name:18} {row['median']:8.0f} {row['min']:8.0f} {row['max']:8.0f}")
    return "\n".join(lines)


@contextmanager
def _server_on_one_core(folder: Path) -> Iterator[str]:
    """The server inherits a single core, and this process has the others as long as it runs."""
    cores = os.sched_getaffinity(0)
    core = max(cores)
    os.sched_setaffinity(0, {core})
    try:
        with ebs_server(folder) as url:
            os.sched_setaffinity(0, (cores - {core}) or cores)
            yield url
    finally:
        os.sched_setaffinity(0, cores)


def _rate(url: str, requests: Sequence[Request], connections: int, *, expected: int) -> float:
    """Requests per second over ``connections``; every answer must be a success with ``expected`` bytes."""
    errors: list[BaseException] = []
    start = threading.Barrier(connections + 1)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # a thread's failure has to end the benchmark
            errors.append(error)
            start.abort()

    def work(share: Sequence[Request]) -> None:
        with _Connection(url) as connection:
            start.wait()
            for head, body in share:
                connection.ask(head, body, expected=expected)

    threads = [
        threading.Thread(target=guarded, args=(lambda share=requests[n::connections]: work(share),))
        for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if errors:
        raise RuntimeError(f"the benchmark failed: {errors[0]}") from errors[0]
    return len(requests) / took


class _Connection:
    """One kept connection and one buffer for answers."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(BLOCK_SIZE + 8192))

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, head: bytes, body: bytes, *, expected: int) -> None:
        self._socket.sendall(head)
        if body:
            self._socket.sendall(body)
        have, end = 0, -1
        while end < 0:
            have += self._received(have)
            end = bytes(self._buffer[: min(have, 8192)]).find(b"\r\n\r\n")
        answer = bytes(self._buffer[:end]).lower()
        length = int(answer.split(b"content-length:")[1].split(b"\r\n")[0])
        while have < end + 4 + length:
            have += self._received(have)
        if not answer.split(b" ", 2)[1].startswith(b"2") or (expected and length != expected):
            raise RuntimeError(f"unexpected answer: {answer[:300]!r}")

    def _received(self, have: int) -> int:
        count = self._socket.recv_into(self._buffer[have:])
        if not count:
            raise RuntimeError("the server closed the connection")
        return count
