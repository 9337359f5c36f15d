"""Plant every fault in the modules that decide whether data is right or may be deleted, and say which went unnoticed.

For each fault the tests that execute its statement run, the most focused ones first, up to the first that fails. A
fault that no test notices fails the run, unless ``accepted.toml`` says why none has to. Accepted ones are not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tools.environment import repository_root
from tools.mutation import plugin
from tools.mutation.accepted import ACCEPTED, Accepted, key_of
from tools.mutation.executed import (
    PACKAGE,
    PYTEST,
    STARTING_SECONDS,
    NotTried,
    asked_about,
    environment_of,
    measured,
)
from tools.mutation.mutants import Mutant, mutants_of

MODULES = (
    "aws/archives.py",
    "aws/ebs/client.py",
    "aws/ebs/refusals.py",
    "aws/errors.py",
    "aws/objects.py",
    "aws/pieces.py",
    "aws/regions.py",
    "aws/sealing.py",
    "aws/snapshots.py",
    "core/blocks.py",
    "core/checksums.py",
    "core/counts.py",
    "core/delta.py",
    "core/holes.py",
    "core/mover.py",
    "core/retry.py",
    "core/together.py",
    "formats/archive/index.py",
    "formats/archive/manifest.py",
    "formats/archive/segment.py",
    "formats/codecs.py",
    "formats/foreign.py",
    "formats/lz4.py",
    "formats/members.py",
    "formats/recognise.py",
    "formats/stream.py",
    "formats/xz.py",
    "formats/zstd.py",
    "inspection/count.py",
    "inspection/zeros.py",
    "jobs/archived.py",
    "jobs/digests.py",
    "jobs/execution.py",
    "jobs/folder.py",
    "jobs/record.py",
    "jobs/recounts.py",
    "jobs/workspace.py",
    "local/cat.py",
    "local/claimed.py",
    "local/discard.py",
    "local/holes.py",
    "local/lanes.py",
    "local/upload.py",
    "sources/address.py",
    "sources/archive.py",
    "sources/archiving.py",
    "sources/chain.py",
    "sources/chunks.py",
    "sources/declared.py",
    "sources/delta.py",
    "sources/device.py",
    "sources/device_delta.py",
    "sources/equal.py",
    "sources/extents.py",
    "sources/foreign.py",
    "sources/image.py",
    "sources/kind.py",
    "sources/listing.py",
    "sources/meaning.py",
    "sources/readable.py",
    "sources/reading.py",
    "sources/snapshot.py",
    "sources/unpack.py",
    "targets/archive.py",
    "targets/archive_claim.py",
    "targets/archive_listing.py",
    "targets/encryption.py",
    "targets/full.py",
    "targets/image_object.py",
    "targets/kind.py",
    "targets/on_parent.py",
    "targets/parts.py",
    "targets/proposal.py",
    "targets/segments.py",
    "targets/sink.py",
    "targets/snapshot.py",
    "targets/unfinished_object.py",
    "transfer/check.py",
    "transfer/complete.py",
    "transfer/discard.py",
    "transfer/job.py",
    "transfer/move.py",
    "transfer/pairing.py",
    "transfer/plan.py",
    "transfer/prove.py",
    "transfer/receipt.py",
    "transfer/recount.py",
    "transfer/settle.py",
    "transfer/sweep.py",
    "transfer/turns.py",
    "transfer/unpack.py",
    "verification/check.py",
    "verification/conclude.py",
    "verification/foreign.py",
    "verification/noting.py",
)


FIRST_SECONDS = 2.0
"""The tests that are asked about a fault before all others have had their turn: most are noticed within."""

MOST_KNOWN = 10
"""Tests that come first because they have noticed other faults of the module."""

WARMING_TESTS = 20
"""Tests of a module that a worker runs itself before it forks, for what they leave behind in third-party modules."""


@dataclass(frozen=True)
class Result:
    module: str
    mutant: Mutant
    verdict: str
    """The verdict: ``killed``, ``timeout``, ``survived``, ``untested`` (no test executes it) or ``accepted``."""
    by: str

    def __str__(self) -> str:
        again = f" (number {self.mutant.nth})" if self.mutant.nth > 1 else ""
        return (
            f"{PACKAGE}/{self.module}:{self.mutant.lines.start}: {self.verdict}, in {self.mutant.scope or 'the module'}"
            f"{again}\n  - {self.mutant.before}\n  + {self.mutant.after}"
        )


@dataclass(frozen=True)
class Undecided:
    """A fault that some tests have not noticed, and those that are still to be asked."""

    module: str
    mutant: Mutant
    tests: Sequence[str]


class Worker:
    """A pytest process that takes orders; see ``plugin.Serving``."""

    def __init__(self, root: Path, folder: Path, number: int, files: Sequence[str]) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        environment = environment_of(root, "serve") | {
            plugin.CHANNELS: f"{orders},{answers}",
            "HYPOTHESIS_PROFILE": plugin.PROFILE,
        }
        self._log = folder / f"worker-{number}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*PYTEST, *files],
                cwd=root,
                env=environment,
                pass_fds=(orders, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(orders)
        os.close(answers)
        self._send = os.fdopen(self._orders, "w")
        self._receive = os.fdopen(self._answers)
        self._answer()

    def run(self, order: Mapping[str, Any]) -> tuple[int, str]:
        self._send.write(json.dumps(order) + "\n")
        self._send.flush()
        answer = self._answer()
        return answer["status"], answer["said"]

    def close(self) -> None:
        self._send.close()
        self._process.wait()
        self._receive.close()

    def _answer(self) -> dict[str, Any]:
        line = self._receive.readline()
        if not line:
            raise NotTried(f"pytest ended:\n{self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Trial:
    """All faults of some modules, tried by some workers."""

    def __init__(
        self, root: Path, folder: Path, *, accepted: Accepted, workers: int = 1, first_seconds: float = FIRST_SECONDS
    ) -> None:
        self._root = root
        self._package = root / PACKAGE
        self._folder = folder
        self._accepted = accepted
        self._tests = measured(root, folder, sessions=workers)
        # Neighbours are often noticed by the same test: it runs first. This changes the time, never the verdict.
        self._noticed: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._notices: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._first_seconds = first_seconds
        self._telling = threading.Lock()

    def results(self, modules: Sequence[str], workers: int, *, again: bool = False) -> Iterator[Result]:
        """A result for each fault; with ``again`` the accepted ones are tried, too."""
        due = []
        for module in modules:
            for mutant in mutants_of((self._package / module).read_text()):
                key = key_of(mutant)
                if key in self._accepted.reasons.get(module, {}) and not again:
                    yield Result(module, mutant, "accepted", self._accepted.reasons[module][key])
                else:
                    due.append((module, mutant))
        files = sorted({test.partition("::")[0] for test in self._tests.seconds})
        waiting = deque(due)
        left: deque[Undecided] = deque()
        taking = threading.Lock()
        found: list[Result] = []

        def taken() -> tuple[str, Callable[[Worker], Result | Undecided]] | None:
            """The next fault, with its module. What the first tests have not noticed waits until all were tried."""
            with taking:
                if waiting:
                    module, mutant = waiting.popleft()
                    return module, lambda worker: self._try(worker, module, mutant)
                if left:
                    undecided = left.popleft()
                    return undecided.module, lambda worker: self._go_on(worker, undecided)
                return None

        def work(number: int) -> None:
            worker = Worker(self._root, self._folder, number, files)
            warmed: set[str] = set()
            try:
                while True:
                    item = taken()
                    if item is None:
                        return
                    module, tried = item
                    if module not in warmed:
                        self._warm(worker, module)
                        warmed.add(module)
                    if module not in checked:
                        self._check(worker, module)
                        checked.add(module)
                    result = tried(worker)
                    if isinstance(result, Undecided):
                        left.append(result)
                    else:
                        found.append(result)
            finally:
                worker.close()

        checked: set[str] = set()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for job in [pool.submit(work, number) for number in range(workers)]:
                job.result()
        broken = [result for result in found if result.verdict == "not tried"]
        if broken:
            raise NotTried("\n".join(f"{result}\n{result.by}" for result in broken))
        order = {module: number for number, module in enumerate(modules)}
        yield from sorted(found, key=lambda result: (order[result.module], result.mutant.position))

    def _check(self, worker: Worker, module: str) -> None:
        """A module without a fault passes in both ways of planting, or every verdict would be worthless."""
        mutants = mutants_of((self._package / module).read_text())
        first = next((mutant.function for mutant in mutants if mutant.function), None)
        tests = self._tests.chosen(self._tests.at(module, range(1, 10_000)), module)
        for function in (first, None):
            self._pass(worker, self._order(module, None, function, tests[:5]))

    def _warm(self, worker: Worker, module: str) -> None:
        tests = self._tests.chosen(self._tests.at(module, range(1, 10_000)), module)
        self._pass(worker, self._order(module, None, None, tests[:WARMING_TESTS]) | {"warm": True})

    def _pass(self, worker: Worker, order: Mapping[str, Any]) -> None:
        status, said = worker.run(order)
        if status != plugin.PASSED:
            raise NotTried(f"{order['module']} does not pass as it is (status {status}): {said}")

    def _try(self, worker: Worker, module: str, mutant: Mutant) -> Result | Undecided:
        tests = asked_about(module, mutant, self._tests, self._package)
        if not tests:
            return self._told(Result(module, mutant, "untested", ""), 0)
        there = set(tests)
        known = [test for test in self._noticed[module, mutant.scope] if test in there]
        # After them those that have noticed most in the whole module, for the time that they take.
        worth = {
            test: count / (STARTING_SECONDS + self._tests.seconds[test])
            for test, count in self._notices[module].items()
            if test in there and test not in known
        }
        known += sorted(worth, key=lambda test: -worth[test])[:MOST_KNOWN]
        tests = [*known, *(test for test in tests if test not in known)]
        spent = list(accumulate(self._tests.seconds[test] for test in tests))
        return self._go_on(
            worker, Undecided(module, mutant, tests), first=max(1, bisect_right(spent, self._first_seconds))
        )

    def _go_on(self, worker: Worker, undecided: Undecided, first: int | None = None) -> Result | Undecided:
        """Ask all tests, or only the ``first``."""
        module, mutant, tests = undecided.module, undecided.mutant, undecided.tests
        # What no test executes may have been executed when the modules were imported.
        function = mutant.function if self._tests.at(module, mutant.lines) else None
        status, said = worker.run(self._order(module, mutant.position, function, tests[:first]))
        if status == plugin.PASSED and tests[:first] != tests:
            self._told(Result(module, mutant, "undecided", ""), len(tests))
            return Undecided(module, mutant, tests[first:])
        verdict = {plugin.PASSED: "survived", plugin.FAILED: "killed", plugin.BROKEN: "not tried"}.get(
            status, "timeout"
        )
        if said in tests:
            with self._telling:
                self._notices[module][said] += 1
                near = self._noticed[module, mutant.scope]
                self._noticed[module, mutant.scope] = [said, *(test for test in near if test != said)]
        return self._told(Result(module, mutant, verdict, said), len(tests))

    def _told(self, result: Result, tests: int) -> Result:
        with self._telling, (self._folder / "progress.log").open("a") as log:
            log.write(f"{result}\n  by {result.by or '-'} of {tests}\n")
        return result

    def _order(
        self, module: str, position: int | None, function: tuple[str, int] | None, tests: Iterable[str]
    ) -> dict[str, Any]:
        seconds = {test: self._tests.seconds[test] for test in tests}
        return {"module": module, "position": position, "function": function, "tests": seconds}


def table(results: Sequence[Result]) -> list[str]:
    """A line for each module: how many faults, and what became of them."""
    columns = ("killed", "timeout", "accepted", "survived", "untested")
    lines = [f"{'':<24}{'faults':>8}" + "".join(f"{column:>10}" for column in columns)]
    by_module: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        by_module[result.module][result.verdict] += 1
        by_module["all"][result.verdict] += 1
    for module in [*(m for m in by_module if m != "all"), "all"]:
        counts = by_module[module]
        lines.append(f"{module:<24}{counts.total():>8}" + "".join(f"{counts[column]:>10}" for column in columns))
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutation.run", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="for example mover.py (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="try the accepted faults, too: one that dies has a test")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.modules) - set(MODULES))
    if unknown:
        parser.error(f"no module of this check: {', '.join(unknown)} (there are {', '.join(MODULES)})")
    started = time.monotonic()
    root = repository_root()
    folder = root / "build" / "checks" / "mutation"
    folder.mkdir(parents=True, exist_ok=True)
    modules = options.modules or list(MODULES)
    try:
        accepted = Accepted.read(ACCEPTED)
        trial = Trial(root, folder, accepted=accepted, workers=options.workers)
        results = list(trial.results(modules, options.workers, again=options.again))
    except (NotTried, ValueError) as error:
        print(error)
        return 2
    stale = [
        f"{module}: {key}"
        for module in modules
        for key in accepted.stale(module, (result.mutant for result in results if result.module == module))
    ]
    unnoticed = [result for result in results if result.verdict in ("survived", "untested")]
    for result in unnoticed:
        print(result)
    for entry in stale:
        print(f"{ACCEPTED.name} accepts what is not there any more: {entry}")
    print("\n".join(table(results)))
    print(f"{len(unnoticed)} faults go unnoticed, {time.monotonic() - started:.0f} s")
    return 1 if unnoticed or stale else 0


if __name__ == "__main__":
    sys.exit(main())
