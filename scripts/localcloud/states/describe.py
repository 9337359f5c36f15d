"""Executions in the shapes of the API's answers and of status change events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from localcloud.states.engine import redrivability
from localcloud.states.limits import compact
from localcloud.states.model import SUCCEEDED, Execution

_EVENT_PAYLOAD_BYTES: Final = 248 * 1024


def execution_description(execution: Execution, now: float) -> dict[str, Any]:
    """The answer of DescribeExecution."""
    with execution.lock:
        status, reason = redrivability(execution, now)
        answer: dict[str, Any] = {
            **_identity(execution),
            "input": execution.input,
            "inputDetails": {"included": True},
            "redriveStatus": status,
        }
        if status != "REDRIVABLE":
            answer["redriveStatusReason"] = reason
        if execution.output is not None:
            answer |= {"output": execution.output, "outputDetails": {"included": True}}
        optional = {"error": execution.error, "cause": execution.cause, "traceHeader": execution.trace_header}
        return answer | {name: value for name, value in optional.items() if value is not None}


def execution_item(execution: Execution) -> dict[str, Any]:
    """An element of ListExecutions."""
    with execution.lock:
        item = _identity(execution)
        if execution.map_run is not None:
            item["itemCount"] = execution.item_count
        return item


def _identity(execution: Execution) -> dict[str, Any]:
    identity: dict[str, Any] = {
        "executionArn": execution.arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.status,
        "startDate": execution.start_date,
        "redriveCount": execution.redrive_count,
    }
    optional = {
        "stopDate": execution.stop_date,
        "redriveDate": execution.redrive_date,
        "mapRunArn": execution.map_run.arn if execution.map_run else None,
        "stateMachineVersionArn": execution.machine.version_arn,
        "stateMachineAliasArn": execution.machine.alias_arn,
    }
    return identity | {name: value for name, value in optional.items() if value is not None}


def machine_of(execution: Execution) -> dict[str, Any]:
    """The answer of DescribeStateMachineForExecution: what the execution runs, whatever became of the machine."""
    machine, map_run = execution.machine, execution.map_run
    answer: dict[str, Any] = {
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.state_machine_arn.split(":")[-1],
        "definition": machine.definition,
        "roleArn": machine.role_arn,
        "updateDate": machine.update_date,
        **machine.extras,
    }
    if map_run is not None:
        answer |= {"definition": json.dumps(map_run.workflow), "mapRunArn": map_run.arn, "label": map_run.label}
    return answer


def status_event(execution: Execution, now: float) -> dict[str, Any]:
    """``detail`` of "Step Functions Execution Status Change".

    Source: developer guide, "Automating Step Functions event delivery with EventBridge".
    """
    with execution.lock:
        redrive_status, reason = redrivability(execution, now)
        succeeded = execution.status == SUCCEEDED
        detail: dict[str, Any] = {
            "executionArn": execution.arn,
            "stateMachineArn": execution.machine.arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": _milliseconds(execution.start_date),
            "stopDate": _milliseconds(execution.stop_date),
            "input": execution.input,
            "inputDetails": {"included": True},
            "output": execution.output if succeeded else None,
            "outputDetails": {"included": True} if succeeded else None,
            "stateMachineVersionArn": execution.machine.version_arn,
            "stateMachineAliasArn": execution.machine.alias_arn,
            "redriveCount": execution.redrive_count,
            "redriveDate": _milliseconds(execution.redrive_date),
            "redriveStatus": redrive_status,
            "redriveStatusReason": reason,
            "error": execution.error,
            "cause": execution.cause,
        }
    if _escaped(detail["output"]) > _EVENT_PAYLOAD_BYTES:
        detail |= {"output": None, "outputDetails": {"included": False}}
    if _escaped(detail["input"]) + _escaped(detail["output"]) > _EVENT_PAYLOAD_BYTES:
        detail |= {"input": None, "inputDetails": {"included": False}}
    return detail


def without_data(event: Mapping[str, Any]) -> dict[str, Any]:
    """A history event as GetExecutionHistory shows it with ``includeExecutionData`` false."""
    shown: dict[str, Any] = {}
    for name, value in event.items():
        if isinstance(value, dict):
            hidden = {"input", "output", "parameters", "assignedVariables"}
            shown[name] = {key: item for key, item in value.items() if key not in hidden}
        else:
            shown[name] = value
    return shown


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _escaped(text: str | None) -> int:
    return 0 if text is None else len(compact(text).encode("utf-8", "surrogatepass"))
