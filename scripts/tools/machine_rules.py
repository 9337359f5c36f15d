"""The rules that every state machine of this project follows.

The linters know the language; the rules here are this project's own, and a few that no linter has. Each
takes one parsed definition and returns what is wrong with it, one sentence per finding, so that a test
can hold it against good and against broken definitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tools.machine_parts import DONE, PROGRESS
from tools.machines import PLACEHOLDERS, Definition, State, graphs, states, strings

Rule = Callable[[Definition], list[str]]

# "Handle Lambda service exceptions" in the Step Functions developer guide.
LAMBDA_SERVICE_ERRORS = frozenset(
    {
        "Lambda.ServiceException",
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.ClientExecutionTimeoutException",
    }
)
# What lambda:invoke calls every limit of Lambda's: concurrency of the account and of a function, rate of requests.
LAMBDA_THROTTLED = "Lambda.TooManyRequestsException"
CATCH_ALL = frozenset({"States.ALL", "States.TaskFailed"})
LEAST_PATIENCE_SECONDS = 20 * 3_600
MOST_PATIENCE_SECONDS = 48 * 3_600  # targets stay pending for 72 hours after their last block
MOST_EVENTS = 25_000  # of one execution, its redrives included (quotas of Step Functions)
EVENTS_OF_A_RETRY = 3  # TaskScheduled, TaskStarted, TaskFailed
EVENTS_OF_THE_REST = 4_000  # transitions of the states, and the quick retries at the start of each visit
# No linter knows which integrations exist, so a typing error in one would only show in AWS.
TASK_RESOURCES = frozenset({"arn:aws:states:::lambda:invoke"})
READER_RESOURCES = frozenset({"arn:aws:states:::s3:getObject", "arn:aws:states:::s3:listObjectsV2"})
READER_INPUT_TYPES = frozenset({"CSV", "JSON", "JSONL", "MANIFEST", "PARQUET"})
WRITER_RESOURCE = "arn:aws:states:::s3:putObject"
JSONPATH_FIELDS = frozenset({"InputPath", "OutputPath", "Parameters", "ResultPath", "ResultSelector"})
LONGEST_NAME = 80  # quotas of the Amazon States Language
LONGEST_LABEL = 40


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_said(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def machine_is_jsonata_described_and_bounded(definition: Definition) -> list[str]:
    """The machine speaks JSONata, says what it is for and ends by itself."""
    found = []
    if definition.get("QueryLanguage") != "JSONata":
        found.append("the machine's QueryLanguage is not JSONata")
    if not _is_said(definition.get("Comment")):
        found.append("the machine has no Comment")
    if not _is_positive(definition.get("TimeoutSeconds")):
        found.append("the machine has no TimeoutSeconds")
    return found


def nothing_is_jsonpath(definition: Definition) -> list[str]:
    """One query language in a file: no state goes back to JSONPath."""
    found = []
    for state in states(definition):
        if state.body.get("QueryLanguage", "JSONata") != "JSONata":
            found.append(f"{state.path}: QueryLanguage is not JSONata")
        found += [f"{state.path}: {name} is JSONPath" for name in sorted(JSONPATH_FIELDS & state.body.keys())]
    return found


def every_state_and_choice_says_why(definition: Definition) -> list[str]:
    """A Comment on every state and on every rule of a Choice."""
    found = []
    for state in states(definition):
        if not _is_said(state.body.get("Comment")):
            found.append(f"{state.path}: no Comment")
        for number, rule in enumerate(state.body.get("Choices", ()), start=1):
            if not _is_said(rule.get("Comment")):
                found.append(f"{state.path}: choice {number} has no Comment")
    return found


def names_are_sentences(definition: Definition) -> list[str]:
    """Names as a console user reads them: words, a question for a Choice, each only once."""
    found = []
    seen: set[str] = set()
    for state in states(definition):
        if not re.fullmatch(r"[A-Z]\S*( \S+)+", state.name):
            found.append(f"{state.path}: the name is not a sentence of several words")
        if len(state.name) > LONGEST_NAME:
            found.append(f"{state.path}: the name is longer than {LONGEST_NAME} characters")
        if state.name.endswith("?") != (state.type == "Choice"):
            found.append(f"{state.path}: a Choice, and nothing else, is named by a question")
        if state.name in seen:
            found.append(f"{state.path}: there is another state with this name")
        seen.add(state.name)
    return found


def every_task_is_known_and_bounded(definition: Definition) -> list[str]:
    """Every Task calls an integration that exists, and not for ever."""
    found = []
    for state in states(definition):
        if state.type == "Task":
            if state.body.get("Resource") not in TASK_RESOURCES:
                found.append(f"{state.path}: unknown Resource {state.body.get('Resource')}")
            if not _is_positive(state.body.get("TimeoutSeconds")):
                found.append(f"{state.path}: no TimeoutSeconds")
    return found


def every_task_retries_lambda_errors(definition: Definition) -> list[str]:
    """A bad second of the Lambda service is never the end of a job."""
    found = []
    for state in states(definition):
        if state.type == "Task":
            retried = {error for retrier in state.retriers() for error in retrier.get("ErrorEquals", ())}
            found += [f"{state.path}: {error} is not retried" for error in sorted(LAMBDA_SERVICE_ERRORS - retried)]
    return found


def every_task_waits_for_a_free_place(definition: Definition) -> list[str]:
    """Where others use up the account's concurrency, a task waits for about a day, and the history has room for it."""
    found = []
    machine_seconds = definition.get("TimeoutSeconds", 0)
    for state in states(definition):
        if state.type != "Task":
            continue
        before: set[str] = set()
        for retrier in state.retriers():
            if LAMBDA_THROTTLED in retrier.get("ErrorEquals", ()):
                if retrier["ErrorEquals"] != [LAMBDA_THROTTLED] or before & CATCH_ALL:
                    found.append(f"{state.path}: {LAMBDA_THROTTLED} has no retrier of its own")
                patience, pause = _mean_patience(retrier)
                if not LEAST_PATIENCE_SECONDS <= patience <= MOST_PATIENCE_SECONDS:
                    found.append(f"{state.path}: waits {patience / 3_600:.1f} hours for a free place, not about a day")
                # All its retries in one execution, however often the state is visited: the machine's end bounds them.
                if EVENTS_OF_A_RETRY * machine_seconds / pause > MOST_EVENTS - EVENTS_OF_THE_REST:
                    found.append(
                        f"{state.path}: retries every {pause} seconds until the machine ends overfill a history"
                    )
                break
            before |= set(retrier.get("ErrorEquals", ()))
        else:
            found.append(f"{state.path}: {LAMBDA_THROTTLED} is not retried")
    return found


def _mean_patience(retrier: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds that a retrier with full jitter waits: on an average all together, and at a time in the end."""
    total, longest = 0.0, max(1.0, float(retrier.get("MaxDelaySeconds", 1)))
    delay = float(retrier.get("IntervalSeconds", 1))
    for _ in range(retrier.get("MaxAttempts", 3)):
        total += min(delay, longest) / 2
        delay = min(delay * retrier.get("BackoffRate", 2.0), longest)
    return total, longest / 2


def every_retry_is_bounded_and_jittered(definition: Definition) -> list[str]:
    """Retries of thousands of children are neither far apart nor in step."""
    found = []
    for state in states(definition):
        for number, retrier in enumerate(state.retriers(), start=1):
            found += [
                f"{state.path}: retrier {number} has no {name}"
                for name in ("MaxDelaySeconds", "MaxAttempts", "IntervalSeconds")
                if not _is_positive(retrier.get(name))
            ]
            if retrier.get("JitterStrategy") != "FULL":
                found.append(f"{state.path}: JitterStrategy of retrier {number} is not FULL")
    return found


def every_transition_leads_somewhere(definition: Definition) -> list[str]:
    """Every name exists, every state is reached, and every graph can end."""
    found = []
    for path, graph in graphs(definition):
        siblings = graph.get("States", {})
        reached: set[str] = set()
        waiting = [str(graph.get("StartAt"))]
        while waiting:
            name = waiting.pop()
            if name in reached:
                continue
            if name not in siblings:
                found.append(f"{path or 'the machine '}leads to {name!r}, which does not exist")
                continue
            reached.add(name)
            waiting += State(path=name, name=name, body=siblings[name], siblings=siblings).targets()
        found += [f"{path}{name}: no way leads here" for name in siblings if name not in reached]
        if not any(body.get("End") or body.get("Type") in {"Succeed", "Fail"} for body in siblings.values()):
            found.append(f"{path or 'the machine '}has no end")
    for state in states(definition):
        after = {name for name in ("Next", "End") if state.body.get(name)}
        if state.type in {"Choice", "Succeed", "Fail"}:
            if after:
                found.append(f"{state.path}: a {state.type} has no {', '.join(sorted(after))}")
        elif len(after) != 1:
            found.append(f"{state.path}: exactly one of Next and End is needed")
        if state.type == "Choice" and "Default" not in state.body:
            found.append(f"{state.path}: without a Default an unforeseen value ends as States.NoChoiceMatched")
    return found


def whoever_is_not_done_is_called_again(definition: Definition) -> list[str]:
    """One way to call a function again: it is asked whether it is done, and gets its own progress back if not.

    A task that hands ``progress`` to its function is followed by the question ``DONE``, whose other answer leads back
    to the task, at once or through one state that hands the progress on, or to the one whose failure led to it; and
    nobody else asks that question.
    """
    found = []
    for path, graph in graphs(definition):
        siblings = graph.get("States", {})
        asked: set[str] = set()
        for name, body in siblings.items():
            payload = body.get("Arguments", {}).get("Payload", {}) if body.get("Type") == "Task" else {}
            if not isinstance(payload, Mapping) or "progress" not in payload:
                continue
            if payload["progress"] != PROGRESS:
                found.append(f"{path}{name}: its progress is not what its function returned")
            question = siblings.get(body.get("Next"), {})
            if [rule.get("Condition") for rule in question.get("Choices", ())] != [DONE]:
                found.append(f"{path}{name}: nobody asks whether it is done")
                continue
            asked.add(body["Next"])
            if question["Choices"][0].get("Next") == name:
                found.append(f"{path}{name}: called again although it is done")
            back = question.get("Default")
            # Whoever was called since another one failed hands the work back to that one.
            failed = any(catcher.get("Next") == name for catcher in siblings.get(back, {}).get("Catch", ()))
            if back != name and not failed and not _hands_progress_on(siblings.get(back, {}), to=name):
                found.append(f"{path}{name}: not called again with its progress")
        for name, body in siblings.items():
            if name not in asked and any(rule.get("Condition") == DONE for rule in body.get("Choices", ())):
                found.append(f"{path}{name}: asks whether a task is done that has no progress")
    return found


def _hands_progress_on(state: Definition, *, to: str) -> bool:
    output = state.get("Output")
    kept = output == {"progress": PROGRESS} if state.get("Type") == "Map" else output is None
    return state.get("Type") in {"Map", "Pass", "Wait"} and state.get("Next") == to and kept


def every_failure_says_why(definition: Definition) -> list[str]:
    """A Fail state names its error and its cause."""
    return [
        f"{state.path}: a Fail needs {name}"
        for state in states(definition)
        if state.type == "Fail"
        for name in ("Error", "Cause")
        if not _is_said(state.body.get(name))
    ]


def every_distributed_map_tolerates_nothing(definition: Definition) -> list[str]:
    """Every Map is distributed and bounded, stores its results and fails with its first failed child."""
    found = []
    labels: set[str] = set()
    for state in states(definition):
        if state.type != "Map":
            continue
        body = state.body
        if body.get("ItemProcessor", {}).get("ProcessorConfig", {}).get("Mode") != "DISTRIBUTED":
            found.append(f"{state.path}: not DISTRIBUTED: an inline Map keeps its items in the state")
        label = body.get("Label")
        if not isinstance(label, str) or not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{LONGEST_LABEL}}}", label):
            found.append(f"{state.path}: no Label, or one with other signs than letters, digits, - and _")
        elif label in labels:
            found.append(f"{state.path}: another Map has the same Label")
        else:
            labels.add(label)
        if not _is_positive(body.get("MaxConcurrency")) and not _is_expression(body.get("MaxConcurrency")):
            found.append(f"{state.path}: no MaxConcurrency")
        tolerated = [body[name] for name in ("ToleratedFailureCount", "ToleratedFailurePercentage") if name in body]
        if not tolerated or any(value != 0 or isinstance(value, bool) for value in tolerated):
            found.append(f"{state.path}: the tolerated failure is not 0, said in so many words")
        reader = body.get("ItemReader", {})
        if reader.get("Resource") not in READER_RESOURCES:
            found.append(f"{state.path}: the items do not come from S3")
        kind = reader.get("ReaderConfig", {}).get("InputType")
        if kind is not None and kind not in READER_INPUT_TYPES:
            found.append(f"{state.path}: unknown InputType {kind}")
        if body.get("ResultWriter", {}).get("Resource") != WRITER_RESOURCE:
            found.append(f"{state.path}: no ResultWriter to S3")
    return found


def only_arns_are_filled_in(definition: Definition) -> list[str]:
    """A placeholder is a whole string and a known name; no account, region or function is written out."""
    found = []
    for text in strings(definition):
        if "%{" in text:
            found.append(f"{text!r}: Terraform takes %{{ for a directive; put a space between the signs")
        elif "${" in text:
            match = re.fullmatch(r"\$\{(\w+)\}", text)
            if match is None:
                found.append(f"{text!r}: a placeholder must be the whole string")
            elif match[1] not in PLACEHOLDERS or not match[1].endswith("_arn"):
                found.append(f"{text!r}: unknown placeholder")
        elif text.startswith("arn:") and not text.startswith("arn:aws:states:::"):
            found.append(f"{text!r}: an ARN is written out instead of filled in")
    return found


def _is_expression(value: object) -> bool:
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def every_expression_parses(definition: Definition) -> list[str]:
    """Every ``{% ... %}`` is JSONata, and nothing else looks like one."""
    from jsonata import Jsonata  # slow to import, and only this rule needs it

    found = []
    for text in strings(definition):
        if _is_expression(text):
            try:
                Jsonata(text[2:-2].strip())
            except Exception as error:  # the parser raises its own and Python's errors alike
                found.append(f"{text!r}: {error}")
        elif "{%" in text or "%}" in text:
            found.append(f"{text!r}: an expression must be the whole string")
    return found


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            machine_is_jsonata_described_and_bounded,
            nothing_is_jsonpath,
            every_state_and_choice_says_why,
            names_are_sentences,
            every_task_is_known_and_bounded,
            every_task_retries_lambda_errors,
            every_task_waits_for_a_free_place,
            every_retry_is_bounded_and_jittered,
            every_transition_leads_somewhere,
            whoever_is_not_done_is_called_again,
            every_failure_says_why,
            every_distributed_map_tolerates_nothing,
            only_arns_are_filled_in,
            every_expression_parses,
        )
    }
)
