"""Faults of S3 and of a JSON service, as their clients meet them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from server_probe import RunningServer, running_server, server_command, server_environment

LOST = botocore.exceptions.ConnectionClosedError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket="bucket")
        yield running


@pytest.fixture(autouse=True)
def no_faults_left(server: RunningServer) -> Iterator[None]:
    yield
    assert server.control("DELETE", "faults") == (200, {"rules": []})


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


@pytest.mark.parametrize(
    ("action", "of_s3", "of_states"),
    [
        ("error", (500, "InternalError"), (500, "InternalFailure")),
        ("throttle", (503, "SlowDown"), (400, "ThrottlingException")),
        ("access_denied", (403, "AccessDenied"), (400, "AccessDeniedException")),
    ],
)
def test_a_refusal_is_the_services_own(
    server: RunningServer, action: str, of_s3: tuple[int, str], of_states: tuple[int, str]
) -> None:
    for service in ("s3", "stepfunctions"):
        assert server.control("POST", "faults", {"service": service, "action": action})[0] == 200

    assert refusal(server.client("s3").list_buckets) == of_s3
    assert refusal(server.client("stepfunctions").list_state_machines) == of_states


def test_work_whose_answer_is_lost_was_done(server: RunningServer) -> None:
    s3 = server.client("s3")
    server.control("POST", "faults", {"service": "s3", "operation": "PutObject", "action": "close_after", "nth": 1})

    with pytest.raises(LOST):
        s3.put_object(Bucket="bucket", Key="after", Body=b"kept")

    assert s3.get_object(Bucket="bucket", Key="after")["Body"].read() == b"kept"


def test_nothing_is_done_where_the_connection_closes_before(server: RunningServer) -> None:
    s3 = server.client("s3")
    server.control("POST", "faults", {"service": "s3", "operation": "PutObject", "action": "close_before", "nth": 1})

    with pytest.raises(LOST):
        s3.put_object(Bucket="bucket", Key="before", Body=b"lost")

    assert refusal(lambda: s3.get_object(Bucket="bucket", Key="before")) == (404, "NoSuchKey")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"service": "s4", "action": "error"}, "service: the local cloud has no service 's4'"),
        ({"service": "s3", "operation": "PutObjct", "action": "error"}, "operation: s3 has no operation 'PutObjct'"),
        ({"action": "error", "nth": 0}, "nth must be"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_member(server: RunningServer, rule: dict[str, Any], message: str) -> None:
    status, answer = server.control("POST", "faults", rule)
    assert status == 400
    assert message in answer["message"]


def test_a_bit_flipped_on_the_way_back_changes_the_clients_bytes_only(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.put_object(Bucket="bucket", Key="flip", Body=b"0123456789", ChecksumAlgorithm="SHA256")
    rule = {"service": "s3", "operation": "GetObject", "action": "flip_response", "nth": 1}
    server.control("POST", "faults", rule)

    spoiled = s3.get_object(Bucket="bucket", Key="flip")["Body"]
    # botocore holds the bytes against the object's checksum, which is how a client notices.
    with pytest.raises(botocore.exceptions.FlexibleChecksumError):
        spoiled.read()
    assert s3.get_object(Bucket="bucket", Key="flip")["Body"].read() == b"0123456789"


def test_a_bit_flipped_on_the_way_there_is_what_the_service_gets(server: RunningServer) -> None:
    sqs = server.client("sqs")
    server.control("POST", "faults", {"service": "sqs", "action": "flip_request", "nth": 1, "bit": 90})
    with pytest.raises(botocore.exceptions.ClientError):
        sqs.create_queue(QueueName="q")
    assert not sqs.list_queues().get("QueueUrls")
    assert sqs.create_queue(QueueName="q")["QueueUrl"].endswith("/q")


def test_half_a_body_is_no_answer(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.put_object(Bucket="bucket", Key="half", Body=bytes(100_000))
    server.control("POST", "faults", {"service": "s3", "operation": "GetObject", "action": "short_body", "nth": 1})

    with pytest.raises((botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError)):
        s3.get_object(Bucket="bucket", Key="half")["Body"].read()
    assert len(s3.get_object(Bucket="bucket", Key="half")["Body"].read()) == 100_000


def test_latency_delays_the_request_that_it_fits_and_no_other(server: RunningServer) -> None:
    s3 = server.client("s3")
    rule = {"service": "s3", "operation": "ListBuckets", "action": "latency", "latency_ms": 400}
    server.control("POST", "faults", rule)

    def seconds(call: Callable[[], Any]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    assert seconds(s3.list_buckets) >= 0.4
    assert min(seconds(lambda: s3.head_bucket(Bucket="bucket")) for _ in range(3)) < 0.4


def test_faults_by_chance_strike_the_same_calls_for_the_same_seed(server: RunningServer) -> None:
    s3 = server.client("s3")

    def struck() -> list[bool]:
        rule = {"service": "s3", "operation": "HeadBucket", "action": "error", "probability": 0.5, "seed": 3}
        server.control("POST", "faults", rule)
        answers = []
        for _ in range(20):
            try:
                s3.head_bucket(Bucket="bucket")
                answers.append(False)
            except botocore.exceptions.ClientError:
                answers.append(True)
        server.control("DELETE", "faults")
        return answers

    once = struck()
    assert struck() == once
    assert 0 < sum(once) < 20


def test_a_rule_fits_by_account_region_and_resource(server: RunningServer) -> None:
    for rule in (
        {"service": "s3", "action": "error", "account": "123456789012"},
        {"service": "states", "action": "error", "region": "eu-west-1"},
        {"service": "s3", "action": "error", "operation": "PutObject", "resource": "spoiled/"},
    ):
        assert server.control("POST", "faults", rule)[0] == 200

    server.client("s3").list_buckets()
    assert refusal(server.client("s3", account="123456789012").list_buckets)[0] == 500
    server.client("stepfunctions").list_state_machines()
    assert refusal(server.client("stepfunctions", region="eu-west-1").list_state_machines)[0] == 500
    s3 = server.client("s3")
    s3.put_object(Bucket="bucket", Key="fine/1", Body=b"")
    assert refusal(lambda: s3.put_object(Bucket="bucket", Key="spoiled/1", Body=b""))[0] == 500


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"faults": [{"service": "s3", "action": "error"}, {"service": "s3", "action": "explode"}]}, "faults[1]"),
        ({"ebs": {"faults": [{"operation": "GetSnapshotBlock", "action": "error", "nth": 0}]}}, "faults[0]: nth"),
    ],
)
def test_wrong_faults_in_the_config_file_stop_the_server_and_are_named(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    done = subprocess.run(
        server_command(tmp_path, "--config", str(file)),
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert expected in done.stderr


def test_faults_of_the_config_file_are_in_force_from_the_start(tmp_path: Path) -> None:
    rule = {"service": "s3", "operation": "ListBuckets", "action": "throttle", "times": 1}
    with running_server(tmp_path, config={"faults": [rule]}) as running:
        s3 = running.client("s3")
        assert refusal(s3.list_buckets) == (503, "SlowDown")
        assert s3.list_buckets()["Buckets"] == []
