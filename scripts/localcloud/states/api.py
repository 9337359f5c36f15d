"""The API actions of executions, Map Runs and task tokens: JSON in, JSON out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from localcloud.states.describe import execution_description, execution_item, machine_of, without_data
from localcloud.states.engine import Engine
from localcloud.states.errors import ApiError
from localcloud.states.findings import ERROR, Finding
from localcloud.states.limits import MAX_ITEMS
from localcloud.states.map_run import MapRun
from localcloud.states.model import Execution, Machine
from localcloud.states.validate import validate_definition

Request = Mapping[str, Any]
Answer = dict[str, Any]

_MAX_PAGE: Final = 1000
_DEFAULT_PAGE: Final = 100
_DIAGNOSTICS: Final = 100


class Machines(Protocol):
    """The state machines of the calling account and Region."""

    def resolve(self, arn: str) -> Machine:
        """The machine, version, or version behind an alias. Raises ``ApiError`` StateMachineDoesNotExist."""
        ...

    def owns(self, arn: str) -> bool:
        """Whether an ARN is of the calling account and Region."""
        ...


class Api:
    """The API of the service: ``handle(action, request)`` answers or raises ``ApiError``."""

    def __init__(self, *, engine: Engine, machines: Machines) -> None:
        self._engine = engine
        self._machines = machines
        self._actions: dict[str, Callable[[Request], Answer]] = {
            "StartExecution": self.start_execution,
            "StartSyncExecution": self._start_sync_execution,
            "DescribeExecution": self._describe_execution,
            "ListExecutions": self._list_executions,
            "GetExecutionHistory": self._get_execution_history,
            "StopExecution": self._stop_execution,
            "RedriveExecution": self._redrive_execution,
            "DescribeStateMachineForExecution": self._describe_state_machine_for_execution,
            "ListMapRuns": self._list_map_runs,
            "DescribeMapRun": self._describe_map_run,
            "UpdateMapRun": self._update_map_run,
            "SendTaskSuccess": self._send_task_success,
            "SendTaskFailure": self._send_task_failure,
            "SendTaskHeartbeat": self._send_task_heartbeat,
            "ValidateStateMachineDefinition": self._validate,
        }

    @property
    def actions(self) -> frozenset[str]:
        return frozenset(self._actions)

    def handle(self, action: str, request: Request) -> Answer:
        return self._actions[action](request)

    def start_execution(self, request: Request) -> Answer:
        execution = self._start(request)
        return {"executionArn": execution.arn, "startDate": execution.start_date}

    def _start(self, request: Request) -> Execution:
        arn = _text(request, "stateMachineArn")
        if "/" in arn.rsplit(":", 1)[-1]:
            raise ApiError("ValidationException", "An execution of a Distributed Map state cannot be started")
        return self._engine.start(
            self._machines.resolve(arn),
            name=request.get("name"),
            text=request.get("input", "{}"),
            trace_header=request.get("traceHeader"),
        )

    def _start_sync_execution(self, request: Request) -> Answer:
        if self._machines.resolve(_text(request, "stateMachineArn")).type != "EXPRESS":
            raise ApiError(
                "StateMachineTypeNotSupported", "This operation is not supported by this type of state machine"
            )
        execution = self._start(request)
        if execution.closed is not None:
            execution.closed.wait()
        about = execution_description(execution, self._engine.services.clock.now())
        for name in ("redriveCount", "redriveStatus", "redriveStatusReason"):
            about.pop(name, None)
        seconds = (execution.stop_date or execution.start_date) - execution.start_date
        # Billed in steps of 100 ms and 64 MB.
        about["billingDetails"] = {
            "billedMemoryUsedInMB": 64,
            "billedDurationInMilliseconds": -(-int(seconds * 1000) // 100) * 100,
        }
        return about

    def _describe_execution(self, request: Request) -> Answer:
        execution = self._execution(request, standard=True)
        return execution_description(execution, self._engine.services.clock.now())

    def _describe_state_machine_for_execution(self, request: Request) -> Answer:
        return machine_of(self._execution(request, standard=True))

    def _list_executions(self, request: Request) -> Answer:
        machine_arn, map_run_arn = request.get("stateMachineArn"), request.get("mapRunArn")
        if bool(machine_arn) == bool(map_run_arn):
            raise ApiError("ValidationException", "Either stateMachineArn or mapRunArn must be given")
        found: Iterable[Execution]
        if map_run_arn:
            map_run = self._map_run(map_run_arn)
            with map_run.changed:
                found = list(map_run.children.values())
        else:
            found = self._of_machine(str(machine_arn))
        redriven = request.get("redriveFilter")
        items = [
            execution_item(execution)
            for execution in found
            if request.get("statusFilter") in (None, execution.status)
            and (redriven is None or (redriven == "REDRIVEN") == (execution.redrive_count > 0))
        ]
        items.sort(key=_recency, reverse=True)
        page, token = _page(items, request, position=lambda item: list(_recency(item)))
        return _with_token({"executions": page}, token)

    def _of_machine(self, arn: str) -> list[Execution]:
        machine = self._machines.resolve(arn)
        if machine.type == "EXPRESS":
            raise ApiError(
                "StateMachineTypeNotSupported", "This operation is not supported by this type of state machine"
            )
        executions = self._engine.registry.of_machine(machine.arn)
        if arn == machine.arn:
            return executions
        return [e for e in executions if arn in (e.machine.version_arn, e.machine.alias_arn)]

    def _get_execution_history(self, request: Request) -> Answer:
        execution = self._execution(request, standard=True)
        events = execution.history.events()
        if request.get("includeExecutionData", True) is False:
            events = [without_data(event) for event in events]
        descending = bool(request.get("reverseOrder", False))
        if descending:
            events.reverse()
        page, token = _page(events, request, position=lambda event: event["id"], descending=descending)
        return _with_token({"events": page}, token)

    def _stop_execution(self, request: Request) -> Answer:
        execution = self._execution(request)
        stopped = self._engine.stop(execution.arn, error=request.get("error"), cause=request.get("cause"))
        return {"stopDate": stopped}

    def _redrive_execution(self, request: Request) -> Answer:
        execution = self._execution(request)
        redriven = self._engine.redrive(execution.arn, client_token=request.get("clientToken"))
        return {"redriveDate": redriven}

    def _list_map_runs(self, request: Request) -> Answer:
        execution = self._execution(request)
        items = []
        for map_run in self._engine.registry.map_runs_of(execution.arn):
            item = {
                "executionArn": map_run.execution_arn,
                "mapRunArn": map_run.arn,
                "stateMachineArn": map_run.state_machine_arn,
                "startDate": map_run.start_date,
            }
            if map_run.stop_date is not None:
                item["stopDate"] = map_run.stop_date
            items.append(item)
        items.sort(key=lambda item: (item["startDate"], item["mapRunArn"]), reverse=True)
        page, token = _page(items, request, position=lambda item: [item["startDate"], item["mapRunArn"]])
        return _with_token({"mapRuns": page}, token)

    def _describe_map_run(self, request: Request) -> Answer:
        return self._map_run(_text(request, "mapRunArn")).describe()

    def _update_map_run(self, request: Request) -> Answer:
        map_run = self._map_run(_text(request, "mapRunArn"))
        _check_range(request, "maxConcurrency", 0, MAX_ITEMS)
        _check_range(request, "toleratedFailureCount", 0, MAX_ITEMS)
        _check_range(request, "toleratedFailurePercentage", 0, 100)
        with map_run.changed:
            if map_run.status != "RUNNING":
                raise ApiError("ValidationException", f"The Map Run is {map_run.status} and cannot be updated")
            map_run.update(
                max_concurrency=request.get("maxConcurrency"),
                tolerated_count=request.get("toleratedFailureCount"),
                tolerated_percentage=request.get("toleratedFailurePercentage"),
            )
        return {}

    def _send_task_success(self, request: Request) -> Answer:
        self._engine.services.tokens.succeed(_text(request, "taskToken"), _text(request, "output"))
        return {}

    def _send_task_failure(self, request: Request) -> Answer:
        self._engine.services.tokens.fail(
            _text(request, "taskToken"), error=request.get("error") or "", cause=request.get("cause") or ""
        )
        return {}

    def _send_task_heartbeat(self, request: Request) -> Answer:
        self._engine.services.tokens.heartbeat(_text(request, "taskToken"))
        return {}

    def _validate(self, request: Request) -> Answer:
        findings = validate_definition(_text(request, "definition"), kind=request.get("type") or "STANDARD")
        ok = all(finding.severity != ERROR for finding in findings)
        if request.get("severity", ERROR) == ERROR:
            findings = [finding for finding in findings if finding.severity == ERROR]
        most = request.get("maxResults") or _DIAGNOSTICS
        return {
            "result": "OK" if ok else "FAIL",
            "diagnostics": [_diagnostic(finding) for finding in findings[:most]],
            "truncated": len(findings) > most,
        }

    def _execution(self, request: Request, *, standard: bool = False) -> Execution:
        arn = _text(request, "executionArn")
        if not arn.startswith("arn:"):
            raise ApiError("InvalidArn", f"Invalid Arn: '{arn}'")
        if not self._machines.owns(arn):
            raise ApiError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        execution = self._engine.registry.execution(arn)
        if standard and execution.express:
            raise ApiError(
                "StateMachineTypeNotSupported" if execution.map_run is None else "ExecutionDoesNotExist",
                f"Express executions have no description or history: '{arn}'",
            )
        return execution

    def _map_run(self, arn: str) -> MapRun:
        if not self._machines.owns(arn):
            raise ApiError("ResourceNotFound", f"Map Run Does Not Exist: '{arn}'")
        return self._engine.registry.map_run(arn)


def _diagnostic(finding: Finding) -> Answer:
    return {
        "severity": finding.severity,
        "code": finding.code,
        "message": finding.message,
        "location": finding.location or "/",
    }


def _text(request: Request, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise ApiError(
            "ValidationException",
            f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must not be null",
        )
    return value


def _check_range(request: Request, name: str, least: float, most: float) -> None:
    value = request.get(name)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most
    ):
        raise ApiError("ValidationException", f"'{name}' must be between {least} and {most}")


def _recency(item: Mapping[str, Any]) -> tuple[float, str]:
    """Running executions are sorted by their start or redrive, others by their stop."""
    moment = item.get("stopDate") or item.get("redriveDate") or item["startDate"]
    return moment, item["executionArn"]


def _page(
    items: list[Any], request: Request, *, position: Callable[[Any], Any], descending: bool = True
) -> tuple[list[Any], str | None]:
    """One page of sorted ``items``; the token holds the position of its last item and the other arguments."""
    most = request.get("maxResults") or _DEFAULT_PAGE
    if isinstance(most, bool) or not isinstance(most, int) or not 0 < most <= _MAX_PAGE:
        raise ApiError("ValidationException", f"maxResults must be between 0 and {_MAX_PAGE}")
    same = {name: value for name, value in request.items() if name not in ("nextToken", "maxResults")}
    token = request.get("nextToken")
    if token is not None:
        last = _position(token, same)
        items = [item for item in items if (position(item) < last if descending else position(item) > last)]
    page = items[:most]
    if len(items) <= most:
        return page, None
    raw = json.dumps({"after": position(page[-1]), "of": same}, sort_keys=True)
    return page, base64.urlsafe_b64encode(raw.encode()).decode()


def _position(token: Any, same: Mapping[str, Any]) -> Any:
    try:
        content = json.loads(
            base64.urlsafe_b64decode(
                str(token),
            )
        )
        if content["of"] != json.loads(json.dumps(same)):
            raise ValueError
        return content["after"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError("InvalidToken", "Invalid Token: 'Invalid token'") from error


def _with_token(answer: Answer, token: str | None) -> Answer:
    if token is not None:
        answer["nextToken"] = token
    return answer
