"""The command ``blockferry stop``: a job ends where it is."""

from __future__ import annotations

import argparse

from blockferry.cli.console import Command, command_for, operator_of, show
from blockferry.cli.watch import add_job
from blockferry.core.errors import InvalidRequest


def _run(options: argparse.Namespace) -> int:
    operator = operator_of(options)
    state = operator.find(options.job_id, options.operation)
    if not state.running:
        raise InvalidRequest(f"job {options.job_id} is not running, it is {state.status}")
    operator.stop(state.arn, reason="stopped by blockferry stop")
    text = f"stopped {options.job_id}; go on with: {command_for('resume', options.job_id, options)}"
    show({"job_id": options.job_id, "execution_arn": state.arn}, text=text, as_json=options.json)
    return 0


COMMAND = Command(
    name="stop",
    summary="stop a job; what it has finished stays finished",
    add_options=add_job,
    run=_run,
    examples=("stop nightly",),
)
