"""Copies through the deployed state machine and functions, held against what the EBS server holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_rig import PALETTE, CloudRig, filled
from fakes import content
from localcloud.lifecycle import FAR_SIDE_ROLE
from rig import hashes
from tools.environment import repository_root
from tools.terraform import Terraform


def request(snapshot_id: str, *regions: str, **options: Any) -> dict[str, Any]:
    return {"snapshot_id": snapshot_id, "targets": [{"region": region} for region in regions], "options": options}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097, 9001])
def test_a_copy_to_the_recovery_region_has_exactly_the_blocks_of_its_source(cloud: CloudRig, count: int) -> None:
    source, blocks = cloud.patterned(count, size_gib=-(-count // 2048) + 1)
    receipt = cloud.copy(request(source, cloud.recovery))
    copy = receipt["targets"][0]["snapshot_id"]
    assert cloud.held(copy) == cloud.held(source) == blocks
    assert cloud.facts(copy)["region"] == cloud.recovery
    assert receipt["allocated_blocks"] == receipt["changed_blocks"] == count
    assert receipt["requests"]["GetSnapshotBlock"] == receipt["requests"]["PutSnapshotBlock"] == count
    assert receipt["linear_checksum"] == cloud.facts(copy)["linear_checksum"]


def test_an_empty_snapshot_gives_an_empty_copy(cloud: CloudRig) -> None:
    receipt = cloud.copy(request(cloud.snapshot({}), cloud.recovery))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == {}
    assert receipt["allocated_blocks"] == 0


def test_a_snapshot_of_allocated_zeros_is_copied_with_its_allocated_set(cloud: CloudRig) -> None:
    blocks = {index: content(0) for index in (0, 1, 64, 2047)}
    receipt = cloud.copy(request(cloud.snapshot(blocks), cloud.recovery))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert receipt["zero_blocks"] == 4


def test_the_last_range_may_lie_partly_beyond_the_allocated_blocks(cloud: CloudRig) -> None:
    blocks = {index: PALETTE[index % 97] for index in range(1500, 1600)}
    receipt = cloud.copy(request(cloud.snapshot(blocks), cloud.recovery, blocks_per_range=700))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)


def test_three_targets_come_from_one_read_and_one_run(cloud: CloudRig) -> None:
    blocks = filled(300)
    source = cloud.snapshot(blocks)
    receipt = cloud.copy(request(source, cloud.home, cloud.recovery, "ap-southeast-2", blocks_per_range=100))
    made = [target["snapshot_id"] for target in receipt["targets"]]
    assert [cloud.facts(m)["region"] for m in made] == [cloud.home, cloud.recovery, "ap-southeast-2"]
    assert [cloud.held(m) for m in made] == [hashes(blocks)] * 3
    assert receipt["requests"]["GetSnapshotBlock"] == 300
    assert receipt["requests"]["PutSnapshotBlock"] == 900


def test_the_receipt_is_stored_where_it_says_and_the_targets_carry_the_checksum(cloud: CloudRig) -> None:
    receipt = cloud.copy(request(cloud.snapshot(filled(3)), cloud.recovery))
    bucket, key = receipt["receipt_uri"].removeprefix("s3://").split("/", 1)
    stored = json.loads(cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert stored == receipt
    assert bucket == cloud.info.buckets[cloud.home]["work"]
    tags = cloud.facts(receipt["targets"][0]["snapshot_id"])["tags"]
    assert tags["blockferry:linear-checksum"] == receipt["linear_checksum"]
    assert tags["blockferry:job-id"] == receipt["job_id"]


def test_a_dry_run_ends_with_an_estimate_and_starts_nothing(cloud: CloudRig) -> None:
    source = cloud.snapshot(filled(10))
    before = cloud.snapshots()
    estimate = cloud.copy(request(source, cloud.recovery, dry_run=True))
    assert estimate["status"] == "DRY_RUN"
    assert estimate["requests"]["PutSnapshotBlock"] == 10
    assert cloud.snapshots() == before


@pytest.fixture
def far_bucket(cloud: CloudRig) -> Iterator[str]:
    """A bucket of the other account."""
    with cloud.bucket(account=FAR_SIDE_ROLE.split(":")[4]) as name:
        yield name


@pytest.fixture
def far_side(cloud: CloudRig, far_bucket: str, tmp_path: Path) -> Iterator[str]:
    """The ARN of the role that modules/trust makes in the other account."""
    account, name = FAR_SIDE_ROLE.split(":")[4], FAR_SIDE_ROLE.rpartition("/")[2]
    environment = cloud.info.environment() | {
        "AWS_ACCESS_KEY_ID": account,
        "AWS_PROFILE": "",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    terraform = Terraform(repository_root() / "terraform" / "modules" / "trust", tmp_path, environment)
    side = {"regions": list(cloud.info.regions)}
    variables = {
        "name": name,
        "trusted": {"account_id": cloud.info.account_id},
        "external_id": "ferry-1234",
        "source_side": side,
        "target_side": side,
        "archive_side": {"bucket_names": [far_bucket]},
    }
    terraform.init()
    terraform.apply(variables)
    yield FAR_SIDE_ROLE
    terraform.destroy(variables)


def test_copies_and_archives_between_accounts_go_through_the_roles_that_are_named(
    cloud: CloudRig, far_side: str, far_bucket: str
) -> None:
    other = far_side.split(":")[4]
    side = {"role_arn": far_side, "external_id": "ferry-1234"}
    blocks = filled(70)

    pulled = cloud.copy(
        {
            "snapshot_id": cloud.snapshot(blocks, account=other),
            "source": side,
            "targets": [{"region": cloud.recovery}],
        }
    )
    pushed = cloud.copy(
        {"snapshot_id": cloud.snapshot(blocks), "targets": [{"region": cloud.recovery, **side}]},
    )

    assert pulled["source"]["owner_id"] == other
    mine, theirs = (cloud.facts(job["targets"][0]["snapshot_id"]) for job in (pulled, pushed))
    assert (mine["owner"], theirs["owner"]) == (cloud.info.account_id, other)
    assert cloud.held(mine["snapshot_id"]) == cloud.held(theirs["snapshot_id"]) == hashes(blocks)

    place = {"bucket": far_bucket, **side}
    archived = cloud.run("archive", {"snapshot_id": cloud.snapshot(blocks), "archive": place})
    uri = archived["manifest_uri"]
    assert uri.startswith(f"s3://{far_bucket}/")
    assert cloud.run("verify", {"manifest_uri": uri, "source": side})["blocks_checked"] == len(blocks)
    back = {"manifest_uri": uri, "source": side, "targets": [{"region": cloud.home, "encrypted": False}]}
    restored = cloud.run("restore", back)
    assert cloud.held(restored["targets"][0]["snapshot_id"]) == hashes(blocks)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"snapshot_id": "snap-00000000000000000"}, "EC2 does not know it"),
        ({"snapshot_id": "vol-1"}, "snapshot_id: 'vol-1' is not a snapshot id"),
        ({"targets": []}, "targets: name at least one target"),
        ({"targets": [{"region": "eu-west-1"}] * 2}, "targets[1] is identical to targets[0]"),
        ({"targets": [{"region": "moon-west-1"}]}, "region moon-west-1 is unknown to AWS"),
        ({"targets": [{"region": "eu-west-1", "kms_key_arn": "alias/mine"}]}, "targets[0].kms_key_arn"),
        ({"sauce": {}}, "sauce: is not a known key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_fails_the_execution_with_the_field_and_starts_nothing(
    cloud: CloudRig, change: dict[str, Any], expected: str
) -> None:
    source = cloud.snapshot({0: content(1)})
    before = cloud.snapshots()
    state = cloud.ended(cloud.start({**request(source, cloud.recovery), **change}))
    assert (state.status, state.error) == ("FAILED", "InvalidRequest")
    assert expected in (state.cause or "")
    assert cloud.snapshots() == before


def test_a_pending_snapshot_is_refused(cloud: CloudRig) -> None:
    pending = cloud.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    state = cloud.ended(cloud.start(request(pending, cloud.recovery)))
    assert state.error == "InvalidRequest"
    assert f"{pending} in {cloud.home} is pending" in (state.cause or "")


def test_a_snapshot_of_another_account_without_access_is_refused(cloud: CloudRig) -> None:
    foreign = cloud.snapshot({0: content(1)}, account="123456789012")
    state = cloud.ended(cloud.start(request(foreign, cloud.recovery)))
    assert state.error == "InvalidRequest"
    assert foreign in (state.cause or "")


def test_the_sweep_runs_as_it_is_deployed(cloud: CloudRig) -> None:
    answer = cloud.client("lambda").invoke(FunctionName="blockferry-sweep-jobs", Payload=b"{}")
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())["swept"] == []
