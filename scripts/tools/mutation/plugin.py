"""A pytest plugin that runs tests against planted faults: pytest starts and collects once, then forks.

With ``BLOCKFERRY_MUTATION=measure`` it writes down which lines of the package each test executes. With ``serve`` the
session takes orders instead of running its tests: for each one a forked child puts the fault into place, runs the
chosen tests up to the first that fails, and ends with a status. A fault inside a function replaces the code of the
function object, wherever it was imported to; any other one needs the child to import everything anew.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import types
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from tools.mutation.mutants import mutated

MODE = "BLOCKFERRY_MUTATION"
FOLDER = "BLOCKFERRY_MUTATION_PACKAGE"
OUTPUT = "BLOCKFERRY_MUTATION_OUTPUT"
CHANNELS = "BLOCKFERRY_MUTATION_CHANNELS"

PROFILE = "planted"
"""Profile of hypothesis, which the tests choose by ``HYPOTHESIS_PROFILE``."""

PASSED, FAILED, BROKEN = 0, 1, 2
TIMEOUT = -1
MEMORY_BYTES = 8 << 30

WORKING_SECONDS = 5.0
"""Processor time that a test may take besides five times what it took before: then it goes round in circles."""

WAITING_SECONDS = 30.0
"""Time that may pass besides twenty times what the test took before: then it waits for what never comes."""


COLLECTING_SECONDS = 10.0

# A failing example is enough, nobody reads it: it need not become small. Here, as the tests' settings choose it early.
settings.register_profile(
    PROFILE, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)


class Measuring:
    """Writes ``{test: {"seconds": s, "lines": {module: [line, ...]}}}`` for the tests that pass."""

    def __init__(self, package: Path, output: Path) -> None:
        import coverage

        self._package = package
        self._output = output
        self._seconds: dict[str, float] = {}
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=[f"{package}/*"])
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        started = time.process_time()
        yield
        self._seconds[item.nodeid] = time.process_time() - started
        self._coverage.switch_context("")

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        tests: dict[str, Any] = {test: {"seconds": s, "lines": {}} for test, s in self._seconds.items()}
        for file in data.measured_files():
            module = Path(file).relative_to(self._package).as_posix()
            for line, contexts in data.contexts_by_lineno(file).items():
                for test in contexts:
                    if test in tests:
                        tests[test]["lines"].setdefault(module, []).append(line)
        self._output.write_text(json.dumps(tests))


class Serving:
    """Reads orders, one JSON a line: ``{"module", "position", "function", "tests"}``; answers likewise.

    Without a ``position`` the module stays as it is. ``tests`` are in the order in which they are to run, each with the
    seconds that it takes. The answer has a ``status`` and, in ``said``, the test that failed or what broke.
    """

    def __init__(self, package: Path, orders: int, answers: int) -> None:
        self._package = package
        self._orders = os.fdopen(orders)
        self._answers = os.fdopen(answers, "w")
        self._functions: Mapping[tuple[str, str, int], list[types.FunctionType]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        self._functions = _functions(self._package)
        # What is alive now is not looked at again, so that children share its memory.
        gc.collect()
        gc.freeze()
        self._answer({"ready": len(items)})
        for line in self._orders:
            self._answer(self._carry_out(json.loads(line), items))
        return True

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _carry_out(self, order: dict[str, Any], items: dict[str, pytest.Item]) -> dict[str, Any]:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = BROKEN
            try:
                os.close(read)
                os.setsid()
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
                status = self._tried(order, items, write)
            except BaseException as error:
                os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
            finally:
                os._exit(status)
        os.close(write)
        _, ended = os.waitpid(child, 0)
        status = TIMEOUT if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with os.fdopen(read, "rb") as pipe:
            os.set_blocking(read, False)
            said = pipe.read()
        return {"status": status, "said": (said or b"").decode(errors="replace")}

    def _tried(self, order: dict[str, Any], items: dict[str, pytest.Item], write: int) -> int:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(silence, stream)
        file = self._package / order["module"]
        source, position = file.read_text(), order["position"]
        tree = ast.parse(source) if position is None else mutated(source, position)
        seconds = order["tests"]
        if order["function"] and self._replaced(file, tree, tuple(order["function"])):
            failing = _first_failing([items[test] for test in seconds], seconds)
        else:
            failing = _run_anew(self._package, file, tree, seconds)
        if failing is None:
            return PASSED
        os.write(write, failing.encode())
        return FAILED

    def _replaced(self, file: Path, tree: ast.Module, function: tuple[str, int]) -> bool:
        """Give the objects of a function the code that it has in the tree; False where that cannot be done."""
        new = _code_in(compile(tree, str(file), "exec"), function)
        objects = self._functions.get((str(file), *function), [])
        if new is None or not objects or any(o.__code__.co_freevars != new.co_freevars for o in objects):
            return False
        for thing in objects:
            thing.__code__ = new
        return True


def _limit(seconds: float) -> None:
    """Let the signals of two timers end the process when a test takes too long."""
    signal.setitimer(signal.ITIMER_PROF, WORKING_SECONDS + 5 * seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS + 20 * seconds)


def _functions(package: Path) -> dict[tuple[str, str, int], list[types.FunctionType]]:
    """The function objects of the package by file, name and first line."""
    found: defaultdict[tuple[str, str, int], list[types.FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename.startswith(f"{package}/"):
            code = thing.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def _code_in(code: types.CodeType, function: tuple[str, int]) -> types.CodeType | None:
    if (code.co_qualname, code.co_firstlineno) == function:
        return code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found = _code_in(constant, function)
            if found is not None:
                return found
    return None


def _first_failing(items: Sequence[pytest.Item], seconds: Mapping[str, float]) -> str | None:
    """Run tests in this order; the first that fails."""
    for number, item in enumerate(items):
        _limit(seconds[item.nodeid])
        following = items[number + 1] if number + 1 < len(items) else None
        reports = runtestprotocol(item, log=False, nextitem=following)
        if any(report.failed for report in reports):
            return item.nodeid
    return None


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a tree instead of its file."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self._name = name
        self._file = file
        self._tree = tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self._tree, str(self._file), "exec"), module.__dict__)  # noqa: S102  # it is the module itself


class _Chosen:
    """Keeps the chosen tests only, in the order in which they were chosen, and limits their time.

    A fault may change the name of a case, as that of ``test_x[value]``. If one of them is not there by its name, all
    cases of its function run in its place; ``lost`` are the tests of which not even the function is there.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds
        self._order = {test: number for number, test in enumerate(seconds)}
        self.failing: str | None = None
        self.lost: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        there = {item.nodeid for item in items}
        functions = {_function_of(test) for test in there}
        renamed: dict[str, str] = {}
        for test in self._seconds:
            if test not in there:
                if _function_of(test) not in functions:
                    self.lost.append(test)
                renamed.setdefault(_function_of(test), test)
        for item in items:
            stands_for = renamed.get(_function_of(item.nodeid))
            if item.nodeid not in self._order and stands_for is not None:
                self._order[item.nodeid] = self._order[stands_for]
                self._seconds = {**self._seconds, item.nodeid: self._seconds[stands_for]}
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        _limit(self._seconds[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failing is None:
            self.failing = report.nodeid


def _function_of(test: str) -> str:
    return test.partition("[")[0]


def _run_anew(package: Path, file: Path, tree: ast.Module, seconds: Mapping[str, float]) -> str | None:
    """Run tests in a second session of pytest, which imports the project's modules once more; the first that fails.

    Raises ``LookupError`` when all pass but some were not found: they have judged nothing.
    """
    root = package.parents[2]
    here = Path(__file__).parent
    for name, module in list(sys.modules.items()):
        origin = Path(getattr(module, "__file__", None) or "/")
        outside = not origin.is_relative_to(root) or ".venv" in origin.relative_to(root).parts
        if not outside and not origin.is_relative_to(here):
            del sys.modules[name]
    parts = file.relative_to(package.parent).with_suffix("").parts
    sys.meta_path.insert(0, _Planted(".".join(parts).removesuffix(".__init__"), file, tree))
    os.environ.pop(MODE, None)
    files = list(dict.fromkeys(test.partition("::")[0] for test in seconds))
    chosen = _Chosen(seconds)
    _limit(COLLECTING_SECONDS)
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], plugins=[chosen])
    if chosen.failing is None and chosen.lost and status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise LookupError(f"tests that are not found any more: {', '.join(chosen.lost)}")
    return None if status == pytest.ExitCode.OK else chosen.failing or f"no test, status {int(status)}"


def pytest_configure(config: pytest.Config) -> None:
    mode = os.environ.get(MODE)
    if mode is None:
        return
    package = Path(os.environ[FOLDER])
    if mode == "measure":
        config.pluginmanager.register(Measuring(package, Path(os.environ[OUTPUT])))
    elif mode == "serve":
        orders, answers = map(int, os.environ[CHANNELS].split(","))
        config.pluginmanager.register(Serving(package, orders, answers))
