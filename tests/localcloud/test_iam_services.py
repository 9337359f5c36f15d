"""Services act under roles: Lambda for functions, Step Functions for machines, schedules and rules."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from lambda_probe import wait_until
from server_probe import RunningServer, running_server

from .iam_clients import CONFIG, HOME, NUMBERS, REGION, Session, document, refused, role, statement, trust


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), config=CONFIG) as running:
        yield running


CODE = """
import boto3
def handler(event, context):
    return boto3.client("sts").get_caller_identity()["Arn"]
"""


def function(server: RunningServer, arn: str) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("app.py", CODE)
    name = f"function-{next(NUMBERS)}"
    server.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=arn,
        Handler="app.handler",
        Code={"ZipFile": archive.getvalue()},
        Timeout=30,
    )
    return name


def test_a_function_that_lambda_may_not_act_for_does_not_run(server: RunningServer) -> None:
    name = function(server, role(server))  # trusts its account, not Lambda
    answer = server.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" in answer
    assert "cannot be assumed by Lambda" in answer["Payload"].read().decode()


MACHINE = {
    "QueryLanguage": "JSONata",
    "StartAt": "Map",
    "States": {
        "Map": {
            "Type": "Map",
            "Items": [1, 2],
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Pass",
                "States": {"Pass": {"Type": "Pass", "End": True}},
            },
            "End": True,
        }
    },
}


def test_a_machine_starts_children_only_where_its_role_may_start_executions(server: RunningServer) -> None:
    states = server.client("stepfunctions")
    name = f"machine-{next(NUMBERS)}"
    machine = f"arn:aws:states:{REGION}:{HOME}:stateMachine:{name}"
    trusts = trust({"Service": "states.amazonaws.com"}, ArnLike={"aws:SourceArn": [machine, f"{machine}/*"]})
    arn = role(server, trusts=trusts)
    states.create_state_machine(name=name, definition=json.dumps(MACHINE), roleArn=arn)

    def ended() -> dict[str, Any]:
        execution = states.start_execution(stateMachineArn=machine)["executionArn"]
        wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "it ends")
        found: dict[str, Any] = states.describe_execution(executionArn=execution)
        return found

    without = ended()
    assert (without["status"], without["error"]) == ("FAILED", "States.Permissions")
    assert "states:StartExecution" in without["cause"]
    server.client("iam").put_role_policy(
        RoleName=arn.rpartition("/")[2],
        PolicyName="calls",
        PolicyDocument=document(statement("states:StartExecution", machine)),
    )
    assert ended()["status"] == "SUCCEEDED"


def test_a_machine_reads_a_bucket_that_is_closed_to_all_but_its_role(server: RunningServer) -> None:
    states, s3 = server.client("stepfunctions"), server.client("s3")
    name, bucket = f"machine-{next(NUMBERS)}", f"items-{next(NUMBERS)}"
    machine = f"arn:aws:states:{REGION}:{HOME}:stateMachine:{name}"
    objects = statement("s3:GetObject", f"arn:aws:s3:::{bucket}/*")
    trusts = trust({"Service": "states.amazonaws.com"})
    arn = role(server, statement("states:StartExecution", machine), objects, trusts=trusts)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="items.json", Body=b"[1, 2, 3]")
    definition = json.loads(json.dumps(MACHINE))
    del definition["States"]["Map"]["Items"]
    definition["States"]["Map"]["ItemReader"] = {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": {"InputType": "JSON"},
        "Arguments": {"Bucket": bucket, "Key": "items.json"},
    }
    states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=arn)

    def ended(allowed: str) -> dict[str, Any]:
        closed = {
            **statement("s3:*", [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]),
            **{"Effect": "Deny", "Principal": "*"},
            "Condition": {"ArnNotEquals": {"aws:PrincipalArn": allowed}},
        }
        s3.put_bucket_policy(Bucket=bucket, Policy=document(closed))
        execution = states.start_execution(stateMachineArn=machine)["executionArn"]
        wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "it ends")
        found: dict[str, Any] = states.describe_execution(executionArn=execution)
        return found

    assert ended(arn)["status"] == "SUCCEEDED"
    assert ended(role(server))["error"] == "States.ItemReaderFailed"


def test_a_schedule_calls_its_target_only_where_its_role_may(server: RunningServer) -> None:
    queue = server.client("sqs").create_queue(QueueName="reached")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{HOME}:reached"
    trusts = trust(
        {"Service": "scheduler.amazonaws.com"},
        ArnEquals={"aws:SourceArn": f"arn:aws:scheduler:{REGION}:{HOME}:schedule-group/default"},
    )
    scheduler = server.client("scheduler")

    def schedule(role_arn: str) -> str:
        name = f"schedule-{next(NUMBERS)}"
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression="rate(1 hour)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn, "RoleArn": role_arn, "Input": name, "RetryPolicy": {"MaximumRetryAttempts": 0}},
        )
        return name

    with refused("ValidationException", "must allow AWS EventBridge Scheduler to assume the role"):
        schedule(role(server))
    refused_one = schedule(role(server, trusts=trusts))
    allowed_one = schedule(role(server, statement("sqs:SendMessage", arn), trusts=trusts))
    server.control("POST", "clock", {"advance": 3700})

    def bodies() -> list[str]:
        got = server.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=5, MaxNumberOfMessages=10)
        return [message["Body"] for message in got.get("Messages", [])]

    assert set(bodies()) == {allowed_one}
    deliveries = server.control("GET", "events/deliveries")[1]["deliveries"]
    assert any(refused_one in json.dumps(each) and "sqs:SendMessage" in json.dumps(each) for each in deliveries)


def test_a_machine_redrives_children_only_where_its_role_may(server: RunningServer) -> None:
    states = server.client("stepfunctions")
    name = f"machine-{next(NUMBERS)}"
    machine = f"arn:aws:states:{REGION}:{HOME}:stateMachine:{name}"
    arn = role(server, statement("states:StartExecution", machine), trusts=trust({"Service": "states.amazonaws.com"}))
    definition = json.loads(json.dumps(MACHINE))
    definition["States"]["Map"]["ItemProcessor"]["States"] = {"Pass": {"Type": "Fail", "Error": "Refused"}}
    states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=arn)
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]

    def error() -> str:
        wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "it ends")
        return str(states.describe_execution(executionArn=execution)["error"])

    assert error() == "States.ExceedToleratedFailureThreshold"
    states.redrive_execution(executionArn=execution)
    assert error() == "States.Permissions"
    children = f"arn:aws:states:{REGION}:{HOME}:execution:{name}/*"
    server.client("iam").put_role_policy(
        RoleName=arn.rpartition("/")[2],
        PolicyName="redrive",
        PolicyDocument=document(statement("states:RedriveExecution", children)),
    )
    states.redrive_execution(executionArn=execution)
    assert error() == "States.ExceedToleratedFailureThreshold"


def test_a_rule_calls_a_function_only_if_the_functions_policy_lets_it(server: RunningServer) -> None:
    name = function(server, role(server, trusts=trust({"Service": "lambda.amazonaws.com"})))
    arn = f"arn:aws:lambda:{REGION}:{HOME}:function:{name}"
    events = server.client("events")
    rule = f"rule-{next(NUMBERS)}"
    rule_arn = events.put_rule(Name=rule, EventPattern=json.dumps({"source": [rule]}))["RuleArn"]
    events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn}])

    def outcome(number: int) -> str:
        """What became of the rule's delivery, once there are ``number`` of them."""
        events.put_events(Entries=[{"Source": rule, "DetailType": "test", "Detail": "{}"}])

        def deliveries() -> list[str]:
            found = server.control("GET", "events/deliveries")[1]["deliveries"]
            return [json.dumps(each) for each in found if name in json.dumps(each)]

        wait_until(lambda: len(deliveries()) >= number, "the event is delivered or refused")
        return deliveries()[-1]

    assert "no resource-based policy" in outcome(1)
    server.client("lambda").add_permission(
        FunctionName=name,
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule_arn,
    )
    assert "no resource-based policy" not in outcome(2)


@pytest.mark.parametrize(
    ("action", "ask"),
    [
        ("GetAccountSettings", lambda client, _: client.get_account_settings()),
        ("GetFunctionConcurrency", lambda client, name: client.get_function_concurrency(FunctionName=name)),
        ("GetFunctionConfiguration", lambda client, name: client.get_function_configuration(FunctionName=name)),
        ("InvokeFunction", lambda client, name: client.invoke(FunctionName=name, InvocationType="DryRun")),
        ("ListFunctions", lambda client, _: client.list_functions()),
        ("ListLayerVersions", lambda client, _: client.list_layer_versions(LayerName="layer")),
        ("PutFunctionConcurrency", lambda client, name: client.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=0)),
    ],
)  # fmt: skip
def test_every_operation_of_lambda_needs_the_action_of_its_name(server: RunningServer, action: str, ask: Any) -> None:
    name = function(server, role(server))
    without = Session(server, role(server, statement("s3:*")))
    allowed = Session(server, role(server, statement(f"lambda:{action}")))

    with refused("AccessDeniedException", f"lambda:{action}"):
        ask(without.client("lambda"), name)
    ask(allowed.client("lambda"), name)
