"""Which tests execute a line, and so are asked about a fault in it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tools.mutation import plugin
from tools.mutation.mutants import Mutant
from tools.mutation.sources import Sources

PACKAGE = "layers/core/blockferry"
TESTS = "tests/unit"
NOT_ASKED = ("test_crash_points.py", "test_model.py", "test_build.py", "test_network_guard.py")
"""Tests that are not asked. They run whole jobs hundreds of times, and what only they notice deserves a test that names
it; or they need the guard of the network, which is not there while it is measured what tests execute."""

PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "not cloud", *("-p", "no:cacheprovider", "-p", plugin.__name__))

STARTING_SECONDS = 0.01
"""What a test costs besides its own time."""

MOST_TESTS = 80
"""Tests that one fault is shown to besides the quick ones: many lines are executed by several hundred."""

QUICK_SHARE = 0.75
"""The part of all tests that counts as quick. A time in seconds would be another set of tests on each machine, and on a
slow one leave out the very test that names the fault."""


class NotTried(Exception):
    """The tests could not be run at all; the message says why."""


@dataclass
class Executed:
    """What each test executes, and how long it takes."""

    seconds: Mapping[str, float]
    lines: Mapping[str, Mapping[str, Sequence[int]]]
    _by_module: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def at(self, module: str, lines: Iterable[int]) -> set[str]:
        """The tests that execute one of the lines."""
        if module not in self._by_module:
            found: defaultdict[int, set[str]] = defaultdict(set)
            for test, modules in self.lines.items():
                for line in modules.get(module, ()):
                    found[line].add(test)
            self._by_module[module] = dict(found)
        by_line = self._by_module[module]
        return set().union(*(by_line.get(line, set()) for line in lines))

    def chosen(self, tests: Iterable[str], module: str) -> list[str]:
        """All quick tests and at most ``MOST_TESTS`` others, those that execute most of the module and least beside it.

        In the order in which they run: those first that execute most of the module for the time that they take, and
        what is in the same file later and later.
        """
        by_file: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        costly: list[tuple[float, str]] = []
        for test in tests:
            focus = len(self.lines[test].get(module, ())) / max(self._sizes[test], 1)
            by_file[test.partition("::")[0]].append(((STARTING_SECONDS + self.seconds[test]) / (focus + 0.01), test))
            if self.seconds[test] > self._quick:
                costly.append((-focus, test))
        left_out = {test for _, test in sorted(costly)[MOST_TESTS:]}
        entries = (
            (price * number, test) for file in by_file.values() for number, (price, test) in enumerate(sorted(file), 1)
        )
        return [test for _, test in sorted(entries) if test not in left_out]

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        return {test: sum(len(lines) for lines in modules.values()) for test, modules in self.lines.items()}

    @cached_property
    def _quick(self) -> float:
        """The seconds up to which a test is quick."""
        ascending = sorted(self.seconds.values())
        return ascending[int(QUICK_SHARE * (len(ascending) - 1))]


def asked_about(module: str, mutant: Mutant, tests: Executed, package: Path) -> list[str]:
    """The tests that are to notice a fault, in the order in which they run."""
    executed = tests.at(module, mutant.lines) if mutant.function is not None else set()
    if executed:
        return tests.chosen(executed, module)
    # It takes effect at import, if at all: whoever uses the name, or the function or class that it belongs to.
    tree = ast.parse((package / module).read_text())
    users: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and mutant.lines.start in range(
            node.lineno, (node.end_lineno or 0) + 1
        ):
            users |= tests.at(module, range(node.body[0].lineno, (node.end_lineno or 0) + 1))
            if mutant.function is not None and node in tree.body and isinstance(node, ast.FunctionDef):
                users, names = set(), {node.name}
            elif mutant.function is None and isinstance(node, ast.ClassDef) and mutant.scope == node.name:
                # A default of a field is used where an object is made, by a method that has no line of its own.
                names = {node.name}
    for statement in tree.body:
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        inside = mutant.lines.start in range(statement.lineno, (statement.end_lineno or 0) + 1)
        # A name may be used by the definition of another one, as a set of codes by a greater set.
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and (inside or used & names):
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if names:
        for file in sorted(package.rglob("*.py")):
            lines = [line for name, line in _named_in(file.read_text()) if name in names]
            users |= tests.at(file.relative_to(package).as_posix(), lines)
    if mutant.function is not None:
        return tests.chosen(users, module)
    return tests.chosen(
        users or tests.at(module, range(1, len((package / module).read_text().splitlines()) + 1)), module
    )


@cache
def _named_in(source: str) -> list[tuple[str, int]]:
    """The names and attributes in a source, with their lines."""
    nodes = list(ast.walk(ast.parse(source)))
    return [(node.id, node.lineno) for node in nodes if isinstance(node, ast.Name)] + [
        (node.attr, node.lineno) for node in nodes if isinstance(node, ast.Attribute)
    ]


def environment_of(root: Path, mode: str) -> dict[str, str]:
    # Sets of strings have one order in every run, and the tracer is the one that knows which test it follows.
    fixed = {"PYTHONHASHSEED": "0", "COVERAGE_CORE": "ctrace"}
    return {**os.environ, **fixed, plugin.MODE: mode, plugin.FOLDER: str(root / PACKAGE)}


def measured(root: Path, folder: Path, *, sessions: int = 1) -> Executed:
    """What each test executes. Known from an earlier run for test files that are as they were, with all they import.

    Raises ``NotTried`` when tests fail; what was measured of the files whose tests pass is kept.
    """
    sources = Sources(root)
    known: dict[str, Path] = {}
    for file in sorted((root / TESTS).glob("test_*.py")):
        if file.name not in NOT_ASKED and not file.name.startswith("test_tools_"):
            known[f"{TESTS}/{file.name}"] = folder / f"{file.stem}-{sources.digest(file)[:16]}.json"
    due = [file for file, stored in known.items() if not stored.is_file()]
    if due:
        print(f"running {len(due)} test files once to see what each test executes", flush=True)
        for stored in {old for file in due for old in folder.glob(f"{Path(file).stem}-*.json")}:
            stored.unlink()
        _measure(root, folder, {file: known[file] for file in due}, sessions)
    entries = {test: entry for stored in known.values() for test, entry in json.loads(stored.read_text()).items()}
    return Executed(
        {test: entry["seconds"] for test, entry in entries.items()},
        {test: entry["lines"] for test, entry in entries.items()},
    )


def _measure(root: Path, folder: Path, outputs: Mapping[str, Path], sessions: int) -> None:
    output = folder / "measured.json"
    output.write_text(json.dumps({file: str(stored) for file, stored in outputs.items()}))
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    for number in range(min(sessions, len(outputs))):
        said = folder / f"measured-{number}.log"
        with said.open("w") as log:
            session = subprocess.Popen(
                [*PYTEST, *list(outputs)[number::sessions]],
                cwd=root,
                env=environment_of(root, "measure") | {plugin.OUTPUT: str(output)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        running.append((session, said))
    failed = [said for session, said in running if session.wait()]
    if failed:
        raise NotTried(f"the tests fail without any fault, see {failed[0]}:\n{failed[0].read_text()[-4000:]}")
    for stored in outputs.values():
        if not stored.is_file():  # a file without a test that is asked
            stored.write_text("{}")
