"""The client against scripted answers: what is retried, what is not, and what is never accepted.

Codes and retryability: EBS user guide, "Error retries"; botocore service model ``ebs``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot, StartedSnapshot
from blockferry.aws.ebs.refusals import MAY_BE_UNKNOWN_SECONDS, StaleToken
from blockferry.aws.ebs.transport import Answer, TransportError
from blockferry.core.checksums import digest_of, encode
from blockferry.core.errors import ChecksumMismatch, OutOfTime, RequestRefused, RetryLater
from blockferry.core.retry import Deadline, RetryPolicy
from fakes import ManualClock, content

Script = list[Answer | Exception]
DATA = content(7)


class Scripted:
    """A transport that gives its answers in turn, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, Mapping[str, str], Mapping[str, str], bytes | None]] = []

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        sign_body: bool,
    ) -> Answer:
        self.requests.append((method, path, query, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def failure(status: int, code: str, reason: str = "", message: str = "no") -> Answer:
    body = json.dumps({"Message": message, "Reason": reason}).encode()
    return Answer(status, {"x-amzn-errortype": code}, body)


def block(data: bytes = DATA, *, checksum: str | None = None) -> Answer:
    checksum = checksum or encode(digest_of(data))
    headers = {
        "x-amz-data-length": str(len(data)),
        "x-amz-checksum": checksum,
        "x-amz-checksum-algorithm": "SHA256",
    }
    return Answer(200, headers, data)


STORED = Answer(201, {"x-amz-checksum": encode(digest_of(DATA))}, b"{}")


def make(*answers: Answer | Exception, deadline: float | None = None) -> tuple[EbsDirect, Scripted, ManualClock]:
    clock, transport = ManualClock(), Scripted(*answers)
    ebs = EbsDirect(transport, region="eu-west-1", clock=clock, deadline=Deadline(deadline, clock=clock))
    return ebs, transport, clock


def get(ebs: EbsDirect) -> tuple[bytes, bytes]:
    return ebs.get_block("snap-00000001", 7, "token+/=")


def put(ebs: EbsDirect) -> None:
    ebs.put_block("snap-00000001", 7, DATA, digest_of(DATA))


PASSING = [
    failure(400, "ThrottlingException"),
    failure(400, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"),
    failure(400, "RequestThrottleException"),
    failure(500, "InternalServerException"),
    Answer(503, {}, b"<html>busy</html>"),
    failure(400, "ValidationException", "", "Failed to read block data"),
    TransportError("ReadTimeoutError"),
]


@pytest.mark.parametrize("passing", PASSING, ids=str)
@pytest.mark.parametrize(("call", "good"), [(get, block()), (put, STORED)], ids=["get", "put"])
def test_what_passes_is_repeated_until_it_has_passed(
    passing: Answer | Exception, call: Callable[[EbsDirect], object], good: Answer
) -> None:
    ebs, transport, clock = make(passing, passing, good)
    call(ebs)
    assert len(transport.requests) == 3
    assert len(clock.slept) == 2
    assert sum(ebs.counts.retries.values()) == 2


FINAL = [
    failure(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT"),
    failure(400, "ValidationException", "INVALID_PARAMETER_VALUE"),
    failure(402, "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"),
    failure(403, "ExpiredTokenException"),
]


@pytest.mark.parametrize("final", FINAL, ids=str)
@pytest.mark.parametrize("call", [get, put])
def test_what_does_not_pass_fails_at_once_and_names_request_block_and_code(
    final: Answer, call: Callable[[EbsDirect], object]
) -> None:
    ebs, transport, clock = make(final)
    with pytest.raises(RequestRefused) as caught:
        call(ebs)
    assert len(transport.requests) == 1
    assert clock.slept == []
    for part in ("SnapshotBlock", "block 7 of snap-00000001 in eu-west-1", final.headers["x-amzn-errortype"]):
        assert part in str(caught.value)


def test_an_unknown_snapshot_is_waited_for_by_a_reader_for_a_moment_and_longer_by_a_writer() -> None:
    unknown = failure(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
    reader, transport, _ = make(*[unknown] * 3, block())
    assert get(reader)[0] == DATA
    assert len(transport.requests) == 4

    lost, transport, clock = make(unknown)
    with pytest.raises(RequestRefused, match="SNAPSHOT_NOT_FOUND"):
        get(lost)
    assert MAY_BE_UNKNOWN_SECONDS <= sum(clock.slept) <= MAY_BE_UNKNOWN_SECONDS + 8

    writer, transport, _ = make(*[unknown] * 12, STORED)
    put(writer)
    assert len(transport.requests) == 13

    lost, transport, clock = make(unknown)
    with pytest.raises(RequestRefused, match=r"after \d+ attempts"):
        put(lost)
    assert 120 <= sum(clock.slept) <= 130


def test_a_throttle_that_never_ends_gives_up_within_the_budget_and_names_the_quota() -> None:
    ebs, _, clock = make(failure(400, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"))
    with pytest.raises(RetryLater, match="L-1774F84A"):
        put(ebs)
    assert sum(clock.slept) <= RetryPolicy().budget_seconds


def test_with_no_time_left_the_block_is_unfinished_not_failed() -> None:
    ebs, _, _ = make(failure(500, "InternalServerException"), deadline=0.05)
    with pytest.raises(OutOfTime):
        get(ebs)


@pytest.mark.parametrize(
    "bad",
    [
        block(checksum=encode(digest_of(b"other"))),
        block(DATA[:-1]),
        Answer(200, {"x-amz-checksum-algorithm": "SHA256"}, DATA),
        Answer(200, {"x-amz-checksum": "%%%", "x-amz-checksum-algorithm": "SHA256"}, DATA),
    ],
    ids=["flipped", "short", "no checksum", "unreadable checksum"],
)
def test_altered_bytes_are_read_again_and_never_accepted(bad: Answer) -> None:
    ebs, _, _ = make(bad, block())
    assert get(ebs) == (DATA, digest_of(DATA))
    assert ebs.counts.retries["GetSnapshotBlock ChecksumMismatch"] == 1

    never, _, _ = make(bad)
    with pytest.raises(ChecksumMismatch, match="block 7 of snap-00000001"):
        get(never)


def test_a_checksum_algorithm_that_cannot_be_verified_is_refused() -> None:
    headers = {**block().headers, "x-amz-checksum-algorithm": "MD5"}
    ebs, _, _ = make(Answer(200, headers, DATA))
    with pytest.raises(RequestRefused, match="MD5"):
        get(ebs)


def test_a_put_that_ebs_acknowledges_with_another_checksum_is_not_done() -> None:
    ebs, transport, _ = make(Answer(201, {"x-amz-checksum": encode(digest_of(b"other"))}, b"{}"), STORED)
    put(ebs)
    assert len(transport.requests) == 2


def test_a_block_is_put_with_its_length_checksum_and_bytes() -> None:
    ebs, transport, _ = make(STORED)
    put(ebs)
    method, path, _, headers, body = transport.requests[0]
    assert (method, path) == ("PUT", "/snapshots/snap-00000001/blocks/7")
    assert headers["x-amz-data-length"] == "524288"
    assert headers["x-amz-checksum"] == encode(digest_of(DATA))
    assert headers["x-amz-checksum-algorithm"] == "SHA256"
    assert body == DATA


@pytest.mark.parametrize("reason", ["INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"])
def test_a_refused_token_is_told_apart_from_other_validation_errors(reason: str) -> None:
    ebs, transport, _ = make(failure(400, "ValidationException", reason))
    with pytest.raises(StaleToken):
        get(ebs)
    assert len(transport.requests) == 1


@pytest.mark.parametrize(("asked", "sent"), [(1, "100"), (4_096, "4096"), (20_000, "10000")])
def test_a_list_asks_for_a_window_that_ebs_accepts(asked: int, sent: str) -> None:
    ebs, transport, _ = make(Answer(200, {}, b'{"Blocks": [], "BlockSize": 524288}'))
    page = ebs.list_blocks("snap-00000001", start=5, window=asked)
    assert page.entries == ()
    assert page.next_token is None
    assert transport.requests[0][2] == {"maxResults": sent, "startingBlockIndex": "5"}


def test_another_block_size_is_refused() -> None:
    ebs, _, _ = make(Answer(200, {}, b'{"Blocks": [], "BlockSize": 512}'))
    with pytest.raises(RequestRefused, match="512 bytes"):
        ebs.list_blocks("snap-00000001")


def test_a_start_leaves_out_what_is_not_asked_for_and_always_sets_the_longest_timeout() -> None:
    ebs, transport, _ = make(Answer(201, {}, b'{"SnapshotId": "snap-00000009"}'))
    started = ebs.start_snapshot(NewSnapshot(8, "token", "text", {"b": "2", "a": "1"}))
    assert started == StartedSnapshot("snap-00000009", None)
    body = transport.requests[0][4]
    assert body is not None
    assert json.loads(body) == {
        "VolumeSize": 8,
        "ClientToken": "token",
        "Description": "text",
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
        "Timeout": 4320,
    }


def test_a_key_is_never_sent_without_encrypted_and_the_key_of_the_answer_is_told() -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1"
    answer = json.dumps({"SnapshotId": "snap-00000009", "KmsKeyArn": key}).encode()
    ebs, transport, _ = make(Answer(201, {}, answer))
    assert ebs.start_snapshot(NewSnapshot(8, "token", "text", {}, kms_key_arn=key)).kms_key_arn == key
    body = json.loads(transport.requests[0][4] or b"")
    assert (body["Encrypted"], body["KmsKeyArn"]) == (True, key)


def test_a_completion_without_any_block_carries_no_checksum() -> None:
    ebs, transport, _ = make(Answer(202, {}, b'{"Status": "pending"}'))
    ebs.complete_snapshot("snap-00000001", changed_blocks=0, linear_checksum="sum=")
    assert transport.requests[0][3] == {"x-amz-changedblockscount": "0"}


def test_a_completion_carries_count_and_linear_checksum() -> None:
    ebs, transport, _ = make(Answer(202, {}, b'{"Status": "pending"}'))
    ebs.complete_snapshot("snap-00000001", changed_blocks=3, linear_checksum="sum=")
    assert transport.requests[0][3] == {
        "x-amz-changedblockscount": "3",
        "x-amz-checksum": "sum=",
        "x-amz-checksum-algorithm": "SHA256",
        "x-amz-checksum-aggregation-method": "LINEAR",
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"Blocks": [{"BlockIndex": 1}]}', b'{"Blocks": 5}'])
def test_a_list_that_cannot_be_read_is_asked_for_again(body: bytes) -> None:
    good = Answer(200, {}, b'{"Blocks": [{"BlockIndex": 1, "BlockToken": "t"}], "NextToken": "n"}')
    ebs, transport, _ = make(Answer(200, {}, body), good)
    page = ebs.list_blocks("snap-00000001")
    assert (page.entries, page.next_token) == (((1, "t"),), "n")
    assert len(transport.requests) == 2
