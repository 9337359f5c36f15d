"""Benchmarks: medians and ratios within one run, on whatever machine this is.

``copy`` starts the EBS server of the local cloud in a process of its own (quotas and latency off), fills a snapshot,
and lets each contender copy it several times, the contenders in turn, each time in a fresh process. A contender
reports its own CPU time (user + system, after imports and a warm-up) and its peak memory. Compare the ratios, not
the absolute values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.environment import repository_root

CONTENDERS = {
    "floor": "raw sockets and SHA-256, no client library, nothing listed: a limit, not a plan",
    "boto3": "plain boto3 GetSnapshotBlock + PutSnapshotBlock with the checksum computed once",
    "worker": "the worker's own loop: list, read, verify, write, keep the digest",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table (or JSON)."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures what moving a block costs.")
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK", dest="benchmark")
    copy = commands.add_parser("copy", help="CPU milliseconds and memory of copying one block of 512 KiB")
    copy.add_argument("--blocks", type=int, default=1_000, help="blocks per round (default: 1000)")
    copy.add_argument("--rounds", type=int, default=5, help="counted rounds of each contender (default: 5)")
    copy.add_argument("--threads", type=int, default=12, help="threads of boto3 and of the worker (default: 12)")
    copy.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    result = bench_copy(blocks=options.blocks, rounds=options.rounds, threads=options.threads)
    print(json.dumps(result, indent=1) if options.json else table(result))
    return 0


def bench_copy(*, blocks: int, rounds: int, threads: int) -> dict[str, Any]:
    """Medians per contender: CPU ms per block, blocks per second, peak MiB; and the ratios to boto3 and the floor."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-") as name, ebs_server(Path(name)) as url:
        snapshot_id = _contend("fill", url, snapshot="-", blocks=blocks, threads=threads)["snapshot_id"]
        for number in range(rounds):
            # In turn, and in another order each round: a drifting machine hits all of them alike.
            order = list(CONTENDERS)[number % 3 :] + list(CONTENDERS)[: number % 3]
            for contender in order:
                runs[contender].append(_contend(contender, url, snapshot=snapshot_id, blocks=blocks, threads=threads))
    medians = {
        name: {key: round(statistics.median(run[key] for run in measured), 3) for key in measured[0]}
        for name, measured in runs.items()
    }
    spread = {
        name: [round(min(r["cpu_ms_per_block"] for r in m), 3), round(max(r["cpu_ms_per_block"] for r in m), 3)]
        for name, m in runs.items()
    }
    ratio = _ratios(runs)
    return {
        "blocks": blocks,
        "rounds": rounds,
        "threads": threads,
        "medians": medians,
        "cpu_ms_min_max": spread,
        "worker_to_boto3": ratio["boto3"],
        "worker_to_floor": ratio["floor"],
    }


def table(result: dict[str, Any]) -> str:
    """The medians as a table for people."""
    lines = [
        f"{result['blocks']} blocks of 512 KiB, {result['rounds']} rounds, {result['threads']} threads; medians",
        f"{'':8} {'CPU ms/block':>13} {'min':>7} {'max':>7} {'blocks/s':>9} {'peak MiB':>9}",
    ]
    for name, row in result["medians"].items():
        low, high = result["cpu_ms_min_max"][name]
        lines.append(
            f"{name:8} {row['cpu_ms_per_block']:13.3f} {low:7.3f} {high:7.3f} {row['blocks_per_second']:9.0f} "
            f"{row['peak_mib']:9.1f}"
        )
    lines.append(f"worker / boto3: {result['worker_to_boto3']}, worker / floor: {result['worker_to_floor']}")
    lines += [f"{name}: {text}" for name, text in CONTENDERS.items()]
    return "\n".join(lines)


def _ratios(runs: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Median of the pairwise ratios of a round: what one machine did at about the same time."""
    return {
        other: round(
            statistics.median(
                mine["cpu_ms_per_block"] / theirs["cpu_ms_per_block"]
                for mine, theirs in zip(runs["worker"], runs[other], strict=True)
            ),
            2,
        )
        for other in ("boto3", "floor")
    }


@contextmanager
def ebs_server(folder: Path) -> Iterator[str]:
    """The EBS server of the local cloud as a process of its own; yields its URL."""
    config, port_file = folder / "config.json", folder / "port"
    config.write_text(json.dumps({"quotas_enabled": False, "seal_seconds": 0}))
    arguments = ["--data-dir", str(folder / "data"), "--config", str(config), "--port-file", str(port_file)]
    server = subprocess.Popen(
        [sys.executable, "-m", "localcloud.ebs.server", *arguments], env=_environment(), cwd=repository_root()
    )
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the EBS server did not start (exit status {server.poll()})")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def _contend(contender: str, url: str, *, snapshot: str, blocks: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.bench_contenders", contender, snapshot, str(blocks), str(threads)]
    done = subprocess.run(
        command, env=_environment(url), cwd=repository_root(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _environment(url: str | None = None) -> dict[str, str]:
    root = repository_root()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{root / 'scripts'}:{root / 'layers' / 'core'}",
        "AWS_ACCESS_KEY_ID": "111122223333",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return environment if url is None else environment | {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_EBS": url}
