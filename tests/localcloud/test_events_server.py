"""Rules and schedules of the local cloud's server, as clients see them.

Expectations: EventBridge Scheduler API reference (CreateSchedule, ClientToken, ListSchedules) and user guide,
"Schedule types", "Adding context attributes", "Configuring a schedule's dead-letter queue"; EventBridge user guide,
"Amazon EventBridge event patterns", "Amazon EventBridge input transformation".
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lambda_probe import wait_until
from server_probe import RunningServer, running_server

ROLE = "arn:aws:iam::111122223333:role/caller"
OFF = {"Mode": "OFF"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "config.json"
    config.write_text(json.dumps({"iam": {"enforced": True}}))
    with running_server(folder, "--config", str(config)) as running:
        iam = running.client("iam")
        services = {"Service": [f"{name}.amazonaws.com" for name in ("scheduler", "events", "states", "lambda")]}
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": services, "Action": "sts:*"}]}
        may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        for name in ("caller", "powerless"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        iam.put_role_policy(RoleName="caller", PolicyName="calls", PolicyDocument=json.dumps(may))
        yield running


class Queue:
    """A queue, and what has come in since last asked."""

    def __init__(self, server: RunningServer, name: str) -> None:
        self._client = server.client("sqs")
        self.url = self._client.create_queue(QueueName=name)["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:111122223333:{name}"

    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while batch := self._client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=600
        ).get("Messages"):
            found += batch
        return found

    def bodies(self) -> list[str]:
        return [message["Body"] for message in self.messages()]


@pytest.fixture
def queue(server: RunningServer, request: pytest.FixtureRequest) -> Queue:
    return Queue(server, request.node.name[:60].replace("[", "-").replace("]", ""))


@pytest.fixture(autouse=True)
def nothing_left(server: RunningServer) -> Iterator[None]:
    yield
    server.control("DELETE", "events/faults")
    scheduler, events = server.client("scheduler"), server.client("events")
    for each in scheduler.list_schedules()["Schedules"]:
        scheduler.delete_schedule(Name=each["Name"], GroupName=each["GroupName"])
    for rule in events.list_rules()["Rules"]:
        events.delete_rule(Name=rule["Name"], Force=True)


def advance(server: RunningServer, seconds: float) -> dict[str, Any]:
    status, answer = server.control("POST", "clock", {"advance": seconds})
    assert status == 200, answer
    return dict(answer)


def schedule(
    server: RunningServer, name: str, target: dict[str, Any], expression: str = "rate(1 hour)", **more: Any
) -> Any:
    return server.client("scheduler").create_schedule(
        Name=name,
        ScheduleExpression=expression,
        FlexibleTimeWindow=OFF,
        Target={"RoleArn": ROLE, **target},
        **more,
    )


def settled(server: RunningServer) -> None:
    """Whatever the last request set off has been delivered."""
    advance(server, 0)


def test_an_hourly_schedule_calls_its_target_at_once_and_25_times_in_25_hours(
    server: RunningServer, queue: Queue
) -> None:
    text = '{"at": "<aws.scheduler.scheduled-time>", "try": <aws.scheduler.attempt-number>}'
    schedule(server, "hourly", {"Arn": queue.arn, "Input": text})

    advance(server, 0)
    assert len(queue.bodies()) == 1
    advance(server, 25 * 3600)

    received = [json.loads(body) for body in queue.bodies()]
    assert len({each["at"] for each in received}) == len(received) == 25
    assert {each["try"] for each in received} == {1}


def test_a_one_time_schedule_is_deleted_after_it_ran_when_asked_for(server: RunningServer, queue: Queue) -> None:
    schedule(
        server,
        "once",
        {"Arn": queue.arn, "Input": "now"},
        "at(2031-01-01T00:00:00)",
        ActionAfterCompletion="DELETE",
        ScheduleExpressionTimezone="Europe/Berlin",
    )
    now = server.control("GET", "clock")[1]["now"]

    advance(server, 1_924_988_400 - now - 5)  # 2030-12-31T23:00:00Z
    assert queue.bodies() == []
    advance(server, 10)

    assert queue.bodies() == ["now"]
    assert server.client("scheduler").list_schedules()["Schedules"] == []


def test_the_clock_is_the_ebs_servers_too(server: RunningServer) -> None:
    advance(server, 86_400)

    ours = server.control("GET", "clock")[1]["now"]
    assert abs(server.control("GET", "ebs/clock")[1]["now"] - ours) < 5


def test_a_repeated_request_with_the_same_token_is_answered_the_same(server: RunningServer, queue: Queue) -> None:
    scheduler = server.client("scheduler")
    first = scheduler.create_schedule_group(Name="group", ClientToken="token-1")
    again = scheduler.create_schedule_group(Name="group", ClientToken="token-1")
    one = schedule(server, "s", {"Arn": queue.arn}, ClientToken="token-2")
    two = schedule(server, "s", {"Arn": queue.arn}, ClientToken="token-2")

    assert first["ScheduleGroupArn"] == again["ScheduleGroupArn"]
    assert one["ScheduleArn"] == two["ScheduleArn"]
    for _ in range(2):
        scheduler.delete_schedule(Name="s", ClientToken="token-3")
    with pytest.raises(ClientError, match="ConflictException"):
        scheduler.create_schedule_group(Name="group", ClientToken="token-4")
    with pytest.raises(ClientError, match="ConflictException"):
        schedule(server, "s", {"Arn": queue.arn}, "rate(2 hours)", ClientToken="token-2")
    scheduler.delete_schedule_group(Name="group")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ScheduleExpression": "cron(* * * * * *)"},
        {"ScheduleExpressionTimezone": "Mars/Olympus"},
        {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
        {"FlexibleTimeWindow": {"Mode": "OFF", "MaximumWindowInMinutes": 5}},
    ],
)
def test_what_scheduler_refuses_is_refused(server: RunningServer, queue: Queue, wrong: dict[str, Any]) -> None:
    request = {"Name": "s", "ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": OFF, **wrong}

    with pytest.raises(ClientError, match="ValidationException"):
        server.client("scheduler").create_schedule(Target={"Arn": queue.arn, "RoleArn": ROLE}, **request)


def test_schedules_are_listed_page_by_page(server: RunningServer, queue: Queue) -> None:
    for number in range(5):
        schedule(server, f"s{number}", {"Arn": queue.arn}, State="DISABLED")

    pages = list(server.client("scheduler").get_paginator("list_schedules").paginate(PaginationConfig={"PageSize": 2}))

    assert [[each["Name"] for each in page["Schedules"]] for page in pages] == [["s0", "s1"], ["s2", "s3"], ["s4"]]


def test_a_role_without_permission_leads_to_the_dead_letter_queue(server: RunningServer) -> None:
    dead = Queue(server, "dead-of-schedule")
    role = "arn:aws:iam::111122223333:role/powerless"
    machine = "arn:aws:states:us-east-1:111122223333:stateMachine:any"
    schedule(server, "s", {"Arn": machine, "RoleArn": role, "Input": "x", "DeadLetterConfig": {"Arn": dead.arn}})

    settled(server)

    [message] = dead.messages()
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert message["Body"] == "x"
    assert attributes["ERROR_CODE"] == "AccessDeniedException"
    assert attributes["SCHEDULE_ARN"] == "arn:aws:scheduler:us-east-1:111122223333:schedule/default/s"


def rule(server: RunningServer, queue: Queue, pattern: dict[str, Any], **target: Any) -> None:
    events = server.client("events")
    events.put_rule(Name="r", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": queue.arn, **target}])


def put(server: RunningServer, **detail: Any) -> None:
    entry = {"Source": "test", "DetailType": "Case", "Detail": json.dumps(detail), "Resources": ["arn:one", "arn:two"]}
    answer = server.client("events").put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0
    settled(server)


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        (["exact"], "exact", "exactly"),
        ([{"prefix": "snap-"}], "snap-1", "vol-1"),
        ([{"suffix": ".img"}], "disk.img", "disk.raw"),
        ([{"anything-but": ["failed"]}], "succeeded", "failed"),
        ([{"anything-but": {"prefix": "copy"}}], "create", "copySnapshot"),
        ([{"numeric": [">", 0, "<=", 5]}], 5, 6),
        ([{"wildcard": "*/snap-*"}], "x/snap-1", "x/vol-1"),
        ([{"equals-ignore-case": "DONE"}], "Done", "Doner"),
    ],
)
def test_patterns(server: RunningServer, queue: Queue, condition: list[Any], matching: Any, other: Any) -> None:
    rule(server, queue, {"source": ["test"], "detail": {"value": condition}}, InputPath="$.detail.value")

    put(server, value=other)
    put(server, value=matching)

    assert [json.loads(body) for body in queue.bodies()] == [matching]


def test_patterns_of_presence_and_alternatives(server: RunningServer, queue: Queue) -> None:
    pattern = {"source": ["test"], "detail": {"gone": [{"exists": False}], "$or": [{"a": [1]}, {"b": [2]}]}}
    rule(server, queue, pattern, InputPath="$.detail.n")

    put(server, n=1, a=1)
    put(server, n=2, b=2)
    put(server, n=3, a=2, b=1)
    put(server, n=4, a=1, gone="no")

    assert sorted(queue.bodies()) == ["1", "2"]


def test_a_template_reaches_into_lists(server: RunningServer, queue: Queue) -> None:
    transformer = {"InputPathsMap": {"second": "$.resources[1]"}, "InputTemplate": '{"it": <second>}'}
    rule(server, queue, {"source": ["test"]}, InputTransformer=transformer)

    put(server)

    assert queue.bodies() == ['{"it": "arn:two"}']


def test_a_rule_starts_executions_under_its_role(server: RunningServer, queue: Queue) -> None:
    states = server.client("stepfunctions")
    definition = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}, "QueryLanguage": "JSONata"}
    machine = states.create_state_machine(name="started", definition=json.dumps(definition), roleArn=ROLE)
    rule(server, queue, {"source": ["test"]}, Arn=machine["stateMachineArn"], RoleArn=ROLE, InputPath="$.detail")

    put(server, snapshot="snap-1")

    [execution] = states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]
    assert json.loads(states.describe_execution(executionArn=execution["executionArn"])["input"]) == {
        "snapshot": "snap-1"
    }


def test_a_scheduled_rule_runs_by_the_clock(server: RunningServer, queue: Queue) -> None:
    events = server.client("events")
    events.put_rule(Name="r", ScheduleExpression="rate(1 hour)")
    events.put_targets(Rule="r", Targets=[{"Id": "1", "Arn": queue.arn}])

    advance(server, 3 * 3600)

    received = [json.loads(body) for body in queue.bodies()]
    assert len(received) == 3
    assert {(each["source"], each["detail-type"]) for each in received} == {("aws.events", "Scheduled Event")}


def test_events_are_duplicated_and_dropped_on_demand(server: RunningServer, queue: Queue) -> None:
    rule(server, queue, {"source": ["test"]}, InputPath="$.detail.n")
    server.control("POST", "events/faults", {"kind": "duplicate", "target": queue.arn, "times": 1})

    put(server, n=1)
    server.control("POST", "events/faults", {"kind": "drop", "target": queue.arn, "times": 1})
    put(server, n=2)
    put(server, n=3)

    assert sorted(queue.bodies()) == ["1", "1", "3"]


def test_control_requests_that_make_no_sense_say_so(server: RunningServer) -> None:
    assert server.control("POST", "clock", {"advance": -1})[0] == 400
    assert server.control("POST", "clock", {})[0] == 400
    assert server.control("POST", "events/faults", {"kind": "explode"})[0] == 400
    assert server.control("GET", "events/nothing")[0] == 404


CODE = """
import json, os, urllib.request

def handler(event, context):
    url = os.environ["AWS_ENDPOINT_URL"] + "/_local/lambda/workers"
    request = urllib.request.Request(url, headers={"x-local-token": os.environ["TOKEN"]})
    with urllib.request.urlopen(request) as answer:
        workers = json.load(answer)["workers"]
    print("BUSY", sum(worker["busy"] for worker in workers))
"""


def test_a_day_of_invocations_waits_in_line(server: RunningServer) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("handler.py", CODE)
    function = server.client("lambda").create_function(
        FunctionName="counted",
        Runtime="python3.11",
        Role=ROLE,
        Handler="handler.handler",
        Code={"ZipFile": zipped.getvalue()},
        Environment={"Variables": {"TOKEN": server.keys.token}},
    )
    server.client("logs").create_log_group(logGroupName="/aws/lambda/counted")
    schedule(server, "s", {"Arn": function["FunctionArn"]})

    advance(server, 24 * 3600)

    def said(what: str) -> list[str]:
        pages = server.client("logs").get_paginator("filter_log_events")
        found = pages.paginate(logGroupName="/aws/lambda/counted", filterPattern=what)
        return [event["message"] for page in found for event in page["events"]]

    wait_until(lambda: len(said("BUSY")) == 25, "every run is over", 30)
    assert max(int(line.split()[-1]) for line in said("BUSY")) <= 4
