"""The thin handlers: errors of boto3 in our terms, settings from the environment."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import pytest
from blockferry.aws.errors import translated
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RequestRefused, RetryLater
from blockferry.lambdas import call_again, done, progress_of, publish_counts, traced
from botocore.exceptions import ClientError, ConnectTimeoutError


class Context:
    aws_request_id = "request-1"

    def get_remaining_time_in_millis(self) -> int:
        return 1000


def client_error(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "text"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "DescribeSnapshots")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("RequestLimitExceeded"), RetryLater),
        (client_error("Unavailable", 503), RetryLater),
        (client_error("Whatever", 500), RetryLater),
        (ConnectTimeoutError(endpoint_url="http://x"), RetryLater),
        (client_error("AccessDenied", 403), RequestRefused),
        (client_error("InvalidParameterValue"), RequestRefused),
    ],
)
def test_an_aws_error_becomes_one_that_the_state_machine_knows(error: Any, kind: type[Exception]) -> None:
    assert type(translated(error)) is kind

    def fail(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(kind):
        traced(fail)({"job_id": "j"}, Context())


def test_a_refusal_names_the_operation_and_what_aws_said() -> None:
    assert str(translated(client_error("AccessDenied", 403))) == "DescribeSnapshots: AccessDenied: text"


@pytest.mark.parametrize("character", ["x", "\u00e4", '"', "\U0001f6a2"])
def test_an_error_of_a_hundred_targets_fits_into_the_cause_of_a_state(
    character: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = "\n".join(f"- targets[{number}]: {character * 1_000}" for number in range(100))

    def fail(_event: Any, _context: Any) -> dict[str, Any]:
        raise InvalidRequest(text)

    with pytest.raises(InvalidRequest, match=r"^- targets\[0\]") as caught:
        traced(fail)({"job_id": "j"}, Context())
    # What the runtime makes of it, with its traceback.
    frames = traceback.format_list(traceback.extract_tb(caught.tb))
    cause = {"errorMessage": str(caught.value), "errorType": "InvalidRequest", "requestId": "r", "stackTrace": frames}
    assert 15_000 < len(json.dumps(cause)) < 32_768
    assert "the function's log has all of it" in str(caught.value)
    assert "targets[99]" in caplog.text


def test_a_short_error_is_raised_as_it_is() -> None:
    error = RequestRefused("- targets[0]: no")

    def fail(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(RequestRefused) as caught:
        traced(fail)({"job_id": "j"}, Context())
    assert caught.value is error


def test_in_lambda_the_log_has_the_stack_trace_and_the_cause_has_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    limits: list[Any] = []

    def fail(_event: Any, _context: Any) -> dict[str, Any]:
        limits.append(getattr(sys, "tracebacklimit", None))
        raise RequestRefused("PutSnapshotBlock block 3 of snap-1: no")

    handler = traced(fail)
    try:
        for _ in range(2):
            caplog.clear()
            with pytest.raises(RequestRefused, match=r"^PutSnapshotBlock block 3 of snap-1: no$") as caught:
                handler({"job_id": "j"}, Context())
            # As Lambda's runtime asks for it.
            assert traceback.extract_tb(caught.tb) == []
            assert any(record.exc_info and record.exc_info[2] is not None for record in caplog.records)
        # Of the call before, nothing is left: what it logs has its whole trace.
        assert limits == [None, None]
    finally:
        vars(sys).pop("tracebacklimit", None)


def test_an_answer_passes_through_unchanged() -> None:
    assert traced(lambda event, _context: {"echo": event["job_id"]})({"job_id": "j"}, Context()) == {"echo": "j"}


def test_a_function_that_is_not_done_gets_its_progress_in_the_next_call() -> None:
    answer = call_again({"next_index": 7}, wait_seconds=3, blocks_read=2)
    assert answer == {"done": False, "progress": {"next_index": 7}, "wait_seconds": 3, "blocks_read": 2}
    assert progress_of(answer) == {"next_index": 7}
    assert call_again({"next_index": 7}) == {"done": False, "progress": {"next_index": 7}}
    assert done(outcome="moved") == {"done": True, "outcome": "moved"}
    assert progress_of({"job_id": "j", "progress": None}) is None


def test_an_execution_of_an_earlier_version_is_refused_with_a_clear_word() -> None:
    with pytest.raises(IncompleteTransfer, match=r"started by an earlier version.*start a new job"):
        progress_of({"job_id": "j", "range": {"first": 0, "stop": 8}, "next_index": 7})


def test_throttled_requests_are_published_by_the_code_of_their_quota(capsys: pytest.CaptureFixture[str]) -> None:
    counts = RequestCounts()
    counts.sent("PutSnapshotBlock", "eu-west-1")
    counts.retried("PutSnapshotBlock", "RequestThrottledException")
    counts.retried("PutSnapshotBlock", "RequestThrottledException")
    counts.retried("GetSnapshotBlock", "ThrottlingException")
    counts.retried("GetSnapshotBlock", "InternalServerException")
    publish_counts(counts)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    throttled = {line["quota"]: line["ThrottledRequests"] for line in lines if "quota" in line}
    assert throttled == {"L-1774F84A": [2.0], "L-C125AE42": [1.0]}
    assert [line["Requests"] for line in lines if line.get("operation") == "PutSnapshotBlock"] == [[1.0]]
    assert all(line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Blockferry" for line in lines)
