"""Bucket policies beside the policies of roles, for callers of the bucket's account, of another one, and for roots."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from server_probe import RunningServer, running_server

from .iam_clients import CONFIG, HOME, NUMBERS, OTHER, REGION, Session, document, refused, role, statement


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), config=CONFIG) as running:
        yield running


class Bucket:
    """A bucket of ``HOME`` with the object ``jobs/1`` in it."""

    def __init__(self, server: RunningServer, **create: Any) -> None:
        self.server = server
        self.name = f"bucket-{next(NUMBERS)}"
        self.arn = f"arn:aws:s3:::{self.name}"
        self.objects = f"{self.arn}/*"
        self.s3 = server.client("s3")
        self.s3.create_bucket(Bucket=self.name, **create)
        self.put(self.s3, "jobs/1")

    def policy(self, *statements: Mapping[str, Any]) -> None:
        self.s3.put_bucket_policy(Bucket=self.name, Policy=document(*statements))

    def put(self, s3: Any, key: str, **more: Any) -> None:
        s3.put_object(Bucket=self.name, Key=key, Body=b"x", **more)

    def get(self, s3: Any, key: str = "jobs/1") -> bytes:
        return bytes(s3.get_object(Bucket=self.name, Key=key)["Body"].read())

    def session(self, *statements: Mapping[str, Any], account: str = HOME) -> tuple[str, Any]:
        """The ARN of a new role with these statements, and a client with its session."""
        arn = role(self.server, *statements, account=account)
        return arn, Session(self.server, arn, account=account).client("s3")


@pytest.fixture
def bucket(server: RunningServer) -> Bucket:
    return Bucket(server)


def allow(actions: str | list[str], resources: str | list[str], principal: Any, **more: Any) -> dict[str, Any]:
    return {**statement(actions, resources, **more), "Principal": principal}


def deny(actions: str | list[str], resources: str | list[str], principal: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(actions, resources, principal, **more), "Effect": "Deny"}


def of_session(role_arn: str) -> str:
    account, name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    return f"arn:aws:sts::{account}:assumed-role/{name}/test"


EVERYTHING = statement("s3:*")
BY_POLICY = "with an explicit deny in a resource-based policy"


def test_only_the_named_role_writes_where_all_others_are_denied(bucket: Bucket) -> None:
    writer_arn, writer = bucket.session(EVERYTHING)
    _, other = bucket.session(EVERYTHING)
    only_writer = {"ArnNotEquals": {"aws:PrincipalArn": writer_arn}}
    bucket.policy(deny(["s3:PutObject", "s3:DeleteObject"], f"{bucket.arn}/receipts/*", Condition=only_writer))
    bucket.put(writer, "receipts/1")
    with refused("AccessDenied", "s3:PutObject", f"{bucket.arn}/receipts/2", BY_POLICY):
        bucket.put(other, "receipts/2")
    with refused("AccessDenied", "s3:DeleteObject", BY_POLICY):
        other.delete_object(Bucket=bucket.name, Key="receipts/1")
    with refused("AccessDenied", "s3:DeleteObject"):
        other.delete_objects(Bucket=bucket.name, Delete={"Objects": [{"Key": "jobs/1"}, {"Key": "receipts/1"}]})
    assert bucket.get(other, "receipts/1") == b"x"
    bucket.put(other, "jobs/2")


def test_other_ways_to_write_an_object_are_denied_as_well(bucket: Bucket) -> None:
    _, s3 = bucket.session(EVERYTHING)
    bucket.policy(deny("s3:PutObject", f"{bucket.arn}/receipts/*"))
    where = {"Bucket": bucket.name, "Key": "receipts/1"}
    with refused("AccessDenied", "s3:PutObject"):
        s3.copy_object(**where, CopySource={"Bucket": bucket.name, "Key": "jobs/1"})
    with refused("AccessDenied", "s3:PutObject"):
        s3.create_multipart_upload(**where)
    url = s3.generate_presigned_url("put_object", Params=where)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, data=b"x", method="PUT"), timeout=10)
    with caught.value as answer:
        assert BY_POLICY in answer.read().decode()


@pytest.mark.parametrize("key", ["receipts//1", "receipts/", "receipts/a\nb", "receipts/%2f", "receipts/1\n"])
def test_no_spelling_of_a_key_gets_around_a_policy(bucket: Bucket, key: str) -> None:
    _, s3 = bucket.session(EVERYTHING)
    bucket.policy(deny("s3:PutObject", f"{bucket.arn}/receipts/*"))
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, key)


@pytest.mark.parametrize("key", ["/", "//", "/jobs/1", "jobs//1"])
def test_a_policy_names_keys_by_every_slash_of_theirs(bucket: Bucket, key: str) -> None:
    _, s3 = bucket.session(statement("s3:PutObject", f"{bucket.arn}/{key}"))
    bucket.put(s3, key)
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "jobs/1")


def test_in_the_buckets_account_an_allow_of_either_is_enough(bucket: Bucket) -> None:
    by_bucket_arn, by_bucket = bucket.session()
    _, by_role = bucket.session(statement("s3:GetObject", bucket.objects))
    _, by_neither = bucket.session()
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": by_bucket_arn}))
    assert bucket.get(by_bucket) == bucket.get(by_role) == b"x"
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(by_neither)


def test_naming_the_account_leaves_it_to_the_policies_of_its_roles(bucket: Bucket) -> None:
    _, without = bucket.session()
    _, allowed = bucket.session(statement("s3:GetObject", bucket.objects))
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": f"arn:aws:iam::{HOME}:root"}))
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(without)
    assert bucket.get(allowed) == b"x"


def test_one_session_of_a_role_can_be_named(bucket: Bucket) -> None:
    arn, s3 = bucket.session()
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": of_session(arn)}))
    assert bucket.get(s3) == b"x"
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": of_session(arn).replace("/test", "/another")}))
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(s3)


def test_across_accounts_both_sides_have_to_allow(bucket: Bucket) -> None:
    far_arn, far = bucket.session(statement("s3:GetObject", bucket.objects), account=OTHER)
    without_arn, without = bucket.session(account=OTHER)
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(far)
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": [far_arn, without_arn]}))
    assert bucket.get(far) == b"x"
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(without)
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(far, "jobs/2")
    bucket.policy(
        allow("s3:GetObject", bucket.objects, {"AWS": OTHER}),
        deny("s3:GetObject", bucket.objects, {"AWS": far_arn}),
    )
    with refused("AccessDenied", BY_POLICY):
        bucket.get(far)


def test_a_role_of_another_account_is_told_by_its_arn_and_account(bucket: Bucket) -> None:
    far_arn, far = bucket.session(EVERYTHING, account=OTHER)
    _, third = bucket.session(EVERYTHING, account=OTHER)
    one_role = {"ArnEquals": {"aws:PrincipalArn": far_arn}, "StringEquals": {"aws:PrincipalAccount": OTHER}}
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": "*"}, Condition=one_role))
    assert bucket.get(far) == b"x"
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(third)
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": OTHER}, Condition=of_owner(OTHER)))
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(far)
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": OTHER}, Condition=of_owner(HOME)))
    assert bucket.get(far) == b"x"


def of_owner(account: str) -> dict[str, Any]:
    return {"StringEquals": {"aws:ResourceAccount": account}}


def test_a_copy_from_another_account_needs_the_source_opened(server: RunningServer, bucket: Bucket) -> None:
    far_arn, far = bucket.session(EVERYTHING, account=OTHER)
    mine = f"far-{next(NUMBERS)}"
    server.client("s3", account=OTHER).create_bucket(Bucket=mine)
    source = {"Bucket": bucket.name, "Key": "jobs/1"}
    with refused("AccessDenied", "s3:GetObject"):
        far.copy_object(Bucket=mine, Key="copied", CopySource=source)
    bucket.policy(allow("s3:GetObject", bucket.objects, {"AWS": far_arn}))
    with refused("NoSuchBucket"):  # it may, but the base does not copy between accounts
        far.copy_object(Bucket=mine, Key="copied", CopySource=source)


def test_a_policy_binds_the_root_of_the_account_but_for_the_policy_itself(bucket: Bucket) -> None:
    bucket.policy(deny("s3:*", [bucket.arn, bucket.objects]))
    with refused("AccessDenied", f"arn:aws:iam::{HOME}:root", "s3:GetObject", BY_POLICY):
        bucket.get(bucket.s3)
    with refused("AccessDenied", "s3:DeleteBucket"):
        bucket.s3.delete_bucket(Bucket=bucket.name)
    assert "Deny" in bucket.s3.get_bucket_policy(Bucket=bucket.name)["Policy"]
    bucket.s3.delete_bucket_policy(Bucket=bucket.name)
    assert bucket.get(bucket.s3) == b"x"


def test_the_root_of_another_account_needs_an_allow_and_never_touches_the_policy(
    server: RunningServer, bucket: Bucket
) -> None:
    far = server.client("s3", account=OTHER)
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(far)
    bucket.policy(allow("s3:*", [bucket.arn, bucket.objects], {"AWS": OTHER}))
    assert bucket.get(far) == b"x"
    with refused("AccessDenied", "s3:PutBucketPolicy"):
        far.put_bucket_policy(Bucket=bucket.name, Policy=document(deny("s3:*", bucket.objects)))
    with refused("AccessDenied", "s3:DeleteBucketPolicy"):
        far.delete_bucket_policy(Bucket=bucket.name)


def test_a_public_policy_opens_a_restricted_bucket_to_nobody_else(server: RunningServer, bucket: Bucket) -> None:
    far = server.client("s3", account=OTHER)
    open_to_all = allow("s3:GetObject", bucket.objects, "*")
    bucket.s3.delete_public_access_block(Bucket=bucket.name)
    bucket.policy(open_to_all)
    assert bucket.get(far) == b"x"
    bucket.s3.put_public_access_block(
        Bucket=bucket.name, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True}
    )
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(far)


def test_the_name_of_a_bucket_that_is_taken_is_told_to_everybody(server: RunningServer, bucket: Bucket) -> None:
    bucket.policy(deny("s3:*", [bucket.arn, bucket.objects]))
    with refused("BucketAlreadyExists"):
        server.client("s3", account=OTHER).create_bucket(Bucket=bucket.name)


def test_all_but_the_excepted_principals_are_denied(bucket: Bucket) -> None:
    arn, s3 = bucket.session(EVERYTHING)
    _, other = bucket.session(EVERYTHING)
    in_full = [f"arn:aws:iam::{HOME}:root", arn, of_session(arn)]

    def denied(names: list[str]) -> dict[str, Any]:
        return {**statement("s3:GetObject", bucket.objects), "Effect": "Deny", "NotPrincipal": {"AWS": names}}

    bucket.policy(denied(in_full))
    assert bucket.get(s3) == b"x"
    with refused("AccessDenied", BY_POLICY):
        bucket.get(other)
    for missing in in_full:
        bucket.policy(denied([name for name in in_full if name != missing]))
        with refused("AccessDenied", BY_POLICY):
            bucket.get(s3)


def test_all_but_the_excepted_actions_and_resources_are_denied(bucket: Bucket) -> None:
    _, s3 = bucket.session(EVERYTHING)
    everybody = {"Effect": "Deny", "Principal": "*"}
    bucket.policy({**everybody, "NotAction": ["s3:Get*"], "Resource": bucket.objects})
    assert bucket.get(s3) == b"x"
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "jobs/1")
    bucket.policy({**everybody, "Action": "s3:PutObject", "NotResource": f"{bucket.arn}/jobs/*"})
    bucket.put(s3, "jobs/1")
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "receipts/1")


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"


@pytest.mark.parametrize(
    ("condition", "denied"),
    [
        ({"ArnEquals": {"aws:PrincipalArn": "ROLE"}}, True),
        ({"ArnNotEquals": {"aws:PrincipalArn": "ROLE"}}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/role-*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, False),
        ({"ArnNotLike": {"aws:PrincipalArn": ["arn:aws:iam::*:role/nobody", "ROLE"]}}, False),
        ({"ForAnyValue:ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/*"}}, True),
        ({"ArnEqualsIfExists": {"aws:SourceArn": "arn:aws:s3:::elsewhere"}}, True),
        ({"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::elsewhere"}}, False),
        ({"ArnNotEquals": {"aws:SourceArn": "arn:aws:s3:::elsewhere"}}, True),
        ({"StringEquals": {"aws:PrincipalAccount": HOME}}, True),
        ({"StringNotEquals": {"aws:PrincipalAccount": [HOME, OTHER]}}, False),
        ({"StringLike": {"aws:PrincipalArn": "*:role/role-*"}}, True),
        ({"StringNotLike": {"aws:PrincipalArn": "*:role/role-*"}}, False),
        ({"StringEquals": {"aws:PrincipalType": "AssumedRole"}}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, True),
        ({"Bool": {"aws:PrincipalIsAWSService": False}}, True),
        ({"Null": {"aws:SourceVpce": "true"}}, True),
        ({"Null": {"aws:PrincipalArn": "true"}}, False),
        ({"Null": {"s3:x-amz-server-side-encryption": "true"}}, True),
        ({"Null": {"s3:x-amz-server-side-encryption": "false"}}, False),
        ({"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}, True),
        ({"StringEquals": {"aws:PrincipalAccount": HOME}, "Null": {"aws:PrincipalArn": "true"}}, False),
        ({"Null": {"aws:SourceVpce": "true", "aws:PrincipalArn": "true"}}, False),
    ],
)
def test_a_statement_counts_where_its_condition_holds(bucket: Bucket, condition: dict[str, Any], denied: bool) -> None:
    arn, s3 = bucket.session(EVERYTHING)
    told = json.loads(json.dumps(condition).replace("ROLE", arn))
    bucket.policy(deny("s3:PutObject", bucket.objects, Condition=told))
    assert outcome(lambda: bucket.put(s3, "jobs/2")) == ("AccessDenied" if denied else "done")


def test_a_wildcard_of_an_arn_ends_at_a_colon(bucket: Bucket) -> None:
    def told(pattern: str) -> Any:
        return bucket.session(statement("s3:GetObject", Condition={"ArnLike": {"aws:PrincipalArn": pattern}}))[1]

    assert bucket.get(told("arn:*:iam::*:role/role-*")) == b"x"
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(told("arn:*:role/role-*"))


def test_encryption_that_a_policy_demands_has_to_be_asked_for(bucket: Bucket) -> None:
    _, s3 = bucket.session(EVERYTHING)
    bucket.policy(
        deny(
            "s3:PutObject",
            bucket.objects,
            Condition={"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}},
        )
    )
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "jobs/2")
    bucket.put(s3, "jobs/2", ServerSideEncryption="AES256")


def test_the_key_that_a_policy_demands_has_to_be_asked_for(server: RunningServer, bucket: Bucket) -> None:
    right, wrong = (server.client("kms").create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    _, s3 = bucket.session(EVERYTHING, statement(["kms:GenerateDataKey", "kms:Decrypt"]))
    key = {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": right}}
    bucket.policy(deny("s3:PutObject", bucket.objects, Condition=key))
    where = {"Bucket": bucket.name, "Key": "jobs/2"}
    for asked in ({}, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": wrong}):
        with refused("AccessDenied", "s3:PutObject"):
            bucket.put(s3, "jobs/2", **asked)
        with refused("AccessDenied", "s3:PutObject"):
            s3.create_multipart_upload(**where, **asked)
    rightly = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": right}
    bucket.put(s3, "jobs/2", **rightly)
    upload = {**where, "UploadId": s3.create_multipart_upload(**where, **rightly)["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})


def test_listing_can_be_bound_to_a_prefix(bucket: Bucket) -> None:
    arn, s3 = bucket.session()
    bucket.policy(allow("s3:ListBucket", bucket.arn, {"AWS": arn}, Condition={"StringLike": {"s3:prefix": "jobs/*"}}))
    assert s3.list_objects_v2(Bucket=bucket.name, Prefix="jobs/")["KeyCount"] == 1
    for prefix in ({}, {"Prefix": ""}, {"Prefix": "receipts/"}):
        with refused("AccessDenied", "s3:ListBucket"):
            s3.list_objects_v2(Bucket=bucket.name, **prefix)


def test_a_policy_can_demand_that_objects_are_written_once(bucket: Bucket) -> None:
    _, s3 = bucket.session(EVERYTHING)
    creates = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    bucket.policy(deny("s3:PutObject", f"{bucket.arn}/receipts/*", Condition=creates))
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "receipts/1")
    bucket.put(s3, "receipts/1", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        bucket.put(s3, "receipts/1", IfNoneMatch="*")
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "receipts/1", IfMatch=s3.head_object(Bucket=bucket.name, Key="receipts/1")["ETag"])
    where = {"Bucket": bucket.name, "Key": "receipts/2"}
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    parts = {"MultipartUpload": {"Parts": [part]}}
    with refused("AccessDenied", "s3:PutObject"):
        s3.complete_multipart_upload(**upload, **parts)
    s3.complete_multipart_upload(**upload, **parts, IfNoneMatch="*")
    with refused("AccessDenied", "s3:PutObject"):
        s3.copy_object(Bucket=bucket.name, Key="receipts/3", CopySource={"Bucket": bucket.name, "Key": "jobs/1"})


@pytest.mark.parametrize("query", ["uploads", "partNumber=1", "uploads&partNumber=1", "cors", "policy"])
@pytest.mark.parametrize("in_path", [True, False])
def test_a_write_cannot_pass_for_something_else(
    server: RunningServer, bucket: Bucket, query: str, in_path: bool
) -> None:
    arn, _ = bucket.session(EVERYTHING)
    creates = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    bucket.policy(deny("s3:PutObject", bucket.objects, Condition=creates))
    path = f"/{bucket.name}/disguised" if in_path else "/disguised"
    host = "127.0.0.1" if in_path else f"{bucket.name}.s3.localhost"
    assert signed(server, arn, "PUT", f"{path}?{query}", host=host) in (400, 403)
    with refused("404"):
        bucket.s3.head_object(Bucket=bucket.name, Key="disguised")


def signed(server: RunningServer, role_arn: str, method: str, target: str, *, host: str) -> int:
    """The status of a request that boto3 would not send."""
    keys = Session(server, role_arn).keys
    credentials = Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"])
    host = f"{host}:{server.address[1]}"
    request = AWSRequest(method, f"http://{host}{target}", headers={"Host": host}, data=b"")
    S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=10)) as connection:
        connection.request(method, target, headers=dict(request.headers))
        return connection.getresponse().status


def test_replacing_what_was_seen_needs_the_right_to_see_it(bucket: Bucket) -> None:
    seen = bucket.s3.head_object(Bucket=bucket.name, Key="jobs/1")["ETag"]
    _, blind = bucket.session(statement("s3:PutObject", bucket.objects))
    with refused("AccessDenied", "s3:GetObject"):
        bucket.put(blind, "jobs/1", IfMatch=seen)
    _, seeing = bucket.session(statement(["s3:PutObject", "s3:GetObject"], bucket.objects))
    bucket.put(seeing, "jobs/1", IfMatch=seen)


def test_tags_and_locks_that_come_with_an_object_need_rights_of_their_own(bucket: Bucket) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    for action, given in (
        ("s3:PutObjectTagging", {"Tagging": "kind=segment"}),
        ("s3:PutObjectRetention", lock),
        ("s3:PutObjectLegalHold", {"ObjectLockLegalHoldStatus": "ON"}),
    ):
        locked = Bucket(bucket.server, ObjectLockEnabledForBucket=True)
        _, without = locked.session(statement("s3:PutObject", locked.objects))
        _, having = locked.session(statement(["s3:PutObject", action], locked.objects))
        with refused("AccessDenied", action):
            locked.put(without, "jobs/2", **given)
        with refused("AccessDenied", action):
            without.create_multipart_upload(Bucket=locked.name, Key="jobs/2", **given)
        locked.put(having, "jobs/2", **given)


def test_tags_of_a_write_and_of_what_is_read_decide(bucket: Bucket) -> None:
    _, s3 = bucket.session(EVERYTHING)
    bucket.policy(
        deny("s3:PutObject", bucket.objects, Condition={"Null": {"s3:RequestObjectTag/job": "true"}}),
        deny("s3:GetObject", bucket.objects, Condition={"StringEquals": {"s3:ExistingObjectTag/job": "secret"}}),
    )
    with refused("AccessDenied", "s3:PutObject"):
        bucket.put(s3, "jobs/2")
    for tag in ("open", "secret"):
        bucket.put(s3, f"jobs/{tag}", Tagging=f"job={tag}")
    assert bucket.get(s3, "jobs/open") == b"x"
    with refused("AccessDenied", "s3:GetObject"):
        bucket.get(s3, "jobs/secret")


def test_a_policy_is_found_under_the_buckets_own_host(server: RunningServer, bucket: Bucket) -> None:
    arn, _ = bucket.session(EVERYTHING)
    host = f"{bucket.name}.s3.localhost"
    assert signed(server, arn, "GET", "/jobs/1", host=host) == 200
    bucket.policy(deny("s3:GetObject", bucket.objects))
    assert signed(server, arn, "GET", "/jobs/1", host=host) == 403


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Principal": None}, "Missing required field Principal"),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:role/nobody"}}, "Invalid principal in policy"),
        ({"Resource": "arn:aws:s3:::another-bucket/*"}, "Policy has invalid resource"),
        ({"Action": "s3:MoveObject"}, "Policy has invalid action"),
        ({"Condition": {"StringIs": {"aws:PrincipalArn": "x"}}}, "Invalid Condition type : StringIs"),
        ({"Condition": {"StringEquals": {"aws:Mood": "x"}}}, "the local cloud does not evaluate aws:Mood"),
        ({"Sid": "x" * 21_000}, "maximum allowed document size"),
    ],
)
def test_a_policy_that_would_not_count_is_refused_and_the_old_one_stays(
    bucket: Bucket, change: dict[str, Any], message: str
) -> None:
    bucket.policy(deny("s3:DeleteObject", bucket.objects))
    wrong = {name: value for name, value in {**deny("s3:GetObject", bucket.objects), **change}.items() if value}
    with refused("MalformedPolicy", message):
        bucket.policy(wrong)
    assert "s3:DeleteObject" in bucket.s3.get_bucket_policy(Bucket=bucket.name)["Policy"]
