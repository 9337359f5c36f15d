"""The short way to moto's buckets answers as the whole one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, FlexibleChecksumError, NoCredentialsError
from moto import mock_aws
from moto.core.models import botocore_stubber
from rig import session
from short_s3 import ShortS3, name_the_key

HOME = "us-east-1"
SHORT, WHOLE = "bucket-one", "bucket-two"

_OF_THE_TIME = {"date", "last-modified", "x-amzn-requestid", "server", "HostId", "RequestId", "LastModified"}
"""What no two answers need to have in common; servers say their date and name where they like."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "111122223333")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws(config={"core": {"mock_credentials": False}}):
        yield session().client("s3", region_name=HOME, config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def short(s3: Any, monkeypatch: pytest.MonkeyPatch) -> ShortS3:
    """The short way, for one bucket."""
    whole = botocore_stubber.process_request
    made = ShortS3(whole)
    monkeypatch.setattr(
        botocore_stubber,
        "process_request",
        lambda request: (made if request.url.startswith(f"https://{SHORT}.") else whole)(request),
    )
    for bucket in (SHORT, WHOLE):
        s3.create_bucket(Bucket=bucket)
    return made


def said(call: Callable[..., Any], bucket: str, **arguments: Any) -> Any:
    """All that a caller sees of an answer, whatever it is."""
    try:
        return _told(call(Bucket=bucket, **arguments), bucket)
    except ClientError as error:
        return _told(error.response, bucket)


def _told(part: Any, bucket: str) -> Any:
    if isinstance(part, dict):
        return {name: _told(value, bucket) for name, value in part.items() if name not in _OF_THE_TIME}
    if isinstance(part, list):
        return [_told(each, bucket) for each in part]
    if hasattr(part, "read"):
        try:
            return part.read()
        except FlexibleChecksumError as error:  # moto finds a checksum in the first content that reads like one
            return str(error)
    return part.replace(bucket, "the bucket") if isinstance(part, str) else part


KEYS = ("a", "jobs/1/job.json", "jobs/1/started.json", "jobs/2/ü & <x> +%41 ~.json", "jobs/2/z", "z")


def known(body: bytes, **more: Any) -> dict[str, Any]:
    """Of PutObject, by a caller that knows the SHA-256."""
    return {"Body": body, "ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode(), **more}


CALLS: list[tuple[str, dict[str, Any]]] = [
    *(("put_object", {"Key": key, "Body": key.encode() * 3, "ContentType": "application/json"}) for key in KEYS),
    ("put_object", {"Key": "empty", "Body": b""}),
    ("put_object", {"Key": "checksum in the text", "Body": b"x-amz-checksum-crc32:AAAA==\r\n", "IfNoneMatch": "*"}),
    ("put_object", {"Key": "large", "Body": bytes(range(256)) * 8_192, "ChecksumAlgorithm": "SHA256"}),
    ("put_object", {"Key": "a", "Body": b"late", "IfNoneMatch": "*"}),
    ("put_object", {"Key": "a", "Body": b"other", "IfMatch": '"no"'}),
    ("put_object", {"Key": "once", "Body": b"first", "IfNoneMatch": "*", "ChecksumAlgorithm": "CRC32"}),
    ("put_object", {"Key": "once", "Body": b"second", "IfNoneMatch": "*", "ChecksumAlgorithm": "CRC32"}),
    ("put_object", {"Key": "told", "Body": b"x", "Metadata": {"who": "me"}, "ServerSideEncryption": "AES256"}),
    ("put_object", {"Key": "secret", "Body": b"x", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/a"}),
    ("put_object", {"Key": "cold", "Body": b"x", "StorageClass": "GLACIER"}),
    ("put_object", {"Key": "known", **known(b"x-amz-checksum-crc32:AAAA==", ContentType="application/zstd")}),
    ("put_object", {"Key": "known once", **known(b"first", IfNoneMatch="*", Metadata={"volume-id": "vol-1"})}),
    ("put_object", {"Key": "known once", **known(b"second", IfNoneMatch="*")}),
    ("put_object", {"Key": "known empty", **known(b"", StorageClass="STANDARD_IA")}),
    ("put_object", {"Key": "known ia", **known(b"0123456789", StorageClass="STANDARD_IA", Tagging="a=b%20c&d=")}),
    ("put_object", {"Key": "known cold", **known(b"x", StorageClass="DEEP_ARCHIVE")}),
    ("put_object", {"Key": "known secret", **known(b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/a")}),
    ("put_object", {"Key": "known by another", **known(b"x", ExpectedBucketOwner="444455556666")}),
    *(("get_object", {"Key": f"known{key}"}) for key in ("", " once", " empty", " ia", " cold", " secret")),
    ("get_object", {"Key": "known ia", "Range": "bytes=2-5"}),
    ("get_object_tagging", {"Key": "known ia"}),
    ("get_object_tagging", {"Key": "known"}),
    ("head_object", {"Key": "known once"}),
    *(
        ("get_object", {"Key": key})
        for key in (*KEYS, "empty", "checksum in the text", "large", "once", "told", "secret", "cold", "none & <such>")
    ),
    *(
        ("get_object", {"Key": "large", "Range": f"bytes={wanted}"})
        for wanted in (
            "0-0",
            "1-9",
            "0-2097151",
            "2097151-9999999",
            "2097152-2097153",
            "9-1",
            "-5",
            "5-",
            "0-1,3-4",
            "x",
        )
    ),
    ("get_object", {"Key": "a", "IfMatch": '"00"'}),
    ("get_object", {"Key": "a", "IfMatch": "4124bc0a9335c27f086f24ba207a4912"}),
    ("get_object", {"Key": "a", "IfNoneMatch": '"00"'}),
    ("get_object", {"Key": "none", "IfMatch": '"00"'}),
    ("get_object", {"Key": "a", "VersionId": "1"}),
    ("get_object", {"Key": "a", "ExpectedBucketOwner": "444455556666"}),
    ("head_object", {"Key": "a"}),
    ("head_object", {"Key": "none"}),
    *(
        ("list_objects_v2", arguments)
        for arguments in (
            {},
            {"Prefix": "jobs/"},
            {"Prefix": "jobs/", "Delimiter": "/"},
            {"Prefix": "jobs/2/ü"},
            {"Prefix": "none"},
            {"Prefix": "jobs/", "StartAfter": "jobs/1/job.json"},
            {"MaxKeys": 2},
            {"MaxKeys": 0},
            {"MaxKeys": 1, "Prefix": "jobs/", "Delimiter": "/"},
            {"MaxKeys": 2, "StartAfter": "empty"},
            {"FetchOwner": True},
            {"ContinuationToken": ""},
        )
    ),
    ("list_objects", {"Prefix": "jobs/"}),
    ("delete_object", {"Key": "jobs/1/job.json"}),
    ("delete_object", {"Key": "jobs/1/job.json"}),
    ("get_object", {"Key": "jobs/1/job.json"}),
    ("delete_objects", {"Delete": {"Objects": [{"Key": "a"}, {"Key": "none"}]}}),
    ("get_object", {"Key": "a"}),
    ("put_object", {"Key": "a", "Body": b"again", "IfNoneMatch": "*"}),
    ("get_object", {"Key": "a"}),
    ("list_objects_v2", {}),
]


def test_both_ways_give_the_same_answers(s3: Any, short: ShortS3) -> None:
    for operation, arguments in CALLS:
        call = getattr(s3, operation)
        assert said(call, SHORT, **arguments) == said(call, WHOLE, **arguments), (operation, arguments)
    assert short.answered > len(CALLS) / 2


def test_an_object_whose_sha_is_known_is_stored_by_the_short_way(s3: Any, short: ShortS3) -> None:
    s3.put_object(Bucket=SHORT, Key="a", **known(b"x", StorageClass="STANDARD_IA", Metadata={"a": "b"}))
    s3.put_object(Bucket=SHORT, Key="b", **known(b"x", IfNoneMatch="*", Tagging="a=b"))
    assert s3.get_object(Bucket=SHORT, Key="a")["Body"].read() == b"x"
    assert short.answered == 3


def test_pages_have_the_same_bounds(s3: Any, short: ShortS3) -> None:
    for bucket in (SHORT, WHOLE):
        for number in range(7):
            s3.put_object(Bucket=bucket, Key=f"jobs/{number % 3}/{number}", Body=b"x")

    def pages(bucket: str, **more: Any) -> list[Any]:
        found = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}, **more)
        return [_told(page, bucket) for page in found]

    for more in ({}, {"Delimiter": "/", "Prefix": "jobs/"}, {"StartAfter": "jobs/0/3"}):
        assert len(pages(SHORT, **more)) > 1
        assert pages(SHORT, **more) == pages(WHOLE, **more)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (
            "put_bucket_policy",
            {
                "Policy": '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", '
                '"Action": "s3:*Object", "Resource": "arn:aws:s3:::*"}]}'
            },
        ),
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Enabled"}}),
        (
            "put_bucket_encryption",
            {
                "ServerSideEncryptionConfiguration": {
                    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
                }
            },
        ),
    ],
)
def test_a_bucket_with_settings_of_its_own_is_left_to_moto(
    s3: Any, short: ShortS3, operation: str, arguments: dict[str, Any]
) -> None:
    getattr(s3, operation)(Bucket=SHORT, **arguments)
    said(s3.put_object, SHORT, Key="a", Body=b"x")
    said(s3.get_object, SHORT, Key="a")
    said(s3.delete_object, SHORT, Key="a")
    assert short.answered == 0


def test_a_bucket_that_is_not_there_is_refused(s3: Any, short: ShortS3) -> None:
    s3.delete_bucket(Bucket=SHORT)
    for call in (s3.get_object, s3.delete_object):
        assert said(call, SHORT, Key="a")["Error"]["Code"] == "NoSuchBucket"
    assert said(s3.list_objects_v2, SHORT)["Error"]["Code"] == "NoSuchBucket"
    assert short.answered == 0


def test_a_request_that_only_names_its_key_is_answered_as_a_signed_one(
    s3: Any, short: ShortS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = s3.put_object(Bucket=WHOLE, Key="a", Body=b"x", IfNoneMatch="*")
    monkeypatch.setattr("botocore.auth.S3SigV4Auth.add_auth", name_the_key)
    for bucket in (SHORT, WHOLE):
        s3.put_object(Bucket=bucket, Key="b", Body=b"x", IfNoneMatch="*")
        assert said(s3.put_object, bucket, Key="b", Body=b"x", IfNoneMatch="*")["Error"]["Code"] == "PreconditionFailed"
        assert said(s3.get_object, bucket, Key="b")["ETag"] == signed["ETag"]
    assert {each["Name"] for each in s3.list_buckets()["Buckets"]} == {SHORT, WHOLE}


def test_nothing_is_sent_without_credentials() -> None:
    with pytest.raises(NoCredentialsError):
        name_the_key(SimpleNamespace(credentials=None), None)
