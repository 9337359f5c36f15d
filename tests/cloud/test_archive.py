"""Archives through the deployed state machines and functions, under the roles that Terraform makes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blockferry.cli.main import main
from cloud_rig import PALETTE, CloudRig, filled
from fakes import content
from rig import hashes


def archived(cloud: CloudRig, snapshot_id: str, *, base: str | None = None, **archive: Any) -> dict[str, Any]:
    place = {"bucket": cloud.info.buckets[cloud.home]["archive"], "prefix": "disks", **archive}
    request = {"snapshot_id": snapshot_id, "base_manifest_uri": base, "archive": place}
    return cloud.run("archive", {**request, "options": {"blocks_per_range": 700}})


def restored(cloud: CloudRig, uri: str, *regions: str) -> list[str]:
    targets = [{"region": region, "encrypted": False} for region in regions]
    receipt = cloud.run("restore", {"manifest_uri": uri, "targets": targets})
    return [target["snapshot_id"] for target in receipt["targets"]]


def test_a_snapshot_goes_into_an_archive_and_comes_back_to_two_regions(cloud: CloudRig) -> None:
    blocks = {**filled(200), 900: content(0), 2047: PALETTE[3]}
    source = cloud.snapshot(blocks)
    receipt = archived(cloud, source, tags={"keep": "7y"})
    assert receipt["linear_checksum"]
    assert receipt["targets"][0]["data_blocks"] == 201
    made = restored(cloud, receipt["manifest_uri"], cloud.home, cloud.recovery)
    assert [cloud.held(each) for each in made] == [hashes(blocks)] * 2
    bucket, key = receipt["manifest_uri"].removeprefix("s3://").split("/", 1)
    s3 = cloud.client("s3")
    folder = key.removesuffix("manifest.json")
    objects = s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    classes = {each["Key"].removeprefix(folder).split("/")[0]: each["StorageClass"] for each in objects}
    assert classes == {"index": "STANDARD", "manifest.json": "STANDARD", "segments": "STANDARD_IA"}
    tags = s3.get_object_tagging(Bucket=bucket, Key=objects[-1]["Key"])["TagSet"]
    assert tags == [{"Key": "keep", "Value": "7y"}]


def test_an_increment_in_a_bucket_of_another_region_is_built_upon_a_full_archive(cloud: CloudRig) -> None:
    before, after = filled(64), {**filled(64), 5: PALETTE[90], 70: content(0)}
    first = cloud.snapshot(before)
    there = cloud.info.buckets[cloud.recovery]["archive"]
    base = archived(cloud, first, bucket=there)["manifest_uri"]
    second = cloud.snapshot({5: PALETTE[90], 70: content(0)}, parent_snapshot_id=first)
    receipt = archived(cloud, second, base=base, bucket=there)
    assert (receipt["targets"][0]["region"], receipt["changed_blocks"]) == (cloud.recovery, 2)
    (made,) = restored(cloud, receipt["manifest_uri"], cloud.home)
    assert cloud.held(made) == hashes(after)


def test_the_command_line_archives_and_restores(cloud: CloudRig, capsys: pytest.CaptureFixture[str]) -> None:
    source = cloud.snapshot(filled(10))
    bucket = cloud.info.buckets[cloud.home]["archive"]

    def blockferry(*words: str) -> Any:
        assert main([*words, "--json", "--wait"]) == 0
        return json.loads(capsys.readouterr().out)

    receipt = blockferry("archive", source, "--to", f"s3://{bucket}/cli", "--level", "1")
    made = blockferry("restore", receipt["manifest_uri"], "--to", cloud.recovery)["targets"][0]["snapshot_id"]
    assert cloud.held(made) == hashes(filled(10))


def test_the_work_bucket_takes_no_archive(cloud: CloudRig) -> None:
    source = cloud.snapshot(filled(1))
    with pytest.raises(Exception, match="is the work bucket of this deployment"):
        archived(cloud, source, bucket=cloud.info.buckets[cloud.home]["work"])
