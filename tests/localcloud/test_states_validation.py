"""Definitions that are refused, and with what.

Expectations: Amazon States Language specification; developer guide, pages of the state types, "Using Map
state in Distributed mode", "Passing data between states with variables", "Handling errors".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from localcloud.states.validate import errors_in, validate_definition

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:f"


def machine(states: dict[str, Any], **more: Any) -> str:
    return json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more})


def task(**more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": FUNCTION, "End": True, **more}


def distributed(**more: Any) -> dict[str, Any]:
    return {
        "Type": "Map",
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Inner",
            "States": {"Inner": task()},
        },
        "End": True,
        **more,
    }


READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSONL"},
    "Arguments": {"Bucket": "b", "Key": "k"},
}
INLINE = {
    "Type": "Map",
    "ItemProcessor": {"StartAt": "Inner", "States": {"Inner": {"Type": "Pass", "End": True}}},
    "End": True,
}


def test_a_map_over_s3_with_everything_is_accepted() -> None:
    state = distributed(
        ItemReader=READER,
        ItemSelector={"value": "{% $states.context.Map.Item.Value %}"},
        ItemBatcher={"MaxItemsPerBatch": 5, "BatchInput": {"a": 1}},
        ResultWriter={"Resource": "arn:aws:states:::s3:putObject", "Arguments": {"Bucket": "b", "Prefix": "p"}},
        MaxConcurrency="{% $states.input.concurrency %}",
        ToleratedFailureCount=0,
        ToleratedFailurePercentage=12.5,
        Label="Copy",
        Retry=[{"ErrorEquals": ["States.ALL"], "MaxDelaySeconds": 60, "JitterStrategy": "FULL"}],
    )
    assert validate_definition(machine({"Map": state})) == []


@pytest.mark.parametrize(
    ("definition", "code", "location"),
    [
        ("{", "INVALID_JSON_DESCRIPTION", ""),
        (machine({"A": {"Type": "Pass", "Next": "B"}}), "MISSING_TRANSITION_TARGET", "/States/A/Next"),
        (machine({"A": task(), "B": task()}), "MISSING_TRANSITION_TARGET", "/States/B"),
        (machine({"A": task()}, StartAt="X"), "MISSING_TRANSITION_TARGET", "/StartAt"),
        (machine({"A": {"Type": "Task", "End": True}}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": task(Surprise=1)}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": task(Next="A")}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": {"Type": "Pass"}}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": {"Type": "Nap", "End": True}}), "SCHEMA_VALIDATION_FAILED", "/States/A/Type"),
        (machine({"A": task(InputPath="$.x")}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": task(Retry="often")}), "SCHEMA_VALIDATION_FAILED", "/States/A/Retry"),
        (machine({"A": {"Type": "Choice"}}), "SCHEMA_VALIDATION_FAILED", "/States/A/Choices"),
        (
            machine({"A": task(Catch=[{"ErrorEquals": ["States.ALL"]}])}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Catch/0",
        ),
        (
            machine({"A": task(Retry=[{"ErrorEquals": ["States.ALL", "X"]}])}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Retry/0/ErrorEquals",
        ),
        (
            machine({"A": task(Retry=[{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["X"]}])}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Retry/0/ErrorEquals",
        ),
        (
            machine({"A": task(Retry=[{"ErrorEquals": ["X"], "MaxDelaySeconds": 31622401}])}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Retry/0/MaxDelaySeconds",
        ),
        (machine({"A": task(Output="{% 1 + %}")}), "INVALID_JSONATA_EXPRESSION", "/States/A/Output"),
        (machine({"A": task(Output="{% 1")}), "INVALID_JSONATA_EXPRESSION", "/States/A/Output"),
        (machine({"A": task(Output="{% $eval('1') %}")}), "INVALID_JSONATA_EXPRESSION", "/States/A/Output"),
        (
            machine({"A": task(Arguments={"x": "{% $states.result %}"})}),
            "INVALID_JSONATA_EXPRESSION",
            "/States/A/Arguments/x",
        ),
        (
            machine({"A": task(Output="{% $states.errorOutput %}")}),
            "INVALID_JSONATA_EXPRESSION",
            "/States/A/Output",
        ),
        (
            machine({"A": task(Resource="arn:aws:states:::teleport:now", Arguments={})}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Resource",
        ),
        (
            machine({"A": task(Resource="arn:aws:states:::aws-sdk:ec2:beamUp", Arguments={})}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Resource",
        ),
        (machine({"A": {**INLINE, "ItemBatcher": {"MaxItemsPerBatch": 2}}}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (
            machine({"A": distributed(ItemReader={**READER, "ReaderConfig": {"InputType": "XML"}})}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/ItemReader/ReaderConfig/InputType",
        ),
        (
            machine({"A": distributed(Label="a" * 41)}),
            "SCHEMA_VALIDATION_FAILED",
            "/States/A/Label",
        ),
        (machine({"A": distributed(ResultWriter={})}), "SCHEMA_VALIDATION_FAILED", "/States/A/ResultWriter"),
        (
            machine({"Inner": {"Type": "Pass", "Next": "A"}, "A": INLINE}),
            "DUPLICATE_STATE_NAME",
            "/States/A/ItemProcessor/States/Inner",
        ),
        (
            machine({"A": {"Type": "Pass", "End": True}}, QueryLanguage="JSONPath"),
            "UNSUPPORTED_QUERY_LANGUAGE",
            "/States/A",
        ),
        (machine({"A": task(HeartbeatSeconds=5)}), "SCHEMA_VALIDATION_FAILED", "/States/A/HeartbeatSeconds"),
        (machine({"A": {"Type": "Wait", "End": True}}), "SCHEMA_VALIDATION_FAILED", "/States/A"),
        (machine({"A": task(Assign={"states": 1})}), "SCHEMA_VALIDATION_FAILED", "/States/A/Assign"),
        (machine({"A": task(Assign={"x.y": 1})}), "SCHEMA_VALIDATION_FAILED", "/States/A/Assign"),
        ('{"StartAt": "A", "StartAt": "A", "States": {}}', "DUPLICATE_KEY", ""),
    ],
)
def test_a_broken_definition_is_refused_where_it_is_broken(definition: str, code: str, location: str) -> None:
    assert (code, location) in [(finding.code, finding.location) for finding in errors_in(definition)]


def test_an_inner_scope_may_not_assign_an_outer_variable() -> None:
    inner = json.loads(json.dumps(INLINE))
    inner["ItemProcessor"]["States"]["Inner"]["Assign"] = {"myVariable": 2}
    definition = machine({"A": {"Type": "Pass", "Assign": {"myVariable": 1}, "Next": "M"}, "M": inner})
    assert [finding.code for finding in errors_in(definition)] == ["VARIABLE_REDEFINED"]


def test_states_of_a_distributed_map_cannot_refer_to_outer_variables_but_its_item_selector_can() -> None:
    state = distributed(ItemSelector={"job": "{% $job %}"})
    first = {"Type": "Pass", "Assign": {"job": 1}, "Next": "M"}
    assert errors_in(machine({"A": first, "M": state})) == []
    state["ItemProcessor"]["States"]["Inner"]["Arguments"] = "{% $job %}"
    assert [finding.code for finding in errors_in(machine({"A": first, "M": state}))] == ["VARIABLE_NOT_ACCESSIBLE"]


def test_a_variable_nobody_assigns_is_a_warning() -> None:
    findings = validate_definition(machine({"A": task(Arguments="{% $typo %}")}))
    assert [(finding.severity, finding.code) for finding in findings] == [("WARNING", "UNDEFINED_VARIABLE")]


def test_express_workflows_have_neither_callbacks_nor_distributed_maps() -> None:
    waiting = task(
        Resource="arn:aws:states:::sqs:sendMessage.waitForTaskToken", Arguments={"QueueUrl": "u", "MessageBody": "m"}
    )
    assert errors_in(machine({"A": waiting})) == []
    assert errors_in(machine({"A": waiting}), kind="EXPRESS")
    assert errors_in(machine({"A": distributed()}), kind="EXPRESS")


def test_findings_read_as_the_services_messages_do() -> None:
    (finding,) = errors_in(machine({"A": {"Type": "Pass", "Next": "B"}}))
    assert str(finding) == "MISSING_TRANSITION_TARGET: Missing 'Next' target: B at /States/A/Next"


def test_a_definition_over_one_megabyte_is_refused() -> None:
    (finding,) = errors_in(machine({"A": task(Comment="x" * 1024 * 1024)}))
    assert finding.code == "DEFINITION_TOO_LARGE"
