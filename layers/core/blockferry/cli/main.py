"""The command ``blockferry``.

Results go to standard output (``--json`` for programs), progress and errors to standard error. Exit status: 0 done,
1 a job or command failed, 2 the command line or the input is unusable, 3 the job is still running (``status``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import __version__
from blockferry.cli import copy, fanout, inspect, resume, speed, status, stop, sync, upload
from blockferry.cli.console import FAILED, PREFIX, UNUSABLE, say
from blockferry.core.errors import BlockferryError, InvalidRequest

COMMANDS = tuple(each.COMMAND for each in (copy, sync, fanout, inspect, status, resume, stop, speed, upload))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        result: int = options.run(options)
        return result
    except InvalidRequest as error:
        say(_told(error))
        return UNUSABLE
    except (BlockferryError, ClientError, BotoCoreError) as error:
        say(_told(error))
        return FAILED
    except KeyboardInterrupt as interrupt:
        say(f"blockferry: interrupted; {'; '.join(getattr(interrupt, '__notes__', ())) or options.interrupted}")
        return FAILED


def _told(error: Exception) -> str:
    """The error, and what its notes say became of what was started."""
    return "; ".join((f"blockferry: {error}", *getattr(error, "__notes__", ())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="blockferry", description="Ferries EBS snapshots, and proves what it moved.")
    parser.add_argument("--version", action="version", version=f"blockferry {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--region", help="region of the state machines, or of the upload (default: the configured one)")
    common.add_argument(
        "--name-prefix",
        metavar="NAME",
        default=PREFIX,
        help="name_prefix of the deployment (default: blockferry)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(command.name, parents=[common], help=command.summary)
        command.add_options(own)
        own.set_defaults(run=command.run, interrupted=command.interrupted)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
