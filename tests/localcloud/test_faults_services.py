"""Faults of S3 and of a JSON service, as their clients meet them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from server_probe import RunningServer, running_server

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
