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
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.environment import repository_root
from tools.mutation import plugin
from tools.mutation.accepted import ACCEPTED, Accepted, key_of
from tools.mutation.executed import PACKAGE, PYTEST, NotTried, asked_about, environment_of, measured
from tools.mutation.mutants import Mutant, mutants_of

MODULES = (
    "aws/archives.py",
    "aws/ebs/client.py",
    "aws/ebs/refusals.py",
    "aws/errors.py",
    "aws/objects.py",
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
    "targets/encryption.py",
    "targets/full.py",
    "targets/kind.py",
    "targets/on_parent.py",
    "targets/proposal.py",
    "targets/segments.py",
    "targets/sink.py",
    "targets/snapshot.py",
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

    def __init__(self, root: Path, folder: Path, *, accepted: Accepted) -> None:
        self._root = root
        self._package = root / PACKAGE
        self._folder = folder
        self._accepted = accepted
        self._tests = measured(root, folder)
        # Neighbours are often noticed by the same test: it runs first. This changes the time, never the verdict.
        self._noticed: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._printing = threading.Lock()

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
        waiting = iter(due)
        taking = threading.Lock()
        found: list[Result] = []

        def work(number: int) -> None:
            worker = Worker(self._root, self._folder, number, files)
            try:
                while True:
                    with taking:
                        item = next(waiting, None)
                    if item is None:
                        return
                    if item[0] not in checked:
                        self._check(worker, item[0])
                        checked.add(item[0])
                    found.append(self._try(worker, *item))
            finally:
                worker.close()

        checked: set[str] = set()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for job in [pool.submit(work, number) for number in range(workers)]:
                job.result()
        order = {module: number for number, module in enumerate(modules)}
        yield from sorted(found, key=lambda result: (order[result.module], result.mutant.position))

    def _check(self, worker: Worker, module: str) -> None:
        """A module without a fault passes in both ways of planting, or every verdict would be worthless."""
        mutants = mutants_of((self._package / module).read_text())
        first = next((mutant.function for mutant in mutants if mutant.function), None)
        users = self._tests.at(module, range(1, 10_000))
        for function in (first, None):
            order = self._order(module, None, function, self._tests.chosen(users, module)[:5])
            status, said = worker.run(order)
            if status != plugin.PASSED:
                raise NotTried(f"{module} does not pass as it is (status {status}): {said}")

    def _try(self, worker: Worker, module: str, mutant: Mutant) -> Result:
        near = (module, mutant.scope)
        tests = asked_about(module, mutant, self._tests, self._package)
        if not tests:
            result = Result(module, mutant, "untested", "")
        else:
            known = [test for test in self._noticed[near] if test in tests]
            rest = [test for test in tests if test not in known]
            # What no test executes may have been executed when the modules were imported.
            function = mutant.function if self._tests.at(module, mutant.lines) else None
            status, said = worker.run(self._order(module, mutant.position, function, [*known, *rest]))
            if status == plugin.BROKEN:
                raise NotTried(f"{Result(module, mutant, 'not tried', '')}\n{said}")
            verdict = {plugin.PASSED: "survived", plugin.FAILED: "killed"}.get(status, "timeout")
            if said in tests:
                self._noticed[near] = [said, *(test for test in self._noticed[near] if test != said)]
            result = Result(module, mutant, verdict, said)
        with self._printing, (self._folder / "progress.log").open("a") as log:
            log.write(f"{result}\n  by {result.by or '-'} of {len(tests)}\n")
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
        trial = Trial(root, folder, accepted=accepted)
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
