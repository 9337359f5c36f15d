"""A job as it goes on: its progress, its outcome, and what to do about it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from blockferry.cli.console import FAILED, RUNNING, command_for, say
from blockferry.cli.operate import JobState, NotSeen, Operator
from blockferry.cli.render import receipt_table, run_table, target_line, verification_table
from blockferry.core.quotas import PENDING_SNAPSHOTS
from blockferry.core.words import counted
from blockferry.inspection.answer import answer
from blockferry.inspection.page import report_page
from blockferry.operations import OPERATIONS
from blockferry.transfer.move import message_of


def add_job(command: argparse.ArgumentParser) -> None:
    """The options that name a job."""
    command.add_argument("job_id", metavar="JOB", help="job id, as printed when the job was started")
    command.add_argument("--operation", choices=tuple(OPERATIONS), help="of the job, where several have one of this id")


def add_full(command: argparse.ArgumentParser) -> None:
    """The option ``--full`` of whatever shows an inspection."""
    command.add_argument("--full", action="store_true", help="show all that an inspection found, with every figure")


def saying(said: Callable[[str], None]) -> Callable[[JobState], None]:
    """What takes every state of a job and says each line of its progress that is new; how it ends is reported."""
    shown = ""

    def progress(state: JobState) -> None:
        nonlocal shown
        line = progress_line(state)
        if line != shown and state.running:
            shown = line
            said(line)

    return progress


def follow(options: argparse.Namespace, operator: Operator, arn: str) -> int:
    """Show progress until the job has ended, and report it."""
    try:
        ended = operator.wait(arn, sleep=time.sleep, on_progress=saying(say))
    except NotSeen as error:
        job_id = arn.rsplit(":", 1)[-1]
        say(
            f"job {job_id} goes on, but it cannot be looked at: {error}; see later: "
            f"{command_for('status', job_id, options)}"
        )
        return RUNNING
    return report(options, operator, ended)


def progress_line(state: JobState) -> str:
    """One line of progress: status, and ranges done of all."""
    text = f"{state.job_id}: {state.status}"
    # Of a job that has ended, a range may have come to its end without having been moved: the cause says how many were.
    if state.ranges.get("total") and state.running:
        moved, total = state.ranges["succeeded"], counted(state.ranges["total"], "range")
        done, then = ("moved", "checking and completing the targets")
        if state.operation == "verify":
            done, then = ("verified", "putting together what was found")
        # What comes then is up to EC2 and may take as long as it likes.
        if moved == state.ranges["total"]:
            text += f", {moved} of {total} {done}: {then}"
        else:
            text += f", {moved} of {total} {done}"
        if state.ranges.get("failed"):
            text += f", {state.ranges['failed']} failed"
    return text


def report(options: argparse.Namespace, operator: Operator, state: JobState) -> int:
    """Print what became of a job, or how far it is; returns the exit status."""
    state = operator.with_own_cause(state)
    succeeded = state.status == "SUCCEEDED"
    targets = [] if succeeded or state.running or state.refused else operator.targets(state.arn)
    if options.json:
        told = {**vars(state), "cause": reason_of(state), "operation": state.operation, "targets": targets}
        result = state.output if succeeded else told
        print(json.dumps(result, indent=1, default=dict))
    elif succeeded:
        print(_outcome(state.output, full=getattr(options, "full", False)))
    else:
        print("\n".join([progress_line(state), *map(target_line, targets)]))
    if succeeded:
        return 0
    if state.running:
        return RUNNING
    say(f"{state.error or state.status}: {reason_of(state) or 'Step Functions gives no cause'}")
    if not state.over:
        resume = command_for("resume", state.job_id, options)
        if targets and all(target["completed"] for target in targets):
            say(
                f"every target was completed before; once what is named above is mended, go on with: {resume}; "
                "a target that is gone needs a new job"
            )
            return FAILED
        say(f"what is finished stays finished; go on with: {resume}")
        if any(kind.takes_up_a_place for kind in OPERATIONS[state.operation].targets):
            say(
                "targets that are not completed stay pending until then, or until the resume window is over, and "
                f"take up places of the {PENDING_SNAPSHOTS} pending snapshots that EBS lets an account have in a Region"
            )
    return FAILED


def reason_of(state: JobState) -> str | None:
    """The cause without what Lambda puts around the message of a function: its stack trace, as one line of JSON."""
    return None if state.cause is None else message_of(state.cause)


def _outcome(output: Any, *, full: bool) -> str:
    if output["operation"] == "verify":
        return verification_table(output)
    if "report_json_uri" in output:
        return run_table(output)
    if output["operation"] != "inspect":
        return receipt_table(output)
    return report_page(output).rstrip("\n") if full else "\n".join(answer(output))
