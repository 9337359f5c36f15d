"""The EBS process: its port file, its configuration, how it ends, and the main server in front of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError
from localcloud.local_keys import LocalKeys

from .ebs_clients import ZEROS, block, contents, linear, pages, put, refused, start
from .ebs_main_server import SCRIPTS, MainServer, main_server

DEADLINE_SECONDS = 30.0
T = TypeVar("T")


def wait_for(condition: Callable[[], T]) -> T:
    """The condition's first true value."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


KEYS = LocalKeys.new()


def get(url: str, keys: LocalKeys = KEYS) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=keys.control_headers()), timeout=10) as answer:
        return json.load(answer)


def start_process(folder: Path, config: Any, *, parent: str = "") -> subprocess.Popen[bytes]:
    (folder / "config.json").write_text(json.dumps(config))
    command = [
        *(sys.executable, "-m", "localcloud.ebs.server", "--data-dir", str(folder / "blocks")),
        *("--config", str(folder / "config.json"), "--port-file", str(folder / "port")),
    ]
    if parent:
        command = [sys.executable, "-c", parent, *command]
    return subprocess.Popen(
        command, env=os.environ | KEYS.variables() | {"PYTHONPATH": str(SCRIPTS)}, stdout=subprocess.PIPE
    )


def test_it_tells_its_port_takes_its_settings_and_ends_on_sigterm(tmp_path: Path) -> None:
    config = {"ebs": {"seal_seconds": 7}, "events": {"arn": "full"}, "states": {}, "account_id": "111122223333"}
    process = start_process(tmp_path, config)
    try:
        port = wait_for(lambda: (tmp_path / "port").exists() and int((tmp_path / "port").read_text()))
        settings = get(f"http://127.0.0.1:{port}/_local/config")
        assert (settings["seal_seconds"], settings["event_arn"]) == (7, "full")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    assert list((tmp_path / "blocks").iterdir()) == []


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    parent = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)"
    process = start_process(tmp_path, {}, parent=parent)
    port = wait_for(lambda: (tmp_path / "port").exists() and int((tmp_path / "port").read_text()))
    process.kill()
    process.wait(DEADLINE_SECONDS)

    def gone() -> bool:
        try:
            get(f"http://127.0.0.1:{port}/_local/health")
        except OSError:
            return True
        return False

    wait_for(gone)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainServer]:
    with main_server(tmp_path_factory.mktemp("main"), {"ebs": {"seal_seconds": 0.05}}) as running:
        yield running


@pytest.mark.parametrize("door", ["main", "fast"])
def test_both_doors_serve_the_direct_apis_from_one_store(main: MainServer, door: str) -> None:
    ebs = main.client("ebs", url=main.endpoint_url if door == "main" else main.ebs_endpoint_url)
    other = main.client("ebs", url=main.ebs_endpoint_url if door == "main" else main.endpoint_url)
    ec2 = main.client("ec2")
    blocks = {0: block("a"), 9: ZEROS}
    snapshot_id = start(ebs)
    for index, data in blocks.items():
        put(ebs, snapshot_id, index, data)
    ebs.complete_snapshot(
        SnapshotId=snapshot_id,
        ChangedBlocksCount=2,
        Checksum=linear(blocks),
        ChecksumAlgorithm="SHA256",
        ChecksumAggregationMethod="LINEAR",
    )
    wait_for(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"] == "completed")
    assert contents(ebs, snapshot_id) == contents(other, snapshot_id) == blocks
    with refused(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        ebs.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=["snap-0123456789abcdef0"])


def policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def test_an_assumed_role_acts_in_its_own_account_through_both_doors(main: MainServer) -> None:
    iam = main.client("iam", account="123456789012")
    trust = {"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="ferry", AssumeRolePolicyDocument=policy(trust))["Role"]
    allowed = {"Effect": "Allow", "Action": "ebs:StartSnapshot", "Resource": "arn:aws:ec2:*::snapshot/*"}
    iam.put_role_policy(RoleName="ferry", PolicyName="start", PolicyDocument=policy(allowed))
    session = main.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
    keys = {
        "access_key": session["AccessKeyId"],
        "secret_key": session["SecretAccessKey"],
        "token": session["SessionToken"],
    }
    for url in (main.endpoint_url, main.ebs_endpoint_url):
        answer = main.client("ebs", url=url, **keys).start_snapshot(VolumeSize=1)
        assert answer["OwnerId"] == "123456789012"


def test_keys_are_asked_of_the_main_servers_kms(main: MainServer) -> None:
    ebs, kms = main.client("ebs"), main.client("kms")
    key = kms.create_key()["KeyMetadata"]
    assert ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key["Arn"])["KmsKeyArn"] == key["Arn"]
    disabled = kms.create_key()["KeyMetadata"]
    kms.disable_key(KeyId=disabled["KeyId"])
    for arn in (disabled["Arn"], key["Arn"].replace(key["KeyId"], "11111111-2222-3333-4444-555555555555")):
        with refused(400, "ValidationException", "INVALID_CUSTOMER_KEY"):
            start(ebs, Encrypted=True, KmsKeyArn=arn)


def test_a_call_that_tags_snapshots_and_others_tags_all(main: MainServer) -> None:
    ec2 = main.client("ec2")
    vpc_id = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    snapshot_id = start(main.client("ebs"))
    ec2.create_tags(Resources=[vpc_id, snapshot_id], Tags=[{"Key": "mixed", "Value": "yes"}])
    found = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["mixed"]}])["Tags"]
    assert {(tag["ResourceId"], tag["ResourceType"]) for tag in found} == {(vpc_id, "vpc"), (snapshot_id, "snapshot")}
    with refused(400, "InvalidSnapshot.NotFound"):
        ec2.create_tags(Resources=[vpc_id, "snap-0123456789abcdef0"], Tags=[{"Key": "half", "Value": "no"}])
    assert ec2.describe_tags(Filters=[{"Name": "key", "Values": ["half"]}])["Tags"] == []
    ec2.delete_tags(Resources=[vpc_id, snapshot_id], Tags=[{"Key": "mixed"}])
    assert ec2.describe_tags(Filters=[{"Name": "key", "Values": ["mixed"]}])["Tags"] == []


def test_volumes_are_known_to_both_and_their_snapshots_have_real_blocks(main: MainServer) -> None:
    ec2, ebs = main.client("ec2"), main.client("ebs")
    volume_id = ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": "v"}]}],
    )["VolumeId"]
    (shown,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert (shown["Size"], shown["Tags"]) == (1, [{"Key": "k", "Value": "v"}])
    url = f"{main.endpoint_url}/_local/ebs/volumes/{volume_id}/blocks/5"
    request = urllib.request.Request(url, data=block("a"), method="POST", headers=main.keys.control_headers())
    urllib.request.urlopen(request, timeout=10).close()
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig={"Delay": 1})
    assert contents(ebs, snapshot_id) == {5: block("a")}
    ec2.delete_volume(VolumeId=volume_id)
    known = {volume["volume_id"] for volume in get(f"{main.endpoint_url}/_local/ebs/volumes", main.keys)["volumes"]}
    assert volume_id not in known
    assert contents(ebs, snapshot_id) == {5: block("a")}


def test_an_encrypted_volume_shows_its_key(main: MainServer) -> None:
    ec2, key = main.client("ec2"), main.client("kms").create_key()["KeyMetadata"]["Arn"]
    volume_id = ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=1, VolumeType="gp3", Encrypted=True, KmsKeyId=key
    )["VolumeId"]
    (shown,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert (shown["Encrypted"], shown["KmsKeyId"], shown["Throughput"]) == (True, key, 125)


def test_volumes_of_instances_can_be_snapshot(main: MainServer) -> None:
    ec2 = main.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro")["Instances"][0]
    answer = ec2.create_snapshots(InstanceSpecification={"InstanceId": instance["InstanceId"]})
    attached = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}])[
        "Volumes"
    ]
    assert [s["VolumeId"] for s in answer["Snapshots"]] == [v["VolumeId"] for v in attached]


def test_an_instance_tells_the_volumes_that_are_attached_to_it_until_they_are_detached(main: MainServer) -> None:
    ec2 = main.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro")["Instances"][0]
    name = instance["InstanceId"]
    data = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]

    def devices() -> dict[str, str]:
        (found,) = ec2.describe_instances(InstanceIds=[name])["Reservations"]
        return {each["DeviceName"]: each["Ebs"]["VolumeId"] for each in found["Instances"][0]["BlockDeviceMappings"]}

    root = devices()["/dev/xvda"]
    other = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    ec2.attach_volume(VolumeId=data, InstanceId=name, Device="/dev/sdf")
    assert devices() == {"/dev/xvda": root, "/dev/sdf": data}
    for volume, code in ((data, "VolumeInUse"), (other, "InvalidParameterValue")):
        with pytest.raises(ClientError) as refused:
            ec2.attach_volume(VolumeId=volume, InstanceId=name, Device="/dev/sdf")
        assert refused.value.response["Error"]["Code"] == code
    ec2.create_tags(Resources=[data], Tags=[{"Key": "Role", "Value": "db"}])
    made = ec2.create_snapshots(InstanceSpecification={"InstanceId": name}, CopyTagsFromSource="volume")["Snapshots"]
    assert {each["VolumeId"]: each.get("Tags") for each in made}[data] == [{"Key": "Role", "Value": "db"}]
    ec2.detach_volume(VolumeId=data)
    assert devices() == {"/dev/xvda": root}
    with pytest.raises(ClientError, match="IncorrectState"):
        ec2.detach_volume(VolumeId=data)


def test_instances_and_volumes_are_found_by_the_keys_of_their_tags(main: MainServer) -> None:
    ec2 = main.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    tags = [{"Key": "AsksForIt", "Value": "Yes"}]
    made = [
        ec2.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.micro",
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}] if tagged else [],
        )["Instances"][0]["InstanceId"]
        for tagged in (True, False, True)
    ]
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    ec2.create_tags(Resources=[volume], Tags=tags)
    wanted = [{"Name": "tag-key", "Values": ["AsksForIt"]}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=wanted, PaginationConfig={"PageSize": 5})
    found = [each["InstanceId"] for page in pages for one in page["Reservations"] for each in one["Instances"]]
    assert sorted(found) == sorted([made[0], made[2]])
    by_id = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": made[:2]}])["Reservations"]
    assert sorted(each["InstanceId"] for one in by_id for each in one["Instances"]) == sorted(made[:2])
    pages = ec2.get_paginator("describe_volumes").paginate(Filters=wanted, PaginationConfig={"PageSize": 5})
    assert [each["VolumeId"] for page in pages for each in page["Volumes"]] == [volume]
    named = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume]}])["Volumes"]
    assert [(each["VolumeId"], each["State"]) for each in named] == [(volume, "available")]


def test_events_reach_rules_of_their_account_and_region(main: MainServer) -> None:
    ec2, sqs, events = main.client("ec2"), main.client("sqs"), main.client("events")
    queue = sqs.create_queue(QueueName="snapshot-events")["QueueUrl"]
    pattern = {
        "source": ["aws.ec2"],
        "detail-type": ["EBS Snapshot Notification"],
        "detail": {"event": ["createSnapshot"]},
    }
    events.put_rule(Name="snapshots", EventPattern=json.dumps(pattern))
    arn = "arn:aws:sqs:us-east-1:111122223333:snapshot-events"
    events.put_targets(Rule="snapshots", Targets=[{"Id": "queue", "Arn": arn}])
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    (message,) = wait_for(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"))
    received = json.loads(message["Body"])
    assert received["resources"] == [f"arn:aws:ec2::us-east-1:snapshot/{snapshot_id}"]
    shown = get(f"{main.endpoint_url}/_local/events", main.keys)["events"]
    assert received["id"] in {event["id"] for event in shown}


def test_other_ec2_actions_are_the_bases(main: MainServer) -> None:
    ec2 = main.client("ec2")
    assert ec2.describe_availability_zones()["AvailabilityZones"]
    with pytest.raises(ClientError):
        ec2.describe_vpcs(VpcIds=["vpc-0123456789abcdef0"])


def test_pages_of_many_snapshots_through_the_main_server(main: MainServer) -> None:
    region = {"region": "ap-south-1"}
    ebs, ec2 = main.client("ebs", **region), main.client("ec2", **region)
    made = {start(ebs) for _number in range(7)}
    found = pages(ec2, "describe_snapshots", MaxResults=5)
    assert {snapshot["SnapshotId"] for page in found for snapshot in page["Snapshots"]} == made
