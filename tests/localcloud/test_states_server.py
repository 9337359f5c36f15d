"""Step Functions of the local cloud's server, as clients see it.

Expectations: API reference of Step Functions; developer guide, "Handling errors in Step Functions
workflows", "Supported AWS SDK integrations", "Start Step Functions workflow executions from a task state",
"Automating Step Functions event delivery with EventBridge".
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from blockferry.cli.operate import Moving, Operator
from blockferry.core.errors import InvalidRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from lambda_probe import wait_until
from server_probe import RunningServer, running_server

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/machine"
CODE = """
import os

class SnapshotBusy(Exception):
    pass

def handler(event, context):
    if event.get("do") == "raise":
        raise SnapshotBusy("snap-1 is busy")
    if event.get("do") == "exit":
        os._exit(3)
    return event
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, config={"states": {"wait_scale": 0.001, "seed": 1}}) as running:
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("handler.py", CODE)
        functions = running.client("lambda")
        for name in ("echo", "busy"):
            functions.create_function(
                FunctionName=name,
                Runtime="python3.11",
                Role=ROLE,
                Handler="handler.handler",
                Code={"ZipFile": zipped.getvalue()},
            )
        functions.put_function_concurrency(FunctionName="busy", ReservedConcurrentExecutions=0)
        running.client("s3").create_bucket(Bucket="work")
        yield running


@pytest.fixture
def states(server: RunningServer) -> Any:
    return server.client("stepfunctions")


class Machines:
    """Creates machines with names of their own."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self._prefix = prefix
        self._count = 0

    def create(self, definition: dict[str, Any], **more: Any) -> str:
        self._count += 1
        name = f"{self._prefix}-{self._count}"
        answer = self.client.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE, **more)
        return str(answer["stateMachineArn"])

    def run(self, definition: dict[str, Any], value: Any = None) -> dict[str, Any]:
        return self.wait(self.start(self.create(definition), value))

    def start(self, arn: str, value: Any = None, **more: Any) -> str:
        started = self.client.start_execution(stateMachineArn=arn, input=json.dumps(value or {}), **more)
        return str(started["executionArn"])

    def wait(self, arn: str, *, while_: str = "RUNNING") -> dict[str, Any]:
        described: dict[str, Any] = {}

        def changed() -> bool:
            described.update(self.client.describe_execution(executionArn=arn))
            return described["status"] != while_

        wait_until(changed, f"{arn} is not {while_} any more", 30)
        return described


@pytest.fixture
def machines(states: Any, request: pytest.FixtureRequest) -> Machines:
    return Machines(states, f"m{zlib.crc32(request.node.name.encode()):08x}")


def machine(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more}


def single(resource: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return machine({"T": {"Type": "Task", "Resource": resource, "Arguments": arguments, "End": True, **more}})


def invoke(function: str, payload: Any = "{% $states.input %}", **more: Any) -> dict[str, Any]:
    return single("arn:aws:states:::lambda:invoke", {"FunctionName": function, "Payload": payload}, **more)


def test_a_function_gets_the_payload_and_gives_the_documented_result(machines: Machines) -> None:
    described = machines.run(invoke(f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:echo"), {"n": 1})
    assert described["status"] == "SUCCEEDED", described
    result = json.loads(described["output"])
    assert result["Payload"] == {"n": 1}
    assert (result["StatusCode"], result["ExecutedVersion"]) == (200, "$LATEST")
    assert result["SdkHttpMetadata"]["HttpStatusCode"] == 200
    assert result["SdkResponseMetadata"]["RequestId"]


@pytest.mark.parametrize(
    ("function", "payload", "error"),
    [
        ("echo", {"do": "raise"}, "SnapshotBusy"),
        ("echo", {"do": "exit"}, "Runtime.ExitError"),
        ("busy", {}, "Lambda.TooManyRequestsException"),
        ("nobody", {}, "Lambda.ResourceNotFoundException"),
    ],
)
def test_errors_of_functions_have_the_names_that_machines_match(
    machines: Machines, function: str, payload: Any, error: str
) -> None:
    described = machines.run(invoke(function, payload))
    assert (described["status"], described["error"]) == ("FAILED", error)
    if error == "SnapshotBusy":
        cause = json.loads(described["cause"])
        assert (cause["errorType"], cause["errorMessage"]) == ("SnapshotBusy", "snap-1 is busy")
        assert "stackTrace" in cause


def test_sdk_integrations_take_and_give_pascal_case_and_name_the_services_errors(machines: Machines) -> None:
    sdk = "arn:aws:states:::aws-sdk:"
    identity = machines.run(single(f"{sdk}sts:getCallerIdentity", {}))
    assert json.loads(identity["output"])["Account"] == ACCOUNT
    tags = machines.run(
        single(f"{sdk}sfn:describeStateMachine", {"StateMachineArn": "{% $states.context.StateMachine.Id %}"})
    )
    assert json.loads(tags["output"])["Type"] == "STANDARD"
    missing = machines.run(single(f"{sdk}s3:getObject", {"Bucket": "work", "Key": "nothing"}))
    assert missing["error"] == "S3.NoSuchKeyException"
    snapshot = machines.run(single(f"{sdk}ec2:describeSnapshots", {"SnapshotIds": ["snap-0123456789abcdef0"]}))
    assert snapshot["error"] == "Ec2.Ec2Exception"
    wrong = machines.run(single(f"{sdk}s3:getObject", {"Bucket": "work", "Clef": "x"}))
    assert wrong["error"] == "States.Runtime"


def test_a_callback_through_a_queue(machines: Machines, server: RunningServer) -> None:
    queues = server.client("sqs")
    queue = queues.create_queue(QueueName="callbacks")["QueueUrl"]
    definition = single(
        "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        {"QueueUrl": queue, "MessageBody": {"token": "{% $states.context.Task.Token %}"}},
    )
    arn = machines.start(machines.create(definition))
    bodies: list[str] = []

    def received() -> bool:
        bodies.extend(message["Body"] for message in queues.receive_message(QueueUrl=queue).get("Messages", ()))
        return bool(bodies)

    wait_until(received, "the message with the token", 20)
    machines.client.send_task_success(taskToken=json.loads(bodies[0])["token"], output='{"ok": 1}')
    assert json.loads(machines.wait(arn)["output"]) == {"ok": 1}
    with pytest.raises(ClientError, match="TaskDoesNotExist"):
        machines.client.send_task_success(taskToken="bm8=", output="{}")


def test_a_nested_execution_gives_its_output_as_json_and_its_failure_as_task_failed(machines: Machines) -> None:
    good = machines.create(machine({"P": {"Type": "Pass", "Output": {"n": "{% $states.input.n + 1 %}"}, "End": True}}))
    bad = machines.create(machine({"F": {"Type": "Fail", "Error": "Mine", "Cause": "inside"}}))
    nested = "arn:aws:states:::states:startExecution.sync:2"
    outer = machines.run(single(nested, {"StateMachineArn": good, "Input": {"n": 1}}))
    result = json.loads(outer["output"])
    assert (result["Output"], result["Status"]) == ({"n": 2}, "SUCCEEDED")
    failed = machines.run(single(nested, {"StateMachineArn": bad, "Input": {}}))
    assert failed["error"] == "States.TaskFailed"
    assert json.loads(failed["cause"])["Error"] == "Mine"


def test_a_parent_that_is_stopped_stops_its_nested_execution(machines: Machines) -> None:
    # A callback that never comes keeps it running, whatever the scale of waits.
    slow = machines.create(
        single("arn:aws:states:::lambda:invoke.waitForTaskToken", {"FunctionName": "echo", "Payload": {}})
    )
    nested = single("arn:aws:states:::states:startExecution.sync:2", {"StateMachineArn": slow, "Name": "inner"})
    arn = machines.start(machines.create(nested))
    inner = slow.replace(":stateMachine:", ":execution:") + ":inner"

    def running() -> bool:
        try:
            return bool(machines.client.describe_execution(executionArn=inner)["status"] == "RUNNING")
        except ClientError:
            return False

    wait_until(running, "the nested execution runs", 20)
    machines.client.stop_execution(executionArn=arn)
    assert machines.wait(inner)["status"] == "ABORTED"


def test_a_distributed_map_over_s3_and_its_map_run(machines: Machines, server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.put_object(Bucket="work", Key="plan.jsonl", Body=b"".join(b'{"first": %d}\n' % n for n in range(60)))
    definition = machine(
        {
            "Move": {
                "Type": "Map",
                "Label": "Move",
                "MaxConcurrency": 4,
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:getObject",
                    "ReaderConfig": {"InputType": "JSONL"},
                    "Arguments": {"Bucket": "work", "Key": "plan.jsonl"},
                },
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    **invoke("echo", Output="{% $states.result.Payload.first %}"),
                },
                "ResultWriter": {
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Arguments": {"Bucket": "work", "Prefix": "results"},
                },
                "End": True,
            }
        }
    )
    del definition["States"]["Move"]["ItemProcessor"]["QueryLanguage"]
    arn = machines.start(machines.create(definition))
    described = machines.wait(arn)
    assert described["status"] == "SUCCEEDED", described
    (listed,) = machines.client.list_map_runs(executionArn=arn)["mapRuns"]
    map_run = machines.client.describe_map_run(mapRunArn=listed["mapRunArn"])
    assert (map_run["status"], map_run["maxConcurrency"]) == ("SUCCEEDED", 4)
    assert map_run["executionCounts"]["succeeded"] == map_run["itemCounts"]["resultsWritten"] == 60
    pages = machines.client.get_paginator("list_executions").paginate(
        mapRunArn=listed["mapRunArn"], PaginationConfig={"PageSize": 25}
    )
    children = [child for page in pages for child in page["executions"]]
    assert len({child["executionArn"] for child in children}) == 60
    child = machines.client.describe_execution(executionArn=children[0]["executionArn"])
    assert child["mapRunArn"] == listed["mapRunArn"]
    assert machines.client.get_execution_history(executionArn=children[0]["executionArn"])["events"]
    details = json.loads(described["output"])["ResultWriterDetails"]
    manifest = json.load(s3.get_object(Bucket=details["Bucket"], Key=details["Key"])["Body"])
    (file,) = manifest["ResultFiles"]["SUCCEEDED"]
    rows = json.load(s3.get_object(Bucket="work", Key=file["Key"])["Body"])
    assert sorted(int(row["Output"]) for row in rows) == list(range(60))
    with pytest.raises(ClientError, match="ValidationException"):
        machines.client.update_map_run(mapRunArn=listed["mapRunArn"], maxConcurrency=1)


def test_an_operator_changes_how_many_children_a_running_map_starts(machines: Machines, server: RunningServer) -> None:
    # Hours, even as fast as time passes here.
    processor = machine({"W": {"Type": "Wait", "Seconds": 20_000_000, "End": True}})
    del processor["QueryLanguage"]
    plan = {"FunctionName": "echo", "Payload": {"max_concurrency": 3}}
    definition = machine(
        {
            "Plan": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke",
                "Arguments": plan,
                "Output": "{% $states.result.Payload %}",
                "Next": "Move",
            },
            "Move": {
                "Type": "Map",
                "Items": [1, 2, 3, 4, 5],
                "MaxConcurrency": "{% $states.input.max_concurrency %}",
                "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **processor},
                "End": True,
            },
        }
    )
    arn = machines.start(machines.create(definition))
    operator = Operator("us-east-1", "m", ACCOUNT, "aws", machines.client, server.client("s3"), ec2=server.client)

    def running() -> Any:
        (listed,) = machines.client.list_map_runs(executionArn=arn)["mapRuns"] or [None]
        return listed and machines.client.describe_map_run(mapRunArn=listed["mapRunArn"])["itemCounts"]["running"]

    wait_until(lambda: running() == 3, "three children run", 30)
    moving = operator.moving(arn)
    assert moving is not None
    assert (moving.workers, moving.planned) == (3, 3)
    operator.set_workers(moving, 1)
    assert operator.moving(arn) == Moving(moving.arn, workers=1, planned=3)
    assert running() == 3
    operator.set_workers(moving, 4)
    wait_until(lambda: running() == 4, "a fourth child runs", 30)
    machines.client.stop_execution(executionArn=arn)
    wait_until(lambda: operator.moving(arn) is None, "the Map Run has ended", 30)
    with pytest.raises(InvalidRequest, match="cannot be changed"):
        operator.set_workers(moving, 2)


def test_results_cannot_go_to_a_bucket_of_another_region(machines: Machines, server: RunningServer) -> None:
    server.client("s3", region="eu-west-1").create_bucket(
        Bucket="work-far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    processor = machine({"P": {"Type": "Pass", "End": True}})
    del processor["QueryLanguage"]
    definition = machine(
        {
            "M": {
                "Type": "Map",
                "Items": [1],
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    **processor,
                },
                "ResultWriter": {
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Arguments": {"Bucket": "work-far", "Prefix": "r"},
                },
                "End": True,
            }
        }
    )
    assert machines.run(definition)["error"] == "States.ResultWriterFailed"


def test_history_comes_in_pages_either_way_with_or_without_data(machines: Machines) -> None:
    passes: dict[str, Any] = {f"P{n}": {"Type": "Pass", "Next": f"P{n + 1}"} for n in range(8)}
    arn = machines.start(machines.create(machine({**passes, "P8": {"Type": "Pass", "End": True}})), {"secret": 1})
    machines.wait(arn)

    def pages(**more: Any) -> list[dict[str, Any]]:
        paginator = machines.client.get_paginator("get_execution_history")
        found = paginator.paginate(executionArn=arn, PaginationConfig={"PageSize": 5}, **more)
        return [event for page in found for event in page["events"]]

    events = pages()
    assert [event["id"] for event in events] == list(range(1, 21))
    assert pages(reverseOrder=True) == events[::-1]
    assert "secret" in json.dumps(events, default=str)
    assert "secret" not in json.dumps(pages(includeExecutionData=False), default=str)
    first = machines.client.get_execution_history(executionArn=arn, maxResults=5)
    with pytest.raises(ClientError, match="InvalidToken"):
        machines.client.get_execution_history(executionArn=arn, reverseOrder=True, nextToken=first["nextToken"])


def test_each_version_runs_its_own_definition(machines: Machines) -> None:
    def gives(value: int) -> dict[str, Any]:
        return machine({"P": {"Type": "Pass", "Output": value, "End": True}})

    arn = machines.create(gives(1), publish=True)
    updated = machines.client.update_state_machine(
        stateMachineArn=arn, definition=json.dumps(gives(2)), publish=True, tracingConfiguration={"enabled": True}
    )
    first, second = f"{arn}:1", updated["stateMachineVersionArn"]
    alias = machines.client.create_state_machine_alias(
        name="live", routingConfiguration=[{"stateMachineVersionArn": first, "weight": 100}]
    )["stateMachineAliasArn"]
    outputs = {target: machines.wait(machines.start(target)) for target in (arn, first, second, alias)}
    assert [outputs[target]["output"] for target in (arn, first, second, alias)] == ["2", "1", "2", "1"]
    assert outputs[alias]["stateMachineVersionArn"] == first
    assert outputs[alias]["stateMachineAliasArn"] == alias
    listed = machines.client.list_executions(stateMachineArn=first)["executions"]
    assert len(listed) == 2
    tracing = [
        machines.client.describe_state_machine(stateMachineArn=target)["tracingConfiguration"]["enabled"]
        for target in (arn, first, second)
    ]
    assert tracing == [True, False, True]
    shown = machines.client.describe_state_machine_for_execution(executionArn=outputs[first]["executionArn"])
    assert json.loads(shown["definition"]) == gives(1)


def test_a_definition_that_is_not_understood_is_refused(machines: Machines) -> None:
    broken = machine({"P": {"Type": "Pass", "Next": "Q", "Surprise": 1}})
    with pytest.raises(ClientError) as caught:
        machines.create(broken)
    assert caught.value.response["Error"]["Code"] == "InvalidDefinition"
    assert "MISSING_TRANSITION_TARGET: Missing 'Next' target: Q at /States/P/Next" in str(caught.value)
    assert "SCHEMA_VALIDATION_FAILED: Field 'Surprise' is not supported." in str(caught.value)
    checked = machines.client.validate_state_machine_definition(definition=json.dumps(broken))
    assert checked["result"] == "FAIL"
    assert {item["code"] for item in checked["diagnostics"]} == {
        "SCHEMA_VALIDATION_FAILED",
        "MISSING_TRANSITION_TARGET",
    }
    arn = machines.create(machine({"P": {"Type": "Pass", "End": True}}))
    with pytest.raises(ClientError, match="InvalidDefinition"):
        machines.client.update_state_machine(stateMachineArn=arn, definition=json.dumps(broken))


def test_stopping_and_redriving(machines: Machines) -> None:
    waiting = single("arn:aws:states:::lambda:invoke.waitForTaskToken", {"FunctionName": "echo", "Payload": {}})
    arn = machines.start(machines.create(waiting))
    with pytest.raises(ClientError, match="ExecutionNotRedrivable"):
        machines.client.redrive_execution(executionArn=arn)
    machines.client.stop_execution(executionArn=arn, error="Mine", cause="enough")
    stopped = machines.client.describe_execution(executionArn=arn)
    assert (stopped["status"], stopped["error"], stopped["cause"]) == ("ABORTED", "Mine", "enough")
    assert stopped["redriveStatus"] == "REDRIVABLE"
    first = machines.client.redrive_execution(executionArn=arn, clientToken="once")
    again = machines.client.redrive_execution(executionArn=arn, clientToken="once")
    assert first["redriveDate"] == again["redriveDate"]
    redriven = machines.client.describe_execution(executionArn=arn)
    assert (redriven["status"], redriven["redriveCount"]) == ("RUNNING", 1)
    machine_arn = redriven["stateMachineArn"]
    found = machines.client.list_executions(stateMachineArn=machine_arn, redriveFilter="REDRIVEN")["executions"]
    assert [item["executionArn"] for item in found] == [arn]
    machines.client.stop_execution(executionArn=arn)


def test_executions_are_found_by_status_and_are_invisible_to_other_accounts(
    machines: Machines, server: RunningServer
) -> None:
    definition = machine({"P": {"Type": "Pass", "End": True}})
    arn = machines.create(definition)
    ids = [machines.start(arn, name=f"job-{n}") for n in range(3)]
    for execution in ids:
        machines.wait(execution)
    found = machines.client.list_executions(stateMachineArn=arn, statusFilter="SUCCEEDED")["executions"]
    assert {item["executionArn"] for item in found} == set(ids)
    assert not machines.client.list_executions(stateMachineArn=arn, statusFilter="FAILED")["executions"]
    stranger = server.client("stepfunctions", account="123456789012")
    with pytest.raises(ClientError, match="ExecutionDoesNotExist"):
        stranger.describe_execution(executionArn=ids[0])
    with pytest.raises(ClientError, match="StateMachineDoesNotExist"):
        stranger.start_execution(stateMachineArn=arn)
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        machines.start(arn, name="job-1")


def test_status_changes_reach_eventbridge_rules_and_rules_start_executions(
    machines: Machines, server: RunningServer
) -> None:
    queues, events = server.client("sqs"), server.client("events")
    queue = queues.create_queue(QueueName="status")["QueueUrl"]
    arn = machines.create(machine({"P": {"Type": "Pass", "Output": 5, "End": True}}))
    events.put_rule(
        Name="status", EventPattern=json.dumps({"source": ["aws.states"], "detail": {"stateMachineArn": [arn]}})
    )
    events.put_targets(Rule="status", Targets=[{"Id": "q", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:status"}])
    events.put_rule(Name="start", EventPattern=json.dumps({"source": ["test.start"]}))
    events.put_targets(Rule="start", Targets=[{"Id": "m", "Arn": arn, "RoleArn": ROLE}])
    events.put_events(Entries=[{"Source": "test.start", "DetailType": "go", "Detail": '{"n": 1}'}])
    bodies: list[Any] = []

    def both() -> bool:
        messages = queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", ())
        bodies.extend(json.loads(message["Body"]) for message in messages)
        for message in messages:
            queues.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return len(bodies) >= 2

    wait_until(both, "two status events", 20)
    details = {body["detail"]["status"]: body["detail"] for body in bodies}
    assert details.keys() == {"RUNNING", "SUCCEEDED"}
    assert bodies[0]["detail-type"] == "Step Functions Execution Status Change"
    assert details["RUNNING"]["stopDate"] is None
    assert details["SUCCEEDED"]["output"] == "5"
    assert json.loads(details["RUNNING"]["input"])["detail"] == {"n": 1}
    assert isinstance(details["SUCCEEDED"]["stopDate"], int)


def test_an_express_machine_answers_synchronously(machines: Machines, server: RunningServer) -> None:
    arn = machines.create(machine({"P": {"Type": "Pass", "Output": {"a": 1}, "End": True}}), type="EXPRESS")
    client = boto3.client(
        "stepfunctions",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=server.keys.secret,
        config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
    )
    answer = client.start_sync_execution(stateMachineArn=arn, input="{}")
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", {"a": 1})
    with pytest.raises(ClientError, match="StateMachineTypeNotSupported"):
        client.list_executions(stateMachineArn=arn)
    standard = machines.create(machine({"P": {"Type": "Pass", "End": True}}))
    with pytest.raises(ClientError, match="StateMachineTypeNotSupported"):
        client.start_sync_execution(stateMachineArn=standard)


def test_the_control_endpoint_tells_what_runs_and_changes_the_scale_of_waits(
    machines: Machines, server: RunningServer
) -> None:
    callback = single("arn:aws:states:::lambda:invoke.waitForTaskToken", {"FunctionName": "echo", "Payload": {}})
    arn = machines.start(machines.create(callback))
    status, answer = server.control("GET", "states")
    assert (status, answer["wait_scale"]) == (200, 0.001)
    assert arn in answer["running"]
    assert server.control("POST", "states", {"wait_scale": 0})[1]["wait_scale"] == 0
    waited = machine({"W": {"Type": "Wait", "Seconds": 99_999_999, "End": True}})
    assert machines.run(waited)["status"] == "SUCCEEDED"
    assert server.control("POST", "states", {"wait_scale": -1})[0] == 400
    server.control("POST", "states", {"wait_scale": 0.001})
    machines.client.stop_execution(executionArn=arn)
    assert arn not in server.control("GET", "states")[1]["running"]


def test_a_dataset_must_be_in_the_machines_own_region(machines: Machines, server: RunningServer) -> None:
    far = server.client("s3", region="eu-west-1")
    far.create_bucket(Bucket="data-far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    far.put_object(Bucket="data-far", Key="plan.jsonl", Body=b"1\n")
    definition = machine(
        {
            "M": {
                "Type": "Map",
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:getObject",
                    "ReaderConfig": {"InputType": "JSONL"},
                    "Arguments": {"Bucket": "data-far", "Key": "plan.jsonl"},
                },
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    "StartAt": "P",
                    "States": {"P": {"Type": "Pass", "End": True}},
                },
                "End": True,
            }
        }
    )
    assert machines.run(definition)["error"] == "States.ItemReaderFailed"


def test_deleting_a_state_machine_that_is_gone_succeeds(machines: Machines) -> None:
    """DeleteStateMachine, API reference: its errors are InvalidArn and ValidationException only."""
    arn = machines.create(single("arn:aws:states:::lambda:invoke", {"FunctionName": "echo", "Payload": {}}))
    for _ in range(2):
        answer = machines.client.delete_state_machine(stateMachineArn=arn)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
