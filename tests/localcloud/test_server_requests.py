"""The log of requests and connections, and answers that are given again to the same call."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lambda_probe import wait_until
from localcloud import lifecycle
from localcloud.asked import Asked
from localcloud.invocations import Answer, Answers
from localcloud.request_lines import repeated
from localcloud.request_log import RequestLog, RequestLogLayer
from localcloud.state import CloudDirectory
from server_probe import RunningServer, running_server
from tools.terraform import TerraformFailed

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=111122223333/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature="
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


class Sender:
    """Sends requests as an SDK does, invocation and attempt chosen by the test."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.address, timeout=20)

    def __call__(self, invocation: str, **request: Any) -> tuple[int, dict[str, str], Any]:
        with self.connect() as connection:
            connection.sendall(self.bytes_of(invocation, **request))
            return read_answer(connection)

    def bytes_of(
        self,
        invocation: str,
        *,
        attempt: int = 1,
        service: str = "logs",
        region: str = "us-east-1",
        target: str = "Logs_20140328.CreateLogGroup",
        path: str = "/",
        body: Mapping[str, Any],
    ) -> bytes:
        headers = {
            "amz-sdk-invocation-id": invocation,
            "amz-sdk-request": f"attempt={attempt}; max=25",
            "Content-Type": "application/x-amz-json-1.1",
            **({"X-Amz-Target": target} if target else {}),
        }
        content = json.dumps(body).encode()
        return b"".join(self.server.post_in_bytes(service, path=path, body=content, headers=headers, region=region))


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    stream = connection.makefile("rb")
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, json.loads(stream.read(int(headers["content-length"])) or b"{}")


def test_the_next_attempt_of_a_creation_gets_the_first_answer(server: RunningServer) -> None:
    send = Sender(server)
    first = send("first-call", body={"logGroupName": "/once"})
    again = send("first-call", attempt=2, body={"logGroupName": "/once"})
    other = send("second-call", body={"logGroupName": "/once"})

    assert (first[0], again[0], again[2]) == (200, 200, first[2])
    assert "x-local-replayed" not in first[1]
    assert again[1]["x-local-replayed"] == "true"
    assert again[1]["x-amzn-requestid"] == first[1]["x-amzn-requestid"]
    assert (other[0], other[2]["__type"]) == (400, "ResourceAlreadyExistsException")


@pytest.mark.parametrize(
    "change",
    [{"body": {"logGroupName": "/different"}}, {"region": "eu-west-1"}, {"target": "Logs_20140328.DeleteLogGroup"}],
    ids=["content", "region", "operation"],
)
def test_an_invocation_id_alone_does_not_make_it_the_same_call(server: RunningServer, change: dict[str, Any]) -> None:
    send = Sender(server)
    name = f"/changed/{next(iter(change))}"
    assert send(name, body={"logGroupName": name})[0] == 200

    answer = send(name, attempt=2, **{"body": {"logGroupName": name}, **change})

    assert "x-local-replayed" not in answer[1]


def test_a_rest_creation_is_repeated_and_an_invocation_is_not(server: RunningServer) -> None:
    send = Sender(server)
    for attempt, replayed in ((1, None), (2, "true")):
        answer = send(
            "group", attempt=attempt, service="scheduler", target="", path="/schedule-groups/g", body={"Tags": []}
        )
        assert (answer[0], answer[1].get("x-local-replayed")) == (200, replayed)
    for attempt in (1, 2):
        path = "/2015-03-31/functions/none/invocations"
        answer = send("run", attempt=attempt, service="lambda", target="", path=path, body={})
        assert (answer[0], answer[1].get("x-local-replayed")) == (404, None)


def test_a_refusal_is_not_kept(server: RunningServer) -> None:
    send = Sender(server)
    rule = {"service": "logs", "operation": "CreateLogGroup", "action": "throttle", "nth": 1}
    assert server.control("POST", "faults", rule)[0] == 200

    refused = send("refused", body={"logGroupName": "/refused"})
    accepted = send("refused", attempt=2, body={"logGroupName": "/refused"})
    server.control("DELETE", "faults")

    assert (refused[0], accepted[0], accepted[1].get("x-local-replayed")) == (400, 200, None)


def test_an_answer_that_a_fault_loses_stays_lost(server: RunningServer) -> None:
    """Software under test meets the conflict that it would meet in AWS."""
    send = Sender(server)
    rule = {"service": "logs", "operation": "CreateLogGroup", "action": "close_after", "nth": 1}
    assert server.control("POST", "faults", rule)[0] == 200

    with pytest.raises((ConnectionResetError, IndexError)):
        send("lost", body={"logGroupName": "/lost"})
    again = send("lost", attempt=2, body={"logGroupName": "/lost"})
    server.control("DELETE", "faults")

    assert again[2]["__type"] == "ResourceAlreadyExistsException"


def test_an_answer_that_a_fault_spoils_is_not_given_again(server: RunningServer) -> None:
    send = Sender(server)
    rule = {"service": "scheduler", "operation": "CreateScheduleGroup", "action": "flip_response", "nth": 1}
    group = {"service": "scheduler", "target": "", "path": "/schedule-groups/spoiled", "body": {"Tags": []}}
    assert server.control("POST", "faults", rule)[0] == 200

    with pytest.raises(ValueError, match=r".*"):
        send("spoiled", **group)
    again = send("spoiled", attempt=2, **group)
    server.control("DELETE", "faults")

    assert (again[0], again[1].get("x-local-replayed")) == (409, None)


def test_only_the_last_answers_are_kept_and_no_large_ones() -> None:
    answers = Answers(most=2, most_bytes=10)
    for name in ("one", "two", "three"):
        answers.keep((name,), Answer(start={}, body=name.encode()))
    answers.keep(("large",), Answer(start={}, body=b"x" * 11))

    assert [answers.of((name,)) is not None for name in ("one", "two", "three", "large")] == [False, True, True, False]


def log_lines(server: RunningServer) -> list[str]:
    return (server.folder / "data" / "logs" / "requests.log").read_text().splitlines()


def test_every_attempt_and_its_connection_are_logged(server: RunningServer) -> None:
    send = Sender(server)
    with send.connect() as connection:
        port = connection.getsockname()[1]
        for attempt in (1, 2):
            body = {"logGroupName": "/logged"}
            connection.sendall(send.bytes_of("logged", attempt=attempt, region="eu-west-1", body=body))
            assert read_answer(connection)[0] == 200

    def of_port() -> list[str]:
        return [line.split(" ", 2)[2] for line in log_lines(server) if line.split()[1] == str(port)]

    wait_until(lambda: "ended by the client" in of_port(), "the end of the connection is logged", 10)
    opened, first, again, ended, *_ = of_port()
    assert (opened, ended) == ("opened", "ended by the client")
    assert first.startswith("eu-west-1 logs CreateLogGroup /logged -> 200 in ")
    assert first.endswith(" ms invocation=logged attempt=1")
    assert again.endswith(" ms, the first answer again invocation=logged attempt=2")


def test_what_the_door_refuses_is_logged(server: RunningServer) -> None:
    head = "\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    for first in ("POST /made/up HTTP/1.1", "POST /_local/quit HTTP/1.1"):
        with Sender(server).connect() as connection:
            connection.sendall(f"{first}{head}".encode())
            assert connection.recv(12) == b"HTTP/1.1 403"
    assert server.control("GET", "health")[0] == 200

    said = [line.split(" ", 2)[2].partition(" in ")[0] for line in log_lines(server)]
    assert "- - POST /made/up -> 403" in said
    assert "- - POST /_local/quit -> 403" in said
    assert not [line for line in said if "/_local/health" in line]


def test_a_connection_is_closed_when_its_client_has_ended_it(server: RunningServer) -> None:
    """Not when it has been idle for two minutes: a new connection from the same port would meet the old one."""
    send = Sender(server)
    with send.connect() as connection:
        port = connection.getsockname()[1]
        connection.sendall(send.bytes_of("ended", body={"logGroupName": "/ended"}))
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection)[0] == 200
        assert connection.recv(1) == b""

    wait_until(
        lambda: any(line.split()[1:] == [str(port), "closed"] for line in log_lines(server)),
        "the server has closed the connection",
        10,
    )


def test_an_answer_to_nobody_is_told_from_others() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    lines: list[str] = []
    layer = RequestLogLayer(answer, lines.append, is_ended=lambda: True, clock=iter([1.0, 1.25]).__next__)
    scope = {"type": "http", "method": "GET", "path": "/x\ny", "headers": [], "client": ("127.0.0.1", 7)}

    asyncio.run(layer(scope, _nothing, _nowhere))

    assert lines == ["7 - - GET /x?y -> 200 in 250 ms, after the client had ended the connection"]


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def _nowhere(message: Any) -> None:
    pass


def test_a_form_tells_operation_and_resource_in_its_body() -> None:
    asked = Asked.of(
        {
            "method": "POST",
            "path": "/",
            "headers": [(b"authorization", SIGNED.format(region="r", service="iam").encode())],
        },
        b"Action=CreateRole&RoleName=a%2Fb&Version=1",
    )
    assert str(asked) == "r iam CreateRole a/b"


def test_rpc_tells_its_operation_in_its_path() -> None:
    scope = {"method": "POST", "path": "/service/GraniteServiceVersion20100801/operation/PutMetricData", "headers": []}
    assert str(Asked.of(scope, b"")) == "- - PutMetricData"


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.log", max_bytes=200)
    for number in range(20):
        log.write(f"{number} opened")
    log.close()
    log.write("after the end")

    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert sizes.keys() == {"requests.log", "requests.1.log"}
    assert max(sizes.values()) <= 200
    assert (tmp_path / "requests.log").read_text().splitlines()[-1].endswith(" 19 opened")


def test_repeated_calls_are_found_with_all_that_became_of_their_connections() -> None:
    lines = [
        "t 1 opened",
        "t 2 opened",
        "t 1 r logs CreateLogGroup /a -> 200 in 1 ms invocation=A attempt=1",
        "t 2 r logs CreateLogGroup /b -> 200 in 1 ms invocation=B attempt=1",
        "t 1 ended by the client",
        "t 3 r logs CreateLogGroup /a -> 400 in 1 ms invocation=A attempt=2",
    ]
    assert repeated(lines) == [lines[0], lines[2], lines[4], lines[5]]


class RefusedTerraform:
    """A Terraform whose apply AWS refuses."""

    def init(self) -> None:
        pass

    def apply(self, variables: Mapping[str, object]) -> None:
        raise TerraformFailed("ResourceAlreadyExistsException: /a")


def test_a_failed_apply_names_the_requests_that_were_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = CloudDirectory(tmp_path)
    log = directory.data / "logs" / "requests.log"
    log.parent.mkdir(parents=True)
    first = "t 1 r logs CreateLogGroup /a -> 200 in 1 ms invocation=A attempt=1"
    again = "t 3 r logs CreateLogGroup /a -> 400 in 1 ms invocation=A attempt=2"
    log.write_text(f"{first}\nt 2 r logs CreateLogGroup /b -> 200 in 1 ms invocation=B attempt=1\n{again}\n")
    monkeypatch.setattr(lifecycle, "terraform_of", lambda *_: RefusedTerraform())
    monkeypatch.setattr(lifecycle, "terraform_variables", lambda *_: {})
    (tmp_path / "terraform").mkdir()
    nothing: Any = None

    with pytest.raises(TerraformFailed) as failed:
        lifecycle._apply(directory, nothing, nothing)

    assert str(failed.value) == (
        f"ResourceAlreadyExistsException: /a\nRequests that were sent more than once ({log}):\n{first}\n{again}"
    )
