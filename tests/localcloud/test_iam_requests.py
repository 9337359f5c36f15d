"""Policies decide what roles may do, at the main server and at the EBS server's own door."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lambda_probe import wait_until
from server_probe import RunningServer, running_server

from .iam_clients import (
    BLOCK,
    CONFIG,
    HOME,
    OTHER,
    REGION,
    Session,
    document,
    put,
    read,
    refused,
    role,
    snapshot,
    statement,
    trust,
)

SNAPSHOTS = "arn:aws:ec2:*::snapshot/*"
EBS_ALL = [
    "ebs:CompleteSnapshot",
    "ebs:GetSnapshotBlock",
    "ebs:ListSnapshotBlocks",
    "ebs:PutSnapshotBlock",
    "ebs:StartSnapshot",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), config=CONFIG) as running:
        yield running


both_doors = pytest.mark.parametrize("own_door", [False, True], ids=["main_server", "ebs_server"])


@both_doors
def test_a_role_without_a_policy_is_refused_with_the_text_of_aws(server: RunningServer, own_door: bool) -> None:
    arn = role(server)
    source = snapshot(server)
    who = f"arn:aws:sts::{HOME}:assumed-role/{arn.rpartition('/')[2]}/test"
    with refused(
        "AccessDeniedException",
        f"User: {who} is not authorized to perform: ebs:ListSnapshotBlocks on resource: "
        f"arn:aws:ec2:{REGION}::snapshot/{source} because no identity-based policy allows the "
        "ebs:ListSnapshotBlocks action",
    ):
        Session(server, arn).client("ebs", own_door=own_door).list_snapshot_blocks(SnapshotId=source)


@both_doors
def test_a_role_reads_what_its_policy_names_and_nothing_else(server: RunningServer, own_door: bool) -> None:
    mine, not_mine = snapshot(server), snapshot(server)
    arn = role(server, statement(EBS_ALL, f"arn:aws:ec2:{REGION}::snapshot/{mine}"))
    ebs = Session(server, arn).client("ebs", own_door=own_door)
    assert read(ebs, mine) == BLOCK
    with refused("AccessDeniedException", "ebs:ListSnapshotBlocks", not_mine):
        ebs.list_snapshot_blocks(SnapshotId=not_mine)


def test_an_explicit_deny_wins(server: RunningServer) -> None:
    source = snapshot(server)
    deny = {**statement("ebs:GetSnapshotBlock"), "Effect": "Deny"}
    ebs = Session(server, role(server, statement("ebs:*"), deny)).client("ebs")
    with refused("AccessDeniedException", "with an explicit deny in an identity-based policy"):
        read(ebs, source)


def test_a_permissions_boundary_limits_a_role(server: RunningServer) -> None:
    source = snapshot(server)
    boundary = server.client("iam").create_policy(
        PolicyName="lists-only", PolicyDocument=document(statement("ebs:ListSnapshotBlocks"))
    )["Policy"]["Arn"]
    ebs = Session(server, role(server, statement("ebs:*"), PermissionsBoundary=boundary)).client("ebs")
    assert ebs.list_snapshot_blocks(SnapshotId=source)["Blocks"]
    with refused("AccessDeniedException", "ebs:GetSnapshotBlock"):
        read(ebs, source)


@both_doors
def test_a_change_of_the_policy_counts_from_the_next_request_on(server: RunningServer, own_door: bool) -> None:
    source = snapshot(server)
    arn = role(server, statement(EBS_ALL, SNAPSHOTS))
    ebs = Session(server, arn).client("ebs", own_door=own_door)
    assert read(ebs, source) == BLOCK
    iam, name = server.client("iam"), arn.rpartition("/")[2]
    iam.put_role_policy(
        RoleName=name, PolicyName="calls", PolicyDocument=document(statement("ebs:ListSnapshotBlocks", SNAPSHOTS))
    )
    with refused("AccessDeniedException", "ebs:GetSnapshotBlock"):
        read(ebs, source)
    iam.put_role_policy(RoleName=name, PolicyName="calls", PolicyDocument=document(statement(EBS_ALL, SNAPSHOTS)))
    assert read(ebs, source) == BLOCK


@both_doors
def test_tags_of_the_request_and_of_the_snapshot_decide(server: RunningServer, own_door: bool) -> None:
    tagged = {"Null": {"aws:RequestTag/job": "false"}}
    of_job = {"StringEquals": {"aws:ResourceTag/job": "7"}}
    arn = role(
        server,
        statement("ebs:StartSnapshot", SNAPSHOTS, Condition=tagged),
        statement("ec2:CreateTags", SNAPSHOTS),
        statement(["ebs:PutSnapshotBlock", "ec2:DeleteSnapshot"], SNAPSHOTS, Condition=of_job),
    )
    session = Session(server, arn)
    ebs, ec2 = session.client("ebs", own_door=own_door), session.client("ec2")
    with refused("AccessDeniedException", "ebs:StartSnapshot"):
        ebs.start_snapshot(VolumeSize=1)
    mine = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "job", "Value": "7"}])["SnapshotId"]
    other = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "job", "Value": "8"}])["SnapshotId"]
    put(ebs, mine)
    with refused("AccessDeniedException", "ebs:PutSnapshotBlock"):
        put(ebs, other)
    with refused("UnauthorizedOperation", "You are not authorized to perform this operation", "ec2:DeleteSnapshot"):
        ec2.delete_snapshot(SnapshotId=other)
    ec2.delete_snapshot(SnapshotId=mine)
    # The tag that was missing is given: it counts at once.
    ec2.create_tags(Resources=[other], Tags=[{"Key": "job", "Value": "7"}])
    put(ebs, other)


@both_doors
def test_starting_with_tags_needs_the_right_to_tag(server: RunningServer, own_door: bool) -> None:
    session = Session(server, role(server, statement("ebs:StartSnapshot", SNAPSHOTS)))
    ebs = session.client("ebs", own_door=own_door)
    ebs.start_snapshot(VolumeSize=1)
    with refused("AccessDeniedException", "ec2:CreateTags"):
        ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "job", "Value": "7"}])


PROVED = "blockferry:proved-snapshot-id"


def tagged(server: RunningServer, **tags: str) -> str:
    """A new snapshot with these tags; ``proved`` stands for ``PROVED``."""
    named = [{"Key": {"proved": PROVED}.get(key, key), "Value": value} for key, value in tags.items()]
    return str(server.client("ebs").start_snapshot(VolumeSize=1, **({"Tags": named} if named else {}))["SnapshotId"])


@pytest.mark.parametrize("kind", ["aws", "ec2"])
@pytest.mark.parametrize(
    ("operator", "expected", "deleted"),
    [
        ("StringEquals", "snap-1", {"snap-1"}),
        ("StringNotEquals", "snap-1", {"snap-2", None}),
        ("StringLike", "snap-?", {"snap-1", "snap-2"}),
        ("StringNotLike", "*-1", {"snap-2", None}),
        ("StringEqualsIfExists", "snap-1", {"snap-1", None}),
        ("Null", "true", {None}),
        ("Null", "false", {"snap-1", "snap-2"}),
    ],
)
def test_the_snapshots_own_tags_decide_what_may_be_deleted(
    server: RunningServer, kind: str, operator: str, expected: str, deleted: set[str | None]
) -> None:
    condition = {operator: {f"{kind}:ResourceTag/{PROVED}": expected}}
    ec2 = Session(server, role(server, statement("ec2:DeleteSnapshot", SNAPSHOTS, Condition=condition))).client("ec2")
    snapshots = {value: tagged(server, **({"proved": value} if value else {})) for value in ("snap-1", "snap-2", None)}
    gone = set()
    for value, snapshot_id in snapshots.items():
        with contextlib.suppress(ClientError):
            ec2.delete_snapshot(SnapshotId=snapshot_id)
            gone.add(value)
    assert gone == deleted
    left = server.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert {each["SnapshotId"] for each in left} & set(snapshots.values()) == {
        snapshot_id for value, snapshot_id in snapshots.items() if value not in deleted
    }


def test_a_deny_by_tag_counts_from_the_tag_on(server: RunningServer) -> None:
    proved = {"Null": {f"aws:ResourceTag/{PROVED}": "false"}}
    deny = {**statement("ec2:DeleteSnapshot", SNAPSHOTS, Condition=proved), "Effect": "Deny"}
    ec2 = Session(server, role(server, statement("ec2:*"), deny)).client("ec2")
    kept, removed = tagged(server), tagged(server, proved="snap-1")
    ec2.create_tags(Resources=[kept], Tags=[{"Key": PROVED, "Value": ""}])
    with refused("UnauthorizedOperation", "ec2:DeleteSnapshot", kept):
        ec2.delete_snapshot(SnapshotId=kept)
    ec2.delete_tags(Resources=[removed], Tags=[{"Key": PROVED}])
    ec2.delete_snapshot(SnapshotId=removed)


def test_who_may_tag_and_with_what_is_decided_by_both_sides_tags(server: RunningServer) -> None:
    unproved = {"Null": {f"aws:ResourceTag/{PROVED}": "true"}}
    only_note = {"ForAllValues:StringEquals": {"aws:TagKeys": ["note", PROVED]}}
    rights = statement(["ec2:CreateTags", "ec2:DeleteTags"], SNAPSHOTS, Condition={**unproved, **only_note})
    ec2 = Session(server, role(server, rights)).client("ec2")
    mine, proved = tagged(server, job="7"), tagged(server, proved="snap-1")
    ec2.create_tags(Resources=[mine], Tags=[{"Key": "note", "Value": "x"}])
    with refused("UnauthorizedOperation", "ec2:CreateTags", mine):
        ec2.create_tags(Resources=[mine], Tags=[{"Key": "note", "Value": "x"}, {"Key": "job", "Value": "8"}])
    with refused("UnauthorizedOperation", "ec2:DeleteTags", mine):
        ec2.delete_tags(Resources=[mine], Tags=[{"Key": "job"}])
    for tagging in (ec2.create_tags, ec2.delete_tags):
        with refused("UnauthorizedOperation", proved):
            tagging(Resources=[mine, proved], Tags=[{"Key": PROVED, "Value": "snap-1"}])
    tags = {snapshot_id: tags_of(server, snapshot_id) for snapshot_id in (mine, proved)}
    assert tags == {mine: {"job": "7", "note": "x"}, proved: {PROVED: "snap-1"}}


def tags_of(server: RunningServer, snapshot_id: str) -> dict[str, str]:
    described = server.client("ec2").describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


@both_doors
def test_a_snapshot_is_started_only_with_tags_that_the_policy_names(server: RunningServer, own_door: bool) -> None:
    named = {"ForAllValues:StringEquals": {"aws:TagKeys": [PROVED]}, "Null": {"aws:TagKeys": "false"}}
    arn = role(server, statement("ebs:StartSnapshot", SNAPSHOTS, Condition=named), statement("ec2:CreateTags"))
    ebs = Session(server, arn).client("ebs", own_door=own_door)
    ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": PROVED, "Value": "snap-1"}])
    for tags in ({}, {"Tags": [{"Key": PROVED, "Value": "snap-1"}, {"Key": "job", "Value": "7"}]}):
        with refused("AccessDeniedException", "ebs:StartSnapshot"):
            ebs.start_snapshot(VolumeSize=1, **tags)


@both_doors
def test_blocks_of_a_proved_snapshot_are_read_and_no_others(server: RunningServer, own_door: bool) -> None:
    proved = {"StringLike": {f"aws:ResourceTag/{PROVED}": "snap-*"}}
    ebs = Session(server, role(server, statement("ebs:*", SNAPSHOTS, Condition=proved))).client(
        "ebs", own_door=own_door
    )
    source = snapshot(server, Tags=[{"Key": PROVED, "Value": "snap-1"}])
    assert read(ebs, source) == BLOCK
    server.client("ec2").create_tags(Resources=[source], Tags=[{"Key": PROVED, "Value": "none"}])
    with refused("AccessDeniedException", "ebs:ListSnapshotBlocks"):
        read(ebs, source)


def test_a_policy_with_a_condition_that_nobody_knows_is_refused(server: RunningServer) -> None:
    for condition in ({"StringIs": {"aws:PrincipalArn": "x"}}, ["x"]):
        deny = {**statement("ec2:*", Condition=condition), "Effect": "Deny"}
        with refused("MalformedPolicyDocument", "Syntax errors in policy"):
            role(server, deny)
        with refused("MalformedPolicyDocument", "Syntax errors in policy"):
            server.client("iam").create_policy(PolicyName="unknown", PolicyDocument=document(statement("*"), deny))


def test_a_snapshot_that_is_not_shared_stays_closed_whatever_the_policy_says(server: RunningServer) -> None:
    foreign = snapshot(server, account=OTHER)
    ebs = Session(server, role(server, statement("*"))).client("ebs")
    with refused("AccessDeniedException", "no access to the snapshot"):
        ebs.list_snapshot_blocks(SnapshotId=foreign)
    server.client("ec2", account=OTHER).modify_snapshot_attribute(
        SnapshotId=foreign, Attribute="createVolumePermission", OperationType="add", UserIds=[HOME]
    )
    assert read(ebs, foreign) == BLOCK


@both_doors
def test_a_key_is_used_through_ebs_only_by_those_who_may(server: RunningServer, own_door: bool) -> None:
    key = server.client("kms").create_key()["KeyMetadata"]["Arn"]
    source = snapshot(server, Encrypted=True, KmsKeyArn=key)
    through_ebs = {"StringEquals": {"kms:ViaService": f"ec2.{REGION}.amazonaws.com"}}
    elsewhere = {"StringEquals": {"kms:ViaService": "ec2.eu-west-1.amazonaws.com"}}
    grants = {**through_ebs, "Bool": {"kms:GrantIsForAWSResource": "true"}}

    def ebs(*statements: Mapping[str, Any]) -> Any:
        arn = role(server, statement(EBS_ALL, SNAPSHOTS), *statements)
        return Session(server, arn).client("ebs", own_door=own_door)

    assert read(ebs(statement("kms:Decrypt", key, Condition=through_ebs)), source) == BLOCK
    for without in (ebs(), ebs(statement("kms:Decrypt", key, Condition=elsewhere))):
        with refused("AccessDeniedException", "kms:Decrypt", key):
            read(without, source)
    makes = statement(["kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"], key, Condition=through_ebs)
    with refused("AccessDeniedException", "kms:CreateGrant", key):
        ebs(makes).start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)
    started = ebs(makes, statement("kms:CreateGrant", key, Condition=grants)).start_snapshot(
        VolumeSize=1, Encrypted=True, KmsKeyArn=key
    )
    assert started["KmsKeyArn"] == key
    # The account's own aws/ebs key is for all of the account.
    assert ebs().start_snapshot(VolumeSize=1, Encrypted=True)["KmsKeyArn"] != key


def test_a_key_whose_policy_leaves_out_the_account_is_closed(server: RunningServer) -> None:
    key = server.client("kms", account=OTHER).create_key()["KeyMetadata"]["Arn"]
    source = snapshot(server, account=OTHER, Encrypted=True, KmsKeyArn=key)
    server.client("ec2", account=OTHER).modify_snapshot_attribute(
        SnapshotId=source, Attribute="createVolumePermission", OperationType="add", UserIds=[HOME]
    )
    ebs = Session(server, role(server, statement(["ebs:*", "kms:*"]))).client("ebs")
    with refused("AccessDeniedException", "kms:Decrypt"):
        read(ebs, source)
    both = [f"arn:aws:iam::{account}:root" for account in (HOME, OTHER)]
    opened = {"Effect": "Allow", "Principal": {"AWS": both}, "Action": "kms:*", "Resource": "*"}
    server.client("kms", account=OTHER).put_key_policy(KeyId=key, PolicyName="default", Policy=document(opened))
    wait_until(lambda: _reads(ebs, source), "the key's policy counts, after some seconds")


def _reads(ebs: Any, snapshot_id: str) -> bool:
    with contextlib.suppress(ClientError):
        return read(ebs, snapshot_id) == BLOCK
    return False


def test_bucket_policies_count_and_the_loopback_counts_as_tls(server: RunningServer) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="records")
    s3.put_object(Bucket="records", Key="jobs/1", Body=b"x")
    objects = statement("s3:GetObject", "arn:aws:s3:::records/jobs/*")
    listing = statement("s3:ListBucket", "arn:aws:s3:::records", Condition={"StringLike": {"s3:prefix": ["jobs/*"]}})
    ours = Session(server, role(server, objects, listing)).client("s3")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::records/*"}
    only_tls = {**deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3.put_bucket_policy(Bucket="records", Policy=document(only_tls))
    assert ours.get_object(Bucket="records", Key="jobs/1")["Body"].read() == b"x"
    assert ours.list_objects_v2(Bucket="records", Prefix="jobs/")["KeyCount"] == 1
    with refused("AccessDenied", "s3:ListBucket"):
        ours.list_objects_v2(Bucket="records", Prefix="archives/")
    s3.put_bucket_policy(Bucket="records", Policy=document(deny))
    with refused("AccessDenied"):
        ours.get_object(Bucket="records", Key="jobs/1")


def test_a_missing_object_is_told_only_to_those_who_may_list(server: RunningServer) -> None:
    server.client("s3").create_bucket(Bucket="hidden")
    objects = statement("s3:GetObject", "arn:aws:s3:::hidden/*")
    with refused("AccessDenied", "s3:ListBucket"):
        Session(server, role(server, objects)).client("s3").get_object(Bucket="hidden", Key="none")
    lists = statement("s3:ListBucket", "arn:aws:s3:::hidden")
    with refused("NoSuchKey"):
        Session(server, role(server, objects, lists)).client("s3").get_object(Bucket="hidden", Key="none")


def test_trust_policies_decide_who_assumes_a_role(server: RunningServer) -> None:
    for_lambda = role(server, trusts=trust({"Service": "lambda.amazonaws.com"}))
    with refused("AccessDenied", "sts:AssumeRole", for_lambda):
        Session(server, for_lambda)
    callers = {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{HOME}:role/role-*"}}
    far = role(
        server,
        account=OTHER,
        trusts=trust({"AWS": f"arn:aws:iam::{HOME}:root"}, StringEquals={"sts:ExternalId": "ferry"}, **callers),
    )
    may = Session(server, role(server, statement("sts:AssumeRole", far))).client("sts")
    may_not = Session(server, role(server)).client("sts")
    answer = may.assume_role(RoleArn=far, RoleSessionName="test", ExternalId="ferry")
    assert f"{OTHER}:assumed-role" in answer["AssumedRoleUser"]["Arn"]
    for client, more in ((may, {}), (may, {"ExternalId": "other"}), (may_not, {"ExternalId": "ferry"})):
        with refused("AccessDenied", "sts:AssumeRole", far):
            client.assume_role(RoleArn=far, RoleSessionName="test", **more)


def test_keys_that_nobody_knows_and_wrong_session_tokens_are_refused(server: RunningServer) -> None:
    source = snapshot(server)
    session = Session(server, role(server, statement("ebs:*")))
    session.keys["aws_session_token"] = "of-somebody-else"
    for own_door in (False, True):
        with pytest.raises(ClientError) as caught:
            session.client("ebs", own_door=own_door).list_snapshot_blocks(SnapshotId=source)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_root_of_an_account_may_do_everything_there(server: RunningServer) -> None:
    assert read(server.client("ebs"), snapshot(server)) == BLOCK
