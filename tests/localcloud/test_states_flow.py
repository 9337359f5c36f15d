"""States one by one, their data flow and their history.

Expectations: developer guide, pages of the state types, "Passing data between states with variables",
"Transforming data with JSONata", "Accessing execution data from the Context object".
"""

from __future__ import annotations

import json
import threading
from typing import Any

from localcloud.states.clock import SkippingClock
from localcloud.states.model import Execution
from localcloud.states.testing import run_machine


def machine(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more}


def output(execution: Execution) -> Any:
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    return json.loads(execution.output or "null")


def types(execution: Execution) -> list[str]:
    return [event["type"] for event in execution.history.events()]


def call(name: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": name, "Payload": "{% $states.input %}"},
        "Output": "{% $states.result.Payload %}",
        "End": True,
        **more,
    }


def test_assignments_see_the_values_at_state_entry() -> None:
    definition = machine(
        {
            "A": {"Type": "Pass", "Assign": {"x": 3, "a": 6}, "Next": "B"},
            "B": {"Type": "Pass", "Assign": {"x": "{% $a %}", "nextX": "{% $x %}"}, "Next": "C"},
            "C": {"Type": "Succeed", "Output": {"x": "{% $x %}", "nextX": "{% $nextX %}"}},
        }
    )
    assert output(run_machine(definition)) == {"x": 6, "nextX": 3}


def test_assign_and_output_of_a_task_both_see_its_result() -> None:
    definition = machine(
        {
            "A": call("f", Assign={"got": "{% $states.result.Payload.v %}"}, Output="{% $states.input %}", Next="B"),
            "B": {"Type": "Pass", "Output": {"input": "{% $states.input %}", "got": "{% $got %}"}, "End": True},
        }
    )
    del definition["States"]["A"]["End"]
    assert output(run_machine(definition, {"i": 1}, tasks={"f": lambda _: {"v": 7}})) == {"input": {"i": 1}, "got": 7}


def test_a_task_without_output_passes_its_whole_result_on() -> None:
    state = call("f")
    del state["Output"]
    result = output(run_machine(machine({"A": state}), {"n": 1}, tasks={"f": lambda event: {"n": event["n"] + 1}}))
    assert result["Payload"] == {"n": 2}
    assert result["StatusCode"] == 200
    assert {"ExecutedVersion", "SdkHttpMetadata", "SdkResponseMetadata"} <= result.keys()


def test_a_function_arn_as_resource_gives_only_the_functions_output() -> None:
    arn = "arn:aws:lambda:us-east-1:111122223333:function:f"
    execution = run_machine(
        machine({"A": {"Type": "Task", "Resource": arn, "End": True}}), {"n": 1}, tasks={"f": lambda event: event}
    )
    assert output(execution) == {"n": 1}
    assert types(execution)[2:5] == ["LambdaFunctionScheduled", "LambdaFunctionStarted", "LambdaFunctionSucceeded"]


def test_the_history_of_a_task_has_the_services_events_in_a_chain() -> None:
    execution = run_machine(machine({"A": call("f", TimeoutSeconds=30)}), {"n": 1}, tasks={"f": lambda _: 5})
    events = execution.history.events()
    assert [(event["id"], event["previousEventId"], event["type"]) for event in events] == [
        (1, 0, "ExecutionStarted"),
        (2, 0, "TaskStateEntered"),
        (3, 2, "TaskScheduled"),
        (4, 3, "TaskStarted"),
        (5, 4, "TaskSucceeded"),
        (6, 5, "TaskStateExited"),
        (7, 6, "ExecutionSucceeded"),
    ]
    scheduled = events[2]["taskScheduledEventDetails"]
    assert (scheduled["resourceType"], scheduled["resource"], scheduled["region"]) == ("lambda", "invoke", "us-east-1")
    assert json.loads(scheduled["parameters"]) == {"FunctionName": "f", "Payload": {"n": 1}}
    assert scheduled["timeoutInSeconds"] == 30
    assert events[1]["stateEnteredEventDetails"] == {
        "name": "A",
        "input": '{"n":1}',
        "inputDetails": {"truncated": False},
    }
    assert events[5]["stateExitedEventDetails"]["output"] == "5"
    assert events[6]["executionSucceededEventDetails"]["output"] == "5"


def test_a_choice_takes_the_first_rule_that_holds_with_its_own_output_and_assign() -> None:
    definition = machine(
        {
            "C": {
                "Type": "Choice",
                "Choices": [
                    {"Condition": "{% $states.input.n > 10 %}", "Next": "Big", "Output": "big", "Assign": {"s": 1}},
                    {"Condition": "{% $states.input.n > 5 %}", "Next": "Big", "Assign": {"s": 2}},
                ],
                "Default": "Small",
                "Output": "small",
            },
            "Big": {"Type": "Succeed", "Output": {"i": "{% $states.input %}", "s": "{% $s %}"}},
            "Small": {"Type": "Succeed"},
        }
    )
    assert output(run_machine(definition, {"n": 11})) == {"i": "big", "s": 1}
    assert output(run_machine(definition, {"n": 6})) == {"i": {"n": 6}, "s": 2}
    assert output(run_machine(definition, {"n": 1})) == "small"


def test_a_choice_without_a_match_and_default_fails() -> None:
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% false %}", "Next": "E"}]}
    execution = run_machine(machine({"C": choice, "E": {"Type": "Succeed"}}))
    assert (execution.status, execution.error) == ("FAILED", "States.NoChoiceMatched")


def test_a_condition_must_be_boolean() -> None:
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% 'yes' %}", "Next": "E"}], "Default": "E"}
    execution = run_machine(machine({"C": choice, "E": {"Type": "Succeed"}}))
    assert execution.error == "States.QueryEvaluationError"
    assert "EvaluationFailed" in types(execution)


def test_waits_take_the_seconds_or_the_time_they_say() -> None:
    clock = SkippingClock(start=1_700_000_000.0)
    definition = machine(
        {
            "A": {"Type": "Wait", "Seconds": "{% $states.input.s %}", "Next": "B"},
            "B": {"Type": "Wait", "Timestamp": "2023-11-14T22:14:00Z", "Next": "C"},
            "C": {"Type": "Wait", "Timestamp": "2020-01-01T00:00:00Z", "End": True},
        }
    )
    assert output(run_machine(definition, {"s": 10}, clock=clock)) == {"s": 10}
    assert clock.pauses == [10, 30.0]


def test_a_wait_of_the_wrong_type_is_a_query_evaluation_error() -> None:
    execution = run_machine(machine({"A": {"Type": "Wait", "Seconds": "{% 'soon' %}", "End": True}}))
    assert execution.error == "States.QueryEvaluationError"


def test_fail_gives_its_error_and_cause_from_expressions() -> None:
    failing = {"Type": "Fail", "Error": "{% $states.input.e %}", "Cause": "{% 'because ' & $states.input.e %}"}
    execution = run_machine(machine({"F": failing}), {"e": "Mine"})
    assert (execution.status, execution.error, execution.cause) == ("FAILED", "Mine", "because Mine")
    assert types(execution) == ["ExecutionStarted", "FailStateEntered", "ExecutionFailed"]


def test_parallel_gives_its_branches_outputs_in_order_and_runs_them_at_once() -> None:
    together = threading.Barrier(2, timeout=10)

    def meet(event: Any) -> Any:
        together.wait()
        return event["n"]

    branches = [{"StartAt": name, "States": {name: call("meet")}} for name in ("One", "Two")]
    definition = machine(
        {"P": {"Type": "Parallel", "Branches": branches, "Output": "{% $sum($states.result) %}", "End": True}}
    )
    execution = run_machine(definition, {"n": 4}, tasks={"meet": meet})
    assert output(execution) == 8
    assert types(execution)[1:3] == ["ParallelStateEntered", "ParallelStateStarted"]
    assert types(execution)[-3:] == ["ParallelStateSucceeded", "ParallelStateExited", "ExecutionSucceeded"]


def test_branches_see_outer_variables_and_keep_their_own() -> None:
    branch = {
        "StartAt": "In",
        "States": {
            "In": {"Type": "Pass", "Assign": {"inner": 5}, "Next": "Out"},
            "Out": {"Type": "Pass", "Output": "{% $outer + $inner %}", "End": True},
        },
    }
    definition = machine(
        {
            "A": {"Type": "Pass", "Assign": {"outer": 2}, "Next": "P"},
            "P": {"Type": "Parallel", "Branches": [branch], "Next": "After"},
            "After": {
                "Type": "Pass",
                "Output": {"r": "{% $states.input %}", "gone": "{% $exists($inner) %}"},
                "End": True,
            },
        }
    )
    assert output(run_machine(definition)) == {"r": [7], "gone": False}


def test_an_error_in_one_branch_stops_the_others_and_is_the_states_error() -> None:
    started = threading.Event()

    def fail(_: Any) -> Any:
        assert started.wait(10)
        raise ValueError("no")

    def wait_for_ever(_: Any) -> Any:
        started.set()
        threading.Event().wait(20)

    branches = [{"StartAt": name, "States": {name: call(name)}} for name in ("fail", "hang")]
    state = {
        "Type": "Parallel",
        "Branches": branches,
        "Catch": [{"ErrorEquals": ["ValueError"], "Next": "E"}],
        "End": True,
    }
    execution = run_machine(
        machine({"P": state, "E": {"Type": "Succeed", "Output": "caught"}}),
        tasks={"fail": fail, "hang": wait_for_ever},
    )
    assert output(execution) == "caught"
    assert "TaskStateAborted" in types(execution)
    assert "ParallelStateFailed" in types(execution)


def test_an_inline_map_selects_its_items_and_keeps_their_order() -> None:
    state = {
        "Type": "Map",
        "Items": "{% $states.input.items %}",
        "MaxConcurrency": 2,
        "ItemSelector": {
            "i": "{% $states.context.Map.Item.Index %}",
            "v": "{% $states.context.Map.Item.Value %}",
            "s": "{% $states.context.Map.Item.Source %}",
        },
        "ItemProcessor": {"StartAt": "T", "States": {"T": call("f")}},
        "End": True,
    }
    execution = run_machine(machine({"M": state}), {"items": ["a", "b", "c"]}, tasks={"f": lambda event: event})
    assert output(execution) == [{"i": n, "v": v, "s": "STATE_DATA"} for n, v in enumerate("abc")]
    events = execution.history.events()
    assert events[2]["mapStateStartedEventDetails"] == {"length": 3}
    iterations = [event for event in events if event["type"] == "MapIterationSucceeded"]
    assert sorted(event["mapIterationSucceededEventDetails"]["index"] for event in iterations) == [0, 1, 2]


def test_a_map_over_an_object_gives_keys_and_values() -> None:
    processor = {"StartAt": "T", "States": {"T": {"Type": "Pass", "End": True}}}
    execution = run_machine(machine({"M": {"Type": "Map", "ItemProcessor": processor, "End": True}}), {"k": 1})
    assert output(execution) == [{"Key": "k", "Value": 1}]


def test_the_context_object_tells_about_the_execution() -> None:
    execution = run_machine(
        machine({"A": {"Type": "Pass", "Output": "{% $states.context %}", "End": True}}), {"key": "value"}
    )
    context = output(execution)
    assert context["Execution"]["Id"] == execution.arn
    assert context["Execution"]["Input"] == {"key": "value"}
    assert context["Execution"]["Name"] == execution.name
    assert context["StateMachine"] == {"Id": "arn:aws:states:us-east-1:111122223333:stateMachine:test", "Name": "test"}
    assert context["State"]["Name"] == "A"
    assert context["State"]["RetryCount"] == 0


def test_variables_of_finished_scopes_do_not_count_against_the_ten_mebibytes() -> None:
    inner = {
        "StartAt": "Keep",
        "States": {"Keep": {"Type": "Pass", "Assign": {"big": "{% $states.input %}"}, "Output": 1, "End": True}},
    }
    definition = machine(
        {
            "Count": {"Type": "Pass", "Assign": {"left": 20, "text": "{% $states.input.text %}"}, "Next": "Map"},
            "Map": {
                "Type": "Map",
                "Items": [1, 2, 3, 4],
                "ItemSelector": "{% $text %}",
                "ItemProcessor": inner,
                "Assign": {"left": "{% $left - 1 %}"},
                "Next": "More?",
            },
            "More?": {
                "Type": "Choice",
                "Choices": [{"Condition": "{% $left > 0 %}", "Next": "Map"}],
                "Default": "End",
            },
            "End": {"Type": "Succeed"},
        }
    )
    # 20 rounds of four variables of 200 KiB are 16 MB in all, but never more than one at a time.
    assert output(run_machine(definition, {"text": "x" * 200 * 1024})) == [1, 1, 1, 1]


def test_all_variables_together_may_have_ten_mebibytes() -> None:
    names = [f"v{number}" for number in range(42)]
    states: dict[str, Any] = {
        name: {"Type": "Pass", "Assign": {name: "{% $states.input %}"}, "Next": following}
        for name, following in zip(names, [*names[1:], "End"], strict=True)
    }
    execution = run_machine(machine({**states, "End": {"Type": "Succeed"}}), "x" * 255 * 1024)
    assert (execution.status, execution.error) == ("FAILED", "States.DataLimitExceeded")
