"""Workers that die and jobs that are stopped: what is finished stays finished, and the end is the same."""

from __future__ import annotations

import json
import re
from typing import Any

from cloud_rig import CloudRig, filled
from rig import hashes

WORKER = "blockferry-move-blocks"


def request(snapshot_id: str, region: str, **options: Any) -> dict[str, Any]:
    defaults = {"blocks_per_range": 100, "max_concurrency": 2}
    return {"snapshot_id": snapshot_id, "targets": [{"region": region}], "options": {**defaults, **options}}


def target_of(cloud: CloudRig, arn: str, region: str | None = None) -> str:
    found = targets_of(cloud, arn, region or cloud.recovery)
    assert len(found) == 1
    return found[0]


def targets_of(cloud: CloudRig, arn: str, region: str) -> list[str]:
    job_id = arn.rsplit(":", 1)[-1]
    found = cloud.client("ec2", region).describe_snapshots(
        Filters=[{"Name": "tag:blockferry:job-id", "Values": [job_id]}]
    )["Snapshots"]
    return [str(snapshot["SnapshotId"]) for snapshot in found]


def test_a_worker_killed_once_in_the_middle_is_repeated_by_the_map(cloud: CloudRig) -> None:
    blocks = filled(500)
    source = cloud.snapshot(blocks)
    cloud.control("lambda/faults", {"function": WORKER, "kind": "crash", "nth": 2, "when": "during", "after_ms": 100})
    receipt = cloud.copy(request(source, cloud.recovery))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert receipt["changed_blocks"] == 500


def test_a_worker_whose_answer_is_lost_is_repeated_and_nothing_is_counted_twice(cloud: CloudRig) -> None:
    blocks = filled(250)
    source = cloud.snapshot(blocks)
    cloud.control("lambda/faults", {"function": WORKER, "kind": "crash", "nth": 1, "when": "after"})
    receipt = cloud.copy(request(source, cloud.recovery))
    assert cloud.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert receipt["changed_blocks"] == receipt["allocated_blocks"] == 250


def test_workers_killed_for_good_fail_the_job_and_a_redrive_finishes_it_without_redoing_finished_ranges(
    cloud: CloudRig,
) -> None:
    blocks = filled(1000)
    source = cloud.snapshot(blocks)
    cloud.control("ebs/stats/reset", {})
    # Block 777 cannot be read: its worker fails at once, for good, while others have finished.
    fault = {"operation": "GetSnapshotBlock", "block_index": 777, "action": "error", "status": 403,
             "code": "AccessDeniedException", "reason": "DEPENDENCY_ACCESS_DENIED"}  # fmt: skip
    cloud.control("ebs/faults", fault)
    arn = cloud.start(request(source, cloud.recovery))
    failed = cloud.ended(arn)
    assert failed.status == "FAILED"
    target = target_of(cloud, arn)
    assert cloud.facts(target)["state"] == "pending"
    told = json.loads(failed.cause or "")["errorMessage"]
    assert f"GetSnapshotBlock block 777 of {source}" in told
    (finished,) = map(int, re.findall(r"^(\d+) of 21 ranges are moved", told, flags=re.MULTILINE))
    assert 1 <= finished < 21
    there = len(cloud.held(target))

    cloud.clear_faults()
    cloud.control("lambda/faults", {"function": WORKER, "kind": "crash", "nth": 1, "when": "during", "after_ms": 50})
    before = cloud.control("ebs/stats")["snapshots"][source]["GetSnapshotBlock"]
    cloud.operator.resume(arn)
    state = cloud.ended(arn)

    assert state.status == "SUCCEEDED", state.cause
    assert state.redriven == 1
    assert state.output["targets"][0]["snapshot_id"] == target
    assert cloud.held(target) == hashes(blocks)
    assert state.output["changed_blocks"] == state.output["allocated_blocks"] == 1000
    again = cloud.control("ebs/stats")["snapshots"][source]["GetSnapshotBlock"] - before
    # What the target did not hold, that of the range which failed, and one range twice because its worker was killed.
    assert again <= 1000 - there + 100 + 100


def test_a_stopped_job_goes_on_and_ends_with_the_same_copy(cloud: CloudRig) -> None:
    blocks = filled(600)
    source = cloud.snapshot(blocks)
    cloud.control("ebs/config", {"latency_ms": 40})
    try:
        arn = cloud.start(request(source, cloud.recovery, max_concurrency=1))
        cloud.until(lambda: cloud.operator.state(arn).ranges.get("succeeded", 0) >= 1)
        cloud.operator.stop(arn, reason="test")
        assert cloud.ended(arn).status == "ABORTED"
    finally:
        cloud.control("ebs/config", {"latency_ms": 0})
    cloud.operator.resume(arn)
    state = cloud.ended(arn)
    assert state.status == "SUCCEEDED", state.cause
    assert cloud.held(state.output["targets"][0]["snapshot_id"]) == hashes(blocks)


def test_one_region_that_fails_leaves_the_other_copies_completed_and_a_redrive_makes_only_the_missing_one(
    cloud: CloudRig,
) -> None:
    blocks = filled(400)
    source = cloud.snapshot(blocks)
    wanted = request(source, cloud.home)
    wanted["targets"] = [{"region": region} for region in (cloud.home, cloud.recovery, "ap-southeast-2")]
    cloud.control("ebs/config", {"latency_ms": 60})
    arn = cloud.start(wanted)
    cloud.until(lambda: bool(targets_of(cloud, arn, cloud.recovery)))
    bad = target_of(cloud, arn)
    fault = {"operation": "PutSnapshotBlock", "snapshot_id": bad, "action": "error", "status": 403,
             "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"}  # fmt: skip
    cloud.control("ebs/faults", fault)
    cloud.control("ebs/config", {"latency_ms": 0})
    failed = cloud.ended(arn)

    good = [target_of(cloud, arn, region) for region in (cloud.home, "ap-southeast-2")]
    assert failed.status == "FAILED"
    cloud.until(lambda: all(cloud.facts(each)["state"] == "completed" for each in good))
    assert [cloud.held(each) for each in good] == [hashes(blocks)] * 2
    assert cloud.facts(bad)["state"] == "pending"

    cloud.clear_faults()
    cloud.control("ebs/stats/reset", {})
    cloud.operator.resume(arn)
    state = cloud.ended(arn)
    assert state.status == "SUCCEEDED", state.cause
    calls = cloud.control("ebs/stats")["snapshots"]
    assert all("PutSnapshotBlock" not in calls.get(each, {}) for each in good)
    assert cloud.held(bad) == hashes(blocks)
    assert [target["snapshot_id"] for target in state.output["targets"]] == [good[0], bad, good[1]]
