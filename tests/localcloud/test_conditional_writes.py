"""S3 writes that may only make an object, or only replace the one that the caller has seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from localcloud.conditional_writes import refused_condition
from server_probe import RunningServer, running_server

BUCKET = "conditional"
WRITERS = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


def put(s3: Any, key: str, body: bytes, **condition: str) -> str:
    return str(s3.put_object(Bucket=BUCKET, Key=key, Body=body, **condition)["ETag"])


def complete(s3: Any, key: str, body: bytes, **condition: str) -> str:
    where = {"Bucket": BUCKET, "Key": key}
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=body)["ETag"]}
    return str(s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]}, **condition)["ETag"])


def copy(s3: Any, key: str, body: bytes, **condition: str) -> str:
    put(s3, f"source-of/{key}", body)
    source = {"Bucket": BUCKET, "Key": f"source-of/{key}"}
    return str(s3.copy_object(Bucket=BUCKET, Key=key, CopySource=source, **condition)["CopyObjectResult"]["ETag"])


def content(s3: Any, key: str) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


EXISTS = (412, "PreconditionFailed")
every_write = pytest.mark.parametrize("write", [put, complete, copy])


@every_write
def test_an_object_is_written_once_and_stays_as_it_was(s3: Any, write: Callable[..., str]) -> None:
    key = f"once/{write.__name__}"
    write(s3, key, b"first", IfNoneMatch="*")
    assert refusal(lambda: write(s3, key, b"second", IfNoneMatch="*")) == EXISTS
    assert content(s3, key) == b"first"


@every_write
def test_an_object_is_replaced_only_where_it_is_the_one_that_was_seen(s3: Any, write: Callable[..., str]) -> None:
    key = f"match/{write.__name__}"
    assert refusal(lambda: write(s3, key, b"none", IfMatch='"0123456789abcdef"')) == (404, "NoSuchKey")
    seen = put(s3, key, b"seen")
    write(s3, key, b"replaced", IfMatch=seen)
    assert refusal(lambda: write(s3, key, b"late", IfMatch=seen)) == EXISTS
    assert content(s3, key) == b"replaced"


@every_write
@pytest.mark.parametrize(
    "condition",
    [{"IfNoneMatch": '"0123456789abcdef"'}, {"IfMatch": "*"}, {"IfNoneMatch": "*", "IfMatch": '"0123456789abcdef"'}],
)
def test_what_s3_does_not_have_is_refused_and_nothing_is_written(
    s3: Any, write: Callable[..., str], condition: dict[str, str]
) -> None:
    key = f"odd/{write.__name__}"
    assert refusal(lambda: write(s3, key, b"odd", **condition)) == (501, "NotImplemented")
    assert refusal(lambda: s3.head_object(Bucket=BUCKET, Key=key)) == (404, "404")


def test_of_many_that_write_once_at_the_same_time_one_does(server: RunningServer) -> None:
    clients = [server.client("s3") for _ in range(WRITERS)]
    together = threading.Barrier(WRITERS)

    def write(number: int) -> str:
        together.wait()
        try:
            put(clients[number], "contended", f"of {number}".encode(), IfNoneMatch="*")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "written"

    with ThreadPoolExecutor(WRITERS) as threads:
        outcomes = list(threads.map(write, range(WRITERS)))
    assert sorted(outcomes) == ["PreconditionFailed"] * (WRITERS - 1) + ["written"]
    assert content(clients[0], "contended") == f"of {outcomes.index('written')}".encode()


def test_what_was_deleted_under_versioning_can_be_written_once_more(s3: Any) -> None:
    s3.create_bucket(Bucket="conditional-versions")
    s3.put_bucket_versioning(Bucket="conditional-versions", VersioningConfiguration={"Status": "Enabled"})
    where = {"Bucket": "conditional-versions", "Key": "k"}
    s3.put_object(**where, Body=b"1", IfNoneMatch="*")
    assert refusal(lambda: s3.put_object(**where, Body=b"2", IfNoneMatch="*")) == EXISTS
    s3.delete_object(**where)
    s3.put_object(**where, Body=b"3", IfNoneMatch="*")
    assert s3.get_object(**where)["Body"].read() == b"3"


def test_a_conflict_strikes_conditional_writes_only_and_writes_nothing(server: RunningServer, s3: Any) -> None:
    server.control("POST", "faults", {"service": "s3", "action": "conflict", "nth": 1})
    put(s3, "conflict", b"without a condition")
    s3.get_object(Bucket=BUCKET, Key="conflict", IfMatch=put(s3, "conflict", b"read under a condition"))
    conflict = (409, "ConditionalRequestConflict")
    assert refusal(lambda: put(s3, "struck", b"1", IfNoneMatch="*")) == conflict
    put(s3, "struck", b"2", IfNoneMatch="*")
    assert content(s3, "struck") == b"2"
    assert server.control("DELETE", "faults") == (200, {"rules": []})


@pytest.mark.parametrize("quoted", ['"abc"', "abc"])
def test_an_etag_matches_with_and_without_its_quotes(quoted: str) -> None:
    assert refused_condition({"if-match": quoted}, '"abc"') is None
    assert refused_condition({"if-match": quoted}, '"abd"') is not None
