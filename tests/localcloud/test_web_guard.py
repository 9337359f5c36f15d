"""What tells a web page's request from an AWS client's, at the servers' doors and at execution environments'."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping

import pytest
from localcloud.compute.runtime_api import Invocation, RuntimeApi
from localcloud.web_guard import is_cors, refusal


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost:80", "LocalHost:80", "bucket.s3.localhost:80", "a.b.localhost:80"]
)
@pytest.mark.parametrize("site", [{}, {"sec-fetch-site": "none"}])
def test_the_machines_own_names_are_let_in(host: str, site: Mapping[str, str]) -> None:
    assert refusal({"host": host, **site}, port=80) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:81"},
        {"host": "evil.example:80"},
        {"host": "127.0.0.1.evil.example:80"},
        {"host": "localhost.:80"},
        {"host": "notlocalhost:80"},
        {"host": "127.0.0.1:80,evil.example:80"},
        {"host": "evil.example/.localhost:80"},
        {"host": "evil.example#.localhost:80"},
        {"host": "127.0.0.1:080"},
        {"host": "127.0.0.1:80", "origin": ""},
        {"host": "127.0.0.1:80", "origin": "http://127.0.0.1:80"},
        {"host": "127.0.0.1:80", "sec-fetch-site": "same-origin"},
        {"host": "127.0.0.1:80", "sec-fetch-site": ""},
    ],
)
def test_whatever_a_page_may_have_sent_is_refused(headers: Mapping[str, str]) -> None:
    assert refusal(headers, port=80) != ""


def test_headers_that_open_an_answer_are_known() -> None:
    assert is_cors("access-control-allow-origin")
    assert not is_cors("content-type")


class Idle:
    """An environment that would lose its work to whoever asks for it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def next_invocation(self) -> tuple[Invocation, int] | None:
        self.asked.append("next")
        return None

    def respond(self, request_id: str, payload: bytes) -> int:
        self.asked.append("respond")
        return 202

    def fail(self, request_id: str, payload: bytes) -> int:
        self.asked.append("fail")
        return 202

    def init_failed(self, payload: bytes) -> None:
        self.asked.append("init")


@pytest.fixture
def environment() -> Iterator[tuple[Idle, str]]:
    idle = Idle()
    api = RuntimeApi(idle)
    api.start()
    yield idle, api.address
    api.close()


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "invocation/next"), ("POST", "init/error")])
def test_a_page_takes_no_invocation_from_an_execution_environment(
    environment: tuple[Idle, str], method: str, path: str, headers: Mapping[str, str]
) -> None:
    idle, address = environment
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, f"/2018-06-01/runtime/{path}", b"{}" if method == "POST" else None, dict(headers))
    answer = connection.getresponse()
    assert (answer.status, b"web page" in answer.read(), idle.asked) == (403, True, [])
    connection.close()
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("POST", "/2018-06-01/runtime/init/error", b"{}")
    assert (connection.getresponse().status, idle.asked) == (202, ["init"])
    connection.close()
