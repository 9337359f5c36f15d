"""What proving a transfer takes at the size of the largest volume: counting a range again, and the last step.

Digests and lists are synthetic, everything else is the real thing. A range is counted from digest objects and list
pages of the size that a full volume has. The last step fetches its objects with a real client from a server process of
its own, which answers as S3 does, and hashes all of them: nothing is scaled up.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import boto3
from blockferry.aws.ebs.client import Page
from blockferry.aws.sessions import Aws
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange, blocks_per_range, split
from blockferry.core.checksums import DIGEST_SIZE
from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import BLOCKS_PER_SECOND, MAX_VOLUME_GIB
from blockferry.core.reserves import MOVE_SECONDS
from blockferry.jobs import digests, recounts
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Coverage, Stretch
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.recounts import Held, Recounted
from blockferry.requests.parts import TransferOptions
from blockferry.sources.snapshot import JobSnapshot
from blockferry.targets.full import FullSnapshot
from blockferry.targets.kind import Started
from blockferry.transfer.job import Job
from blockferry.transfer.prove import prove
from blockferry.transfer.recount import recount
from botocore.config import Config

from tools.bench_aims import add_outcome, told

REGION = "us-east-1"
BUCKET = "work"

CALL_SECONDS = 900.0
"""Seconds that Lambda gives a call of the functions that move and prove (terraform/modules/region/functions.tf)."""

MOST_CPU_MICROSECONDS = 0.3
"""Aim: CPU of the last step, for each block of the largest volume."""

MOST_OF_A_CALL = 1 / 3
"""Aim: the part of its time that a step may take of the largest volume."""

WORKERS = (10, 1_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gib", type=int, default=MAX_VOLUME_GIB, help="size of the volume (default: 65536)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each measurement (default: 3)")
    add_outcome(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if an aim is missed."""
    result = bench_prove(gib=options.gib, rounds=options.rounds)
    missed = [
        name
        for name, fine in (
            ("CPU of the last step", result["last_step"]["cpu_us_block"] <= MOST_CPU_MICROSECONDS),
            ("time of the last step", result["last_step"]["of_a_call"] <= MOST_OF_A_CALL),
            *(
                (f"time of a recount with {n} workers", of["of_a_call"] <= MOST_OF_A_CALL)
                for n, of in result["recount"].items()
            ),
        )
        if not fine
    ]
    last = result["last_step"]
    reached = (
        f"{last['cpu_us_block']:.3f} us of CPU a block, {last['seconds']:.0f} s in the last step at {options.gib} GiB "
        f"(at most {MOST_CPU_MICROSECONDS} us, {CALL_SECONDS * MOST_OF_A_CALL:.0f} s)"
    )
    return told(options, result, table, reached=reached, missed=missed)


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    last = result["last_step"]
    lines = [
        f"volume: {result['gib']} GiB, {result['blocks']} blocks in {result['ranges']} ranges of {result['length']}",
        f"last step: {last['seconds']:.1f} s ({last['of_a_call']:.0%} of a call), CPU {last['cpu_seconds']:.1f} s = "
        f"{last['cpu_us_block']:.3f} us a block, {last['objects']} objects",
    ]
    lines += [
        f"recount of a range, {workers} workers: {of['objects']} digest objects, {of['seconds']:.2f} s "
        f"({of['of_a_call']:.1%} of a call), CPU {of['cpu_us_block']:.2f} us a block"
        for workers, of in result["recount"].items()
    ]
    return "\n".join(lines)


def bench_prove(*, gib: int, rounds: int) -> dict[str, Any]:
    """Medians of the last step and of counting one range again, with few workers and with many."""
    job = _job(gib)
    ranges = list(split(job.blocks, job.blocks_per_range))
    last = [_last_step(job) for _ in range(rounds)]
    cpu = statistics.median(each["cpu_seconds"] for each in last)
    seconds = statistics.median(each["seconds"] for each in last)
    counted = {}
    for workers in WORKERS:
        objects = _calls_of_a_range(job, workers)
        runs = [_recount(job, objects) for _ in range(rounds)]
        took = statistics.median(each["seconds"] for each in runs)
        counted[str(workers)] = {
            "objects": objects,
            "seconds": took,
            "of_a_call": took / CALL_SECONDS,
            "cpu_us_block": statistics.median(each["cpu_seconds"] for each in runs) / len(ranges[0]) * 1e6,
        }
    return {
        "gib": gib,
        "blocks": job.blocks,
        "ranges": len(ranges),
        "length": job.blocks_per_range,
        "last_step": {
            "objects": len(ranges),
            "seconds": seconds,
            "of_a_call": seconds / CALL_SECONDS,
            "cpu_seconds": cpu,
            "cpu_us_block": cpu / job.blocks * 1e6,
        },
        "recount": counted,
    }


def _calls_of_a_range(job: Job, workers: int) -> int:
    """Calls of Move blocks, each of which leaves a digest object, until a range is moved at a worker's share."""
    seconds = job.blocks_per_range / (BLOCKS_PER_SECOND / workers)
    return math.ceil(seconds / (CALL_SECONDS - MOVE_SECONDS))


def _job(gib: int) -> Job:
    place: dict[str, Any] = {"region": REGION, "role_arn": None, "external_id": None}
    total = gib * BLOCKS_PER_GIB
    source = JobSnapshot(
        **place,
        snapshot_id="snap-0",
        owner_id="111122223333",
        volume_id="vol-1",
        size_gib=gib,
        start_time="2026-01-01T00:00:00+00:00",
        encrypted=False,
        full_size_bytes=None,
        lineage_name="vol-1",
    )
    target = FullSnapshot(
        **place,
        kms_key_arn=None,
        encrypted=None,
        description="",
        tags={},
        size_gib=gib,
        started=Started(snapshot_id="snap-1", at="2026-01-01T00:00:00+00:00"),
    )
    return Job(
        operation="copy",
        job_id="job-1",
        execution_arn=f"arn:aws:states:{REGION}:111122223333:execution:blockferry-copy:job-1",
        started_at="2026-01-01T00:00:00+00:00",
        fingerprint="f",
        source=source,
        targets=(target,),
        total_blocks=total,
        blocks_per_range=blocks_per_range(total, TransferOptions().blocks_per_range),
        max_concurrency=10,
        blocks_per_second=100.0,
        threads=8,
        holes=HolePolicy.PRESERVE,
    )


def _digests(blocks: int) -> bytes:
    return random.Random(1).randbytes(blocks * DIGEST_SIZE)  # noqa: S311 - synthetic, the same in each run


# -- the last step -----------------------------------------------------------------------------------------------------


def _last_step(job: Job) -> dict[str, float]:
    with _s3(job.blocks_per_range) as url:
        client = boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=url,
            aws_access_key_id="111122223333",
            aws_secret_access_key="none",  # noqa: S106 - the server asks for none
            config=Config(max_pool_connections=32, s3={"addressing_style": "path"}),
        )
        folder = JobFolder(BUCKET, client, job.operation, job.job_id)
        call = JobCall(aws=cast(Aws, None), folder=folder)
        cpu, began = time.process_time(), time.perf_counter()
        proof = prove(job, Coverage(targets=1, total_blocks=job.blocks), call)
        taken = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - began}
    if proof.blocks_written != job.blocks:
        raise AssertionError(f"{proof.blocks_written} of {job.blocks} blocks were proved")
    return taken


@contextmanager
def _s3(length: int) -> Iterator[str]:
    """A server that has a recount object, of blocks that are all written, for every range; its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(length, there), daemon=True)
    process.start()
    there.close()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(length: int, ready: Connection) -> None:
    whole = _digests(length)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            first, stop = (int(part) for part in PurePosixPath(self.path.partition("?")[0]).stem.split("-"))
            body = recounts.pack(_recounted(first, stop), whole[: (stop - first) * DIGEST_SIZE])
            checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            # S3 sends back the checksum with which the object was stored, and the client holds the bytes against it.
            self.send_header("x-amz-checksum-sha256", checksum)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def _recounted(first: int, stop: int) -> Recounted:
    return Recounted(
        first=first,
        stop=stop,
        blocks=stop - first,
        allocated=stop - first,
        removed=0,
        read=stop - first,
        zeros=0,
        held=(Held(first=first, stop=stop, targets=(0,)),),
        requests={f"GetSnapshotBlock {REGION}": stop - first, f"PutSnapshotBlock {REGION}": stop - first},
        retries={},
        parent_blocks=0,
        gb_seconds=100.0,
    )


# -- a range -----------------------------------------------------------------------------------------------------------


def _recount(job: Job, objects: int) -> dict[str, float]:
    within = next(split(job.blocks, job.blocks_per_range))
    stored = dict(_digest_objects(within, objects))
    s3 = SimpleNamespace(
        get_object=lambda *, Bucket, Key: {"Body": io.BytesIO(stored[Key])},
        get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [{"Contents": [{"Key": key} for key in stored]}]),
    )
    folder = JobFolder(BUCKET, cast(Any, s3), job.operation, job.job_id)
    call = JobCall(
        aws=cast(Aws, SimpleNamespace(ebs=lambda *_, **__: SimpleNamespace(list_blocks=_full))), folder=folder
    )
    cpu, began = time.process_time(), time.perf_counter()
    found, _ = recount(job, call, within)
    taken = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - began}
    if found.blocks != len(within):
        raise AssertionError(f"{found.blocks} of {len(within)} blocks were counted")
    return taken


def _digest_objects(within: BlockRange, objects: int) -> Iterator[tuple[str, bytes]]:
    whole = _digests(len(within))
    for part in split(len(within), -(-len(within) // objects)):
        entries = tuple((i, whole[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE]) for i in range(part.first, part.stop))
        name = f"jobs/copy/job-1/moved/digests/{part.first:010d}-{part.stop:010d}-0.bin"
        yield name, digests.pack(Stretch(part.first, part.stop, (0,), entries, {}, {}))


def _full(_snapshot_id: str, *, start: int, window: int, page_token: str | None) -> Page:
    """A page of the list of a snapshot without holes."""
    first = start if page_token is None else int(page_token)
    stop = first + min(window, 10_000)
    return Page(tuple((index, "A" * 64) for index in range(first, stop)), str(stop))
