"""How long a short job takes from the command to its result, cold and warm, and where each second goes.

A copy of a hundred blocks and an inspection are started by the command line, as an operator does, against the local
cloud; one that is up is used, otherwise one is brought up and taken down. Cold means that no function's environment is
left. The seconds of each state come from the history of the execution; the rest is the command itself and its polling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from localcloud.lifecycle import down, info, up
from localcloud.state import CloudInfo

from tools.bench_aims import add_outcome, told
from tools.bench_contenders import fill
from tools.bench_server import control

BLOCKS = 100

MOST_SECONDS = {"copy": {"warm": 3.2, "cold": 4.7}, "inspect": {"warm": 1.4, "cold": 2.7}}
"""Aims: half of what they took when the command line asked every two seconds and targets were waited for as long: 6.4
and 9.3 seconds for the copy, 2.7 for the inspection."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="runs of each job, cold and warm (default: 5)")
    add_outcome(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; with ``check`` exit status 1 if an aim is missed."""
    with _cloud() as cloud:
        result = bench_small(cloud, rounds=options.rounds)
    cases = [(job, how, of["seconds"], MOST_SECONDS[job][how]) for job, by in result.items() for how, of in by.items()]
    missed = [f"{how} {job}" for job, how, seconds, most in cases if seconds > most]
    reached = ", ".join(f"{how} {job} {seconds:.1f} s (at most {most})" for job, how, seconds, most in cases)
    return told(options, result, table, reached=reached, missed=missed)


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = []
    for job, by in result.items():
        for how, of in by.items():
            states = ", ".join(f"{name} {seconds:.2f}" for name, seconds in of["states"].items())
            lines.append(
                f"{job:8} {how:4} {of['seconds']:6.2f} s ({of['min']:.2f} to {of['max']:.2f}): {states}; "
                f"command and polling {of['rest']:.2f}"
            )
    return "\n".join(lines)


def bench_small(cloud: CloudInfo, *, rounds: int) -> dict[str, Any]:
    """Medians of the seconds of each job, of each of its states, and of what is left to the command."""
    os.environ.update(cloud.environment())
    home, recovery = cloud.regions
    snapshot = fill(BLOCKS, region=home, volume_gib=1)
    commands = {"copy": ["copy", snapshot, "--to", recovery, "--wait"], "inspect": ["inspect", snapshot]}
    result: dict[str, Any] = {}
    for job, command in commands.items():
        result[job] = {}
        _run(cloud, job, command)  # what the server itself does for the first time is nobody's cold start
        for how in ("warm", "cold"):
            runs = []
            for _ in range(rounds):
                if how == "cold":
                    control(cloud.endpoint_url, "lambda/kill", {"function": "*"}, keys=cloud.keys)
                runs.append(_run(cloud, job, command))
            seconds = [each["seconds"] for each in runs]
            names = runs[0]["states"]
            states = {name: statistics.median(each["states"].get(name, 0.0) for each in runs) for name in names}
            result[job][how] = {
                "seconds": statistics.median(seconds),
                "min": min(seconds),
                "max": max(seconds),
                "states": states,
                "rest": statistics.median(each["seconds"] - sum(each["states"].values()) for each in runs),
            }
    return result


@contextmanager
def _cloud() -> Iterator[CloudInfo]:
    running = info()
    if running is not None:
        yield running
        return
    try:
        yield up()
    finally:
        down()


def _run(cloud: CloudInfo, job: str, command: list[str]) -> dict[str, Any]:
    name = f"bench-{time.time_ns()}"
    program = Path(sys.executable).with_name("blockferry")
    began = time.perf_counter()
    done = subprocess.run(
        [program, *command, "--name", name, "--region", cloud.regions[0]], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return {"seconds": seconds, "states": _states(cloud, job, name)}


def _states(cloud: CloudInfo, job: str, name: str) -> dict[str, float]:
    """Seconds in each state of the execution, in the order in which they were entered."""
    arn = f"arn:aws:states:{cloud.regions[0]}:{cloud.account_id}:execution:blockferry-{job}:{name}"
    pages = boto3.client("stepfunctions", region_name=cloud.regions[0]).get_paginator("get_execution_history")
    entered: dict[str, float] = {}
    seconds: defaultdict[str, float] = defaultdict(float)
    for page in pages.paginate(executionArn=arn):
        for event in page["events"]:
            if "stateEnteredEventDetails" in event:
                entered[event["stateEnteredEventDetails"]["name"]] = event["timestamp"].timestamp()
            elif "stateExitedEventDetails" in event:
                state = event["stateExitedEventDetails"]["name"]
                seconds[state] += event["timestamp"].timestamp() - entered[state]
    return {state: taken for state, taken in seconds.items() if taken >= 0.01}
