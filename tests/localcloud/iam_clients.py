"""Roles, their sessions and snapshots for the tests of enforced policies."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from lambda_probe import wait_until
from server_probe import RunningServer

HOME, OTHER = "111122223333", "123456789012"
REGION = "us-east-1"
BLOCK = bytes(range(256)) * 2048
NUMBERS = itertools.count(1)
CONFIG = {"iam": {"enforced": True}, "ebs": {"seal_seconds": 0, "quotas_enabled": False}}


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
            config=Config(retries={"total_max_attempts": 1}, signature_version="s3v4" if service == "s3" else None),
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
