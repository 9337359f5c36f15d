"""Benchmarks: medians and ratios within one run, on whatever machine this is.

``copy`` starts the EBS server of the local cloud in a process of its own (quotas and latency off), fills a snapshot,
and lets each contender copy it several times, the contenders in turn, each time in a fresh process. A contender
reports its own CPU time (user + system, after imports and a warm-up) and its peak memory. Compare the ratios, not
the absolute values.

``ebs`` measures the EBS server of the local cloud itself, see ``bench_ebs``; ``prove`` what the proof of a transfer
takes at the size of the largest volume, see ``bench_prove``; ``saturate`` how much of its share of the quotas a worker
reaches with few targets and with many, see ``bench_saturate``; ``small`` how long short jobs take, see ``bench_small``;
``archive`` what archiving and restoring a block costs, see ``bench_archive``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import bench_archive, bench_ebs, bench_prove, bench_saturate, bench_small
from tools.bench_aims import add_outcome, told
from tools.bench_server import contend, ebs_server

CONTENDERS = {
    "floor": "raw sockets and SHA-256, no client library, nothing listed: a limit, not a plan",
    "boto3": "plain boto3 GetSnapshotBlock + PutSnapshotBlock with the checksum computed once",
    "worker": "the worker's own loop: list, read, verify, write, keep the digest",
}

MOST_OF_BOTO3 = 0.65
"""Aim: CPU of a worker for a block, as a part of what plain boto3 takes in the same run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table (or JSON)."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures what moving a block costs.")
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK", dest="benchmark")
    copy = commands.add_parser("copy", help="CPU milliseconds and memory of copying one block of 512 KiB")
    copy.add_argument("--blocks", type=int, default=1_000, help="blocks per round (default: 1000)")
    copy.add_argument("--rounds", type=int, default=5, help="counted rounds of each contender (default: 5)")
    copy.add_argument("--threads", type=int, default=12, help="threads of boto3 and of the worker (default: 12)")
    add_outcome(copy)
    copy.set_defaults(run=run_copy)
    ebs = commands.add_parser("ebs", help="blocks per second that the local EBS server gives and takes on one core")
    bench_ebs.add_arguments(ebs)
    ebs.set_defaults(run=bench_ebs.run)
    proving = commands.add_parser("prove", help="CPU and seconds of proving a transfer of the largest volume")
    bench_prove.add_arguments(proving)
    proving.set_defaults(run=bench_prove.run)
    saturate = commands.add_parser("saturate", help="what of its share of the quotas a worker reaches, by targets")
    bench_saturate.add_arguments(saturate)
    saturate.set_defaults(run=bench_saturate.run)
    archive = commands.add_parser("archive", help="CPU and memory of archiving and restoring, beside their parts")
    bench_archive.add_arguments(archive)
    archive.set_defaults(run=bench_archive.run)
    small = commands.add_parser("small", help="seconds of a short copy and inspection, and where each goes")
    bench_small.add_arguments(small)
    small.set_defaults(run=bench_small.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def run_copy(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if the aim is missed."""
    result = bench_copy(blocks=options.blocks, rounds=options.rounds, threads=options.threads)
    ratio = result["worker_to_boto3"]
    return told(
        options,
        result,
        table,
        reached=f"a worker takes {ratio} of plain boto3's CPU (at most {MOST_OF_BOTO3})",
        missed=["CPU of a worker"] if ratio > MOST_OF_BOTO3 else [],
    )


def bench_copy(*, blocks: int, rounds: int, threads: int) -> dict[str, Any]:
    """Medians per contender: CPU ms per block, blocks per second, peak MiB; and the ratios to boto3 and the floor."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-") as name, ebs_server(Path(name)) as url:
        snapshot_id = contend("fill", url, snapshot="-", blocks=blocks, threads=threads)["snapshot_id"]
        for number in range(rounds):
            # In turn, and in another order each round: a drifting machine hits all of them alike.
            order = list(CONTENDERS)[number % 3 :] + list(CONTENDERS)[: number % 3]
            for contender in order:
                runs[contender].append(contend(contender, url, snapshot=snapshot_id, blocks=blocks, threads=threads))
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
