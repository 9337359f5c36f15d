"""Objects under keys of KMS: which key it is, and what becomes of requests when it cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from server_probe import RunningServer, running_server

from .iam_clients import CONFIG, Session, role, statement
from .s3_clients import BUCKET, PART, content, noise, refusal, refused, upload

DATA = b"under a key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), config=CONFIG) as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningServer) -> Any:
    return server.client("s3")


@pytest.fixture
def kms(server: RunningServer) -> Any:
    return server.client("kms")


@pytest.fixture
def key(kms: Any) -> str:
    return str(kms.create_key()["KeyMetadata"]["Arn"])


def put(s3: Any, key: str | None, name: str = "k", **more: Any) -> Any:
    named = {} if key is None else {"SSEKMSKeyId": key}
    where = {"Bucket": BUCKET, "Key": name}
    return s3.put_object(**{**where, "Body": DATA, "ServerSideEncryption": "aws:kms", **named, **more})


def test_a_key_is_answered_by_its_arn_however_it_was_named(s3: Any, kms: Any, key: str) -> None:
    kms.create_alias(AliasName="alias/of-s3", TargetKeyId=key)
    alias = key.rpartition(":key/")[0] + ":alias/of-s3"
    for named in (key, key.rpartition("/")[2], "alias/of-s3", alias):
        assert put(s3, named)["SSEKMSKeyId"] == key
        head = s3.head_object(Bucket=BUCKET, Key="k")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_without_a_key_it_is_that_of_aws(s3: Any) -> None:
    written = put(s3, None)
    assert (
        written["SSEKMSKeyId"]
        == put(s3, "alias/aws/s3")["SSEKMSKeyId"]
        == put(s3, written["SSEKMSKeyId"])["SSEKMSKeyId"]
    )
    assert written["SSEKMSKeyId"].startswith("arn:aws:kms:us-east-1:111122223333:key/")


def test_objects_are_encrypted_with_keys_of_s3_if_nothing_is_said(s3: Any) -> None:
    assert s3.put_object(Bucket=BUCKET, Key="plain", Body=DATA)["ServerSideEncryption"] == "AES256"
    assert s3.get_object(Bucket=BUCKET, Key="plain")["ServerSideEncryption"] == "AES256"


def test_an_etag_under_a_key_is_no_md5(s3: Any, key: str) -> None:
    of_md5 = f'"{hashlib.md5(DATA).hexdigest()}"'
    written = put(s3, key, "opaque")["ETag"]
    assert written != of_md5
    assert s3.head_object(Bucket=BUCKET, Key="opaque")["ETag"] == written
    assert put(s3, key, "opaque", BucketKeyEnabled=True)["BucketKeyEnabled"] is True
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    parts = [noise(PART), b"end"]
    done = s3.complete_multipart_upload(**upload(s3, parts, key="opaque", **encryption))
    assert done["SSEKMSKeyId"] == key
    assert done["ETag"] != f'"{hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-2"'
    source = {"Bucket": BUCKET, "Key": "opaque"}
    s3.put_object(**source, Body=DATA)
    assert s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source)["CopyObjectResult"]["ETag"] == of_md5
    copied = s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source, **encryption)
    assert copied["CopyObjectResult"]["ETag"] != of_md5


ACCOUNT = "arn:aws:kms:us-east-1:111122223333"
NOT_FOUND = "KMS.NotFoundException"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (
            "00000000-0000-0000-0000-000000000000",
            f"Key '{ACCOUNT}:key/00000000-0000-0000-0000-000000000000' does not exist",
        ),
        (f"{ACCOUNT}:key/none", f"Key '{ACCOUNT}:key/none' does not exist"),
        ("alias/none", f"Alias {ACCOUNT}:alias/none is not found."),
        ("arn:aws:kms:eu-west-1:111122223333:key/none", "Invalid arn eu-west-1"),
    ],
)
def test_a_key_that_there_is_not_is_refused_and_nothing_is_written(s3: Any, named: str, told: str) -> None:
    assert refusal(put, s3=s3, key=named, name="keyless") == (400, NOT_FOUND, told)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": named}
    assert refused(s3.create_multipart_upload, Bucket=BUCKET, Key="keyless", **encryption) == (400, NOT_FOUND)
    assert refused(s3.head_object, Bucket=BUCKET, Key="keyless") == (404, "404")


def test_under_a_disabled_key_nothing_is_written_read_or_copied(s3: Any, kms: Any, key: str) -> None:
    put(s3, key, "disabled")
    where = {"Bucket": BUCKET, "Key": "disabled"}
    pending = upload(s3, [b"x"], key="pending", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    kms.disable_key(KeyId=key)
    told = (400, "KMS.DisabledException", f"{key} is disabled.")
    assert refusal(put, s3=s3, key=key) == told
    assert refusal(s3.get_object, **where) == told
    assert refusal(s3.copy_object, Bucket=BUCKET, Key="copy", CopySource=where) == told
    assert refusal(s3.complete_multipart_upload, **pending) == told
    assert s3.head_object(**where)["ContentLength"] == len(DATA)
    kms.enable_key(KeyId=key)
    assert content(s3, **where) == DATA
    s3.complete_multipart_upload(**pending)


def test_a_key_that_will_be_deleted_cannot_be_used(s3: Any, kms: Any, key: str) -> None:
    put(s3, key, "doomed")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    told = (400, "KMS.KMSInvalidStateException", f"{key} is pending deletion.")
    assert refusal(put, s3=s3, key=key) == told
    assert refusal(s3.get_object, Bucket=BUCKET, Key="doomed") == told


def test_the_key_of_a_buckets_default_is_asked_like_any_other(s3: Any, kms: Any, key: str) -> None:
    s3.create_bucket(Bucket="with-default")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(
        Bucket="with-default",
        ServerSideEncryptionConfiguration={"Rules": [{**rule, "BucketKeyEnabled": True}]},
    )
    written = s3.put_object(Bucket="with-default", Key="k", Body=DATA)
    assert (written["SSEKMSKeyId"], written["BucketKeyEnabled"]) == (key, True)
    kms.disable_key(KeyId=key)
    call = {"Bucket": "with-default", "Key": "k", "Body": DATA}
    assert refused(s3.put_object, **call) == (400, "KMS.DisabledException")
    s3.put_object(**call, ServerSideEncryption="AES256")
    assert content(s3, Bucket="with-default", Key="k") == DATA


@pytest.mark.parametrize("more", [{"ServerSideEncryption": "AES256"}, {"ServerSideEncryption": None}])
def test_a_key_without_kms_is_invalid(s3: Any, key: str, more: dict[str, Any]) -> None:
    told = "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
    call = {name: value for name, value in more.items() if value}
    where = {"Bucket": BUCKET, "Key": "k", "Body": DATA, "SSEKMSKeyId": key}
    assert refusal(s3.put_object, **where, **call) == (400, "InvalidArgument", told)


def test_a_key_of_another_account_is_found_by_its_arn(server: RunningServer, s3: Any) -> None:
    other = server.client("kms", account="123456789012").create_key()["KeyMetadata"]["Arn"]
    assert put(s3, other)["SSEKMSKeyId"] == other
    assert refused(put, s3=s3, key=other.rpartition("/")[2]) == (400, NOT_FOUND)


def test_a_key_is_used_in_the_name_of_whoever_asks_and_only_through_s3(
    server: RunningServer, s3: Any, key: str
) -> None:
    put(s3, key)
    objects = statement(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{BUCKET}/*")
    through = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}
    nobody = Session(server, role(server, objects)).client("s3")
    reader = Session(server, role(server, objects, statement("kms:Decrypt", key, Condition=through))).client("s3")
    writer = Session(server, role(server, objects, statement("kms:GenerateDataKey", key, Condition=through))).client(
        "s3"
    )
    elsewhere = {"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}
    other = Session(server, role(server, objects, statement("kms:*", key, Condition=elsewhere))).client("s3")
    assert content(reader, Bucket=BUCKET, Key="k") == DATA
    assert put(writer, key)["SSEKMSKeyId"] == key
    for client in (nobody, writer, other):
        status, code, message = refusal(client.get_object, Bucket=BUCKET, Key="k")
        assert (status, code) == (403, "AccessDenied")
        assert f"is not authorized to perform: kms:Decrypt on resource: {key}" in message
    for client in (nobody, reader, other):
        status, code, message = refusal(
            client.put_object, Bucket=BUCKET, Key="k", Body=DATA, ServerSideEncryption="aws:kms", SSEKMSKeyId=key
        )
        assert (status, code) == (403, "AccessDenied")
        assert f"is not authorized to perform: kms:GenerateDataKey on resource: {key}" in message
    # The key of AWS is there for all of the account, and plain objects need none.
    put(s3, None, "of-aws")
    s3.put_object(Bucket=BUCKET, Key="plain", Body=DATA)
    assert content(nobody, Bucket=BUCKET, Key="of-aws") == content(nobody, Bucket=BUCKET, Key="plain") == DATA


def test_parts_and_copies_need_the_key_as_reading_does(server: RunningServer, s3: Any, key: str) -> None:
    put(s3, key, "source")
    objects = statement(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{BUCKET}/*")
    writer = Session(server, role(server, objects, statement("kms:GenerateDataKey", key))).client("s3")
    where = {"Bucket": BUCKET, "Key": "parts"}
    of_key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    started = writer.create_multipart_upload(**where, **of_key)["UploadId"]
    for call, more in (
        (writer.upload_part, {**where, "UploadId": started, "PartNumber": 1, "Body": DATA}),
        (writer.copy_object, {**where, "CopySource": f"{BUCKET}/source", **of_key}),
    ):
        status, code, message = refusal(call, **more)
        assert (status, code) == (403, "AccessDenied")
        assert "kms:Decrypt" in message
