"""Task states: schedule the call, wait for its result, its token or its timeout."""

from __future__ import annotations

import threading
import time
from typing import Any

from localcloud.states.cancellation import Cancellation
from localcloud.states.errors import EvaluationError, StateError
from localcloud.states.limits import MAX_SECONDS, checked_payload, compact
from localcloud.states.model import Frame
from localcloud.states.resources import Resource, parse_resource
from localcloud.states.runner import Runner
from localcloud.states.services import TaskCall
from localcloud.states.tokens import Waiting
from localcloud.states.visit import Visit

_TIMEOUTS = frozenset({"States.Timeout", "States.HeartbeatTimeout"})


class _Outcome:
    """Where the calling thread leaves what came of the call."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.result: Any = None
        self.failure: BaseException | None = None


def run_task(runner: Runner, frame: Frame, visit: Visit, cancellation: Cancellation) -> Any:
    """Run one attempt of a task and return its result. Raises ``StateError`` and what ``cancellation`` raises."""
    resource = parse_resource(visit.state["Resource"])
    if not resource.waits_for_token:
        return _Attempt(runner, frame, visit, resource, cancellation).run(None, None)
    token, waiting = runner.services.tokens.create()
    try:
        return _Attempt(runner, frame, visit, resource, cancellation).run(token, waiting)
    finally:
        runner.services.tokens.end(token)


class _Attempt:
    def __init__(
        self, runner: Runner, frame: Frame, visit: Visit, resource: Resource, cancellation: Cancellation
    ) -> None:
        self._runner = runner
        self._frame = frame
        self._visit = visit
        self._resource = resource
        self._cancellation = cancellation
        self._heartbeat: int | None = None
        self._until: float | None = None

    def run(self, token: str | None, waiting: Waiting | None) -> Any:
        visit = self._visit
        arguments = visit.input
        if "Arguments" in visit.state:
            context = {"Task": {"Token": token}} if token else None
            arguments = visit.value(visit.state["Arguments"], "Arguments", context=context)
        checked_payload(arguments, what=f"The input of the state/task '{visit.name}'")
        timeout = visit.number("TimeoutSeconds", None, least=1, most=MAX_SECONDS)
        self._heartbeat = visit.number("HeartbeatSeconds", None, least=1, most=MAX_SECONDS)
        role_arn = self._role()
        self._scheduled(arguments, timeout, role_arn)
        if timeout is not None:
            self._until = self._runner.services.clock.after(timeout)
        call = TaskCall(
            resource=self._resource,
            arguments=arguments,
            caller=self._runner.caller,
            role_arn=role_arn,
            submitted=self._submitted,
        )
        try:
            result = self._call(call)
            if waiting is not None:
                self._submitted(result)
                result = self._await_token(waiting)
            text = visit.checked_result(result)
        except StateError as error:
            self._failed(error)
            raise
        self._succeeded(text)
        return result

    def _role(self) -> str | None:
        credentials = self._visit.field("Credentials", None)
        if credentials is None:
            return None
        role_arn = credentials.get("RoleArn")
        if not isinstance(role_arn, str):
            raise EvaluationError("The field 'Credentials' needs a RoleArn string.", location="Credentials")
        return role_arn

    def _call(self, call: TaskCall) -> Any:
        """Make the call in a thread of its own, because a timeout or a stop does not wait for it."""
        outcome = _Outcome()

        def work() -> None:
            try:
                outcome.result = self._runner.services.invoker.invoke(call)
            except BaseException as error:
                outcome.failure = error
            outcome.event.set()

        self._runner.services.threads.submit(work)
        try:
            if not self._cancellation.wait(outcome.event, until=self._until):
                raise StateError("States.Timeout")
        except BaseException:
            call.abandonment.abandon()
            raise
        if isinstance(outcome.failure, StateError):
            raise outcome.failure
        if outcome.failure is not None:
            raise StateError("States.Runtime", f"{type(outcome.failure).__name__}: {outcome.failure}")
        return outcome.result

    def _await_token(self, waiting: Waiting) -> Any:
        clock = self._runner.services.clock
        waiting.heartbeat_at = time.monotonic()
        while True:
            # Cleared before looking, so that an answer in between is not missed.
            waiting.changed.clear()
            if waiting.answered:
                if waiting.failure is not None:
                    raise waiting.failure
                return waiting.result
            silent_at = None
            if self._heartbeat is not None:
                silent_at = waiting.heartbeat_at + (clock.after(self._heartbeat) - time.monotonic())
            limits = [moment for moment in (silent_at, self._until) if moment is not None]
            if self._cancellation.wait(waiting.changed, until=min(limits, default=None)):
                continue
            if self._until is not None and time.monotonic() >= self._until:
                raise StateError("States.Timeout")
            raise StateError("States.HeartbeatTimeout")

    def _where(self) -> dict[str, Any]:
        return {"resourceType": self._resource.event_type, "resource": self._resource.event_resource}

    def _scheduled(self, arguments: Any, timeout: int | None, role_arn: str | None) -> None:
        more: dict[str, Any] = {}
        if timeout is not None:
            more["timeoutInSeconds"] = timeout
        if role_arn is not None:
            more["taskCredentials"] = {"roleArn": role_arn}
        if self._resource.kind == "function":
            details = {
                "resource": self._resource.arn,
                "input": compact(arguments),
                "inputDetails": {"truncated": False},
                **more,
            }
            self._runner.event(self._frame, "LambdaFunctionScheduled", details)
            self._runner.event(self._frame, "LambdaFunctionStarted")
            return
        if self._heartbeat is not None:
            more["heartbeatInSeconds"] = self._heartbeat
        region = self._runner.caller.region
        details = {**self._where(), "region": region, "parameters": compact(arguments), **more}
        self._runner.event(self._frame, "TaskScheduled", details)
        self._runner.event(self._frame, "TaskStarted", self._where())

    def _submitted(self, output: Any) -> None:
        details = {**self._where(), "output": compact(output), "outputDetails": {"truncated": False}}
        self._runner.event(self._frame, "TaskSubmitted", details)

    def _succeeded(self, text: str) -> None:
        details = {"output": text, "outputDetails": {"truncated": False}}
        if self._resource.kind == "function":
            self._runner.event(self._frame, "LambdaFunctionSucceeded", details)
        else:
            self._runner.event(self._frame, "TaskSucceeded", {**self._where(), **details})

    def _failed(self, error: StateError) -> None:
        details = {"error": error.error}
        if error.cause:
            details["cause"] = error.cause
        ending = "TimedOut" if error.error in _TIMEOUTS else "Failed"
        if self._resource.kind == "function":
            self._runner.event(self._frame, f"LambdaFunction{ending}", details)
        else:
            self._runner.event(self._frame, f"Task{ending}", {**self._where(), **details})
