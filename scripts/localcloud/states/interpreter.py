"""Walks the states of one execution."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from localcloud.states.branching import run_map, run_parallel
from localcloud.states.cancellation import Cancellation
from localcloud.states.errors import Cancelled, DeadlinePassed, EvaluationError, HistoryFull, StateError
from localcloud.states.limits import MAX_HISTORY_EVENTS, MAX_SECONDS, compact
from localcloud.states.model import ABORTED, FAILED, SUCCEEDED, TIMED_OUT, Execution, Frame
from localcloud.states.policies import RetryPolicy, catcher_for
from localcloud.states.runner import Runner
from localcloud.states.services import Caller, Services
from localcloud.states.tasks import run_task
from localcloud.states.visit import Visit

_LOGGER = logging.getLogger("localcloud.states")
_DATA: Final = {"truncated": False}


@dataclass(frozen=True)
class Step:
    """How a state ended: where to go (``None``: the end), and what it passes on."""

    next: str | None
    output: Any
    assigned: dict[str, Any]


class Interpreter:
    """Runs frames of one execution. Other state types are in ``tasks``, ``branching`` and ``distributed``."""

    def __init__(self, *, execution: Execution, services: Services) -> None:
        self.execution = execution
        self.services = services
        self.history = execution.history
        self.input = json.loads(execution.input)
        self.caller = Caller(
            account=execution.machine.account,
            region=execution.machine.region,
            role_arn=execution.machine.role_arn,
            execution_arn=execution.arn,
            state_machine_arn=execution.state_machine_arn,
        )

    def run(self, frame: Frame, cancellation: Cancellation) -> Any:
        """Run ``frame`` from where it is to its end and return its output.

        Raises ``StateError`` if a state failed, ``Cancelled``, ``DeadlinePassed`` or ``HistoryFull``; the
        frame then stands at the state that did not exit.
        """
        if frame.finished:
            return frame.output
        if not frame.state:
            frame.enter(frame.workflow["StartAt"])
        while True:
            cancellation.check()
            step = self._step(frame, cancellation)
            frame.variables.assign(step.assigned)
            if step.next is None:
                frame.finished, frame.output = True, step.output
                frame.leave_inner()
                return step.output
            frame.input = step.output
            frame.enter(step.next)

    def event(self, frame: Frame, event_type: str, details: dict[str, Any] | None = None) -> int:
        """Add an event that follows the frame's last one."""
        frame.previous_event = self.history.add(event_type, details, previous=frame.previous_event)
        return frame.previous_event

    def run_child(self, child: Execution) -> None:
        """Run or resume a child execution of a Map Run to its final status. Raises nothing."""
        run_execution(child, self.services)

    def _step(self, frame: Frame, cancellation: Cancellation) -> Step:
        state = frame.workflow["States"][frame.state]
        kind: str = state["Type"]
        if not frame.entered or kind == "Fail":
            text = compact(frame.input)
            frame.entered_event = self.event(
                frame, f"{kind}StateEntered", {"name": frame.state, "input": text, "inputDetails": dict(_DATA)}
            )
            frame.entered = True
        visit = Visit(
            execution=self.execution,
            execution_input=self.input,
            frame=frame,
            evaluator=self.services.evaluator,
            entered=self.services.clock.now(),
        )
        try:
            step = self._execute(kind, frame, visit, cancellation)
        except EvaluationError as error:
            if kind not in _ATTEMPTED:
                self.evaluation_failed(frame, error)
            if frame.map_run is not None:
                # A redrive after this error starts a new Map Run.
                frame.leave_inner()
            raise
        except StateError as error:
            if error.error == "States.DataLimitExceeded":
                # A redrive after this error runs the whole state again, finished branches too.
                frame.leave_inner()
            raise
        details: dict[str, Any] = {
            "name": frame.state,
            "output": compact(step.output),
            "outputDetails": dict(_DATA),
        }
        if step.assigned:
            details["assignedVariables"] = {name: compact(value) for name, value in step.assigned.items()}
            details["assignedVariablesDetails"] = dict(_DATA)
        self.event(frame, f"{kind}StateExited", details)
        return step

    def _execute(self, kind: str, frame: Frame, visit: Visit, cancellation: Cancellation) -> Step:
        match kind:
            case "Pass":
                output, assigned = visit.outputs(visit.state, visit.input)
                return Step(visit.state.get("Next"), output, assigned)
            case "Succeed":
                output, _ = visit.outputs(visit.state, visit.input)
                return Step(None, output, {})
            case "Fail":
                raise _failure(visit)
            case "Choice":
                return _choose(visit)
            case "Wait":
                self._wait(visit, cancellation)
                output, assigned = visit.outputs(visit.state, visit.input)
                return Step(visit.state.get("Next"), output, assigned)
            case _:
                return self._attempts(frame, visit, _ATTEMPTED[kind], cancellation)

    def _attempts(
        self,
        frame: Frame,
        visit: Visit,
        attempt: Callable[[Runner, Frame, Visit, Cancellation], Any],
        cancellation: Cancellation,
    ) -> Step:
        """Task, Parallel and Map: the work itself, then Output and Assign, with Retry and Catch around both."""
        policy = RetryPolicy(visit.state.get("Retry", ()), uniform=self.services.random.uniform)
        retries = 0
        while True:
            try:
                result = attempt(self, frame, visit, cancellation)
                output, assigned = visit.outputs(visit.state, result, result=result)
                return Step(visit.state.get("Next"), output, assigned)
            except StateError as error:
                if isinstance(error, EvaluationError):
                    self.evaluation_failed(frame, error)
                delay = policy.delay_after(error.error)
                if delay is None:
                    return self._caught(frame, visit, error)
            self.services.clock.back_off(delay, cancellation)
            retries += 1
            visit.set_retry_count(retries)
            # A retried map is a new Map Run, a retried Parallel runs all branches.
            frame.leave_inner()

    def _caught(self, frame: Frame, visit: Visit, error: StateError) -> Step:
        catchers = visit.state.get("Catch", ())
        index = catcher_for(catchers, error.error)
        if index is None:
            raise error
        error_output = {"Error": error.error, "Cause": error.cause}
        field = f"Catch/{index}/"
        try:
            output, assigned = visit.outputs(catchers[index], error_output, field, error_output=error_output)
        except EvaluationError as failed:
            self.evaluation_failed(frame, failed)
            raise
        return Step(catchers[index]["Next"], output, assigned)

    def evaluation_failed(self, frame: Frame, error: EvaluationError) -> None:
        details = {"error": error.error, "cause": error.cause, "state": frame.state}
        if error.location:
            details["location"] = error.location
        self.event(frame, "EvaluationFailed", details)
        if "entered at the event id" not in error.cause:
            error.cause = (
                f"An error occurred while executing the state '{frame.state}' (entered at the event id "
                f"#{frame.entered_event}). {error.cause}"
            )

    def _wait(self, visit: Visit, cancellation: Cancellation) -> None:
        if "Timestamp" in visit.state:
            seconds = _moment(visit.field("Timestamp", None)) - self.services.clock.now()
        else:
            seconds = visit.number("Seconds", 0, least=0, most=MAX_SECONDS)
        if seconds > 0:
            self.services.clock.pause(seconds, cancellation)


def _failure(visit: Visit) -> StateError:
    texts = []
    for name in ("Error", "Cause"):
        text = visit.field(name, "")
        if not isinstance(text, str):
            raise EvaluationError(
                f"The JSONata expression of the field '{name}' returned an unexpected result type: "
                "a string is expected.",
                location=name,
            )
        texts.append(text)
    return StateError(*texts)


def _choose(visit: Visit) -> Step:
    for index, choice in enumerate(visit.state["Choices"]):
        field = f"Choices/{index}/"
        met = visit.value(choice["Condition"], f"{field}Condition")
        if not isinstance(met, bool):
            raise EvaluationError(
                f"The JSONata expression of the field '{field}Condition' returned an unexpected result type: "
                "a boolean is expected.",
                location=f"{field}Condition",
            )
        if met:
            output, assigned = visit.outputs(choice, visit.input, field)
            return Step(choice["Next"], output, assigned)
    if "Default" not in visit.state:
        raise StateError("States.NoChoiceMatched", f"No choice rule of the state '{visit.name}' matched.")
    output, assigned = visit.outputs(visit.state, visit.input)
    return Step(visit.state["Default"], output, assigned)


def _moment(value: Any) -> float:
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
    except ValueError as error:
        raise EvaluationError(
            f"The field 'Timestamp' needs an RFC 3339 timestamp, not {compact(value)}.", location="Timestamp"
        ) from error
    return moment.timestamp()


_ATTEMPTED: Final[dict[str, Callable[[Runner, Frame, Visit, Cancellation], Any]]] = {
    "Task": run_task,
    "Parallel": run_parallel,
    "Map": run_map,
}


def run_execution(
    execution: Execution,
    services: Services,
    *,
    attempt: int | None = None,
    cancellation: Cancellation | None = None,
) -> None:
    """Run ``execution`` from where its frame is to a final status, its last event included.

    ``attempt`` is the redrive count it runs under: an attempt that was stopped and then redriven has
    nothing more to say.
    """
    attempt = execution.redrive_count if attempt is None else attempt
    cancellation = cancellation or execution.cancellation
    frame = execution.frame
    if frame is None:
        raise ValueError(f"{execution.arn} has nowhere to go on from")
    status, event, output, failure = SUCCEEDED, "ExecutionSucceeded", None, StateError("")
    try:
        begin(execution, frame)
        interpreter = Interpreter(execution=execution, services=services)
        if not frame.state:
            frame.input = interpreter.input
        output = compact(interpreter.run(frame, cancellation))
    except StateError as error:
        status, event, failure = FAILED, "ExecutionFailed", error
    except DeadlinePassed:
        status, event, failure = TIMED_OUT, "ExecutionTimedOut", StateError("States.Timeout")
    except Cancelled:
        status, event, failure = ABORTED, "ExecutionAborted", StateError("")
    except HistoryFull:
        cause = f"The execution reached the maximum number of history events ({MAX_HISTORY_EVENTS})."
        status, event, failure = FAILED, "ExecutionFailed", StateError("States.Runtime", cause)
    except Exception as error:
        _LOGGER.exception("%s failed in the engine itself", execution.arn)
        status, event, failure = FAILED, "ExecutionFailed", StateError("States.Runtime", repr(error))
    with execution.lock:
        if execution.redrive_count == attempt and execution.is_open:
            end(execution, services, status=status, event=event, output=output, failure=failure)


def begin(execution: Execution, frame: Frame) -> None:
    """The first event of an attempt: of the execution, or of its redrive."""
    history = execution.history
    if len(history) == 0:
        details: dict[str, Any] = {
            "input": execution.input,
            "inputDetails": dict(_DATA),
            "roleArn": execution.machine.role_arn,
        }
        if execution.machine.version_arn:
            details["stateMachineVersionArn"] = execution.machine.version_arn
        if execution.machine.alias_arn:
            details["stateMachineAliasArn"] = execution.machine.alias_arn
        history.add("ExecutionStarted", details)
    elif execution.redrive_count and history.closed:
        redriven = history.reopen("ExecutionRedriven", {"redriveCount": execution.redrive_count})
        frame.rejoin(redriven)


def end(
    execution: Execution,
    services: Services,
    *,
    status: str,
    event: str,
    output: str | None = None,
    failure: StateError,
) -> float:
    """Give an open ``execution`` its final status and return the stop date. The caller holds its lock."""
    details: dict[str, Any] = {}
    if output is not None:
        details = {"output": output, "outputDetails": dict(_DATA)}
    if failure.error:
        details["error"] = failure.error
    if failure.cause:
        details["cause"] = failure.cause
    stopped = services.clock.now()
    previous = execution.frame.previous_event if execution.frame else 0
    execution.history.end(event, details, previous=previous)
    execution.stop_date = stopped
    execution.output = output
    execution.error = failure.error or None
    execution.cause = failure.cause or None
    execution.change_status(status)
    return stopped
