"""Static validation of a state machine definition, for Create, Update and Validate, and for tests.

Refuses what the local cloud does not run, and what it does not know: a field that would be ignored here
would be a difference to AWS that nobody sees. Needs no server and no AWS.

Source: Amazon States Language specification and the developer guide's pages on each state type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from localcloud.states.check_expressions import RESULT, ExpressionChecker, Scope, assigned_names
from localcloud.states.check_maps import MapChecker
from localcloud.states.check_policies import check_catch, check_retry
from localcloud.states.findings import ERROR, Finding, Findings
from localcloud.states.limits import MAX_DEFINITION_BYTES, MAX_NAME_LENGTH, MAX_SECONDS, size_of
from localcloud.states.resources import REQUIRED_ARGUMENTS, UnknownResource, parse_resource

_COMMON: Final = frozenset({"Type", "Comment", "QueryLanguage"})
_FLOW: Final = frozenset({"Next", "End", "Output", "Assign"})
_HANDLED: Final = frozenset({"Retry", "Catch"})
_FIELDS: Final[dict[str, frozenset[str]]] = {
    "Pass": _FLOW,
    "Task": _FLOW | _HANDLED | {"Resource", "Arguments", "TimeoutSeconds", "HeartbeatSeconds", "Credentials"},
    "Choice": frozenset({"Choices", "Default", "Output", "Assign"}),
    "Wait": _FLOW | {"Seconds", "Timestamp"},
    "Succeed": frozenset({"Output"}),
    "Fail": frozenset({"Error", "Cause"}),
    "Parallel": _FLOW | _HANDLED | {"Branches", "Arguments"},
    "Map": _FLOW
    | _HANDLED
    | {"ItemProcessor", "Items", "ItemReader", "ItemSelector", "ItemBatcher", "ResultWriter", "MaxConcurrency"}
    | {"ToleratedFailureCount", "ToleratedFailurePercentage", "Label"},
}
_REQUIRED: Final = {
    "Task": ("Resource",),
    "Choice": ("Choices",),
    "Parallel": ("Branches",),
    "Map": ("ItemProcessor",),
}
_JSONPATH_FIELDS: Final = frozenset(
    [
        "InputPath",
        "OutputPath",
        "ResultPath",
        "Parameters",
        "ResultSelector",
        "Result",
        "ItemsPath",
        "MaxConcurrencyPath",
        "TimeoutSecondsPath",
        "HeartbeatSecondsPath",
        "SecondsPath",
        "TimestampPath",
        "ErrorPath",
        "CausePath",
        "ToleratedFailureCountPath",
        "ToleratedFailurePercentagePath",
        "Iterator",
    ]
)
_TOP_FIELDS: Final = frozenset({"Comment", "StartAt", "States", "TimeoutSeconds", "Version", "QueryLanguage"})
_BRANCH_FIELDS: Final = frozenset({"Comment", "StartAt", "States"})
_CHOICE_FIELDS: Final = frozenset({"Condition", "Next", "Output", "Assign", "Comment"})
_RESULT_STATES: Final = frozenset({"Task", "Parallel", "Map"})


def validate_definition(text: str, *, kind: str = "STANDARD") -> list[Finding]:
    """Everything that is wrong or doubtful with a definition; ``kind`` is the type of the state machine."""
    findings = Findings()
    if size_of(text) > MAX_DEFINITION_BYTES:
        findings.error("DEFINITION_TOO_LARGE", "The definition is bigger than 1 MB.", "")
        return findings.all
    duplicates: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            duplicates.extend(sorted({name for name in names if names.count(name) > 1}))
        return found

    try:
        definition = json.loads(text, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        findings.error("INVALID_JSON_DESCRIPTION", f"The definition is not JSON: {error}", "")
        return findings.all
    for name in duplicates:
        findings.error("DUPLICATE_KEY", f"The name '{name}' appears twice in one object.", "")
    _Checker(findings, kind).machine(definition)
    return findings.all


def errors_in(text: str, *, kind: str = "STANDARD") -> list[Finding]:
    """The findings that keep a definition from being created."""
    return [finding for finding in validate_definition(text, kind=kind) if finding.severity == ERROR]


class _Checker:
    def __init__(self, findings: Findings, kind: str) -> None:
        self._findings = findings
        self._kind = kind
        self._expressions = ExpressionChecker(findings)
        self._maps = MapChecker(findings, self._expressions)
        self._names: set[str] = set()
        self._language = "JSONPath"

    def machine(self, definition: Any) -> None:
        if not isinstance(definition, dict):
            self._findings.schema("The definition must be an object.", "")
            return
        self._fields(definition, "", _TOP_FIELDS)
        language = definition.get("QueryLanguage", "JSONPath")
        if language not in ("JSONPath", "JSONata"):
            self._findings.schema("QueryLanguage must be JSONPath or JSONata.", "/QueryLanguage")
        self._language = language
        if definition.get("Version", "1.0") != "1.0":
            self._findings.schema("Version must be 1.0.", "/Version")
        timeout = definition.get("TimeoutSeconds", 1)
        if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= MAX_SECONDS:
            self._findings.schema(f"TimeoutSeconds must be an integer from 1 to {MAX_SECONDS}.", "/TimeoutSeconds")
        self._workflow(definition, "", None, distributed=False, express=self._kind == "EXPRESS")

    def _workflow(
        self, workflow: Mapping[str, Any], where: str, outer: Scope | None, *, distributed: bool, express: bool
    ) -> None:
        states = workflow.get("States")
        if not isinstance(states, dict) or not states:
            self._findings.schema("The field 'States' must be an object with at least one state.", where)
            return
        own = assigned_names(states)
        scope = outer.inner(own, distributed=distributed) if outer else Scope(own=own)
        for name, state in states.items():
            place = f"{where}/States/{name}"
            if not 1 <= len(name) <= MAX_NAME_LENGTH:
                self._findings.schema(f"A state's name has 1 to {MAX_NAME_LENGTH} characters.", place)
            if name in self._names:
                self._findings.error("DUPLICATE_STATE_NAME", f"The state name '{name}' is used twice.", place)
            self._names.add(name)
            self._state(state, place, scope, express=express)
        self._transitions(workflow, states, where)

    def _transitions(self, workflow: Mapping[str, Any], states: Mapping[str, Any], where: str) -> None:
        reached: set[str] = set()
        waiting: list[str] = []

        def follow(target: Any, place: str) -> None:
            if not isinstance(target, str) or target not in states:
                self._findings.error("MISSING_TRANSITION_TARGET", f"Missing 'Next' target: {target}", place)
            elif target not in reached:
                reached.add(target)
                waiting.append(target)

        follow(workflow.get("StartAt"), f"{where}/StartAt")
        while waiting:
            name = waiting.pop()
            for target, place in _targets(states[name], f"{where}/States/{name}"):
                follow(target, place)
        for name in states:
            if name not in reached:
                place = f"{where}/States/{name}"
                self._findings.error("MISSING_TRANSITION_TARGET", f'State "{name}" is not reachable.', place)
                # Its own targets may be missing too; what it reaches is not thereby reachable.
                for target, inner in _targets(states[name], place):
                    if target not in states:
                        self._findings.error("MISSING_TRANSITION_TARGET", f"Missing 'Next' target: {target}", inner)

    def _fields(self, value: Mapping[str, Any], where: str, known: frozenset[str]) -> None:
        for name in sorted(value.keys() - known):
            why = " It is of JSONPath, which the local cloud does not run." if name in _JSONPATH_FIELDS else ""
            self._findings.schema(f"Field '{name}' is not supported.{why}", where)

    def _state(self, state: Any, where: str, scope: Scope, *, express: bool) -> None:
        if not isinstance(state, dict):
            self._findings.schema("A state must be an object.", where)
            return
        kind = state.get("Type")
        if kind not in _FIELDS:
            self._findings.schema(f"Type must be one of {', '.join(_FIELDS)}, not '{kind}'.", f"{where}/Type")
            return
        if state.get("QueryLanguage", self._language) != "JSONata":
            self._findings.error(
                "UNSUPPORTED_QUERY_LANGUAGE",
                "The local cloud runs JSONata states only; set QueryLanguage to JSONata.",
                where,
            )
            return
        self._fields(state, where, _FIELDS[kind] | _COMMON)
        for name in _REQUIRED.get(kind, ()):
            if name not in state:
                self._findings.schema(f"The field '{name}' is required.", where)
        if "Next" in _FIELDS[kind] and ("Next" in state) == ("End" in state):
            self._findings.schema("A state has either 'Next' or 'End'.", where)
        if state.get("End", True) is not True:
            self._findings.schema("End must be true.", f"{where}/End")
        sees = RESULT if kind in _RESULT_STATES else frozenset({"input", "context"})
        self._outputs(state, where, scope, sees)
        if "Retry" in state and "Retry" in _FIELDS[kind]:
            check_retry(state["Retry"], f"{where}/Retry", self._findings)
        if "Catch" in state and "Catch" in _FIELDS[kind]:
            check_catch(state["Catch"], f"{where}/Catch", self._findings, self._expressions, scope)
        match kind:
            case "Task":
                self._task(state, where, scope, express=express)
            case "Choice":
                self._choices(state, where, scope)
            case "Wait":
                self._wait(state, where, scope)
            case "Fail":
                for name in ("Error", "Cause"):
                    if name in state and not isinstance(state[name], str):
                        self._findings.schema(f"{name} must be a string.", f"{where}/{name}")
                    self._expressions.template(state.get(name), f"{where}/{name}", scope)
            case "Parallel":
                self._parallel(state, where, scope, express=express)
            case "Map":
                self._map(state, where, scope, express=express)

    def _outputs(self, block: Mapping[str, Any], where: str, scope: Scope, sees: frozenset[str]) -> None:
        if "Output" in block:
            self._expressions.template(block["Output"], f"{where}/Output", scope, sees=sees)
        if "Assign" in block:
            self._expressions.assign(block["Assign"], f"{where}/Assign", scope, sees=sees)

    def _task(self, state: Mapping[str, Any], where: str, scope: Scope, *, express: bool) -> None:
        arguments = state.get("Arguments")
        if arguments is not None and not isinstance(arguments, dict) and not self._expressions.is_expression(arguments):
            self._findings.schema("Arguments must be an object or an expression.", f"{where}/Arguments")
        self._expressions.template(arguments, f"{where}/Arguments", scope)
        for name in ("TimeoutSeconds", "HeartbeatSeconds"):
            if name in state:
                self._seconds(state[name], f"{where}/{name}", scope, least=1)
        timeout, heartbeat = state.get("TimeoutSeconds"), state.get("HeartbeatSeconds")
        if isinstance(timeout, int) and isinstance(heartbeat, int) and heartbeat >= timeout:
            self._findings.schema("HeartbeatSeconds must be smaller than TimeoutSeconds.", f"{where}/HeartbeatSeconds")
        if "Credentials" in state:
            credentials = state["Credentials"]
            if not isinstance(credentials, dict) or credentials.keys() != {"RoleArn"}:
                self._findings.schema("Credentials must be an object with RoleArn.", f"{where}/Credentials")
            self._expressions.template(credentials, f"{where}/Credentials", scope)
        if "Resource" not in state:
            return
        try:
            resource = parse_resource(str(state["Resource"]))
        except UnknownResource as error:
            self._findings.schema(str(error), f"{where}/Resource")
            return
        if express and resource.pattern:
            self._findings.schema(f"EXPRESS workflows do not support .{resource.pattern}.", f"{where}/Resource")
        if heartbeat is not None and not resource.waits_for_token:
            self._findings.schema(
                "HeartbeatSeconds without .waitForTaskToken is not supported by the local cloud.",
                f"{where}/HeartbeatSeconds",
            )
        if resource.kind == "function":
            return
        if arguments is None:
            self._findings.schema("The field 'Arguments' is required for this Resource.", where)
        elif isinstance(arguments, dict):
            for name in REQUIRED_ARGUMENTS.get(resource.name, ()):
                if name not in arguments:
                    self._findings.schema(f"The field '{name}' is required.", f"{where}/Arguments")

    def _seconds(self, value: Any, where: str, scope: Scope, *, least: int) -> None:
        self._expressions.number(
            value,
            where,
            scope,
            accepts=lambda number: least <= number <= MAX_SECONDS,
            wanted=f"an integer from {least} to {MAX_SECONDS}",
        )

    def _choices(self, state: Mapping[str, Any], where: str, scope: Scope) -> None:
        choices = state.get("Choices")
        if not isinstance(choices, list) or not choices:
            self._findings.schema("Choices must be a non-empty array.", f"{where}/Choices")
            return
        for index, choice in enumerate(choices):
            place = f"{where}/Choices/{index}"
            if not isinstance(choice, dict):
                self._findings.schema("A choice must be an object.", place)
                continue
            self._fields(choice, place, _CHOICE_FIELDS)
            for name in ("Condition", "Next"):
                if name not in choice:
                    self._findings.schema(f"The field '{name}' is required.", place)
            condition = choice.get("Condition")
            if not isinstance(condition, bool) and not self._expressions.is_expression(condition):
                self._findings.schema("Condition must be a JSONata expression.", f"{place}/Condition")
            self._expressions.template(condition, f"{place}/Condition", scope)
            self._outputs(choice, place, scope, frozenset({"input", "context"}))

    def _wait(self, state: Mapping[str, Any], where: str, scope: Scope) -> None:
        if ("Seconds" in state) == ("Timestamp" in state):
            self._findings.schema("A Wait state has either 'Seconds' or 'Timestamp'.", where)
        if "Seconds" in state:
            self._seconds(state["Seconds"], f"{where}/Seconds", scope, least=0)
        timestamp = state.get("Timestamp")
        if timestamp is None or self._expressions.is_expression(timestamp):
            self._expressions.template(timestamp, f"{where}/Timestamp", scope)
        elif not isinstance(timestamp, str) or not _is_moment(timestamp):
            self._findings.schema("Timestamp must be an RFC 3339 timestamp or an expression.", f"{where}/Timestamp")

    def _parallel(self, state: Mapping[str, Any], where: str, scope: Scope, *, express: bool) -> None:
        self._expressions.template(state.get("Arguments"), f"{where}/Arguments", scope)
        branches = state.get("Branches")
        if not isinstance(branches, list) or not branches:
            self._findings.schema("Branches must be a non-empty array.", f"{where}/Branches")
            return
        for index, branch in enumerate(branches):
            place = f"{where}/Branches/{index}"
            if not isinstance(branch, dict):
                self._findings.schema("A branch must be an object.", place)
                continue
            self._fields(branch, place, _BRANCH_FIELDS)
            self._workflow(branch, place, scope, distributed=False, express=express)

    def _map(self, state: Mapping[str, Any], where: str, scope: Scope, *, express: bool) -> None:
        processor = state.get("ItemProcessor")
        place = f"{where}/ItemProcessor"
        if not isinstance(processor, dict):
            self._findings.schema("ItemProcessor must be an object.", place)
            return
        self._fields(processor, place, _BRANCH_FIELDS | {"ProcessorConfig"})
        config = processor.get("ProcessorConfig", {})
        if not isinstance(config, dict):
            self._findings.schema("ProcessorConfig must be an object.", f"{place}/ProcessorConfig")
            return
        self._fields(config, f"{place}/ProcessorConfig", frozenset({"Mode", "ExecutionType"}))
        mode, execution_type = config.get("Mode", "INLINE"), config.get("ExecutionType")
        distributed = mode == "DISTRIBUTED"
        if mode not in ("INLINE", "DISTRIBUTED"):
            self._findings.schema("Mode must be INLINE or DISTRIBUTED.", f"{place}/ProcessorConfig/Mode")
        if distributed != (execution_type is not None) or execution_type not in (None, "STANDARD", "EXPRESS"):
            self._findings.schema(
                "ExecutionType is STANDARD or EXPRESS, for mode DISTRIBUTED.", f"{place}/ProcessorConfig"
            )
        if distributed and express:
            self._findings.schema("EXPRESS workflows do not support mode DISTRIBUTED.", place)
        self._maps.check(state, where, scope, distributed=distributed)
        self._workflow(processor, place, scope, distributed=distributed, express=express or execution_type == "EXPRESS")


def _targets(state: Any, where: str) -> Iterator[tuple[Any, str]]:
    if not isinstance(state, dict):
        return
    for name in ("Next", "Default"):
        if name in state:
            yield state[name], f"{where}/{name}"
    for field in ("Choices", "Catch"):
        blocks = state.get(field)
        for index, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, dict) and "Next" in block:
                yield block["Next"], f"{where}/{field}/{index}/Next"


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
