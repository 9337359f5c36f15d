"""``scripts/test``: run the checks, two at a time, and say in one line each how it went."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.build import BuildFailed
from tools.changed import Touched, changed_files, touched
from tools.environment import EnvironmentFailed, repository_root
from tools.parts import MUTATED_MODULES, PARTS, TESTED_FILES, Part
from tools.processes import CommandFailed, Commands
from tools.terraform import TerraformFailed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one part went."""

    part: Part
    seconds: float
    shown: Sequence[str]
    failure: str | None


def run_part(part: Part, commands: Commands) -> Outcome:
    """Run one part; whatever goes wrong in it becomes its failure."""
    start = time.monotonic()
    shown: Sequence[str] = ()
    failure: str | None = None
    try:
        shown = part.run(commands)
    except (CommandFailed, TerraformFailed, BuildFailed, EnvironmentFailed, OSError) as error:
        failure = str(error) or repr(error)
    return Outcome(part=part, seconds=time.monotonic() - start, shown=shown, failure=failure)


def run_parts(parts: Sequence[Part], commands: Commands, *, jobs: int) -> list[Outcome]:
    """Run the parts, ``jobs`` at a time, and those that must be alone after the others, one by one."""
    printing = threading.Lock()

    def run_and_report(part: Part) -> Outcome:
        outcome = run_part(part, commands)
        with printing:
            report(outcome)
        return outcome

    executor = ThreadPoolExecutor(max_workers=jobs)
    try:
        together = [executor.submit(run_and_report, part) for part in parts if not part.alone]
        outcomes = [future.result() for future in together]
        outcomes += [run_and_report(part) for part in parts if part.alone]
    except KeyboardInterrupt:
        commands.stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return outcomes


def report(outcome: Outcome) -> None:
    """One line for the part, what it has to show below it, and the output of a failed one."""
    verdict = "ok" if outcome.failure is None else "FAILED"
    print(f"{outcome.part.name:<10} {verdict:<6} {outcome.seconds:7.1f} s", flush=True)
    if outcome.failure is not None:
        print(f"\n{outcome.failure.strip()}\n", flush=True)
    for line in outcome.shown:
        print(line, flush=True)


def chosen(*, fast: bool, only: Sequence[str] | None, parts: Sequence[Part] = PARTS) -> list[Part]:
    """The parts to run, in their order. Naming a part includes it, also a slow one in a fast run."""
    if only:
        return [part for part in parts if part.name in only]
    return [part for part in parts if not part.on_request and not (fast and part.slow)]


def main(arguments: list[str] | None = None, *, known: Sequence[Part] = PARTS) -> int:
    """The command ``scripts/test``, with these parts to choose from."""
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Run the checks of this repository. Exit status 1 if any of them fails.",
        epilog="parts:\n" + "\n".join(f"  {part.name:<10} {part.says}" for part in known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    slow = " and ".join(part.name for part in known if part.slow and not part.on_request)
    parser.add_argument("--fast", action="store_true", help=f"leave out {slow}: before each commit")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=[part.name for part in known], help="only these parts"
    )
    parser.add_argument(
        "--modules",
        nargs="+",
        metavar="MODULE",
        help="what the part mutation looks at, as mover.py (default: all of it)",
    )
    parser.add_argument(
        "--changed",
        nargs="?",
        const="main",
        metavar="COMMIT",
        help="only what can be touched by what differs from where this branch left COMMIT (default: %(const)s)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many parts run side by side (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if options.modules and "mutation" not in (options.only or ()):
        parser.error("--modules belongs to the part mutation: scripts/test --only mutation --modules MODULE")
    start = time.monotonic()
    environment = _environment()
    if options.modules:
        environment[MUTATED_MODULES] = " ".join(options.modules)
    commands = Commands(repository_root(), environment)
    parts = chosen(fast=options.fast, only=options.only, parts=known)
    if options.changed is not None:
        try:
            found = _touched(commands, options.changed)
        except CommandFailed as error:
            parser.error(f"--changed {options.changed}: {error}")
        parts = [part for part in parts if found.parts is None or part.name in found.parts]
        commands = Commands(repository_root(), environment | {TESTED_FILES: " ".join(found.tests or ())})
        if not parts:
            print("nothing that a check looks at has changed")
            return 0
    try:
        outcomes = run_parts(parts, commands, jobs=options.jobs)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    seconds = time.monotonic() - start
    failed = [outcome.part.name for outcome in outcomes if outcome.failure is not None]
    if failed:
        print(f"total: {len(failed)} of {len(outcomes)} parts FAILED ({', '.join(failed)}) in {seconds:.1f} s")
        return 1
    print(f"total: all {len(outcomes)} parts ok in {seconds:.1f} s")
    return 0


def _touched(commands: Commands, base: str) -> Touched:
    """What has to run because of what differs from ``base``, and tell so."""
    files = changed_files(commands, base)
    found = touched(commands.directory, files)
    print(
        f"changed since {base}: {len(files)} file{'' if len(files) == 1 else 's'}"
        + "".join(f"\n  {file}" for file in files)
    )
    if found.tests is None:
        print("everything depends on one of them: all parts, all tests")
    else:
        print(f"test files that read or name them: {len(found.tests)}" + "".join(f"\n  {test}" for test in found.tests))
    return found


def _environment() -> dict[str, str]:
    """This process's environment, with the commands of the project's environment found first."""
    return {**os.environ, "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
