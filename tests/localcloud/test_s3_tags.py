"""Object tags: what S3 takes of them, and of which version they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from server_probe import RunningServer, running_server

from .s3_clients import BUCKET, refusal, refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def tags(s3: Any, **where: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(**where)["TagSet"]}


def tag(s3: Any, *pairs: tuple[str, str], **where: Any) -> Any:
    return s3.put_object_tagging(
        **{"Bucket": BUCKET, "Key": "k", **where},
        Tagging={"TagSet": [{"Key": name, "Value": value} for name, value in pairs]},
    )


def test_tags_come_with_an_object_and_are_replaced_afterwards(s3: Any) -> None:
    where = {"Bucket": BUCKET, "Key": "k"}
    s3.put_object(**where, Body=b"", Tagging="verified=no&by=a%20b")
    assert tags(s3, **where) == {"verified": "no", "by": "a b"}
    tag(s3, ("verified", "yes"), ("größe", "9 + 1/2"))
    assert tags(s3, **where) == {"verified": "yes", "größe": "9 + 1/2"}
    s3.put_object(**where, Body=b"another")
    assert tags(s3, **where) == {}


def test_a_refused_header_writes_nothing(s3: Any) -> None:
    call = {"Bucket": BUCKET, "Key": "never", "Body": b""}
    eleven = "&".join(f"k{number}=v" for number in range(11))
    assert refused(s3.put_object, **call, Tagging=eleven) == (400, "BadRequest")
    assert refused(s3.put_object, **call, Tagging="a=1&a=2") == (400, "InvalidArgument")
    assert refused(s3.put_object, **call, Tagging="aws:a=1") == (400, "InvalidTag")
    assert refused(s3.head_object, Bucket=BUCKET, Key="never") == (404, "404")


@pytest.mark.parametrize(
    ("pairs", "code", "told"),
    [
        ([("a", "1"), ("a", "2")], "InvalidTag", "Cannot provide multiple Tags with the same key"),
        ([("a", "<1>")], "InvalidTag", "The TagValue you have provided is invalid"),
        ([("a", "v" * 257)], "InvalidTag", "The TagValue you have provided is invalid"),
        ([("a!", "1")], "InvalidTag", "The TagKey you have provided is invalid"),
        ([("aws:a", "1")], "InvalidTag", "System tags cannot be added/updated by requester"),
        ([(f"k{number}", "v") for number in range(11)], "BadRequest", "Object tags cannot be greater than 10"),
    ],
)
def test_tags_that_s3_does_not_take(s3: Any, pairs: list[tuple[str, str]], code: str, told: str) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"", Tagging="before=1")
    assert refusal(lambda: tag(s3, *pairs)) == (400, code, told)
    assert tags(s3, Bucket=BUCKET, Key="k") == {"before": "1"}


def test_tags_of_a_version_that_a_delete_marker_hides_can_be_read_and_changed(s3: Any) -> None:
    s3.create_bucket(Bucket="tag-versions")
    s3.put_bucket_versioning(Bucket="tag-versions", VersioningConfiguration={"Status": "Enabled"})
    where = {"Bucket": "tag-versions", "Key": "k"}
    version = s3.put_object(**where, Body=b"", Tagging="a=1")["VersionId"]
    s3.delete_object(**where)
    assert tags(s3, **where, VersionId=version) == {"a": "1"}
    tag(s3, ("a", "2"), **where, VersionId=version)
    assert tags(s3, **where, VersionId=version) == {"a": "2"}
    assert refused(s3.get_object, **where) == (404, "NoSuchKey")
