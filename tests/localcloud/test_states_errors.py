"""Retry, Catch, timeouts, stops and quotas.

Expectations: developer guide, "Handling errors in Step Functions workflows", "Task workflow state",
"Step Functions service quotas"; API reference of StopExecution.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from localcloud.states.clock import SkippingClock, SystemClock
from localcloud.states.errors import ApiError, StateError
from localcloud.states.model import Execution
from localcloud.states.policies import RetryPolicy, catcher_for, matches
from localcloud.states.testing import MachineRun, run_machine

TASK = {
    "Type": "Task",
    "Resource": "arn:aws:states:::lambda:invoke",
    "Arguments": {"FunctionName": "f", "Payload": "{% $states.input %}"},
    "Output": "{% $states.result.Payload %}",
    "End": True,
}
CALLBACK = {
    "Type": "Task",
    "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
    "Arguments": {"QueueUrl": "q", "MessageBody": {"token": "{% $states.context.Task.Token %}"}},
    "End": True,
}


def machine(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more}


def types(execution: Execution) -> list[str]:
    return [event["type"] for event in execution.history.events()]


def failing(*errors: str) -> Callable[[Any], Any]:
    """A function that fails with each of ``errors`` in turn, then succeeds."""
    left = list(errors)

    def function(_: Any) -> Any:
        if left:
            raise StateError(left.pop(0), '{"errorMessage": "as told"}')
        return "done"

    return function


def never(_: Any) -> Any:
    threading.Event().wait(30)


@pytest.mark.parametrize(
    ("listed", "error", "expected"),
    [
        ("States.ALL", "Anything", True),
        ("States.ALL", "States.Timeout", True),
        ("States.ALL", "States.DataLimitExceeded", False),
        ("States.ALL", "States.Runtime", False),
        ("States.TaskFailed", "Anything", True),
        ("States.TaskFailed", "States.Timeout", False),
        ("States.DataLimitExceeded", "States.DataLimitExceeded", True),
        ("States.Runtime", "States.Runtime", False),
        ("States.HeartbeatTimeout", "States.HeartbeatTimeout", True),
        ("States.Timeout", "States.HeartbeatTimeout", True),
        ("Anything", "anything", False),
    ],
)
def test_error_names_match_as_the_guide_says(listed: str, error: str, expected: bool) -> None:
    assert matches([listed], error) is expected
    assert (catcher_for([{"ErrorEquals": [listed]}], error) is not None) is expected


def test_the_guides_complex_retry_scenario() -> None:
    clock = SkippingClock()
    retry = [
        {"ErrorEquals": ["ErrorA", "ErrorB"], "IntervalSeconds": 1, "BackoffRate": 2.0, "MaxAttempts": 2},
        {"ErrorEquals": ["ErrorC"], "IntervalSeconds": 5},
    ]
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]
    definition = machine({"X": {**TASK, "Retry": retry, "Catch": catch}, "Z": {"Type": "Succeed"}})
    execution = run_machine(definition, tasks={"f": failing("ErrorA", "ErrorB", "ErrorC", "ErrorB")}, clock=clock)
    assert clock.pauses == [1, 2, 5]
    assert json.loads(execution.output or "") == {"Error": "ErrorB", "Cause": '{"errorMessage": "as told"}'}
    assert types(execution).count("TaskScheduled") == types(execution).count("TaskFailed") == 4


def test_max_delay_caps_the_backoff() -> None:
    retrier = {"ErrorEquals": ["E"], "IntervalSeconds": 3, "MaxAttempts": 3, "BackoffRate": 2, "MaxDelaySeconds": 5}
    policy = RetryPolicy([retrier], uniform=lambda _, most: most)
    assert [policy.delay_after("E") for _ in range(4)] == [3, 5, 5, None]


def test_full_jitter_draws_from_zero_to_the_interval() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        drawn.append((least, most))
        return most / 2

    retrier = {"ErrorEquals": ["E"], "IntervalSeconds": 2, "BackoffRate": 2, "JitterStrategy": "FULL"}
    policy = RetryPolicy([retrier], uniform=uniform)
    assert [policy.delay_after("E") for _ in range(4)] == [1, 2, 4, None]
    assert drawn == [(0, 2), (0, 4), (0, 8)]


def test_the_defaults_of_a_retrier_are_three_attempts_from_one_second_doubling() -> None:
    policy = RetryPolicy([{"ErrorEquals": ["States.ALL"]}], uniform=lambda _, most: most)
    assert [policy.delay_after("E") for _ in range(4)] == [1, 2, 4, None]


def test_a_catcher_gives_its_output_and_assigns_in_the_outer_scope() -> None:
    catch = {
        "ErrorEquals": ["InvalidRequest"],
        "Output": "{% $parse($states.errorOutput.Cause) %}",
        "Assign": {"failed": "{% $states.errorOutput.Error %}"},
        "Next": "Z",
    }
    last = {"Type": "Pass", "Output": {"m": "{% $states.input.errorMessage %}", "f": "{% $failed %}"}, "End": True}
    execution = run_machine(
        machine({"X": {**TASK, "Catch": [catch]}, "Z": last}), tasks={"f": failing("InvalidRequest")}
    )
    assert json.loads(execution.output or "") == {"m": "as told", "f": "InvalidRequest"}


def test_an_uncaught_error_fails_the_execution_with_its_name_and_cause() -> None:
    execution = run_machine(machine({"X": TASK}), tasks={"f": failing("Boom")})
    assert (execution.status, execution.error) == ("FAILED", "Boom")
    last = execution.history.events()[-1]
    assert last["type"] == "ExecutionFailed"
    assert last["executionFailedEventDetails"] == {"error": "Boom", "cause": '{"errorMessage": "as told"}'}


def test_a_failed_expression_of_a_task_can_be_caught() -> None:
    state = {
        **TASK,
        "Output": "{% $states.result.nothing %}",
        "Catch": [{"ErrorEquals": ["States.QueryEvaluationError"], "Output": "caught", "Next": "Z"}],
    }
    execution = run_machine(machine({"X": state, "Z": {"Type": "Succeed"}}), tasks={"f": lambda _: 1})
    assert execution.output == '"caught"'
    (event,) = [e for e in execution.history.events() if e["type"] == "EvaluationFailed"]
    assert event["evaluationFailedEventDetails"]["location"] == "Output"
    assert event["evaluationFailedEventDetails"]["state"] == "X"


def test_a_task_that_runs_too_long_times_out() -> None:
    clock = SystemClock(timeout_scale=0.01)
    execution = run_machine(machine({"X": {**TASK, "TimeoutSeconds": 5}}), tasks={"f": never}, clock=clock)
    assert (execution.status, execution.error) == ("FAILED", "States.Timeout")
    assert "TaskTimedOut" in types(execution)


def test_a_machine_that_runs_too_long_is_timed_out() -> None:
    clock = SystemClock(timeout_scale=0.01)
    execution = run_machine(
        machine({"W": {"Type": "Wait", "Seconds": 3600, "End": True}}, TimeoutSeconds=5), clock=clock
    )
    assert (execution.status, execution.error) == ("TIMED_OUT", "States.Timeout")
    assert types(execution)[-1] == "ExecutionTimedOut"


def test_a_callback_gives_the_tasks_result() -> None:
    tokens: list[str] = []
    sent = threading.Event()

    def send(arguments: Any) -> Any:
        tokens.append(arguments["MessageBody"]["token"])
        sent.set()
        return {"MessageId": "1"}

    with MachineRun(machine({"C": CALLBACK}), tasks={"sqs:sendMessage.waitForTaskToken": send}) as run:
        execution = run.start()
        assert sent.wait(10)
        run.engine.services.tokens.heartbeat(tokens[0])
        run.engine.services.tokens.succeed(tokens[0], '{"approved": true}')
        run.finish(execution)
        assert execution.output == '{"approved":true}'
        assert "TaskSubmitted" in types(execution)
        with pytest.raises(ApiError, match="TaskTimedOut"):
            run.engine.services.tokens.succeed(tokens[0], "{}")
        with pytest.raises(ApiError, match="TaskDoesNotExist"):
            run.engine.services.tokens.succeed("bm8gc3VjaCB0b2tlbg==", "{}")


def test_a_failed_callback_is_the_tasks_error() -> None:
    tokens: list[str] = []
    sent = threading.Event()

    def send(arguments: Any) -> Any:
        tokens.append(arguments["MessageBody"]["token"])
        sent.set()

    with MachineRun(machine({"C": CALLBACK}), tasks={"sqs:sendMessage.waitForTaskToken": send}) as run:
        execution = run.start()
        assert sent.wait(10)
        run.engine.services.tokens.fail(tokens[0], error="Rejected", cause="too dear")
        run.finish(execution)
        assert (execution.error, execution.cause) == ("Rejected", "too dear")


def test_a_callback_without_heartbeats_times_out() -> None:
    state = {**CALLBACK, "HeartbeatSeconds": 5, "TimeoutSeconds": 3600}
    execution = run_machine(
        machine({"C": state}),
        tasks={"sqs:sendMessage.waitForTaskToken": lambda _: {}},
        clock=SystemClock(timeout_scale=0.01),
    )
    assert execution.error == "States.HeartbeatTimeout"
    assert "TaskTimedOut" in types(execution)


def test_a_stop_ends_waits_tasks_and_maps_at_once() -> None:
    branches = [
        {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 86_400, "End": True}}},
        {"StartAt": "Hang", "States": {"Hang": TASK}},
        {
            "StartAt": "Map",
            "States": {
                "Map": {
                    "Type": "Map",
                    "Items": [1, 2, 3],
                    "ItemProcessor": {
                        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                        "StartAt": "Child",
                        "States": {"Child": TASK},
                    },
                    "End": True,
                }
            },
        },
    ]
    reached = threading.Semaphore(0)

    def hang(_: Any) -> Any:
        reached.release()
        never(None)

    definition = machine({"P": {"Type": "Parallel", "Branches": branches, "End": True}})
    with MachineRun(definition, tasks={"f": hang}, clock=SystemClock()) as run:
        execution = run.start()
        for _ in range(4):
            assert reached.acquire(timeout=10)
        run.engine.stop(execution.arn, error="Mine", cause="enough")
        assert (execution.status, execution.error, execution.cause) == ("ABORTED", "Mine", "enough")
        run.finish(execution, seconds=5)
        assert types(execution)[-1] == "ExecutionAborted"
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        assert map_run.describe()["status"] == "ABORTED"
        assert map_run.describe()["executionCounts"]["aborted"] == 3
        assert run.statuses == ["RUNNING", "ABORTED"]


def test_results_and_inputs_over_256_kib_exceed_the_data_limit_uncaught_by_states_all() -> None:
    state = {**TASK, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]}
    definition = machine({"X": state, "Z": {"Type": "Succeed"}})
    execution = run_machine(definition, tasks={"f": lambda _: "x" * (256 * 1024)})
    assert (execution.status, execution.error) == ("FAILED", "States.DataLimitExceeded")
    small = run_machine(definition, tasks={"f": lambda _: "x" * (255 * 1024)})
    assert small.status == "SUCCEEDED"


def test_the_data_limit_can_be_caught_by_its_name() -> None:
    state = {**TASK, "Catch": [{"ErrorEquals": ["States.DataLimitExceeded"], "Output": 1, "Next": "Z"}]}
    execution = run_machine(machine({"X": state, "Z": {"Type": "Succeed"}}), tasks={"f": lambda _: "x" * (256 * 1024)})
    assert execution.output == "1"


def test_an_input_over_256_kib_is_refused() -> None:
    with (
        MachineRun(machine({"Z": {"Type": "Succeed"}})) as run,
        pytest.raises(ApiError, match="ValidationException"),
    ):
        run.start("x" * (256 * 1024))


def test_an_execution_ends_with_its_25_000th_event() -> None:
    definition = machine({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}})
    execution = run_machine(definition)
    assert (execution.status, execution.error) == ("FAILED", "States.Runtime")
    assert len(execution.history) == 25_000
    assert types(execution)[-1] == "ExecutionFailed"


def test_the_same_name_and_input_give_the_running_execution_and_anything_else_is_refused() -> None:
    definition = machine({"W": {"Type": "Wait", "Seconds": 3600, "End": True}})
    with MachineRun(definition, clock=SystemClock()) as run:
        first = run.start({"a": 1}, name="job-1")
        assert run.start({"a": 1}, name="job-1") is first
        with pytest.raises(ApiError, match="ExecutionAlreadyExists"):
            run.start({"a": 2}, name="job-1")
        run.engine.stop(first.arn, error=None, cause=None)
        run.finish(first)
        with pytest.raises(ApiError, match="ExecutionAlreadyExists"):
            run.start({"a": 1}, name="job-1")


@pytest.mark.parametrize("name", ["", "with space", "a" * 81, "a/b", "a:b", "a\u0001"])
def test_names_with_forbidden_characters_are_refused(name: str) -> None:
    with MachineRun(machine({"Z": {"Type": "Succeed"}})) as run, pytest.raises(ApiError, match="InvalidName"):
        run.start(name=name)
