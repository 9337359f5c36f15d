"""The command ``blockferry``.

Results go to standard output (``--json`` for programs), progress and errors to standard error. Exit status: 0 done,
1 a job or command failed, 2 the command line or the input is unusable, 3 the job is still running (``status``, and
``--wait`` that cannot see it any more), 70 a defect of this software, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import __version__
from blockferry.cli.console import (
    BROKEN_PIPE,
    FAILED,
    PREFIX_VARIABLE,
    UNFORESEEN,
    UNUSABLE,
    Command,
    command_for,
    say,
)
from blockferry.cli.operate import PREFIX
from blockferry.cli.unreached import told
from blockferry.core.errors import BlockferryError, InvalidRequest

if TYPE_CHECKING:
    from blockferry.cli import archive as archive
    from blockferry.cli import backup as backup
    from blockferry.cli import cat as cat
    from blockferry.cli import copy as copy
    from blockferry.cli import discard as discard
    from blockferry.cli import expire as expire
    from blockferry.cli import fanout as fanout
    from blockferry.cli import inspect as inspect
    from blockferry.cli import replicate as replicate
    from blockferry.cli import restore as restore
    from blockferry.cli import resume as resume
    from blockferry.cli import speed as speed
    from blockferry.cli import status as status
    from blockferry.cli import stop as stop
    from blockferry.cli import sync as sync
    from blockferry.cli import upload as upload
    from blockferry.cli import verify as verify

COMMANDS = (
    "copy",
    "sync",
    "fanout",
    "archive",
    "restore",
    "verify",
    "inspect",
    "backup",
    "replicate",
    "expire",
    "status",
    "resume",
    "stop",
    "speed",
    "upload",
    "cat",
    "discard",
)
"""A module for each, with its ``COMMAND``."""


def command_named(name: str) -> Command:
    """The command of this name, which is one of ``COMMANDS``."""
    command: Command = import_module(f"blockferry.cli.{name}").COMMAND
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    # The others are not loaded where one is named: the imports are most of what a short command takes.
    parser = _parser(COMMANDS if not given or given[0] not in COMMANDS else given[:1])
    options, unknown = parser.parse_known_args(given)
    if unknown:
        _refuse_unknown(parser, given[0], unknown)
    if options.run is None:
        parser.print_help()
        return UNUSABLE
    try:
        result: int = options.run(options)
        sys.stdout.flush()
        return result
    except InvalidRequest as error:
        say(_told(error))
        return UNUSABLE
    except (BlockferryError, ClientError, BotoCoreError) as error:
        say(_told(error))
        return FAILED
    except BrokenPipeError:
        # Whoever read it has seen enough. Nothing more can be written there, not even when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            return _unforeseen(error, options)
        say(f"blockferry: a disk of this machine is full ({error.strerror}); {_became(error, options)}")
        return FAILED
    except KeyboardInterrupt as interrupt:
        by = f" by {interrupt}" if str(interrupt) else ""
        # Nobody may listen any more: a terminal that is closed interrupts, too.
        with suppress(OSError):
            say(f"blockferry: interrupted{by}; {_became(interrupt, options)}")
        return FAILED
    except Exception as error:
        return _unforeseen(error, options)


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def _unforeseen(error: Exception, options: argparse.Namespace) -> int:
    """Tell of a defect of this software, and return the exit status."""
    traceback.print_exc()
    say(
        f"blockferry: {type(error).__name__}, which should not happen: please report it with the lines above. "
        f"{_became(error, options)}"
    )
    return UNFORESEEN


def _became(error: BaseException, options: argparse.Namespace) -> str:
    """What became of what was started, as its notes say, or else what a command leaves behind."""
    return "; ".join(getattr(error, "__notes__", ())) or _left(options)


def _left(options: argparse.Namespace) -> str:
    """What a command that came to no end of its own leaves behind."""
    job_id = getattr(options, "job_id", None)
    if job_id is None:
        return "nothing was started"
    return f"a started job goes on, see: {command_for('status', job_id, options)}"


def _told(error: Exception) -> str:
    """The error, and what its notes say became of what was started."""
    return "; ".join((f"blockferry: {told(error)}", *getattr(error, "__notes__", ())))


class _Parser(argparse.ArgumentParser):
    """A parser that asks whether something similar was meant."""

    def error(self, message: str) -> NoReturn:
        found = re.match(r"argument .*invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if found:
            close = get_close_matches(found[1], re.findall(r"'([^']*)'", found[2]), n=2)
            message += f"; did you mean {' or '.join(close)}?" if close else ""
        super().error(message)


def _refuse_unknown(parser: argparse.ArgumentParser, name: str, unknown: Sequence[str]) -> NoReturn:
    """End as argparse does where nothing is known of some words, with the usage of the command that was meant."""
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    own: argparse.ArgumentParser = commands.choices.get(name, parser)
    message = f"unrecognized arguments: {' '.join(unknown)}"
    options = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    known = [option for action in own._actions for option in action.option_strings if option.startswith("--")]
    close = [found for option in options for found in get_close_matches(option, known, n=1)]
    own.error(message + (f"; did you mean {' and '.join(close)}?" if close else ""))


def _parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    parser = _Parser(prog="blockferry", description="Ferries EBS snapshots, and proves what it moved.")
    parser.add_argument("--version", action="version", version=f"blockferry {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--region", help="region of the state machines, or of the upload (default: the configured one)")
    common.add_argument(
        "--name-prefix",
        metavar="NAME",
        default=os.environ.get(PREFIX_VARIABLE) or PREFIX,
        help=f"name_prefix of the deployment (default: ${PREFIX_VARIABLE}, or blockferry)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in map(command_named, names):
        own = commands.add_parser(
            command.name,
            parents=[common],
            help=command.summary,
            epilog="\n".join(["examples:", *(f"  blockferry {each}" for each in command.examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(own)
        own.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
