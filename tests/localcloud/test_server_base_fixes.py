"""What Terraform reads back from the base is what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from localcloud.base_fixes import nested_query
from server_probe import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_an_alarm_is_described_as_it_was_put(server: RunningServer) -> None:
    client = server.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="failed jobs & more",
        AlarmDescription="Jobs failed.",
        Namespace="AWS/States",
        MetricName="ExecutionsFailed",
        Dimensions=[{"Name": "StateMachineArn", "Value": "arn:aws:states:us-east-1:111122223333:stateMachine:x"}],
        Statistic="Sum",
        Period=300,
        EvaluationPeriods=2,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=["arn:aws:sns:us-east-1:111122223333:ops"],
        InsufficientDataActions=["arn:aws:sns:us-east-1:111122223333:ops"],
    )
    client.put_metric_alarm(
        AlarmName="by expression",
        EvaluationPeriods=1,
        Threshold=0.5,
        ComparisonOperator="GreaterThanThreshold",
        Metrics=[
            {"Id": "rate", "Expression": "errors / calls", "ReturnData": True},
            {
                "Id": "errors",
                "ReturnData": False,
                "MetricStat": {
                    "Metric": {"Namespace": "AWS/Lambda", "MetricName": "Errors", "Dimensions": []},
                    "Period": 60,
                    "Stat": "Sum",
                },
            },
        ],
    )

    alarms = {alarm["AlarmName"]: alarm for alarm in client.describe_alarms()["MetricAlarms"]}
    simple, expression = alarms["failed jobs & more"], alarms["by expression"]
    assert simple["AlarmDescription"] == "Jobs failed."
    assert simple["Dimensions"][0]["Name"] == "StateMachineArn"
    assert (simple["Statistic"], simple["Period"], simple["EvaluationPeriods"]) == ("Sum", 300, 2)
    assert (simple["Threshold"], simple["TreatMissingData"]) == (1.0, "notBreaching")
    assert simple["ActionsEnabled"] is True
    assert simple["AlarmActions"] == simple["InsufficientDataActions"] == ["arn:aws:sns:us-east-1:111122223333:ops"]
    assert [metric["Id"] for metric in expression["Metrics"]] == ["rate", "errors"]
    assert expression["Metrics"][1]["MetricStat"]["Period"] == 60
    assert expression["Metrics"][0]["ReturnData"] is True
    assert "MetricName" not in expression
    assert "Period" not in expression


def test_query_parameters_become_the_object_they_spell() -> None:
    params = {"A.member.2.B": ["y"], "A.member.1.B": ["x"], "Period": ["60"], "Flag": ["true"], "Name": ["7"]}

    assert nested_query(params) == {"A": [{"B": "x"}, {"B": "y"}], "Period": 60, "Flag": True, "Name": "7"}


def test_an_access_key_is_an_account_a_session_is_its_roles_account(server: RunningServer) -> None:
    session = server.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/target", RoleSessionName="job")[
        "Credentials"
    ]

    def caller(key: str) -> dict[str, Any]:
        return dict(server.control("GET", f"caller?access_key={key}")[1])

    root, assumed = caller("123456789012"), caller(session["AccessKeyId"])
    assert (root["account"], root["arn"]) == ("123456789012", "arn:aws:iam::123456789012:root")
    assert root["secret"] == {"secret_access_key": server.keys.secret, "session_token": None, "expires": None}
    assert assumed["account"] == "123456789012"
    assert assumed["arn"] == "arn:aws:sts::123456789012:assumed-role/target/job"
    assert assumed["secret"]["secret_access_key"] == session["SecretAccessKey"]
    assert assumed["secret"]["session_token"] == session["SessionToken"]
    assert caller("AKIAUNKNOWN")["secret"] is None
    assert server.control("GET", "caller")[0] == 400
