"""Distributed Map: reads the items, starts children within the concurrency limit, and sums them up.

Source: developer guide, "Using Map state in Distributed mode" and "Redriving Map Runs".
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from localcloud.states import model
from localcloud.states.cancellation import Cancellation
from localcloud.states.errors import Cancelled, DeadlinePassed, StateError
from localcloud.states.history import History
from localcloud.states.items import Item, ItemReader, child_inputs, state_items
from localcloud.states.limits import EXPRESS_SECONDS, MAX_ITEMS, MAX_MAP_RUN_REDRIVES
from localcloud.states.map_run import MapRun
from localcloud.states.model import Execution, Frame, Variables
from localcloud.states.results import ResultWriter, child_name
from localcloud.states.runner import Runner
from localcloud.states.spool import Spool
from localcloud.states.visit import Visit


def run_distributed_map(
    runner: Runner, frame: Frame, visit: Visit, cancellation: Cancellation, *, concurrency: int
) -> Any:
    """Run or go on with the Map Run of the state; returns the state's result."""
    writer = ResultWriter(
        visit, objects=runner.services.objects, caller=runner.caller, spool_dir=runner.services.spool_dir
    )
    map_run = frame.map_run
    if map_run is None:
        map_run = _start(runner, frame, visit, concurrency)
    else:
        _redrive(runner, frame, map_run)
    conductor = _Conductor(runner, map_run, cancellation)
    try:
        conductor.conduct()
        result = writer.export(map_run) if writer.exports else writer.result(map_run)
    except (Cancelled, DeadlinePassed):
        _close(runner, map_run, model.ABORTED)
        _export_quietly(runner, writer, map_run)
        runner.event(frame, "MapRunAborted")
        raise
    except StateError as error:
        if error.error == "States.ExceedToleratedFailureThreshold":
            _export_quietly(runner, writer, map_run)
        _close(runner, map_run, model.FAILED)
        if not map_run.children:
            # Nothing has been started, so a redrive reads the dataset again, in a new Map Run.
            frame.leave_inner()
        runner.event(frame, "MapRunFailed", {"error": error.error, "cause": error.cause})
        runner.event(frame, "MapStateFailed")
        raise
    _close(runner, map_run, model.SUCCEEDED)
    map_run.let_go()
    runner.event(frame, "MapRunSucceeded")
    runner.event(frame, "MapStateSucceeded")
    visit.checked_result(result)
    return result


def _start(runner: Runner, frame: Frame, visit: Visit, concurrency: int) -> MapRun:
    services, execution = runner.services, runner.execution
    tolerated_count = visit.number("ToleratedFailureCount", None, least=0, most=MAX_ITEMS)
    tolerated_percentage = visit.number("ToleratedFailurePercentage", None, least=0, most=100, whole=False)
    config = visit.state["ItemProcessor"]["ProcessorConfig"]
    # Without an ItemReader a wrong type of the items is an error of the state, not of a Map Run.
    items, length = _items(runner, visit)
    identifier = str(uuid.uuid4())
    machine_arn = execution.machine.arn
    services.permit(runner.caller, "states:StartExecution", machine_arn)
    label = visit.state.get("Label") or str(uuid.uuid5(uuid.NAMESPACE_URL, machine_arn + visit.path))
    map_run = MapRun(
        arn=f"{_arn(machine_arn, 'mapRun')}/{label}:{identifier}",
        identifier=identifier,
        execution_arn=execution.arn,
        parent_machine_arn=machine_arn,
        state_machine_arn=f"{machine_arn}/{label}",
        child_prefix=f"{_arn(machine_arn, 'execution')}/{label}",
        workflow=visit.state["ItemProcessor"],
        express=config["ExecutionType"] == "EXPRESS",
        started=services.clock.now(),
        spool=Spool(services.spool_dir),
    )
    map_run.max_concurrency = concurrency
    map_run.tolerated_count = tolerated_count
    map_run.tolerated_percentage = tolerated_percentage
    runner.event(frame, "MapStateStarted", {"length": length})
    runner.event(frame, "MapRunStarted", {"mapRunArn": map_run.arn})
    services.registry.add_map_run(map_run)
    frame.map_run = map_run
    services.threads.submit(lambda: _read(visit, map_run, items))
    return map_run


def _arn(machine_arn: str, kind: str) -> str:
    return machine_arn.replace(":stateMachine:", f":{kind}:", 1)


def _items(runner: Runner, visit: Visit) -> tuple[Iterator[Item], int]:
    if "ItemReader" in visit.state:
        reader = ItemReader(visit, objects=runner.services.objects, caller=runner.caller)
        return reader.items(), 0
    items = list(state_items(visit))
    return iter(items), len(items)


def _read(visit: Visit, map_run: MapRun, items: Iterator[Item]) -> None:
    """Fill the spool. Goes on when the map has failed: what was not started must be known for a redrive."""
    failure: Exception | None = None
    try:
        for text, count in child_inputs(visit, items):
            with map_run.changed:
                map_run.spool.append(text, items=count)
                map_run.changed.notify_all()
    except StateError as error:
        failure = error
    except Exception as error:
        failure = StateError("States.ItemReaderFailed", f"{type(error).__name__}: {error}")
    with map_run.changed:
        map_run.read_error = failure
        map_run.reading = False
        map_run.changed.notify_all()


def _redrive(runner: Runner, frame: Frame, map_run: MapRun) -> None:
    if map_run.redrive_count >= MAX_MAP_RUN_REDRIVES:
        raise StateError("States.Runtime", f"The Map Run {map_run.arn} has been redriven {MAX_MAP_RUN_REDRIVES} times.")
    runner.services.permit(runner.caller, "states:RedriveExecution", f"{map_run.child_prefix}:{map_run.identifier}")
    with map_run.changed:
        map_run.prepare_redrive(runner.services.clock.now())
    runner.event(frame, "MapRunRedriven", {"mapRunArn": map_run.arn, "redriveCount": map_run.redrive_count})


def _close(runner: Runner, map_run: MapRun, status: str) -> None:
    with map_run.changed:
        map_run.settle_pending_redrives()
        map_run.status = status
        map_run.stop_date = runner.services.clock.now()


def _export_quietly(runner: Runner, writer: ResultWriter, map_run: MapRun) -> None:
    """Results of a map that ends badly: the reason it does is worth more than a failed export."""
    if writer.exports and not runner.services.shutdown.cancelled:
        try:
            writer.export(map_run)
        except StateError:
            return


class _Conductor:
    """Starts children as long as there are any, the limit allows, and nothing speaks against it."""

    def __init__(self, runner: Runner, map_run: MapRun, cancellation: Cancellation) -> None:
        self._runner = runner
        self._map_run = map_run
        self._outer = cancellation
        # A child does not time out with its parent, it is stopped.
        self._children = Cancellation(cancellation, inherit_deadline=False)
        self._active = 0

    def conduct(self) -> None:
        """Return when all children have succeeded or failed within what is tolerated."""
        map_run = self._map_run
        key = self._outer.add_callback(self._wake)
        try:
            with map_run.changed:
                stopped = self._dispatch()
            if stopped is not None:
                self._children.cancel()
            with map_run.changed:
                while self._active or map_run.reading:
                    if self._runner.services.shutdown.cancelled:
                        break
                    map_run.changed.wait(1.0)
        finally:
            self._outer.remove_callback(key)
            self._children.detach()
        if stopped is not None:
            raise stopped
        if map_run.read_error is not None:
            raise map_run.read_error

    def _wake(self) -> None:
        with self._map_run.changed:
            self._map_run.changed.notify_all()

    def _dispatch(self) -> Exception | None:
        """Start children until there are none left (``None``) or something ends the map early."""
        map_run = self._map_run
        while True:
            try:
                self._outer.check()
            except (Cancelled, DeadlinePassed) as ending:
                return ending
            if map_run.read_error is not None:
                return map_run.read_error
            if map_run.exceeded():
                return StateError(
                    "States.ExceedToleratedFailureThreshold", "The specified tolerated failure threshold was exceeded"
                )
            index = self._next()
            if index is not None:
                self._launch(index)
                continue
            if not map_run.reading and not self._active and not self._has_work():
                return None
            deadline = self._outer.deadline
            map_run.changed.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _has_work(self) -> bool:
        return bool(self._map_run.to_redrive) or self._map_run.next_child < len(self._map_run.spool)

    def _next(self) -> int | None:
        map_run = self._map_run
        if self._active >= map_run.concurrency(self._runner.services.max_workers):
            return None
        if map_run.to_redrive:
            return map_run.to_redrive.pop(0)
        if map_run.next_child < len(map_run.spool):
            map_run.next_child += 1
            return map_run.next_child - 1
        return None

    def _launch(self, index: int) -> None:
        map_run = self._map_run
        known = map_run.children.get(index)
        before = known.status if known else None
        if known is None:
            child = self._new_child(index)
            map_run.children[index] = child
            self._runner.services.registry.add(child)
        else:
            child = known
            self._again(child)
        map_run.moved(child, before)
        self._active += 1
        self._runner.services.threads.submit(lambda: self._work(child))

    def _new_child(self, index: int) -> Execution:
        map_run, execution = self._map_run, self._runner.execution
        name = child_name(map_run, index)
        now = self._runner.services.clock.now
        return Execution(
            arn=f"{map_run.child_prefix}:{name}",
            name=name,
            machine=execution.machine,
            state_machine_arn=map_run.state_machine_arn,
            input=map_run.spool.input(index),
            start_date=now(),
            history=History(now),
            frame=None,
            cancellation=self._child_cancellation(),
            map_run=map_run,
            item_count=map_run.spool.items(index),
            express=map_run.express,
        )

    def _again(self, child: Execution) -> None:
        """Redrive a standard child from where it stands; start an express child anew."""
        now = self._runner.services.clock.now()
        child.cancellation = self._child_cancellation()
        child.status = model.RUNNING
        child.stop_date = child.error = child.cause = None
        if self._map_run.express:
            child.history = History(self._runner.services.clock.now)
            child.frame = None
            child.start_date = now
        else:
            child.redrive_count += 1
            child.redrive_date = now

    def _child_cancellation(self) -> Cancellation:
        if not self._map_run.express:
            return Cancellation(self._children)
        # Express children cannot be stopped; they end by themselves within five minutes.
        return Cancellation(self._runner.services.shutdown, deadline=self._runner.services.clock.after(EXPRESS_SECONDS))

    def _work(self, child: Execution) -> None:
        try:
            if child.frame is None:
                child.frame = Frame(
                    workflow=self._map_run.workflow,
                    input=None,
                    variables=Variables(),
                    path=f"/{self._map_run.label}",
                )
            self._runner.run_child(child)
        finally:
            child.cancellation.detach()
            if child.status == model.SUCCEEDED:
                child.frame = None
            child.history.pack()
            with self._map_run.changed:
                self._map_run.moved(child, model.RUNNING)
                self._active -= 1
                self._map_run.changed.notify_all()
