"""The EBS server verifies signatures as AWS does: what has to be signed, with what, for whom and when."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from localcloud.ebs.testing import HOME_ACCOUNT, RunningServer, running_server
from localcloud.signatures import stamp

from .ebs_clients import block, checksum, client, signed, start

MISMATCH = "The request signature we calculated does not match the signature you provided."
UNSIGNED = "There were headers present in the request which were not signed: "


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server({"quotas_enabled": False, "seal_seconds": 0}) as running:
        yield running


@dataclass(frozen=True)
class Told:
    status: int
    code: str
    message: str


def ask(
    server: RunningServer, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[Told, http.client.HTTPResponse]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request(method, target, body, dict(headers))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    said: dict[str, Any] = json.loads(content) if content.startswith(b"{") else {}
    return Told(answer.status, str(answer.headers["x-amzn-ErrorType"]), str(said.get("message", ""))), answer


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


LIST = "/snapshots/snap-0123456789abcdef0/blocks"
COMPLETE = "/snapshots/completion/snap-0123456789abcdef0"
PUT = "/snapshots/snap-0123456789abcdef0/blocks/0"
COUNT = {"x-amz-ChangedBlocksCount": "0"}
FOUND = (404, "ResourceNotFoundException")
"""Past the signature: there is no such snapshot."""


def put_headers(data: bytes) -> dict[str, str]:
    return {
        "x-amz-Data-Length": str(len(data)),
        "x-amz-Checksum": checksum(data),
        "x-amz-Checksum-Algorithm": "SHA256",
    }


def test_a_request_without_a_signature_is_refused(server: RunningServer) -> None:
    told, _ = ask(server, "GET", LIST, {})
    assert told == Told(403, "MissingAuthenticationTokenException", "Request is missing Authentication Token")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Bearer x", "IncompleteSignatureException"),
        ("AWS 111122223333:c2lnbmF0dXJl", "IncompleteSignatureException"),
        (
            "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/ebs/aws4_request",
            "IncompleteSignatureException",
        ),
        ("AWS4-HMAC-SHA256 Credential=1/2, SignedHeaders=host, Signature=0", "IncompleteSignatureException"),
    ],
)
def test_what_is_no_signature_is_refused(server: RunningServer, authorization: str, code: str) -> None:
    told, _ = ask(server, "GET", LIST, {"Authorization": authorization, "x-amz-date": stamp(0)})
    assert (told.status, told.code) == (403, code)


def test_a_signature_of_another_secret_or_of_another_request_is_refused(server: RunningServer) -> None:
    right = signed(server, "GET", LIST)
    assert ask(server, "GET", LIST, right)[0].code == "ResourceNotFoundException"
    for method, target, headers in (
        ("GET", LIST, signed(server, "GET", LIST, secret="local-cloud")),
        ("GET", LIST + "?maxResults=100", right),
        ("GET", LIST.replace("snap-0", "snap-1"), right),
        ("POST", LIST, right),
        ("GET", LIST, {**right, "X-Amz-Date": stamp(now().replace(tzinfo=UTC).timestamp() - 2)}),
    ):
        told, _ = ask(server, method, target, headers)
        assert (told.status, told.code) == (403, "InvalidSignatureException")
        assert told.message.startswith(MISMATCH)
        assert "The Canonical String for this request should have been" in told.message


@pytest.mark.parametrize("spoil", ["no Signature", "one digit"])
def test_presence_and_value_of_the_signature_count(server: RunningServer, spoil: str) -> None:
    headers = signed(server, "GET", LIST)
    whole = headers["Authorization"]
    last = whole[-1]
    headers["Authorization"] = whole[:-66] if spoil == "no Signature" else whole[:-1] + ("0" if last != "0" else "1")
    assert ask(server, "GET", LIST, headers)[0].status == 403


def test_a_key_that_nobody_has_is_refused(server: RunningServer) -> None:
    told, _ = ask(server, "GET", LIST, signed(server, "GET", LIST, account="AKIAIOSFODNN7EXAMPLE"))
    assert told == Told(403, "UnrecognizedClientException", "The security token included in the request is invalid.")


def test_a_session_token_that_does_not_belong_to_the_key_is_refused(server: RunningServer) -> None:
    headers = signed(server, "GET", LIST, headers={"x-amz-security-token": "left over"})
    assert ask(server, "GET", LIST, headers)[0].code == "UnrecognizedClientException"


@pytest.mark.parametrize("service", ["ec2", "s3", "EBS"])
def test_a_signature_for_another_service_is_refused(server: RunningServer, service: str) -> None:
    told, _ = ask(server, "GET", LIST, signed(server, "GET", LIST, service=service))
    assert told.code == "InvalidSignatureException"
    assert told.message == "Credential should be scoped to correct service: 'ebs'."


def test_the_day_of_the_scope_is_the_day_of_the_request(server: RunningServer) -> None:
    headers = signed(server, "GET", LIST)
    day = headers["X-Amz-Date"][:8]
    headers["Authorization"] = headers["Authorization"].replace(f"/{day}/", "/20260101/")
    told, _ = ask(server, "GET", LIST, headers)
    assert told.code == "InvalidSignatureException"
    assert told.message.startswith("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date")


@pytest.mark.parametrize(("minutes", "accepted"), [(-6, False), (-4, True), (4, True), (6, False)])
def test_a_clock_may_differ_by_five_minutes(server: RunningServer, minutes: int, accepted: bool) -> None:
    at = now() + timedelta(minutes=minutes)
    told, answer = ask(server, "GET", LIST, signed(server, "GET", LIST, at=at))
    if accepted:
        assert (told.status, told.code) == FOUND
        return
    assert (told.status, told.code) == (403, "InvalidSignatureException")
    words = (
        "Signature expired: {} is now earlier than" if minutes < 0 else "Signature not yet current: {} is still later"
    )
    assert told.message.startswith(words.format(at.strftime("%Y%m%dT%H%M%SZ")))
    assert told.message.endswith(f"{'-' if minutes < 0 else '+'} 5 min.)")
    assert answer.headers["Date"].endswith(" GMT")


def test_its_clock_can_be_wrong_and_the_answers_say_by_how_much(server: RunningServer) -> None:
    server.service.configure({"signature_clock_offset_seconds": -3600})
    told, answer = ask(server, "GET", LIST, signed(server, "GET", LIST))
    assert told.message.startswith("Signature not yet current: ")
    shown = parsedate_to_datetime(answer.headers["Date"]).replace(tzinfo=None)
    assert abs((now() - shown).total_seconds() - 3600) < 30
    told, _ = ask(server, "GET", LIST, signed(server, "GET", LIST, at=shown))
    assert (told.status, told.code) == FOUND


def test_moving_the_clock_of_snapshots_does_not_move_that_of_signatures(server: RunningServer) -> None:
    server.service.clock.advance(86_400)
    start(client(server, "ebs"))


@pytest.mark.parametrize("name", ["x-amz-ChangedBlocksCount", "x-amz-Checksum", "x-amz-new", "content-type"])
def test_every_header_that_means_something_is_signed(server: RunningServer, name: str) -> None:
    headers = signed(server, "POST", COMPLETE, headers={} if name == "x-amz-ChangedBlocksCount" else COUNT)
    told, _ = ask(server, "POST", COMPLETE, {**headers, name: "1"})
    assert (told.status, told.code) == (403, "InvalidSignatureException")
    assert told.message == UNSIGNED + name.lower()


def test_only_a_blocks_body_may_be_left_unsigned(server: RunningServer) -> None:
    literal = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    data = block("a")
    told, _ = ask(server, "PUT", PUT, signed(server, "PUT", PUT, headers=literal | put_headers(data)), data)
    assert (told.status, told.code) == FOUND
    body = b'{"VolumeSize": 1}'
    for method, target, more, content in (
        ("POST", COMPLETE, COUNT, b""),
        ("POST", "/snapshots", {"content-type": "application/json"}, body),
        ("GET", LIST, {}, b""),
    ):
        headers = signed(server, method, target, headers=literal | more, body=content)
        told, _ = ask(server, method, target, headers, content)
        assert (told.status, told.code) == (403, "InvalidSignatureException")
        assert told.message.startswith(MISMATCH)
    assert server.service.registry.snapshots == {}


def test_a_body_that_is_signed_is_compared(server: RunningServer) -> None:
    data, other = block("a"), block("b")
    for method, target, more, content, spoiled, passed in (
        ("PUT", PUT, put_headers(data), data, other, FOUND),
        ("POST", "/snapshots", {}, b'{"VolumeSize": 1}', b'{"VolumeSize": 2}', (201, "None")),
        ("POST", COMPLETE, COUNT, b"", b"x", FOUND),
    ):
        headers = signed(server, method, target, headers=more, body=content)
        told, _ = ask(server, method, target, headers, spoiled)
        assert (told.status, told.code) == (403, "InvalidSignatureException")
        told, _ = ask(server, method, target, headers, content)
        assert (told.status, told.code) == passed


def test_ec2_actions_are_signed_for_ec2_and_refused_in_its_words(server: RunningServer) -> None:
    form = b"Action=DescribeSnapshots&Owner.1=self&Version=2016-11-15"
    more = {"content-type": "application/x-www-form-urlencoded"}
    right = signed(server, "POST", "/", headers=more, body=form, service="ec2")
    assert ask(server, "POST", "/", right, form)[0].status == 200
    wrong = signed(server, "POST", "/", headers=more, body=form, service="ebs")
    _, answer = ask(server, "POST", "/", wrong, form)
    assert answer.status == 401
    late = signed(server, "POST", "/", headers=more, body=form, service="ec2", at=now() - timedelta(hours=1))
    assert ask(server, "POST", "/", late, form)[0].status == 400


def test_the_caller_is_the_key_that_signed(server: RunningServer) -> None:
    body = b'{"VolumeSize": 1}'
    headers = signed(server, "POST", "/snapshots", body=body, account="123456789012")
    ask(server, "POST", "/snapshots", headers, body)
    assert {snapshot.owner for snapshot in server.service.registry.snapshots.values()} == {"123456789012"}
    assert HOME_ACCOUNT != "123456789012"
