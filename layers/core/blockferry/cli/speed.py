"""The command ``blockferry speed``: how fast a running job may go, and how fast it shall."""

from __future__ import annotations

import argparse
from typing import Any

from blockferry.cli.console import Command, command_for, operator_of, show
from blockferry.cli.operate import JobState, Moving, Operator
from blockferry.cli.watch import add_job
from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.core.words import counted
from blockferry.jobs.running import LEAST_SPEED
from blockferry.transfer.workers import MOST_WORKERS


def _add_options(command: argparse.ArgumentParser) -> None:
    add_job(command)
    command.add_argument(
        "--blocks-per-second",
        type=float,
        metavar="N",
        help=f"blocks of 512 KiB, all its workers together, from {LEAST_SPEED} to {BLOCKS_PER_SECOND:,}",
    )
    command.add_argument("--workers", type=int, metavar="N", help=f"workers at a time, from 1 to {MOST_WORKERS:,}")
    command.add_argument("--default", action="store_true", help="as planned: neither of the two is given")


def _run(options: argparse.Namespace) -> int:
    speed, workers = options.blocks_per_second, options.workers
    if options.default and (speed is not None or workers is not None):
        raise InvalidRequest("--default takes back --blocks-per-second and --workers: give it alone")
    if speed is not None and not LEAST_SPEED <= speed <= BLOCKS_PER_SECOND:
        raise InvalidRequest(
            f"--blocks-per-second: {speed:g} is not from {LEAST_SPEED} to {BLOCKS_PER_SECOND:,}, the requests a second "
            "that EBS gives an account in a Region; to hold a job up altogether use "
            f"{command_for('stop', options.job_id, options)}, and resume it later"
        )
    # Step Functions takes 0 for no limit.
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise InvalidRequest(f"--workers: {workers} is not from 1 to {MOST_WORKERS:,}")
    operator = operator_of(options)
    state = operator.find(options.job_id, options.operation)
    if not state.running:
        raise InvalidRequest(
            f"job {options.job_id} is not running, it is {state.status}; only a running job has a speed"
        )
    moving = operator.moving(state.arn)
    if workers is not None and moving is None:
        raise InvalidRequest(
            f"--workers: job {options.job_id} moves no blocks at the moment, so it has no workers; ask again when "
            f"{command_for('status', options.job_id, options)} shows ranges that are not moved yet"
        )
    job = operator.job_of(state.arn)
    # The pace first: workers that are added must find it.
    if speed is not None or options.default:
        operator.running.set_speed(job, speed)
    if moving is not None:
        at_a_time = moving.planned if options.default else workers
        if at_a_time is not None:
            operator.set_workers(moving, at_a_time)
            moving = Moving(moving.arn, at_a_time, moving.planned)
    found = _found(operator, state, moving)
    changed = options.default or speed is not None or workers is not None
    show(found, text=_told(options.job_id, found, changed=changed), as_json=options.json)
    return 0


def _found(operator: Operator, state: JobState, moving: Moving | None) -> dict[str, Any]:
    """The speed of a job: workers that Step Functions lets run, those that run, and blocks a second."""
    job = operator.job_of(state.arn)
    seen = operator.running.look(job)
    speed = seen.speeds.get(job)
    return {
        "job_id": state.job_id,
        "execution_arn": state.arn,
        "workers": None if moving is None else moving.workers,
        "planned_workers": None if moving is None else moving.planned,
        "running_workers": seen.workers.get(job, 0),
        "blocks_per_second": speed,
        "allowed_blocks_per_second": seen.pace(job),
        "other_jobs": sorted("/".join(other) for other in seen.asked if other != job),
    }


def _told(job_id: str, found: dict[str, Any], *, changed: bool) -> str:
    lines = []
    if found["workers"] is None:
        lines.append("moves no blocks at the moment")
    else:
        lines.append(f"{counted(found['workers'], 'worker')} at a time ({found['planned_workers']} were planned)")
        if changed:
            lines[-1] += "; those that run finish their ranges first"
    if found["blocks_per_second"] is not None:
        lines.append(f"at most {found['blocks_per_second']:g} blocks a second, as an operator said")
    pace, others = found["allowed_blocks_per_second"], len(found["other_jobs"])
    if pace is not None:
        beside = f", beside {counted(others, 'other job')}" if others else ""
        lines.append(f"{found['running_workers']} running, which may move {pace:.0f} blocks a second{beside}")
    if changed:
        lines.append("workers follow within half a minute")
    return "\n".join([f"{job_id}: {lines[0]}", *(f"  {line}" for line in lines[1:])])


COMMAND = Command(
    name="speed",
    summary="show or change how fast a running job goes",
    add_options=_add_options,
    run=_run,
    examples=("speed nightly", "speed nightly --blocks-per-second 200", "speed nightly --default"),
)
