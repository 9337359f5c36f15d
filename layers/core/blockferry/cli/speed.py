"""The command ``blockferry speed``: how many workers a running job has, and how many it shall have."""

from __future__ import annotations

import argparse

from blockferry.cli.console import Command, command_for, operator_of, show
from blockferry.cli.watch import add_job
from blockferry.core.errors import InvalidRequest


def _add_options(command: argparse.ArgumentParser) -> None:
    add_job(command)
    change = command.add_mutually_exclusive_group()
    change.add_argument("--workers", type=int, metavar="N", help="at a time, from 1 to as many as were planned")
    change.add_argument("--default", action="store_true", help="as many workers as were planned")


def _run(options: argparse.Namespace) -> int:
    operator = operator_of(options)
    state = operator.find(options.job_id, options.operation)
    if not state.running:
        raise InvalidRequest(
            f"job {options.job_id} is not running, it is {state.status}; only a running job has a speed"
        )
    moving = operator.moving(state.arn)
    if moving is None:
        raise InvalidRequest(
            f"job {options.job_id} moves no blocks at the moment, so it has no workers; ask again when "
            f"{command_for('status', options.job_id, options)} shows ranges that are not moved yet"
        )
    planned = moving.planned
    workers = planned if options.default else options.workers
    if workers is None:
        workers = moving.workers
        text = f"{options.job_id}: {workers} of {planned} planned workers"
    else:
        # A worker's pace is its share of the quotas by the plan, so more of them would ask for more than there is; and
        # Step Functions takes 0 for no limit.
        if not 1 <= workers <= planned:
            raise InvalidRequest(
                f"--workers: {workers} is not from 1 to {planned}; job {options.job_id} was planned with {planned} "
                "workers, which together ask for all that its quotas, or options.max_concurrency, allow"
            )
        operator.set_workers(moving, workers)
        text = f"{options.job_id}: {workers} of {planned} planned workers from now on"
        if workers < moving.workers:
            text += "; those that run finish their ranges first"
    result = {"job_id": options.job_id, "execution_arn": state.arn, "workers": workers, "planned_workers": planned}
    show(result, text=text, as_json=options.json)
    return 0


COMMAND = Command(
    name="speed", summary="show or change how many workers a running job has", add_options=_add_options, run=_run
)
