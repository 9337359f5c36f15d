"""Invoke through the local cloud's server, as boto3 sees it."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lambda_probe import HANDLER, is_running, is_written, wait_until, zip_of
from server_probe import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # Room for twelve at once, and for a reservation besides the 100 that an account must keep.
    with running_server(tmp_path_factory.mktemp("server"), config={"lambda": {"account_concurrency": 120}}) as running:
        yield running


def create(server: RunningServer, *, code: str = HANDLER, region: str = "us-east-1", **changes: Any) -> str:
    name = f"probe-{uuid.uuid4().hex[:8]}"
    server.client("lambda", region=region).create_function(
        **{
            "FunctionName": name,
            "Runtime": "python3.11",
            "Role": "arn:aws:iam::111122223333:role/probe",
            "Handler": "app.handler",
            "Code": {"ZipFile": zip_of({"app.py": code})},
            "Timeout": 20,
            **changes,
        }
    )
    return name


def invoke(server: RunningServer, name: str, event: object, **extra: Any) -> tuple[dict[str, Any], Any]:
    answer = server.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event), **extra)
    return answer, json.loads(answer["Payload"].read() or b"null")


def waiting(folder: Path) -> dict[str, str]:
    return {"do": "wait_for", "started": str(folder / "started"), "until": str(folder / "until")}


FOREIGN = "python/fast/_fast.cpython-399-riscv64-linux-gnu.so"
NATIVE = f"python/fast/_fast{EXTENSION_SUFFIXES[0]}"


def layer_of(server: RunningServer, *names: str) -> str:
    layer = server.client("lambda").publish_layer_version(
        LayerName=f"layer-{uuid.uuid4().hex[:8]}", Content={"ZipFile": zip_of(dict.fromkeys(names, ""))}
    )
    return str(layer["LayerVersionArn"])


def test_a_package_that_was_built_for_another_machine_is_refused_with_how_to_build_for_this_one(
    server: RunningServer,
) -> None:
    build = r"was built for another machine.*`scripts/build --local`.*-var 'lambda=\{runtime=\"python3\.\d+\", arch"
    with pytest.raises(ClientError, match=f"InvalidParameterValue.*{FOREIGN} {build}"):
        create(server, Layers=[layer_of(server, FOREIGN)])
    with pytest.raises(ClientError, match=build):
        create(server, Code={"ZipFile": zip_of({"app.py": HANDLER, FOREIGN: ""})})
    name = create(server)
    with pytest.raises(ClientError, match=build):
        server.client("lambda").update_function_configuration(
            FunctionName=name, Layers=[layer_of(server, NATIVE), layer_of(server, FOREIGN)]
        )
    assert invoke(server, name, {"do": "echo"})[1]["event"] == {"do": "echo"}


def test_a_package_with_modules_for_several_machines_is_taken_where_one_is_for_this(server: RunningServer) -> None:
    name = create(server, Layers=[layer_of(server, FOREIGN, NATIVE), layer_of(server, "python/other.abi3.so")])
    assert invoke(server, name, {"do": "echo"})[1]["event"] == {"do": "echo"}


def test_a_result_is_returned_without_function_error(server: RunningServer) -> None:
    answer, payload = invoke(server, create(server), {"do": "echo"})

    assert answer["StatusCode"] == 200
    assert "FunctionError" not in answer
    assert payload["event"] == {"do": "echo"}


def test_an_exception_is_an_unhandled_function_error_with_its_class(server: RunningServer) -> None:
    answer, payload = invoke(server, create(server), {"do": "raise"})

    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorType"] == "SnapshotBusy"
    assert set(payload) == {"errorType", "errorMessage", "requestId", "stackTrace"}


def test_the_log_reaches_the_caller_the_log_group_and_the_file(server: RunningServer) -> None:
    name = create(server)
    answer, payload = invoke(server, name, {"do": "echo"}, LogType="Tail")

    tail = base64.b64decode(answer["LogResult"]).decode()
    request_id = payload["request_id"]
    logs = server.client("logs")
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    messages = [event["message"] for event in events]
    assert [line.split(" ")[0] for line in tail.splitlines()] == ["START", "asked", "END", "REPORT"]
    assert messages[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert messages[1] == "asked to echo"
    assert "Max Memory Used: " in messages[3]
    assert len(messages) == 4
    assert "asked to echo\n" in (server.folder / "data/logs" / f"{name}.us-east-1.log").read_text()


def test_reserved_concurrency_is_shared_by_all_versions_and_throttles(server: RunningServer, tmp_path: Path) -> None:
    name, client = create(server), server.client("lambda")
    version = client.publish_version(FunctionName=name)["Version"]
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(invoke, server, name, waiting(tmp_path))
        wait_until(lambda: bool(list(tmp_path.glob("started-*"))), "the handler runs")
        with pytest.raises(client.exceptions.TooManyRequestsException) as throttled:
            invoke(server, name, {"do": "echo"}, Qualifier=version)
        (tmp_path / "until").touch()
        first.result(10)

    assert throttled.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert throttled.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert invoke(server, name, {"do": "echo"})[1]["event"] == {"do": "echo"}


def test_other_requests_are_served_while_handlers_run(server: RunningServer, tmp_path: Path) -> None:
    name = create(server)

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(invoke, server, name, waiting(tmp_path)) for _ in range(8)]
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 8, "eight handlers run at once")
        began = time.monotonic()
        server.client("s3").list_buckets()
        taken = time.monotonic() - began
        (tmp_path / "until").touch()

    assert len({answer.result()[1] for answer in answers}) == 8
    assert taken < 2


def test_a_published_layer_is_imported_from(server: RunningServer) -> None:
    layer = server.client("lambda").publish_layer_version(
        LayerName=f"layer-{uuid.uuid4().hex[:8]}",
        Content={"ZipFile": zip_of({"python/carried.py": "VALUE = 1"})},
    )
    name = create(server, Layers=[layer["LayerVersionArn"]])

    assert invoke(server, name, {"do": "import", "module": "carried"})[1].endswith("/python/carried.py")


def test_a_handler_reaches_the_local_cloud_in_its_region_and_account(server: RunningServer) -> None:
    code = """
import boto3
def handler(event, context):
    sts = boto3.client("sts")
    return [sts.get_caller_identity()["Account"], sts.meta.region_name, sts.meta.endpoint_url]
"""
    name = create(server, code=code, region="eu-west-1", MemorySize=256)
    answer = server.client("lambda", region="eu-west-1").invoke(FunctionName=name)

    assert json.load(answer["Payload"]) == ["111122223333", "eu-west-1", server.endpoint_url]


def test_an_alias_is_seen_in_the_context_and_runs_its_version(server: RunningServer) -> None:
    name, client = create(server), server.client("lambda")
    version = client.publish_version(FunctionName=name)["Version"]
    client.create_alias(FunctionName=name, Name="live", FunctionVersion=version)

    answer, payload = invoke(server, f"{name}:live", {"do": "echo"})

    assert answer["ExecutedVersion"] == version
    assert payload["arn"].endswith(f":function:{name}:live")


def test_a_runtime_that_is_not_python_is_refused(server: RunningServer) -> None:
    name = create(server, Runtime="nodejs22.x")

    answer, payload = invoke(server, name, {})

    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorType"] == "Runtime.Unsupported"


def test_a_request_above_six_megabytes_is_refused(server: RunningServer) -> None:
    name = create(server)

    with pytest.raises(ClientError) as refused:
        invoke(server, name, {"do": "echo", "x": "x" * (6 * 1024 * 1024)})

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_asynchronous_invocation_is_retried_until_it_succeeds(server: RunningServer, tmp_path: Path) -> None:
    name, file = create(server), tmp_path / "deeds"
    server.control("POST", "lambda/faults", {"function": name, "kind": "crash", "nth": 1, "when": "before"})

    answer, _ = invoke(server, name, {"do": "mark", "file": str(file)}, InvocationType="Event")

    assert answer["StatusCode"] == 202
    wait_until(lambda: is_written(file), "the second attempt runs")
    assert file.read_text() == "handled\n"


def test_metrics_count_every_run_once_whoever_asked_for_it(server: RunningServer, tmp_path: Path) -> None:
    name, file = create(server), tmp_path / "deeds"
    invoke(server, name, {"do": "echo"})
    invoke(server, name, {"do": "raise"})
    invoke(server, name, {"do": "mark", "file": str(file)}, InvocationType="Event")
    wait_until(lambda: is_written(file), "the asynchronous invocation runs")
    server.client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    with pytest.raises(ClientError):
        invoke(server, name, {"do": "echo"})

    def total(metric: str) -> float:
        now = time.time()
        points = server.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName=metric,
            Dimensions=[{"Name": "FunctionName", "Value": name}],
            StartTime=now - 600,
            EndTime=now + 600,
            Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    wait_until(lambda: total("Invocations") == 3, "all runs are counted")
    assert total("Errors") == 1
    assert total("Throttles") == 1
    assert total("Duration") > 0


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [("throttle", "TooManyRequestsException", 429), ("service_error", "ServiceException", 500)],
)
def test_faults_of_the_service_are_answered_as_lambda_does(
    server: RunningServer, kind: str, code: str, status: int
) -> None:
    name = create(server)
    _, fault = server.control("POST", "lambda/faults", {"function": name, "kind": kind, "nth": 2})

    assert invoke(server, name, {"do": "echo"})[0]["StatusCode"] == 200
    with pytest.raises(ClientError) as refused:
        invoke(server, name, {"do": "echo"})
    assert invoke(server, name, {"do": "echo"})[0]["StatusCode"] == 200

    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert [
        entry["acted"] for entry in server.control("GET", "lambda/faults")[1]["faults"] if entry["id"] == fault["id"]
    ] == [1]
    assert server.control("DELETE", f"lambda/faults?id={fault['id']}") == (200, {})


def test_workers_are_listed_and_killed_by_the_control_endpoint(server: RunningServer) -> None:
    name = create(server)
    pid = invoke(server, name, {"do": "echo"})[1]["pid"]

    [worker] = [each for each in server.control("GET", "lambda/workers")[1]["workers"] if each["function"] == name]
    status, killed = server.control("POST", "lambda/kill", {"function": name})

    assert worker["pid"] == pid
    assert worker["invocations"] == 1
    assert 0 < worker["rss_kib"] <= worker["peak_rss_kib"] < 64 * 1024
    assert (status, killed) == (200, {"killed": [pid]})
    wait_until(lambda: not is_running(pid), "the worker ends")


def test_deleting_a_function_ends_its_processes(server: RunningServer) -> None:
    name = create(server)
    pid = invoke(server, name, {"do": "echo"})[1]["pid"]

    server.client("lambda").delete_function(FunctionName=name)

    wait_until(lambda: not is_running(pid), "the worker ends")


def test_a_wrong_control_request_says_what_is_wrong(server: RunningServer) -> None:
    assert server.control("POST", "lambda/faults", {"kind": "crash"})[0] == 400
    assert server.control("GET", "lambda/nothing")[0] == 404
    status, answer = server.control("GET", "nothing")
    assert status == 404
    assert "lambda" in answer["message"]


def test_many_invocations_at_once_all_get_their_own_answer(server: RunningServer) -> None:
    name = create(server)
    numbers = range(60)
    lock, seen = threading.Lock(), []  # type: tuple[threading.Lock, list[int]]

    def ask(number: int) -> None:
        _, payload = invoke(server, name, {"do": "echo", "n": number})
        with lock:
            seen.append(payload["event"]["n"] - number)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(ask, numbers))

    assert seen == [0] * len(numbers)
