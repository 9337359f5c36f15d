"""The concurrency of an account, as a client of the local cloud's server sees it.

Expectations: Lambda developer guide, "Understanding Lambda function scaling", "Configuring reserved concurrency" and
"Error handling for asynchronous invocation"; API reference of GetAccountSettings and Invoke.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lambda_probe import HANDLER, is_written, wait_until, zip_of
from server_probe import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """An account with room for two."""
    with running_server(tmp_path_factory.mktemp("small"), config={"lambda": {"account_concurrency": 2}}) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """An account that may reserve two."""
    with running_server(tmp_path_factory.mktemp("large"), config={"lambda": {"account_concurrency": 102}}) as running:
        yield running


def create(server: RunningServer, *, region: str = "us-east-1") -> str:
    name = f"probe-{uuid.uuid4().hex[:8]}"
    server.client("lambda", region=region).create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role="arn:aws:iam::111122223333:role/probe",
        Handler="app.handler",
        Code={"ZipFile": zip_of({"app.py": HANDLER})},
        Timeout=30,
    )
    return name


def invoke(server: RunningServer, name: str, event: object, *, region: str = "us-east-1", **extra: Any) -> Any:
    answer = server.client("lambda", region=region).invoke(FunctionName=name, Payload=json.dumps(event), **extra)
    return json.loads(answer["Payload"].read() or b"null")


@contextmanager
def busy(server: RunningServer, name: str, count: int, folder: Path) -> Iterator[None]:
    """``count`` invocations of a function that last as long as this does."""
    folder.mkdir()
    event = {"do": "wait_for", "started": str(folder / "started"), "until": str(folder / "until")}
    with ThreadPoolExecutor(count) as threads:
        running: list[Future[Any]] = [threads.submit(invoke, server, name, event) for _ in range(count)]
        try:
            wait_until(lambda: len(list(folder.glob("started-*"))) == count, f"{count} handlers run")
            yield
        finally:
            (folder / "until").touch()
        assert len({each.result(20) for each in running}) == count


def settings(server: RunningServer, region: str = "us-east-1") -> dict[str, Any]:
    return dict(server.client("lambda", region=region).get_account_settings()["AccountLimit"])


def test_an_account_has_ten_and_says_so_if_nothing_else_is_configured(server: RunningServer) -> None:
    limits = settings(server)

    assert (limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]) == (10, 10)


def test_what_is_above_the_accounts_limit_is_throttled_whichever_function_it_is(
    small: RunningServer, tmp_path: Path
) -> None:
    first, second = create(small), create(small)
    client = small.client("lambda")

    with busy(small, first, 2, tmp_path / "busy"):
        counted = small.control("GET", "lambda/concurrency")[1]
        for name in (first, second):
            with pytest.raises(client.exceptions.TooManyRequestsException) as throttled:
                invoke(small, name, {"do": "echo"})
            assert throttled.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            assert throttled.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"
            assert throttled.value.response["Error"]["Message"] == "Rate Exceeded."

    assert counted == {
        "limit": 2,
        "running": [{"account_id": "111122223333", "region": "us-east-1", "function": first, "running": 2}],
    }
    assert invoke(small, second, {"do": "echo"})["event"] == {"do": "echo"}
    assert small.control("GET", "lambda/concurrency")[1]["running"] == []


def test_each_region_has_a_limit_of_its_own(small: RunningServer, tmp_path: Path) -> None:
    here, there = create(small), create(small, region="eu-west-1")

    with busy(small, here, 2, tmp_path / "busy"):
        assert invoke(small, there, {"do": "echo"}, region="eu-west-1")["event"] == {"do": "echo"}


def test_what_a_function_reserves_is_its_own_and_missing_to_all_others(large: RunningServer, tmp_path: Path) -> None:
    owner, other, client = create(large), create(large), large.client("lambda")

    client.put_function_concurrency(FunctionName=owner, ReservedConcurrentExecutions=2)
    kept = settings(large)
    with busy(large, owner, 2, tmp_path / "owner"):
        with pytest.raises(client.exceptions.TooManyRequestsException) as throttled:
            invoke(large, owner, {"do": "echo"})
        assert invoke(large, other, {"do": "echo"})["event"] == {"do": "echo"}
    client.delete_function_concurrency(FunctionName=owner)

    assert throttled.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert (kept["ConcurrentExecutions"], kept["UnreservedConcurrentExecutions"]) == (102, 100)
    assert settings(large)["UnreservedConcurrentExecutions"] == 102


@pytest.mark.parametrize(("account", "wanted", "least"), [("server", 1, 10), ("large", 3, 100)])
def test_nothing_can_be_reserved_of_what_an_account_must_keep(
    account: str, wanted: int, least: int, request: pytest.FixtureRequest
) -> None:
    server: RunningServer = request.getfixturevalue(account)
    name, client = create(server), server.client("lambda")

    with pytest.raises(ClientError, match=rf"below its minimum value of \[{least}\]") as refused:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=wanted)

    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName=name)
    # Switching a function off takes nothing from the others.
    assert client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)


def test_an_asynchronous_invocation_that_is_throttled_waits_and_is_not_one_of_its_retries(
    small: RunningServer, tmp_path: Path
) -> None:
    first, second, deeds = create(small), create(small), tmp_path / "deeds"
    client = small.client("lambda")
    client.put_function_event_invoke_config(FunctionName=second, MaximumRetryAttempts=0)

    with busy(small, first, 2, tmp_path / "busy"):
        invoke(small, second, {"do": "mark", "file": str(deeds)}, InvocationType="Event")
        wait_until(lambda: throttles(small, second) >= 1, "it is throttled")
        assert not deeds.exists()

    wait_until(lambda: is_written(deeds), "it runs when there is room")
    assert deeds.read_text() == "handled\n"


def throttles(server: RunningServer, name: str) -> float:
    points = server.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {
                "Id": "throttles",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/Lambda",
                        "MetricName": "Throttles",
                        "Dimensions": [{"Name": "FunctionName", "Value": name}],
                    },
                    "Period": 86_400,
                    "Stat": "Sum",
                },
            }
        ],
        StartTime="2020-01-01T00:00:00Z",
        EndTime="2100-01-01T00:00:00Z",
    )["MetricDataResults"]
    return float(sum(sum(each["Values"]) for each in points))
