"""Backups by tag through the deployed machines: real instances of the local cloud, their nights, and what goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloud_rig import PALETTE, CloudRig
from rig import hashes

TODAY = datetime.now(UTC).date()


@pytest.fixture
def instance(cloud: CloudRig) -> Iterator[str]:
    with cloud.instance(Name="web", Backup="Yes", Retention="2") as made:
        yield made


def report(cloud: CloudRig, answer: dict[str, Any]) -> dict[str, Any]:
    bucket, _, key = answer["report_json_uri"].removeprefix("s3://").partition("/")
    told: dict[str, Any] = json.loads(cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    return told


def backups(cloud: CloudRig) -> dict[str, dict[str, Any]]:
    """The backups by tag of the home region, by their ids, each with its tags as a mapping."""
    pages = (
        cloud.client("ec2")
        .get_paginator("describe_snapshots")
        .paginate(OwnerIds=["self"], Filters=[{"Name": "tag:Type", "Values": ["Automated"]}])
    )
    return {
        each["SnapshotId"]: {**each, "tags": {tag["Key"]: tag["Value"] for tag in each["Tags"]}}
        for page in pages
        for each in page["Snapshots"]
    }


def numbers(answer: dict[str, Any]) -> dict[str, int]:
    return {name: answer[name] for name in ("planned", "done", "failed", "skipped")}


def test_three_nights_are_kept_as_long_as_their_tags_say(cloud: CloudRig, instance: str) -> None:
    ec2 = cloud.client("ec2")
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    devices = {each["DeviceName"]: each["Ebs"]["VolumeId"] for each in described["BlockDeviceMappings"]}
    data = devices["/dev/sdf"]
    content = {3: PALETTE[3], 9: PALETTE[9]}
    for index, block in content.items():
        cloud.post(f"ebs/volumes/{data}/blocks/{index}", block)

    nights = [TODAY + timedelta(days=more) for more in range(3)]
    for number, day in enumerate(nights):
        at = {"as_of": f"{day}T02:00:00Z"}
        made = cloud.run("backup", at)
        assert numbers(made) == {"planned": 0, "done": 2, "failed": 0, "skipped": 0}
        assert numbers(cloud.run("backup", at)) == {"planned": 0, "done": 0, "failed": 0, "skipped": 2}
        of_night = [each for each in backups(cloud).values() if each["tags"]["blockferry:slot"].startswith(str(day))]
        assert {each["VolumeId"] for each in of_night} == set(devices.values())
        (of_data,) = (each for each in of_night if each["VolumeId"] == data)
        assert of_data["Description"] == f"web ({instance}) - {cloud.home}"
        assert of_data["tags"] == {
            "Type": "Automated",
            "DeleteOn": str(day + timedelta(days=2)),
            "Retention": "2d",
            "Role": "db",
            "Source_InstanceId": instance,
            "Source_VolumeId": data,
            "Source_Device": "/dev/sdf",
            "Source_Region": cloud.home,
            "blockferry:slot": f"{day}T01:00:00Z",
        }
        cloud.until(lambda: all(each["State"] == "completed" for each in backups(cloud).values()))
        assert cloud.held(of_data["SnapshotId"]) == hashes(content)
        # A new snapshot of EC2 is a second younger than the one before.
        cloud.control("clock", {"advance": 1})
        assert number == len({each["tags"]["blockferry:slot"] for each in backups(cloud).values()}) - 1

    first = {name for name, each in backups(cloud).items() if each["tags"]["DeleteOn"] == str(nights[2])}
    kept = min(first)
    ec2.create_tags(Resources=[kept], Tags=[{"Key": "KeepForever", "Value": ""}])
    at = {"as_of": f"{nights[2]}T05:00:00Z"}
    planned = cloud.run("expire", {**at, "dry_run": True})
    assert numbers(planned) == {"planned": 1, "done": 0, "failed": 0, "skipped": 5}
    marked = cloud.run("expire", at)
    assert numbers(marked) == {"planned": 0, "done": 1, "failed": 0, "skipped": 5}
    assert len(backups(cloud)) == 6
    deleted = cloud.run("expire", at)
    assert numbers(deleted) == {"planned": 0, "done": 1, "failed": 0, "skipped": 5}
    assert first - backups(cloud).keys() == first - {kept}
    lines = {each["resource"]: each for each in report(cloud, deleted)["items"]}
    assert lines.keys() == {*backups(cloud), *first}
    assert lines[kept]["reason"] == "tag KeepForever protects it"

    # However late, the newest of each volume stays.
    for _ in range(2):
        last = cloud.run("expire", {"as_of": f"{nights[2] + timedelta(days=300)}T05:00:00Z"})
    newest = {
        name for name, each in backups(cloud).items() if each["tags"]["DeleteOn"] == str(nights[2] + timedelta(days=2))
    }
    assert backups(cloud).keys() == {kept, *newest}
    assert numbers(last)["skipped"] == 3
    for name in backups(cloud):
        ec2.delete_snapshot(SnapshotId=name)
