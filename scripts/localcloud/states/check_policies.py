"""Static checks of Retry and Catch."""

from __future__ import annotations

from typing import Any, Final

from localcloud.states.check_expressions import ERROR_OUTPUT, ExpressionChecker, Scope
from localcloud.states.findings import Findings
from localcloud.states.limits import MAX_SECONDS

_KNOWN_ERRORS: Final = frozenset(
    "States." + name
    for name in [
        "ALL",
        "DataLimitExceeded",
        "ExceedToleratedFailureThreshold",
        "HeartbeatTimeout",
        "Http.Socket",
        "ItemReaderFailed",
        "NoChoiceMatched",
        "Permissions",
        "QueryEvaluationError",
        "ResultWriterFailed",
        "Runtime",
        "TaskFailed",
        "Timeout",
        "BranchFailed",
        "IntrinsicFailure",
        "ParameterPathFailure",
        "ResultPathMatchFailure",
    ]
)
_RETRY_FIELDS: Final = frozenset(
    [
        "ErrorEquals",
        "IntervalSeconds",
        "MaxAttempts",
        "BackoffRate",
        "MaxDelaySeconds",
        "JitterStrategy",
        "Comment",
    ]
)
_CATCH_FIELDS: Final = frozenset(["ErrorEquals", "Next", "Output", "Assign", "Comment"])
_MAX_DELAY: Final = 31_622_400


def check_retry(value: Any, location: str, findings: Findings) -> None:
    if not isinstance(value, list):
        findings.schema("Retry must be an array.", location)
        return
    for index, retrier in enumerate(value):
        where = f"{location}/{index}"
        if not _check_errors(retrier, where, findings, last=index == len(value) - 1, fields=_RETRY_FIELDS):
            continue
        _check_number(retrier, "IntervalSeconds", 1, MAX_SECONDS, where, findings)
        _check_number(retrier, "MaxAttempts", 0, MAX_SECONDS, where, findings)
        _check_number(retrier, "MaxDelaySeconds", 1, _MAX_DELAY, where, findings)
        _check_number(retrier, "BackoffRate", 1, MAX_SECONDS, where, findings, whole=False)
        if retrier.get("JitterStrategy", "NONE") not in ("FULL", "NONE"):
            findings.schema("JitterStrategy must be FULL or NONE.", f"{where}/JitterStrategy")
        most, first = retrier.get("MaxDelaySeconds"), retrier.get("IntervalSeconds", 1)
        if isinstance(most, int) and isinstance(first, int) and most <= first:
            findings.schema("MaxDelaySeconds must be greater than IntervalSeconds.", f"{where}/MaxDelaySeconds")


def check_catch(value: Any, location: str, findings: Findings, expressions: ExpressionChecker, scope: Scope) -> None:
    if not isinstance(value, list):
        findings.schema("Catch must be an array.", location)
        return
    for index, catcher in enumerate(value):
        where = f"{location}/{index}"
        if not _check_errors(catcher, where, findings, last=index == len(value) - 1, fields=_CATCH_FIELDS):
            continue
        if not isinstance(catcher.get("Next"), str):
            findings.schema("A catcher needs the field 'Next'.", where)
        if "Output" in catcher:
            expressions.template(catcher["Output"], f"{where}/Output", scope, sees=ERROR_OUTPUT)
        if "Assign" in catcher:
            expressions.assign(catcher["Assign"], f"{where}/Assign", scope, sees=ERROR_OUTPUT)


def _check_errors(block: Any, where: str, findings: Findings, *, last: bool, fields: frozenset[str]) -> bool:
    if not isinstance(block, dict):
        findings.schema("The value must be an object.", where)
        return False
    for name in block.keys() - fields:
        findings.schema(f"Field '{name}' is not supported.", where)
    errors = block.get("ErrorEquals")
    if not isinstance(errors, list) or not errors or not all(isinstance(name, str) for name in errors):
        findings.schema("ErrorEquals must be a non-empty array of strings.", f"{where}/ErrorEquals")
        return True
    if "States.ALL" in errors and (len(errors) > 1 or not last):
        findings.schema("States.ALL must appear alone, and in the last entry.", f"{where}/ErrorEquals")
    for name in errors:
        if name.startswith("States.") and name not in _KNOWN_ERRORS:
            findings.schema(f"'{name}' is not an error name of the States Language.", f"{where}/ErrorEquals")
    return True


def _check_number(
    block: dict[str, Any],
    name: str,
    least: int,
    most: int,
    where: str,
    findings: Findings,
    *,
    whole: bool = True,
) -> None:
    value = block.get(name, least)
    number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
    if not number or not least <= value <= most:
        kind = "an integer" if whole else "a number"
        findings.schema(f"{name} must be {kind} from {least} to {most}.", f"{where}/{name}")
