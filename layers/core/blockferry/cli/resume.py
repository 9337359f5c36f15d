"""The command ``blockferry resume``: a failed or stopped job goes on."""

from __future__ import annotations

import argparse

from blockferry.cli.console import Command, operator_of, show
from blockferry.cli.watch import add_job, follow, reason_of
from blockferry.core.errors import InvalidRequest


def _add_options(command: argparse.ArgumentParser) -> None:
    add_job(command)
    command.add_argument("--wait", action="store_true", help="show progress and print the receipt")


def _run(options: argparse.Namespace) -> int:
    operator = operator_of(options)
    state = operator.find(options.job_id, options.operation)
    if state.over:
        what = "was refused" if state.refused else "cannot be done"
        raise InvalidRequest(
            f"job {options.job_id} {what}, there is nothing to resume; mend what it names and start a new job: "
            f"{reason_of(state)}"
        )
    operator.resume(state.arn)
    if options.wait:
        return follow(options, operator, state.arn)
    show({"job_id": options.job_id, "execution_arn": state.arn}, text=f"resumed {options.job_id}", as_json=options.json)
    return 0


COMMAND = Command(
    name="resume",
    summary="go on with a failed or stopped job",
    add_options=_add_options,
    run=_run,
    examples=("resume nightly --wait",),
)
