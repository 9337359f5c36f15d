"""What a refusal says, what passes, and how requests are counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.ebs.refusals import (
    MOST_SIGNED_AGAIN,
    QUOTAS,
    EbsError,
    StaleToken,
    error_of,
    final,
    may_pass,
    throttled_by_quota,
)
from blockferry.aws.ebs.transport import Answer, TransportError
from blockferry.core.checksums import digest_of, encode
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, ChecksumMismatch, RequestRefused, RetryLater
from blockferry.core.retry import RetryPolicy
from fakes import ManualClock, content

DATA = content(7)


def throttled(code: str) -> Answer:
    return Answer(400, {"x-amzn-errortype": code}, json.dumps({"Message": "slow down"}).encode())


class Scripted:
    """Gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.queries: list[Mapping[str, str]] = []
        self.sent: list[dict[str, Any]] = []

    def send(self, method: str, path: str, *, query: Mapping[str, str], **more: Any) -> Answer:
        self.queries.append(query)
        self.sent.append(more)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(*answers: Answer | Exception, **more: Any) -> EbsDirect:
    return EbsDirect(Scripted(*answers), region="eu-west-1", clock=ManualClock(), **more)


def block() -> Answer:
    headers: Mapping[str, str] = {
        "x-amz-data-length": str(len(DATA)),
        "x-amz-checksum": encode(digest_of(DATA)),
        "x-amz-checksum-algorithm": "SHA256",
    }
    return Answer(200, headers, DATA)


def test_every_request_is_counted_once_and_every_repetition_by_its_reason() -> None:
    counts = RequestCounts()
    slow = throttled("RequestThrottledException")
    client(slow, slow, block(), counts=counts).get_block("snap-00000001", 7, "token")
    assert counts.requests == {"GetSnapshotBlock": 3}
    assert counts.retries == {"GetSnapshotBlock RequestThrottledException": 2}


def test_refusals_are_counted_by_the_quota_that_refused() -> None:
    counts = RequestCounts()
    for operation, code in (
        ("GetSnapshotBlock", "ThrottlingException"),
        ("GetSnapshotBlock", "RequestThrottledException"),
        ("GetSnapshotBlock", "RequestThrottledException"),
        ("PutSnapshotBlock", "ThrottlingException"),
        ("PutSnapshotBlock", "RequestThrottledException"),
        ("ListSnapshotBlocks", "ThrottlingException"),
        ("PutSnapshotBlock", "TransportError"),
    ):
        counts.retried(operation, code)
    assert throttled_by_quota(counts) == {"L-C125AE42": 1, "L-028ACFB9": 2, "L-AFAE1BE8": 1, "L-1774F84A": 1}


def test_a_client_with_a_policy_of_its_own_keeps_to_it() -> None:
    counts = RequestCounts()
    policy = RetryPolicy(max_attempts=2)
    with pytest.raises(RetryLater, match="after 2 attempts"):
        client(throttled("ThrottlingException"), counts=counts, policy=policy).get_block("snap-00000001", 7, "token")
    assert counts.requests == {"GetSnapshotBlock": 2}


@pytest.mark.parametrize(("operation", "code"), list(QUOTAS))
def test_a_refusal_by_a_quota_names_it(operation: str, code: str) -> None:
    error = EbsError(request=f"{operation} block 7 of snap-1", status=400, code=code, reason="", message="slow down")
    assert QUOTAS[operation, code] in str(error)
    assert f"{operation} block 7 of snap-1" in str(error)


def test_a_refusal_keeps_all_that_ebs_said_and_names_no_quota_where_none_refused() -> None:
    error = EbsError(request="GetSnapshotBlock block 7", status=404, code="X", reason="GONE", message="no such thing")
    assert (error.request, error.status, error.code, error.reason, error.message) == (
        "GetSnapshotBlock block 7",
        404,
        "X",
        "GONE",
        "no such thing",
    )
    assert "quota" not in str(error)
    assert str(error) == "GetSnapshotBlock block 7: X (GONE): no such thing"
    mute = EbsError(request="GetSnapshotBlock block 7", status=500, code="X", reason="", message="")
    assert str(mute) == "GetSnapshotBlock block 7: X: HTTP 500"


def test_every_operation_is_counted_under_its_own_name_and_a_list_begins_with_the_first_block() -> None:
    counts = RequestCounts()
    page = Answer(200, {}, b'{"Blocks": [], "ChangedBlocks": []}')
    for answer, call in (
        (page, lambda ebs: ebs.list_blocks("snap-1")),
        (page, lambda ebs: ebs.list_changed_blocks("snap-1", "snap-2")),
        (block(), lambda ebs: ebs.get_block("snap-1", 7, "token")),
        (block(), lambda ebs: ebs.put_block("snap-1", 7, DATA, digest_of(DATA))),
        (
            Answer(201, {}, b'{"SnapshotId": "snap-1"}'),
            lambda ebs: ebs.start_snapshot(NewSnapshot(1, "token", "text", {})),
        ),
        (Answer(202, {}, b"{}"), lambda ebs: ebs.complete_snapshot("snap-1", changed_blocks=0, linear_checksum=None)),
    ):
        ebs = client(answer, counts=counts)
        call(ebs)
        for query in ebs._transport.queries:  # type: ignore[attr-defined]
            assert query.get("startingBlockIndex", "0") == "0"
    assert counts.requests == dict.fromkeys(
        [
            "ListSnapshotBlocks",
            "ListChangedBlocks",
            "GetSnapshotBlock",
            "PutSnapshotBlock",
            "StartSnapshot",
            "CompleteSnapshot",
        ],
        1,
    )


def test_tags_of_a_new_snapshot_may_be_unseen_for_a_minute_from_its_start() -> None:
    denied = Answer(403, {"x-amzn-errortype": "AccessDeniedException"}, b'{"Message": "no"}')
    for seconds_ago, tries in ((0.0, 2), (59.0, 2), (60.0, 1), (61.0, 1)):
        counts = RequestCounts()
        ebs = client(denied, block(), counts=counts)
        ebs.was_started("snap-1", seconds_ago=seconds_ago)
        if tries == 1:
            with pytest.raises(RequestRefused, match="AccessDenied"):
                ebs.put_block("snap-1", 7, DATA, digest_of(DATA))
        else:
            ebs.put_block("snap-1", 7, DATA, digest_of(DATA))
        assert counts.requests == {"PutSnapshotBlock": tries}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {}),
        ({"encrypted": False}, {"Encrypted": False}),
        ({"encrypted": True}, {"Encrypted": True}),
        ({"kms_key_arn": "arn"}, {"Encrypted": True, "KmsKeyArn": "arn"}),
        ({"parent_snapshot_id": "snap-9"}, {"ParentSnapshotId": "snap-9"}),
    ],
)
def test_what_a_new_snapshot_is_not_asked_to_be_is_not_sent(more: dict[str, Any], expected: dict[str, Any]) -> None:
    ebs = client(Answer(201, {}, b'{"SnapshotId": "snap-1"}'))
    ebs.start_snapshot(NewSnapshot(2, "token", "text", {"b": "2", "a": "1"}, **more))
    (sent,) = ebs._transport.sent  # type: ignore[attr-defined]
    assert json.loads(sent["body"]) == {
        "VolumeSize": 2,
        "ClientToken": "token",
        "Description": "text",
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
        "Timeout": 4_320,
        **expected,
    }


@pytest.mark.parametrize(
    ("blocks", "checksum", "sent"), [(3, "sum", True), (3, None, False), (0, "sum", False), (0, None, False)]
)
def test_a_checksum_is_sent_only_where_there_is_one_of_something(blocks: int, checksum: str | None, sent: bool) -> None:
    ebs = client(Answer(202, {}, b"{}"))
    ebs.complete_snapshot("snap-1", changed_blocks=blocks, linear_checksum=checksum)
    headers = ebs._transport.sent[0]["headers"]  # type: ignore[attr-defined]
    assert headers["x-amz-changedblockscount"] == str(blocks)
    assert ("x-amz-checksum" in headers) is sent


def test_completing_bears_with_a_snapshot_that_is_not_known_yet() -> None:
    counts = RequestCounts()
    unknown = Answer(404, {"x-amzn-errortype": "ResourceNotFoundException"}, b"{}")
    ebs = client(unknown, Answer(202, {}, b"{}"), counts=counts)
    ebs.complete_snapshot("snap-1", changed_blocks=1, linear_checksum="sum")
    assert counts.requests == {"CompleteSnapshot": 2}


def test_a_clock_that_stays_wrong_is_set_by_the_answer_a_few_times_only() -> None:
    counts = RequestCounts()
    wrong = Answer(
        403,
        {"x-amzn-errortype": "InvalidSignatureException"},
        b'{"message": "Signature expired: 20260101T000000Z is now earlier than 20260101T000100Z"}',
    )
    with pytest.raises(RequestRefused, match="InvalidSignatureException"):
        client(wrong, counts=counts).get_block("snap-1", 7, "token")
    assert counts.requests == {"GetSnapshotBlock": 1 + MOST_SIGNED_AGAIN}


def test_an_answer_that_is_no_success_is_none() -> None:
    with pytest.raises(RequestRefused, match="HTTP 300"):
        client(Answer(300, {}, DATA)).get_block("snap-1", 7, "token")


def test_a_lost_connection_is_counted_as_such() -> None:
    counts = RequestCounts()
    client(TransportError("reset"), block(), counts=counts).get_block("snap-1", 7, "token")
    assert counts.retries == {"GetSnapshotBlock TransportError": 1}


def test_an_empty_description_is_left_out_as_the_service_wants_one_character_at_least() -> None:
    ebs = client(Answer(201, {}, b'{"SnapshotId": "snap-1"}'))
    ebs.start_snapshot(NewSnapshot(1, "token", "", {}))
    assert "Description" not in json.loads(ebs._transport.sent[0]["body"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x-amzn-errortype": "A"}, b'{"__type": "B", "code": "C", "Reason": "R", "Message": "M"}', ("A", "R", "M")),
        ({}, b'{"__type": "B", "code": "C", "reason": "r", "message": "m"}', ("B", "r", "m")),
        ({}, b'{"code": "C"}', ("C", "", "")),
        ({"x-amzn-errortype": "A:http://internal.amazon.com/x:y"}, b"{}", ("A", "", "")),
        ({}, b'{"__type": "com.amazonaws.ebs#v1#Throttled"}', ("Throttled", "", "")),
        ({}, b"", ("HTTP 400", "", "")),
        ({}, b"<html>", ("HTTP 400", "", "")),
        ({}, b"[1]", ("HTTP 400", "", "")),
    ],
)
def test_an_error_is_read_in_every_form_in_which_it_comes(
    headers: dict[str, str], body: bytes, expected: tuple[str, str, str]
) -> None:
    error = error_of("GetSnapshotBlock block 7", Answer(400, headers, body))
    assert (error.code, error.reason, error.message) == expected
    assert type(error) is EbsError


@pytest.mark.parametrize("reason", ["INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"])
def test_a_token_that_is_refused_is_stale(reason: str) -> None:
    body = json.dumps({"Reason": reason}).encode()
    assert type(error_of("x", Answer(400, {"x-amzn-errortype": "ValidationException"}, body))) is StaleToken


def refusal(code: str, *, status: int = 400, reason: str = "", message: str = "") -> EbsError:
    return EbsError(request="x", status=status, code=code, reason=reason, message=message)


@pytest.mark.parametrize(
    ("error", "more", "passes"),
    [
        (refusal("ThrottlingException"), {}, True),
        (refusal("RequestThrottledException"), {}, True),
        (refusal("RequestThrottleException"), {}, True),
        (refusal("InternalServerException"), {}, True),
        (refusal("ConcurrentLimitExceededException"), {}, True),
        (refusal("Whatever", status=499), {}, False),
        (refusal("Whatever", status=500), {}, True),
        (refusal("ValidationException"), {}, False),
        (refusal("ValidationException", reason="WRITE_REQUEST_TIMEOUT"), {}, True),
        (refusal("ValidationException", message="We Failed to read block data in time"), {}, True),
        (refusal("ServiceQuotaExceededException"), {"may_be_unknown": True, "tags_may_spread": True}, False),
        (refusal("ResourceNotFoundException"), {}, False),
        (refusal("ResourceNotFoundException"), {"may_be_unknown": True}, True),
        (refusal("AccessDeniedException"), {"may_be_unknown": True}, False),
        (refusal("AccessDeniedException"), {"tags_may_spread": True}, True),
        (refusal("AccessDeniedException", reason="UNAUTHORIZED_ACCOUNT"), {"tags_may_spread": True}, False),
        (refusal("AccessDeniedException", reason="DEPENDENCY_ACCESS_DENIED"), {"tags_may_spread": True}, False),
        (refusal("RequestTimeTooSkewed", status=403), {"signed_again": 2}, True),
        (refusal("RequestTimeTooSkewed", status=403), {"signed_again": 3}, False),
        (refusal("InvalidSignatureException", status=403, message="It does not match"), {}, False),
    ],
)
def test_only_what_may_pass_is_repeated(error: EbsError, more: dict[str, Any], passes: bool) -> None:
    settings = {"may_be_unknown": False, "tags_may_spread": False, "signed_again": 0} | more
    assert may_pass(error, **settings) is passes


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("ThrottlingException"), RetryLater),
        (RetryLater("a lost connection"), RetryLater),
        (refusal("ResourceNotFoundException"), RequestRefused),
        (refusal("AccessDeniedException"), RequestRefused),
        (ChecksumMismatch("other bytes"), ChecksumMismatch),
    ],
)
def test_what_did_not_pass_in_time_is_refused_only_where_it_will_not_pass_later(
    error: BlockferryError, kind: type[Exception]
) -> None:
    told = final(error, attempts=7)
    assert type(told) is kind
    assert str(told) == f"{error} (after 7 attempts)"
