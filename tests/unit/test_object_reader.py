"""Reading objects of S3: what is missing, what is refused, and what is only late."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from blockferry.aws.objects import ObjectReader, parts, status_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import RequestRefused, RetryLater
from blockferry.core.retry import RetryPolicy
from botocore.exceptions import ClientError
from fakes import ManualClock
from urllib3.exceptions import ProtocolError

DATA = bytes(range(100))


def refused(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


class Objects:
    """One object; errors come first, each once."""

    meta = SimpleNamespace(region_name="eu-west-1")

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[dict[str, Any]] = []

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        if self.errors:
            raise self.errors.pop(0)
        data = DATA
        if "Range" in arguments:
            first, last = map(int, arguments["Range"].removeprefix("bytes=").split("-"))
            data = DATA[first : last + 1]
        return {"Body": io.BytesIO(data), "ContentLength": len(data)}


def reader(s3: Objects, **more: Any) -> ObjectReader:
    return ObjectReader(s3, clock=ManualClock(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["NoSuchKey", "404"])
def test_only_an_object_that_is_not_there_reads_as_nothing(code: str) -> None:
    assert reader(Objects(refused(code, 404))).whole("b", "k") is None
    assert reader(Objects()).whole("b", "k") == DATA


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("NoSuchBucket", 404), ("InvalidObjectState", 403)]
)
def test_an_object_that_may_not_be_read_is_not_taken_for_a_missing_one(code: str, status: int) -> None:
    with pytest.raises(RequestRefused, match=rf"^GetObject of s3://b/k: {code}: "):
        reader(Objects(refused(code, status))).whole("b", "k")


def test_a_refused_part_is_named_with_its_place() -> None:
    with pytest.raises(RequestRefused, match=r"^GetObject of s3://b/k, 10 bytes from 5 on: AccessDenied: "):
        reader(Objects(refused("AccessDenied", 403))).part("b", "k", etag="e", first=5, length=10)


def test_the_parts_of_an_object_cover_it_from_the_start_that_was_asked_for() -> None:
    s3 = Objects()
    found = list(parts(reader(s3), "b", "k", etag="e", size_bytes=100, start=10, length=40))
    assert found == [DATA[10:50], DATA[50:90], DATA[90:]]
    assert [(one["Range"], one["IfMatch"]) for one in s3.asked] == [
        ("bytes=10-49", "e"),
        ("bytes=50-89", "e"),
        ("bytes=90-99", "e"),
    ]
    assert list(parts(reader(s3), "b", "k", etag="e", size_bytes=100, start=100, length=40)) == []


def test_a_body_that_breaks_off_is_read_again_and_counted_by_what_urllib3_calls_it() -> None:
    counts = RequestCounts()
    assert reader(Objects(ProtocolError("broken")), counts=counts).whole("b", "k") == DATA
    assert counts.requests == {"GetObject": 2}
    assert counts.placed == {"GetObject eu-west-1": 2}
    assert counts.retries == {"GetObject ProtocolError": 1}


def test_a_reader_with_a_policy_of_its_own_keeps_to_it() -> None:
    s3 = Objects(*[refused("SlowDown", 503)] * 9)
    with pytest.raises(RetryLater, match="after 2 attempts"):
        reader(s3, policy=RetryPolicy(max_attempts=2)).whole("b", "k")
    assert len(s3.asked) == 2


def test_a_part_that_is_too_short_is_read_again_even_when_its_length_was_not_announced() -> None:
    class Silent(Objects):
        def get_object(self, **arguments: Any) -> dict[str, Any]:
            body = super().get_object(**arguments)["Body"].read()
            return {"Body": io.BytesIO(body[: 5 if len(self.asked) == 1 else None])}

    counts = RequestCounts()
    assert reader(Silent(), counts=counts).part("b", "k", etag="e", first=0, length=10) == DATA[:10]
    assert counts.retries == {"GetObject ShortBody": 1}


def test_an_object_that_is_shorter_than_announced_is_read_again() -> None:
    class Cut(Objects):
        def get_object(self, **arguments: Any) -> dict[str, Any]:
            answer = super().get_object(**arguments)
            return answer | {"Body": io.BytesIO(DATA[:5])} if len(self.asked) == 1 else answer

    counts = RequestCounts()
    assert reader(Cut(), counts=counts).whole("b", "k") == DATA
    assert counts.retries == {"GetObject ShortBody": 1}


def test_an_object_of_a_length_that_was_not_announced_is_taken_as_it_comes() -> None:
    class Silent(Objects):
        def get_object(self, **arguments: Any) -> dict[str, Any]:
            return {"Body": super().get_object(**arguments)["Body"]}

    assert reader(Silent()).whole("b", "k") == DATA


def test_an_error_without_an_http_answer_has_no_status() -> None:
    assert status_of(ClientError({"Error": {"Code": "X", "Message": ""}}, "GetObject")) == 0
    assert status_of(refused("SlowDown", 503)) == 503
