"""Invocations over kept connections, and the names of what goes wrong with them.

Expectations: developer guide, "Handle transient Lambda service exceptions" and "Invoke an AWS Lambda
function with Step Functions"; Lambda API reference of Invoke.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from localcloud.states.aws_clients import AwsClients
from localcloud.states.errors import StateError
from localcloud.states.lambda_calls import LambdaCalls
from localcloud.states.resources import parse_resource
from localcloud.states.services import Abandonment, Caller, TaskCall

CALLER = Caller(
    account="123456789012",
    region="eu-west-1",
    role_arn="arn:aws:iam::123456789012:role/machine",
    execution_arn="arn:aws:states:eu-west-1:123456789012:execution:m:e",
    state_machine_arn="arn:aws:states:eu-west-1:123456789012:stateMachine:m",
)


class Service(ThreadingHTTPServer):
    """Answers every invocation with ``answer``, and notes who asked what over which connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"null")
        self.requests: list[tuple[str, dict[str, str], bytes, Any]] = []
        self.asked = threading.Event()
        self.held: threading.Event | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body, self.client_address))
        self.server.asked.set()
        if self.server.held is not None:
            self.server.held.wait(20)
        status, headers, answer = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def calls_to(port: int) -> LambdaCalls:
    return LambdaCalls(AwsClients(endpoint_url=f"http://127.0.0.1:{port}", root_secret="secret"))


def call(arguments: Any, resource: str = "arn:aws:states:::lambda:invoke", **more: Any) -> TaskCall:
    return TaskCall(resource=parse_resource(resource), arguments=arguments, caller=CALLER, **more)


@pytest.fixture
def calls(service: Service) -> LambdaCalls:
    return calls_to(service.server_port)


def error_of(service: Service, calls: LambdaCalls, status: int, headers: dict[str, str], body: Any) -> StateError:
    service.answer = (status, headers, json.dumps(body).encode())
    with pytest.raises(StateError) as caught:
        calls.invoke(call({"FunctionName": "f"}))
    return caught.value


def test_calls_of_a_thread_use_one_connection_and_are_signed_for_account_and_region(
    service: Service, calls: LambdaCalls
) -> None:
    service.answer = (200, {"X-Amz-Executed-Version": "7"}, b'{"n": 2}')
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:live"
    result = calls.invoke(call({"FunctionName": arn, "Payload": {"n": 1}}))
    assert (result["Payload"], result["ExecutedVersion"], result["StatusCode"]) == ({"n": 2}, "7", 200)
    assert calls.invoke(call({"n": 1}, arn)) == {"n": 2}
    (first, headers, body, client), (second, _, other_body, other_client) = service.requests
    assert first == second == "/2015-03-31/functions/f/invocations?Qualifier=live"
    assert body == other_body == b'{"n":1}'
    assert client == other_client
    assert "Credential=123456789012/" in headers["Authorization"]
    assert "/eu-west-1/lambda/aws4_request" in headers["Authorization"]


def test_a_functions_error_type_is_the_error_and_the_payload_is_the_cause(service: Service, calls: LambdaCalls) -> None:
    payload = {"errorType": "SnapshotBusy", "errorMessage": "busy"}
    error = error_of(service, calls, 200, {"X-Amz-Function-Error": "Unhandled"}, payload)
    assert (error.error, json.loads(error.cause)) == ("SnapshotBusy", payload)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (429, "TooManyRequestsException", "Lambda.TooManyRequestsException"),
        (404, "ResourceNotFoundException", "Lambda.ResourceNotFoundException"),
        (500, "ServiceException", "Lambda.ServiceException"),
        (403, "AccessDeniedException", "Lambda.AWSLambdaException"),
        (503, "InternalFailure", "Lambda.AWSLambdaException"),
        (500, "", "Lambda.ServiceException"),
    ],
)
def test_errors_of_the_service_have_its_names(
    service: Service, calls: LambdaCalls, status: int, code: str, error: str
) -> None:
    headers = {"x-amzn-ErrorType": code} if code else {}
    raised = error_of(service, calls, status, headers, {"Message": "as told"})
    assert raised.error == error
    assert raised.cause.startswith("as told (Service: AWSLambda; Status Code: ")


def test_a_failure_is_not_repeated_behind_the_machines_back(service: Service, calls: LambdaCalls) -> None:
    error_of(service, calls, 503, {}, {})
    assert len(service.requests) == 1


def test_a_service_that_is_not_there_is_an_sdk_client_exception() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StateError) as caught:
        calls_to(port).invoke(call({"FunctionName": "f"}))
    assert caught.value.error == "Lambda.SdkClientException"


def test_a_call_that_nobody_waits_for_ends_at_once_and_the_next_one_works(service: Service, calls: LambdaCalls) -> None:
    service.held = threading.Event()
    abandonment = Abandonment()
    failures: list[StateError] = []
    ended = threading.Event()

    def work() -> None:
        try:
            calls.invoke(call({"FunctionName": "f"}, abandonment=abandonment))
        except StateError as error:
            failures.append(error)
        service.held = None
        calls.invoke(call({"FunctionName": "f"}))
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert service.asked.wait(10)
    held = service.held
    abandonment.abandon()
    assert ended.wait(10)
    held.set()
    assert [failure.error for failure in failures] == ["Lambda.SdkClientException"]
