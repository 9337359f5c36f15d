"""The parts that state machines are made of: tasks with their retries, questions, and calls that go on.

Each function gives one state, or a few with their names, with its keys in the order in which a reader meets them. What
every task has in common stands here once: it waits for a free place, retries what passes, and shows a refusal as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockferry.core.reserves import JOB_SECONDS

State = dict[str, Any]
Graph = dict[str, State]

LAMBDA_INVOKE = "arn:aws:states:::lambda:invoke"
REFUSE = "Refuse request"
"""The state at which every execution ends whose request cannot be fulfilled."""

FOR_GOOD = ("ArchiveDamaged", "InvalidRequest", "TransferFailed")
"""The errors that no repetition helps: of an archive that is not what it was, of the input, before anything is started,
and of a job that cannot be done."""

PROGRESS = "{% $exists($states.input.progress) ? $states.input.progress : null %}"
"""The progress that a function returned when it was not done, for its next call; null in the first."""

DONE = "{% $states.input.done %}"
ANSWER = "{% $states.result.Payload %}"
CHILD_INPUT = "$states.context.Execution.Input"
"""The input that a child of a map was started with, in each of its states."""

LONG_CALL_SECONDS = 930
"""Seconds that a task waits for a function which may take 900: thirty more, so that Lambda's own end comes first."""

SHORT_CALL_SECONDS = 330
"""Seconds that a task waits for a function which may take 300: thirty more, so that Lambda's own end comes first."""


def retriers(*more: str) -> list[State]:
    """What every task tries again; ``more`` are errors of this function that a repetition may mend."""
    return [
        _retrier(
            "The account's concurrency is used up, by other jobs or other functions: waits a day for a turn. A redrive "
            "waits for another.",
            ["Lambda.TooManyRequestsException"],
            interval=2,
            attempts=960,
            longest=180,
        ),
        _retrier(
            "The Lambda service was busy or failed: the function may not even have started.",
            [
                "Lambda.ServiceException",
                "Lambda.AWSLambdaException",
                "Lambda.SdkClientException",
                "Lambda.ClientExecutionTimeoutException",
            ],
            interval=1,
            attempts=8,
            longest=60,
        ),
        _retrier(
            "The function died or used up its own retry budget: every step may be repeated without harm.",
            ["Lambda.Unknown", "Sandbox.Timedout", "Runtime.ExitError", "States.Timeout", "RetryLater", *more],
            interval=2,
            attempts=4,
            longest=60,
        ),
    ]


def _retrier(comment: str, errors: list[str], *, interval: int, attempts: int, longest: int) -> State:
    return {
        "Comment": comment,
        "ErrorEquals": errors,
        "IntervalSeconds": interval,
        "MaxAttempts": attempts,
        "BackoffRate": 2,
        "MaxDelaySeconds": longest,
        "JitterStrategy": "FULL",
    }


def task(
    comment: str,
    *,
    function: str,
    payload: Mapping[str, Any],
    seconds: int,
    repeats: tuple[str, ...] = (),
    assign: Mapping[str, str] | None = None,
    refused: str | None = None,
    for_good: tuple[str, ...] = FOR_GOOD,
    failed: tuple[str, str] | None = None,
    then: str | None,
) -> State:
    """A call of ``function``, a folder of functions/, whose answer is the state's output.

    ``repeats`` are errors beside the usual that are tried again; ``refused`` says why one of those ``for_good`` may
    come, which leads to ``REFUSE``; ``failed`` says what any other error means, and which state gets it as ``failure``
    beside the ``progress`` so far; ``then`` is the next state, ``None`` at the end of the machine.
    """
    state: State = {
        "Type": "Task",
        "Comment": comment,
        "Resource": LAMBDA_INVOKE,
        "Arguments": {"FunctionName": f"${{{function}_arn}}", "Payload": dict(payload)},
        "TimeoutSeconds": seconds,
        "Retry": retriers(*repeats),
    }
    if assign is not None:
        state["Assign"] = dict(assign)
    state["Output"] = ANSWER
    if refused is not None:
        state["Catch"] = [
            {
                "Comment": refused,
                "ErrorEquals": list(for_good),
                "Output": "{% $parse($states.errorOutput.Cause) %}",
                "Next": REFUSE,
            }
        ]
    if failed is not None:
        meaning, noted = failed
        state["Catch"] = [
            *state.get("Catch", ()),
            {
                "Comment": meaning,
                "ErrorEquals": ["States.ALL"],
                "Output": {"failure": "{% $states.errorOutput %}", "progress": PROGRESS},
                "Next": noted,
            },
        ]
    return state | ({"End": True} if then is None else {"Next": then})


def refuse() -> Graph:
    """The end of every execution that cannot be."""
    return {
        REFUSE: {
            "Type": "Fail",
            "Comment": "Shows the reason as plain text instead of a stack trace.",
            "Error": "{% $states.input.errorType %}",
            "Cause": "{% $states.input.errorMessage %}",
        }
    }


def choice(comment: str, *, condition: str, because: str, then: str, otherwise: str) -> State:
    """A question with two answers: ``because`` says what is so where ``condition`` holds."""
    return {
        "Type": "Choice",
        "Comment": comment,
        "Choices": [{"Comment": because, "Condition": condition, "Next": then}],
        "Default": otherwise,
    }


def call_until_done(
    name: str,
    comment: str,
    *,
    question: str,
    why: str,
    done: str,
    then: str,
    meanwhile: str | None = None,
    payload: Mapping[str, Any],
    **more: Any,
) -> Graph:
    """A task that may not be done after one call, and the question that calls it again.

    Its function answers ``{"done": false, "progress": {...}}`` and gets the ``progress`` back in its next call, or
    ``{"done": true}``, which leads to ``then``. ``why`` it may take several calls, and what is so once it is ``done``,
    is for readers. ``meanwhile`` names the state that comes between two calls; it must hand the progress on.
    """
    return {
        name: task(comment, payload={**payload, "progress": PROGRESS}, then=question, **more),
        question: choice(why, condition=DONE, because=done, then=then, otherwise=meanwhile or name),
    }


def wait(comment: str, *, then: str) -> State:
    """Waits as long as the function before it asked for, with what it answered kept for its next call."""
    return {"Type": "Wait", "Comment": comment, "Seconds": "{% $states.input.wait_seconds %}", "Next": then}


def report(comment: str, output: Any) -> State:
    """An end that succeeded."""
    return {"Type": "Succeed", "Comment": comment, "Output": output}


def machine(comment: str, states: Graph, *, seconds: int = int(JOB_SECONDS)) -> State:
    """A whole definition, which begins with the first state."""
    return {
        "Comment": comment,
        "QueryLanguage": "JSONata",
        "StartAt": next(iter(states)),
        "TimeoutSeconds": seconds,
        "States": states,
    }
