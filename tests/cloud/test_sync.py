"""Deltas through the deployed state machine, held against what the EBS server holds."""

from __future__ import annotations

from typing import Any

import pytest
from cloud_rig import CloudRig, filled
from fakes import content
from rig import hashes

VOLUME = "vol-00000000000000777"


def night(cloud: CloudRig, blocks: dict[int, bytes]) -> str:
    """A snapshot of a real volume that holds exactly ``blocks``."""
    client = cloud.client("ec2")
    held = cloud.control("ebs/volumes")["volumes"]
    if not any(volume["volume_id"] == VOLUME for volume in held):
        facts = {"volume_id": VOLUME, "owner": cloud.info.account_id, "region": cloud.home, "size": 2}
        cloud.control("ebs/volumes", facts)
    before = {index for index, _ in cloud.control(f"ebs/volumes/{VOLUME}/raw-index")["blocks"]}
    for index in before - blocks.keys():
        cloud.control(f"ebs/volumes/{VOLUME}/blocks/{index}", method="DELETE")
    for index, data in blocks.items():
        cloud.post(f"ebs/volumes/{VOLUME}/blocks/{index}", data)
    made: str = client.create_snapshot(VolumeId=VOLUME)["SnapshotId"]
    cloud.until(lambda: cloud.facts(made)["state"] == "completed")
    return made


def reads_as(blocks: dict[int, bytes]) -> dict[int, str]:
    return hashes({index: data for index, data in blocks.items() if data != content(0)})


def test_night_after_night_the_difference_goes_to_two_regions(cloud: CloudRig) -> None:
    regions = (cloud.recovery, "ap-southeast-2")
    targets = [{"region": region} for region in regions]
    first = filled(40)
    base = night(cloud, first)
    cloud.copy({"snapshot_id": base, "targets": targets})
    second = {**first, 3: content(300), 5: content(0), 4000: content(301)}
    del second[7], second[8]
    middle = night(cloud, second)
    cloud.control("ebs/stats/reset", {})
    receipt = cloud.run("sync", {"snapshot_id": middle, "follow": True, "targets": targets})
    assert [cloud.image_of(t["snapshot_id"]) for t in receipt["targets"]] == [reads_as(second)] * 2
    assert (receipt["changed_blocks"], receipt["removed_blocks"]) == (3, 2)
    calls = cloud.control("ebs/stats")["calls"]
    assert (calls["GetSnapshotBlock"], calls["PutSnapshotBlock"]) == (3, 2 * 5)

    third = {**second, 7: content(302)}
    last = night(cloud, third)
    again = cloud.run("sync", {"snapshot_id": last, "follow": True, "targets": targets})
    assert again["source"]["base_snapshot_id"] == middle
    assert [t["parent_snapshot_id"] for t in again["targets"]] == [t["snapshot_id"] for t in receipt["targets"]]
    assert [cloud.image_of(t["snapshot_id"]) for t in again["targets"]] == [reads_as(third)] * 2

    chain = [base, middle, last]
    report = cloud.run("inspect", {"base_snapshot_id": base, "chain": chain, "targets": targets[:1]})
    assert report["delta"] == {
        "added_blocks": 1,
        "overwritten_blocks": 3,
        "removed_blocks": 1,
        "bytes_to_write": 5 * 524_288,
    }
    assert report["allocated_blocks"] == len(third)
    # What nobody else has: blocks 3, 5, 7 and 8 of the first night, and 7 of the last.
    assert [s["frees_blocks"] for s in report["chain"]["snapshots"]] == [4, 0, 1]
    assert report["recommendation"]["choice"] == "nothing"
    there = again["targets"][0]["snapshot_id"]
    assert report["recommendation"]["reason"] == f"{there} in {cloud.recovery} is a proved copy of it already"


def test_a_parent_that_was_made_by_hand_is_compared_and_a_wrong_one_leaves_nothing(cloud: CloudRig) -> None:
    blocks = filled(30)
    base = cloud.snapshot(blocks)
    snapshot = cloud.snapshot({2: content(500)}, parent_snapshot_id=base)

    def request(parent: str) -> dict[str, Any]:
        targets = [{"region": cloud.home, "parent_snapshot_id": parent}]
        return {
            "base_snapshot_id": base,
            "snapshot_id": snapshot,
            "targets": targets,
            "options": {"verify_parent": True},
        }

    receipt = cloud.run("sync", request(cloud.snapshot(blocks)))
    assert cloud.image_of(receipt["targets"][0]["snapshot_id"]) == reads_as({**blocks, 2: content(500)})
    assert receipt["parent_blocks_compared"] == 30

    wrong = cloud.snapshot({**blocks, 29: content(1)})
    before = cloud.snapshots()
    state = cloud.ended(cloud.start(request(wrong), operation="sync"))
    assert (state.status, state.error) == ("FAILED", "TransferFailed")
    assert f"{wrong} in {cloud.home} is not equal to base {base}: block 29" in (state.cause or "")
    assert cloud.snapshots() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base_snapshot_id": None}, "base_snapshot_id is required"),
        (
            {"targets": [{"region": "eu-west-1", "parent_snapshot_id": "snap-00000000000000000"}]},
            "EC2 does not know it",
        ),
    ],
)
def test_bad_input_fails_the_execution_with_the_field_and_starts_nothing(
    cloud: CloudRig, change: dict[str, Any], expected: str
) -> None:
    base = cloud.snapshot({0: content(1)})
    snapshot = cloud.snapshot({1: content(2)}, parent_snapshot_id=base)
    targets = [{"region": cloud.home, "parent_snapshot_id": base}]
    before = cloud.snapshots()
    request = {"base_snapshot_id": base, "snapshot_id": snapshot, "targets": targets, **change}
    state = cloud.ended(cloud.start(request, operation="sync"))
    assert (state.status, state.error) == ("FAILED", "InvalidRequest")
    assert expected in (state.cause or "")
    assert cloud.snapshots() == before
