"""What archiving and restoring a block costs a worker, beside the sum of the parts that nobody can leave out.

The parts are measured in the same run, in processes of their own: for an archive GetSnapshotBlock with its SHA-256,
zstd and PutObject of segments, for a restore ranged GetObject, zstd, SHA-256 and PutSnapshotBlock. Contents are those
of a disk that compresses to about half.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.bench_aims import add_outcome, told
from tools.bench_server import contend, ebs_server, environment
from tools.environment import repository_root

MOST_OF_ARCHIVE, MOST_OF_RESTORE = 1.25, 1.4
"""Aims: CPU of a worker for a block, as a multiple of the sum of the parts."""

MOST_MIB = 140.0
"""Aim: memory of a worker at its peak, whatever the volume."""

CONTENDERS = ("archive", "archive-parts", "restore", "restore-parts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blocks", type=int, default=1_024, help="blocks per round (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each contender (default: 3)")
    parser.add_argument("--threads", type=int, default=12, help="threads (default: 12)")
    add_outcome(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if an aim is missed."""
    result = bench_archive(blocks=options.blocks, rounds=options.rounds, threads=options.threads)
    archive, restore, peak = result["archive_to_parts"], result["restore_to_parts"], result["peak_mib"]
    missed = [
        name
        for name, over in (
            ("CPU of archiving", archive > MOST_OF_ARCHIVE),
            ("CPU of restoring", restore > MOST_OF_RESTORE),
            ("memory", peak > MOST_MIB),
        )
        if over
    ]
    return told(
        options,
        result,
        table,
        reached=f"archiving takes {archive} times its parts (at most {MOST_OF_ARCHIVE}), restoring {restore} "
        f"({MOST_OF_RESTORE}), {peak:.0f} MiB at the peak ({MOST_MIB:.0f})",
        missed=missed,
    )


def bench_archive(*, blocks: int, rounds: int, threads: int) -> dict[str, Any]:
    """Medians per contender, and the medians of the ratios of each round."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-") as name, ebs_server(Path(name)) as url:
        filled = contend("fill-halves", url, snapshot="-", blocks=blocks, threads=threads)["snapshot_id"]
        with bucket_server(Path(name)) as s3:
            for _ in range(rounds):
                for contender in CONTENDERS:
                    runs[contender].append(
                        contend(
                            contender,
                            url,
                            snapshot=filled,
                            blocks=blocks,
                            threads=threads,
                            module="tools.bench_archive_contenders",
                            more={"AWS_ENDPOINT_URL_S3": s3},
                        )
                    )
    medians = {
        name: {key: round(statistics.median(each[key] for each in measured), 3) for key in measured[0]}
        for name, measured in runs.items()
    }
    return {
        "blocks": blocks,
        "rounds": rounds,
        "threads": threads,
        "medians": medians,
        "archive_to_parts": _ratio(runs["archive"], runs["archive-parts"]),
        "restore_to_parts": _ratio(runs["restore"], runs["restore-parts"]),
        "peak_mib": max(each["peak_mib"] for name in ("archive", "restore") for each in runs[name]),
    }


def _ratio(mine: list[dict[str, float]], parts: list[dict[str, float]]) -> float:
    pairs = zip(mine, parts, strict=True)
    return round(statistics.median(a["cpu_ms_per_block"] / b["cpu_ms_per_block"] for a, b in pairs), 2)


def table(result: dict[str, Any]) -> str:
    """The medians as a table for people."""
    lines = [
        f"{result['blocks']} blocks of 512 KiB, {result['rounds']} rounds, {result['threads']} threads, level 3",
        f"{'':14} {'CPU ms/block':>13} {'MiB/s':>7} {'peak MiB':>9} {'ratio':>6}",
    ]
    for name, row in result["medians"].items():
        more = [f"{row[key]:{width}.{digits}f}" if key in row else " " * width for key, width, digits in _COLUMNS]
        lines.append(f"{name:14} {row['cpu_ms_per_block']:13.3f} {' '.join(more)}")
    return "\n".join(lines)


_COLUMNS = (("mib_per_second", 7, 0), ("peak_mib", 9, 1), ("ratio", 6, 2))


@contextmanager
def bucket_server(folder: Path) -> Iterator[str]:
    """A bucket for benchmarks as a process of its own; yields its URL."""
    port_file = folder / "s3-port"
    server = subprocess.Popen(
        [sys.executable, "-m", "tools.bench_s3", str(port_file)],
        env=environment() | {"PATH": os.environ["PATH"]},
        cwd=repository_root(),
    )
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists() or not port_file.read_text():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the bucket did not start (exit status {server.poll()})")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        server.terminate()
        server.wait(timeout=20)
