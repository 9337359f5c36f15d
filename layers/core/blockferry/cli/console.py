"""What every command shares: where it works, what it says, and on which channel.

Results go to standard output (``--json`` for programs), progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3

from blockferry.aws.sessions import configured_region
from blockferry.cli.operate import PREFIX, Operator
from blockferry.core.errors import InvalidRequest

FAILED, UNUSABLE, RUNNING = 1, 2, 3
"""Exit statuses beside 0: a job or command failed, the command line or input is unusable, the job is still running."""

BROKEN_PIPE, UNFORESEEN = 141, 70
"""Exit statuses of a command that nobody listens to any more, as a shell tells of such a program, and of one that met
what it does not know (``EX_SOFTWARE`` of sysexits)."""

PREFIX_VARIABLE = "BLOCKFERRY_NAME_PREFIX"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command: its ``name`` and ``summary``, its options, ``examples`` without the name of the program, and its work,
    which gives the exit status. ``options.job_id`` names the job it is about, as soon as one is known."""

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: tuple[str, ...]


def operator_of(options: argparse.Namespace) -> Operator:
    """The operator of the deployment that the command line names."""
    session = boto3.Session()
    return Operator.of(region=region_of(options, session), prefix=options.name_prefix, session=session)


def region_of(options: argparse.Namespace, session: boto3.Session) -> str:
    """The region to work in. Raises ``InvalidRequest`` when nobody names one."""
    region: str | None = options.region or configured_region(session)
    if region is None:
        raise InvalidRequest("no region is configured: give --region, or set AWS_REGION or the region of the profile")
    return region


def command_for(verb: str, job_id: str, options: argparse.Namespace) -> str:
    """The command line that applies ``verb`` to a job, in the deployment that ``options`` name."""
    place = [] if options.region is None else ["--region", options.region]
    if options.name_prefix != PREFIX:
        place += ["--name-prefix", options.name_prefix]
    return " ".join(["blockferry", verb, job_id, *place])


def show(result: dict[str, Any], *, text: str, as_json: bool) -> None:
    """Print a result for people or for programs."""
    # At once: where nothing more can be written, that is told with what the command has done.
    print(json.dumps(result, indent=1) if as_json else text, flush=True)


@contextmanager
def done(what: str) -> Iterator[None]:
    """Only telling of it is left of what is done: whatever ends that gets a note that says so."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise


def say(text: str) -> None:
    """Print progress or an error."""
    print(text, file=sys.stderr, flush=True)
