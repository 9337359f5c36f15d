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
import inspect
import json
import os
import resource
import signal
import sys
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from tools.mutation.mutants import mutated
from tools.mutation.sources import HANDLERS, IMPORTED_FROM, Sources

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
"""Processor time that a test may take besides three times what it took before: then it goes round in circles."""

WAITING_SECONDS = 30.0
"""Time that may pass besides twenty times what the test took before: then it waits for what never comes."""

COLLECTING_SECONDS = 10.0

FIRST_TESTS = 12
"""Tests that are asked about a fault that takes effect at import, before the files of all others are imported anew."""

# A failing example is enough, nobody reads it: it need not become small. Here, as the tests' settings choose it early.
settings.register_profile(
    PROFILE, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)


class Measuring:
    """Writes ``{test: {"seconds": s, "lines": {module: [line, ...]}}}`` for each file whose tests all pass, as soon as
    they have: what was measured stays when the session ends early. ``output`` says to where: ``{file: path}``."""

    def __init__(self, package: Path, output: Path) -> None:
        self._package = package
        self._outputs: dict[str, str] = json.loads(output.read_text())
        self._seconds: dict[str, float] = {}
        self._failed = False
        self._coverage = self._started()

    def _started(self) -> coverage.Coverage:
        started = coverage.Coverage(data_file=None, config_file=False, include=[f"{self._package}/*"])
        started.set_option("run:disable_warnings", ["no-data-collected"])
        started.start()
        return started

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        started = time.process_time()
        yield
        self._seconds[item.nodeid] = time.process_time() - started
        self._coverage.switch_context("")
        if nextitem is None or nextitem.path != item.path:
            self._coverage.stop()
            if not self._failed:
                self._write(Path(self._outputs[item.nodeid.partition("::")[0]]))
            self._seconds, self._failed = {}, False
            self._coverage = self._started()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()

    def _write(self, output: Path) -> None:
        data = self._coverage.get_data()
        tests: dict[str, Any] = {test: {"seconds": s, "lines": {}} for test, s in self._seconds.items()}
        for file in data.measured_files():
            module = Path(file).relative_to(self._package).as_posix()
            for line, contexts in data.contexts_by_lineno(file).items():
                for test in contexts:
                    if test in tests:
                        tests[test]["lines"].setdefault(module, []).append(line)
        half = output.with_suffix(".half")
        half.write_text(json.dumps(tests))
        half.rename(output)


class Serving:
    """Reads orders, one JSON a line: ``{"module", "position", "function", "tests"}``; answers likewise.

    Without a ``position`` the module stays as it is. ``tests`` are in the order in which they are to run, each with the
    seconds that it takes. The answer has a ``status`` and, in ``said``, the test that failed or what broke. An order
    with ``warm`` is carried out in this process, for what the children inherit: clients, models, parsed machines.
    """

    def __init__(self, package: Path, orders: int, answers: int) -> None:
        self._package = package
        self._sources = Sources(package.parents[2])
        self._orders = os.fdopen(orders)
        self._answers = os.fdopen(answers, "w")
        self._functions: Mapping[tuple[str, str, int], list[types.FunctionType]] = {}
        self._caches: Sequence[_lru_cache_wrapper[Any]] = ()
        self._items: Mapping[str, pytest.Item] = {}
        self._dependents: dict[Path, Set[Path]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        for file in sorted(self._package.rglob("*.py")):
            if file.stem != "__main__":  # some are imported where they are used, and would not be found here
                importlib.import_module(_name_of(self._package, file))
        self._settle()
        self._answer({"ready": len(self._items)})
        for line in self._orders:
            order = json.loads(line)
            self._answer(self._warmed(order) if order.get("warm") else self._carry_out(order))
        return True

    def _settle(self) -> None:
        """Find what a fault is put into, and leave all that is alive now out of every collection of garbage, so that
        children share its memory."""
        gc.unfreeze()  # the tests' own settings freeze, too, and what is frozen is not found
        gc.collect()
        alive = gc.get_objects()
        self._functions = _functions(self._package, alive)
        self._caches = [thing for thing in alive if isinstance(thing, _lru_cache_wrapper)]
        del alive
        gc.freeze()

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _warmed(self, order: dict[str, Any]) -> dict[str, Any]:
        failing = _first_failing([self._items[test] for test in order["tests"]], None)
        self._settle()
        return {"status": PASSED if failing is None else FAILED, "said": failing or ""}

    def _carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        file = self._package / order["module"]
        source, position = file.read_text(), order["position"]
        tree = ast.parse(source) if position is None else mutated(source, position)
        seconds: dict[str, float] = order["tests"]
        if file not in self._dependents:
            modules = _files_of_modules(self._package.parents[2])
            self._dependents[file] = self._sources.dependents(file, modules.values())
        if order["function"]:
            code = self._replacement(file, tree, tuple(order["function"]))
            if code is not None:
                objects = self._functions[str(file), *order["function"]]
                return _in_child(lambda: self._failing_with(code, objects, file, seconds))
        # Each file is imported once more: those of the tests that are asked first may be enough.
        tests = list(seconds)
        for part in filter(None, (tests[:FIRST_TESTS], tests[FIRST_TESTS:])):
            asked = {test: seconds[test] for test in part}
            answer = _in_child(lambda: self._failing_anew(file, tree, asked))  # noqa: B023
            if answer["status"] != PASSED:
                break
        return answer

    def _failing_with(
        self, code: types.CodeType, objects: Sequence[types.FunctionType], file: Path, seconds: Mapping[str, float]
    ) -> str | None:
        for thing in objects:
            thing.__code__ = code
        self._forget(file)
        return _first_failing([self._items[test] for test in seconds], seconds)

    def _failing_anew(self, file: Path, tree: ast.Module, seconds: Mapping[str, float]) -> str | None:
        self._forget(file)
        for name, imported in _files_of_modules(self._package.parents[2]).items():
            if imported in self._dependents[file]:
                del sys.modules[name]
        return _run_anew(self._package, file, tree, seconds)

    def _forget(self, file: Path) -> None:
        """Empty the caches of functions that depend on a file: what they remember was found without its fault."""
        for cache in self._caches:
            code = getattr(inspect.unwrap(cache), "__code__", None)
            if code is not None and Path(code.co_filename) in self._dependents[file]:
                cache.cache_clear()

    def _replacement(self, file: Path, tree: ast.Module, function: tuple[str, int]) -> types.CodeType | None:
        """The code that a function has in the tree, if the objects of the function can be given it."""
        new = _code_in(compile(tree, str(file), "exec"), function)
        objects = self._functions.get((str(file), *function), [])
        if new is None or not objects or any(o.__code__.co_freevars != new.co_freevars for o in objects):
            return None
        return new


def _in_child(failing: Callable[[], str | None]) -> dict[str, Any]:
    """What a child of this process answers that looks for a failing test."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = BROKEN
        try:
            os.close(read)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (1, 2):
                os.dup2(silence, stream)
            found = failing()
            os.write(write, (found or "").encode())
            status = PASSED if found is None else FAILED
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


def _name_of(package: Path, file: Path) -> str:
    return ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _files_of_modules(root: Path) -> dict[str, Path]:
    """The files of the project's modules that are imported now, by name, but for those of this tool."""
    places = tuple(f"{root / place}/" for place in (*IMPORTED_FROM, HANDLERS))
    here = f"{Path(__file__).parent}/"
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(places) and not file.startswith(here):
            found[name] = Path(file)
    return found


def _limit(seconds: float) -> None:
    """Let the signals of two timers end the process when a test takes too long."""
    signal.setitimer(signal.ITIMER_PROF, WORKING_SECONDS + 3 * seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS + 20 * seconds)


def _functions(package: Path, alive: Iterable[object]) -> dict[tuple[str, str, int], list[types.FunctionType]]:
    """The function objects of the package among all objects, by file, name and first line."""
    found: defaultdict[tuple[str, str, int], list[types.FunctionType]] = defaultdict(list)
    for thing in alive:
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


def _first_failing(items: Sequence[pytest.Item], seconds: Mapping[str, float] | None) -> str | None:
    """Run tests in this order, each within the time that it may take; the first that fails."""
    for number, item in enumerate(items):
        if seconds is not None:
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
    """Run tests in a second session of pytest, which imports what is not there; the first that fails.

    Raises ``LookupError`` when all pass but some were not found: they have judged nothing.
    """
    sys.meta_path.insert(0, _Planted(_name_of(package, file), file, tree))
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever starts this in the background lets them be ignored, which is another behaviour of what is tested.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    package = Path(os.environ[FOLDER])
    if mode == "measure":
        config.pluginmanager.register(Measuring(package, Path(os.environ[OUTPUT])))
    elif mode == "serve":
        orders, answers = map(int, os.environ[CHANNELS].split(","))
        config.pluginmanager.register(Serving(package, orders, answers))
