"""Policies decide what roles may do, at the main server and at the EBS server's own door."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from lambda_probe import wait_until
from server_probe import RunningServer, running_server

HOME, OTHER = "111122223333", "123456789012"
REGION = "us-east-1"
SNAPSHOTS = "arn:aws:ec2:*::snapshot/*"
BLOCK = bytes(range(256)) * 2048
EBS_ALL = ["ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ebs:ListSnapshotBlocks"]
EBS_ALL += ["ebs:GetSnapshotBlock"]
NUMBERS = itertools.count(1)

Door = Callable[[str], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    config = {"iam": {"enforced": True}, "ebs": {"seal_seconds": 0, "quotas_enabled": False}}
    with running_server(tmp_path_factory.mktemp("server"), config=config) as running:
        yield running


def statement(actions: str | list[str], resources: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def trust(principal: Mapping[str, str], **condition: Any) -> str:
    asked = {"Condition": condition} if condition else {}
    return document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **asked})


def role(
    server: RunningServer, *statements: Mapping[str, Any], account: str = HOME, trusts: str = "", **more: Any
) -> str:
    """The ARN of a new role that its account may assume."""
    iam = server.client("iam", account=account)
    name = f"role-{next(NUMBERS)}"
    trusted = trusts or trust({"AWS": f"arn:aws:iam::{account}:root"})
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **more)["Role"]["Arn"])
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="calls", PolicyDocument=document(*statements))
    return arn


class Session:
    """Clients with a session of a role; ``ebs`` at the main server's door or at the EBS server's own."""

    def __init__(self, server: RunningServer, arn: str, *, account: str = HOME) -> None:
        self.server = server
        keys = server.client("sts", account=account).assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        self.keys: dict[str, Any] = {
            "aws_access_key_id": keys["AccessKeyId"],
            "aws_secret_access_key": keys["SecretAccessKey"],
            "aws_session_token": keys["SessionToken"],
        }

    def client(self, service: str, *, own_door: bool = False) -> Any:
        health = self.server.control("GET", "health")[1]
        return boto3.client(
            service,
            endpoint_url=health["ebs_endpoint_url" if own_door else "endpoint_url"],
            region_name=REGION,
            config=Config(retries={"total_max_attempts": 1}),
            **self.keys,
        )


@contextlib.contextmanager
def refused(code: str, *texts: str) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code
    for text in texts:
        assert text in error["Message"]


def put(ebs: Any, snapshot_id: str, index: int = 0) -> None:
    ebs.put_snapshot_block(
        SnapshotId=snapshot_id,
        BlockIndex=index,
        BlockData=BLOCK,
        DataLength=len(BLOCK),
        Checksum=base64.b64encode(hashlib.sha256(BLOCK).digest()).decode(),
        ChecksumAlgorithm="SHA256",
    )


def snapshot(server: RunningServer, *, account: str = HOME, **more: Any) -> str:
    """A completed snapshot of one block, made by its account."""
    ebs, ec2 = (server.client(service, account=account) for service in ("ebs", "ec2"))
    snapshot_id = str(ebs.start_snapshot(VolumeSize=1, **more)["SnapshotId"])
    put(ebs, snapshot_id)
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=1)
    wait_until(
        lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"] == "completed", "completed"
    )
    return snapshot_id


def read(ebs: Any, snapshot_id: str) -> bytes:
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"][0]
    answer = ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=listed["BlockToken"])
    return bytes(answer["BlockData"].read())


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
    source = snapshot(server, KmsKeyArn=key)
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
        ebs(makes).start_snapshot(VolumeSize=1, KmsKeyArn=key)
    started = ebs(makes, statement("kms:CreateGrant", key, Condition=grants)).start_snapshot(
        VolumeSize=1, KmsKeyArn=key
    )
    assert started["KmsKeyArn"] == key
    # The account's own aws/ebs key is for all of the account.
    assert ebs().start_snapshot(VolumeSize=1, Encrypted=True)["KmsKeyArn"] != key


def test_a_key_whose_policy_leaves_out_the_account_is_closed(server: RunningServer) -> None:
    key = server.client("kms", account=OTHER).create_key()["KeyMetadata"]["Arn"]
    source = snapshot(server, account=OTHER, KmsKeyArn=key)
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


CODE = """
import boto3
def handler(event, context):
    return boto3.client("sts").get_caller_identity()["Arn"]
"""


def function(server: RunningServer, arn: str) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("app.py", CODE)
    name = f"function-{next(NUMBERS)}"
    server.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=arn,
        Handler="app.handler",
        Code={"ZipFile": archive.getvalue()},
        Timeout=30,
    )
    return name


def test_a_function_that_lambda_may_not_act_for_does_not_run(server: RunningServer) -> None:
    name = function(server, role(server))  # trusts its account, not Lambda
    answer = server.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" in answer
    assert "cannot be assumed by Lambda" in answer["Payload"].read().decode()


def test_the_root_of_an_account_may_do_everything_there(server: RunningServer) -> None:
    assert read(server.client("ebs"), snapshot(server)) == BLOCK


MACHINE = {
    "QueryLanguage": "JSONata",
    "StartAt": "Map",
    "States": {
        "Map": {
            "Type": "Map",
            "Items": [1, 2],
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Pass",
                "States": {"Pass": {"Type": "Pass", "End": True}},
            },
            "End": True,
        }
    },
}


def test_a_machine_starts_children_only_where_its_role_may_start_executions(server: RunningServer) -> None:
    states = server.client("stepfunctions")
    name = f"machine-{next(NUMBERS)}"
    machine = f"arn:aws:states:{REGION}:{HOME}:stateMachine:{name}"
    trusts = trust({"Service": "states.amazonaws.com"}, ArnLike={"aws:SourceArn": [machine, f"{machine}/*"]})
    arn = role(server, trusts=trusts)
    states.create_state_machine(name=name, definition=json.dumps(MACHINE), roleArn=arn)

    def ended() -> dict[str, Any]:
        execution = states.start_execution(stateMachineArn=machine)["executionArn"]
        wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "it ends")
        found: dict[str, Any] = states.describe_execution(executionArn=execution)
        return found

    without = ended()
    assert (without["status"], without["error"]) == ("FAILED", "States.Permissions")
    assert "states:StartExecution" in without["cause"]
    server.client("iam").put_role_policy(
        RoleName=arn.rpartition("/")[2],
        PolicyName="calls",
        PolicyDocument=document(statement("states:StartExecution", machine)),
    )
    assert ended()["status"] == "SUCCEEDED"


def test_a_schedule_calls_its_target_only_where_its_role_may(server: RunningServer) -> None:
    queue = server.client("sqs").create_queue(QueueName="reached")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{HOME}:reached"
    trusts = trust(
        {"Service": "scheduler.amazonaws.com"},
        ArnEquals={"aws:SourceArn": f"arn:aws:scheduler:{REGION}:{HOME}:schedule-group/default"},
    )
    scheduler = server.client("scheduler")

    def schedule(role_arn: str) -> str:
        name = f"schedule-{next(NUMBERS)}"
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression="rate(1 hour)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn, "RoleArn": role_arn, "Input": name, "RetryPolicy": {"MaximumRetryAttempts": 0}},
        )
        return name

    with refused("ValidationException", "must allow AWS EventBridge Scheduler to assume the role"):
        schedule(role(server))
    refused_one = schedule(role(server, trusts=trusts))
    allowed_one = schedule(role(server, statement("sqs:SendMessage", arn), trusts=trusts))
    server.control("POST", "clock", {"advance": 3700})

    def bodies() -> list[str]:
        got = server.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=5, MaxNumberOfMessages=10)
        return [message["Body"] for message in got.get("Messages", [])]

    assert set(bodies()) == {allowed_one}
    deliveries = server.control("GET", "events/deliveries")[1]["deliveries"]
    assert any(refused_one in json.dumps(each) and "sqs:SendMessage" in json.dumps(each) for each in deliveries)
