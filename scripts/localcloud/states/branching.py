"""Parallel and Map states: branches and iterations inside the execution, with its history."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from localcloud.states.cancellation import Cancellation
from localcloud.states.distributed import run_distributed_map
from localcloud.states.errors import Cancelled, EvaluationError, StateError
from localcloud.states.items import state_items
from localcloud.states.limits import MAX_INLINE_CONCURRENCY, MAX_ITEMS, checked_payload
from localcloud.states.model import Frame, Variables
from localcloud.states.runner import Runner
from localcloud.states.visit import Visit


def run_parallel(runner: Runner, frame: Frame, visit: Visit, cancellation: Cancellation) -> Any:
    """All branches at once. Returns their outputs in order; the first error ends the others."""
    workflows: list[Mapping[str, Any]] = visit.state["Branches"]
    if frame.branches is None:
        runner.event(frame, "ParallelStateStarted")
        argument = visit.field("Arguments", visit.input)
        checked_payload(argument, what=f"The input of the state '{visit.name}'")
        frame.branches = [
            Frame(
                workflow=workflow,
                input=argument,
                variables=Variables(outer=frame.variables),
                path=f"{visit.path}/Branches/{index}",
                previous_event=frame.previous_event,
            )
            for index, workflow in enumerate(workflows)
        ]
    try:
        run_all(runner, frame.branches, cancellation, most_at_once=len(frame.branches))
    except StateError as error:
        runner.event(frame, "ParallelStateFailed")
        raise error
    result = [branch.output for branch in frame.branches]
    runner.event(frame, "ParallelStateSucceeded")
    visit.checked_result(result)
    return result


def run_map(runner: Runner, frame: Frame, visit: Visit, cancellation: Cancellation) -> Any:
    """A Map state of either mode."""
    concurrency = visit.number("MaxConcurrency", 0, least=0, most=MAX_ITEMS)
    processor = visit.state["ItemProcessor"]
    if processor.get("ProcessorConfig", {}).get("Mode", "INLINE") == "DISTRIBUTED":
        return run_distributed_map(runner, frame, visit, cancellation, concurrency=concurrency)
    if frame.branches is None:
        frame.branches = _iterations(runner, frame, visit)
    name = frame.state
    branches = frame.branches

    def started(index: int) -> None:
        branch = branches[index]
        if not branch.state:
            runner.event(branch, "MapIterationStarted", {"name": name, "index": index})

    def ended(index: int, how: str) -> None:
        runner.event(branches[index], f"MapIteration{how}", {"name": name, "index": index})

    try:
        run_all(
            runner,
            branches,
            cancellation,
            most_at_once=min(concurrency or MAX_INLINE_CONCURRENCY, MAX_INLINE_CONCURRENCY),
            started=started,
            ended=ended,
        )
    except StateError:
        runner.event(frame, "MapStateFailed")
        raise
    result = [branch.output for branch in branches]
    runner.event(frame, "MapStateSucceeded")
    visit.checked_result(result)
    return result


def _iterations(runner: Runner, frame: Frame, visit: Visit) -> list[Frame]:
    items = list(state_items(visit))
    inputs = [item.selected(visit) for item in items]
    for value in inputs:
        checked_payload(value, what=f"An item of the state '{visit.name}'")
    started = runner.event(frame, "MapStateStarted", {"length": len(items)})
    return [
        Frame(
            workflow=visit.state["ItemProcessor"],
            input=value,
            variables=Variables(outer=frame.variables),
            path=f"{visit.path}/ItemProcessor",
            previous_event=started,
        )
        for value in inputs
    ]


def run_all(
    runner: Runner,
    frames: list[Frame],
    cancellation: Cancellation,
    *,
    most_at_once: int,
    started: Callable[[int], None] = lambda _: None,
    ended: Callable[[int, str], None] = lambda _index, _how: None,
) -> None:
    """Run ``frames`` that are not finished, ``most_at_once`` of them at a time.

    The first error cancels the others; when all have come to rest it is raised.
    """
    todo = iter([index for index, frame in enumerate(frames) if not frame.finished])
    lock = threading.Lock()
    inner = Cancellation(cancellation)
    failures: list[Exception] = []
    left = min(most_at_once, sum(not frame.finished for frame in frames))
    all_rest = threading.Event()
    if left == 0:
        all_rest.set()

    def work() -> None:
        nonlocal left
        try:
            while not inner.cancelled:
                with lock:
                    index = next(todo, None)
                if index is None:
                    break
                _run_one(runner, frames[index], inner, index, started, ended)
        except Exception as error:
            with lock:
                failures.append(error)
            inner.cancel()
        finally:
            with lock:
                left -= 1
                rest = left == 0
            if rest:
                all_rest.set()

    for _ in range(left):
        runner.services.threads.submit(work)
    # Not a wait that cancellation interrupts: it reaches the workers, and their frames must be at rest
    # before anything else, such as a redrive, touches them.
    all_rest.wait()
    inner.detach()
    cancellation.check()
    for failure in failures:
        if not isinstance(failure, Cancelled):
            raise failure
    if failures:
        raise failures[0]


def _run_one(
    runner: Runner,
    frame: Frame,
    cancellation: Cancellation,
    index: int,
    started: Callable[[int], None],
    ended: Callable[[int, str], None],
) -> None:
    started(index)
    try:
        runner.run(frame, cancellation)
    except (StateError, EvaluationError):
        ended(index, "Failed")
        raise
    except Cancelled:
        _aborted(runner, frame, index, ended)
        raise
    ended(index, "Succeeded")


def _aborted(runner: Runner, frame: Frame, index: int, ended: Callable[[int, str], None]) -> None:
    kind = frame.workflow["States"][frame.state]["Type"] if frame.state else ""
    if kind in ("Task", "Wait", "Parallel", "Map"):
        runner.event(frame, f"{kind}StateAborted")
    ended(index, "Aborted")
