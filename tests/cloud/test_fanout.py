"""Images and snapshots to five targets through the deployed state machine."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator

import pytest
import zstandard
from cloud_rig import CloudRig, filled
from fakes import content
from rig import hashes

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2", "us-west-2", "eu-central-1")
TARGETS = [{"region": region} for region in REGIONS]
OPTIONS = {"blocks_per_range": 1024}


@pytest.fixture(scope="module")
def bucket(cloud: CloudRig) -> Iterator[str]:
    with cloud.bucket() as name:
        yield name


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("disk.img", bytes),
        ("disk.img.gz", gzip.compress),
        ("disk.img.zst", zstandard.compress),
        ("disk.img.xz", lzma.compress),
    ],
)
def test_an_image_goes_to_five_regions(
    cloud: CloudRig, bucket: str, name: str, packed: Callable[[bytes], bytes]
) -> None:
    blocks = {index: content(0 if index % 5 == 4 else index + 1) for index in range(60)}
    image = b"".join(blocks.values()) + b"the tail"
    blocks[60] = b"the tail".ljust(524_288, b"\0")
    cloud.client("s3").put_object(Bucket=bucket, Key=name, Body=packed(image))
    request = {"image_uri": f"s3://{bucket}/{name}", "targets": TARGETS, "options": OPTIONS}
    receipt = cloud.run("fanout", request)
    expected = hashes({index: data for index, data in blocks.items() if data != content(0)})
    assert [cloud.held(target["snapshot_id"]) for target in receipt["targets"]] == [expected] * 5
    assert [cloud.facts(target["snapshot_id"])["region"] for target in receipt["targets"]] == list(REGIONS)
    assert receipt["changed_blocks"] == len(expected) == 49
    left = cloud.client("s3").list_objects_v2(
        Bucket=cloud.info.buckets[cloud.home]["work"], Prefix=f"jobs/fanout/{receipt['job_id']}/image"
    )
    assert left["KeyCount"] == 0


def test_a_snapshot_goes_to_five_targets_from_one_read_and_one_region_that_fails_spoils_none(cloud: CloudRig) -> None:
    blocks = filled(60)
    source = cloud.snapshot(blocks)
    arn = cloud.start({"snapshot_id": source, "targets": TARGETS, "options": OPTIONS}, operation="fanout")
    state = cloud.ended(arn)
    assert state.status == "SUCCEEDED", state.cause
    assert [cloud.held(t["snapshot_id"]) for t in state.output["targets"]] == [hashes(blocks)] * 5
    assert cloud.control("ebs/stats")["snapshots"][source]["GetSnapshotBlock"] == 60

    denied = {"status": 403, "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"}
    rule = {"operation": "PutSnapshotBlock", "region": "us-west-2", "action": "error", **denied}
    cloud.control("ebs/faults", rule)
    arn = cloud.start({"snapshot_id": source, "targets": TARGETS, "options": OPTIONS}, operation="fanout")
    failed = cloud.ended(arn)
    assert failed.status == "FAILED"
    states = {target["region"]: target for target in cloud.operator.targets(failed.arn)}
    assert [region for region, target in states.items() if target["completed"]] == [
        region for region in REGIONS if region != "us-west-2"
    ]
    written = {
        snapshot: calls.get("PutSnapshotBlock") for snapshot, calls in cloud.control("ebs/stats")["snapshots"].items()
    }

    cloud.clear_faults()
    cloud.operator.resume(arn)
    state = cloud.ended(arn)
    assert state.status == "SUCCEEDED", state.cause
    assert [cloud.held(target["snapshot_id"]) for target in state.output["targets"]] == [hashes(blocks)] * 5
    after = cloud.control("ebs/stats")["snapshots"]
    for region, target in states.items():
        if region != "us-west-2":
            assert after[target["snapshot_id"]]["PutSnapshotBlock"] == written[target["snapshot_id"]] == 60


def test_an_image_that_is_missing_fails_the_execution_by_name(cloud: CloudRig, bucket: str) -> None:
    before = cloud.snapshots()
    request = {"image_uri": f"s3://{bucket}/nowhere.img", "targets": TARGETS}
    state = cloud.ended(cloud.start(request, operation="fanout"))
    assert (state.status, state.error) == ("FAILED", "InvalidRequest")
    assert f"s3://{bucket}/nowhere.img" in (state.cause or "")
    assert cloud.snapshots() == before


def test_an_image_in_another_account_is_not_read_without_its_role(cloud: CloudRig) -> None:
    with cloud.bucket(account="123456789012") as name:
        other = cloud.session("123456789012").client("s3")
        other.put_object(Bucket=name, Key="disk.img", Body=content(1))
        request = {"image_uri": f"s3://{name}/disk.img", "targets": [{"region": cloud.recovery}]}
        state = cloud.ended(cloud.start(request, operation="fanout"))
    assert (state.status, state.error) == ("FAILED", "InvalidRequest"), state.output
