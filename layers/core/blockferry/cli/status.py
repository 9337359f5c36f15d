"""The command ``blockferry status``: how a job is doing."""

from __future__ import annotations

import argparse

from blockferry.cli.console import Command, operator_of
from blockferry.cli.watch import add_full, add_job, report


def _add_options(command: argparse.ArgumentParser) -> None:
    add_job(command)
    add_full(command)


def _run(options: argparse.Namespace) -> int:
    operator = operator_of(options)
    return report(options, operator, operator.find(options.job_id, options.operation))


COMMAND = Command(
    name="status",
    summary="show a job; exit status 3 while it is running",
    add_options=_add_options,
    run=_run,
    examples=("status nightly", "status nightly --json"),
)
