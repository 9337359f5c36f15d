"""The engine: starts, stops, redrives and finds executions. Knows nothing of HTTP or of ministack."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from localcloud.states.cancellation import Cancellation
from localcloud.states.errors import ApiError, StateError
from localcloud.states.history import History
from localcloud.states.interpreter import end, run_execution
from localcloud.states.limits import (
    EXPRESS_SECONDS,
    MAX_NAME_LENGTH,
    MAX_PAYLOAD_BYTES,
    MAX_REDRIVABLE_EVENTS,
    REDRIVE_DAYS,
    size_of,
)
from localcloud.states.model import ABORTED, RUNNING, SUCCEEDED, Execution, Frame, Machine, Variables
from localcloud.states.services import Services

_LOGGER = logging.getLogger("localcloud.states")
_BAD_IN_NAMES: Final = frozenset(' \t\n\r\v\f?*<>{}[]"#%\\^|~`$&,;:/')
_CLIENT_TOKEN_SECONDS: Final = 15 * 60
_UNWIND_SECONDS: Final = 5.0


def check_name(name: str) -> None:
    """Raise ``ApiError`` InvalidName for what cannot be the name of a machine or an execution."""
    control = any(ord(letter) < 32 or 127 <= ord(letter) <= 159 for letter in name)
    if not 1 <= len(name) <= MAX_NAME_LENGTH or control or _BAD_IN_NAMES & set(name):
        raise ApiError("InvalidName", f"Invalid Name: '{name}'")


class Engine:
    """The executions of the local cloud. ``on_status`` is called, in order per execution, after each change of a
    standard execution's status."""

    def __init__(
        self,
        services: Services,
        *,
        on_status: Callable[[Execution], None] = lambda _: None,
        max_open: int = 1000,
    ) -> None:
        self.services = services
        self.registry = services.registry
        self._on_status = on_status
        self._max_open = max_open
        self._open = 0
        self._lock = threading.Lock()
        self._redrives: dict[tuple[str, str], tuple[float, float]] = {}

    def start(self, machine: Machine, *, name: str | None, text: str, trace_header: str | None = None) -> Execution:
        """StartExecution. The same name and input as a running execution gives that execution."""
        _check_input(text)
        if name is not None:
            check_name(name)
        name = name or str(uuid.uuid4())
        express = machine.type == "EXPRESS"
        kind = "express" if express else "execution"
        arn = machine.arn.replace(":stateMachine:", f":{kind}:", 1) + f":{name}"
        if express:
            arn += f":{uuid.uuid4()}"
        clock = self.services.clock
        execution = Execution(
            arn=arn,
            name=name,
            machine=machine,
            state_machine_arn=machine.arn,
            input=text,
            start_date=clock.now(),
            history=History(clock.now),
            frame=None,
            cancellation=Cancellation(self.services.shutdown),
            trace_header=trace_header,
            express=express,
            closed=threading.Event(),
            unwound=threading.Event(),
            on_status=self._announce,
        )
        self._take_place()
        known = self.registry.add(execution)
        if known is not None:
            self._leave_place()
            execution.cancellation.detach()
            if known.is_open and known.input == text:
                return known
            raise ApiError("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
        execution.frame = Frame(workflow=json.loads(machine.definition), input=json.loads(text), variables=Variables())
        with execution.lock:
            execution.change_status(RUNNING)
        self._launch(execution)
        return execution

    def stop(self, arn: str, *, error: str | None, cause: str | None) -> float:
        """StopExecution; returns the stop date. Stopping a stopped execution again changes nothing."""
        execution = self.registry.execution(arn)
        if execution.express:
            raise ApiError(
                "StateMachineTypeNotSupported", "This operation is not supported by this type of state machine"
            )
        with execution.lock:
            stopped = execution.stop_date
            if stopped is not None:
                return stopped
            cancellation = execution.cancellation
            failure = StateError(error or "", cause or "")
            stopped = end(execution, self.services, status=ABORTED, event="ExecutionAborted", failure=failure)
        # Outside the lock: cancelling runs the callbacks of whoever waits.
        cancellation.cancel()
        return stopped

    def redrive(self, arn: str, *, client_token: str | None) -> float:
        """RedriveExecution; returns the redrive date."""
        execution = self.registry.execution(arn)
        now = self.services.clock.now()
        with execution.lock:
            if client_token is not None:
                known = self._redrives.get((arn, client_token))
                if known is not None and now - known[0] < _CLIENT_TOKEN_SECONDS:
                    return known[1]
            possible, reason = redrivability(execution, now)
            if possible != "REDRIVABLE":
                raise ApiError("ExecutionNotRedrivable", reason)
            self._take_place()
            before = execution.unwound
            execution.closed, execution.unwound = threading.Event(), threading.Event()
            execution.cancellation = Cancellation(self.services.shutdown)
            execution.redrive_count += 1
            execution.redrive_date = now
            execution.stop_date = execution.error = execution.cause = None
            execution.change_status(RUNNING)
            if client_token is not None:
                self._redrives[arn, client_token] = (now, now)
        self._launch(execution, after=before)
        return now

    def close(self) -> None:
        """Stop everything and wait a moment for it to come to rest."""
        self.services.shutdown.cancel()
        limit = time.monotonic() + _UNWIND_SECONDS
        for execution in self.registry.all():
            if execution.unwound is not None:
                execution.unwound.wait(max(0.0, limit - time.monotonic()))
        self.services.threads.close()

    def _launch(self, execution: Execution, *, after: threading.Event | None = None) -> None:
        definition = execution.frame.workflow if execution.frame else {}
        seconds = definition.get("TimeoutSeconds")
        if execution.express:
            seconds = min(seconds or EXPRESS_SECONDS, EXPRESS_SECONDS)
        # Of this attempt: a redrive replaces them while this attempt may still be unwinding.
        attempt, cancellation = execution.redrive_count, execution.cancellation
        unwound = execution.unwound

        def work() -> None:
            try:
                if after is not None:
                    after.wait()
                if seconds is not None:
                    cancellation.deadline = self.services.clock.after(seconds)
                run_execution(execution, self.services, attempt=attempt, cancellation=cancellation)
            finally:
                cancellation.detach()
                self._leave_place()
                if unwound is not None:
                    unwound.set()

        self.services.threads.submit(work)

    def _announce(self, execution: Execution) -> None:
        if execution.express:
            return
        try:
            self._on_status(execution)
        except Exception:
            _LOGGER.exception("the status change of %s could not be published", execution.arn)

    def _take_place(self) -> None:
        with self._lock:
            if self._open >= self._max_open:
                raise ApiError("ExecutionLimitExceeded", f"{self._max_open} executions are open already")
            self._open += 1

    def _leave_place(self) -> None:
        with self._lock:
            self._open -= 1


def redrivability(execution: Execution, now: float) -> tuple[str, str]:
    """``redriveStatus`` and ``redriveStatusReason``."""
    status = execution.status
    if execution.express:
        return "NOT_REDRIVABLE", "Execution is of an EXPRESS state machine and cannot be redriven"
    if status in (RUNNING, SUCCEEDED):
        return "NOT_REDRIVABLE", f"Execution is {status} and cannot be redriven"
    if len(execution.history) >= MAX_REDRIVABLE_EVENTS:
        return "NOT_REDRIVABLE", "Execution history event limit exceeded and cannot be redriven"
    if execution.stop_date is not None and now - execution.stop_date > REDRIVE_DAYS * 86_400:
        return "NOT_REDRIVABLE", "Execution redrivable period exceeded and cannot be redriven"
    if execution.map_run is not None:
        return "REDRIVABLE_BY_MAP_RUN", f"Execution is {status} and can be redriven by its Map Run"
    return "REDRIVABLE", f"Execution is {status} and is redrivable"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_input(text: Any) -> None:
    if not isinstance(text, str):
        raise ApiError("InvalidExecutionInput", "Invalid State Machine Execution Input: the input must be a string")
    if size_of(text) > MAX_PAYLOAD_BYTES:
        raise ApiError(
            "ValidationException",
            "1 validation error detected: Value at 'input' failed to satisfy constraint: Member must have length "
            f"less than or equal to {MAX_PAYLOAD_BYTES}",
        )
    try:
        json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ApiError("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'") from error
