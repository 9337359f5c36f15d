"""Workers that die and jobs that are stopped: what is finished stays finished, and the end is the same."""

from __future__ import annotations

from typing import Any

from cloud_rig import CloudRig, filled
from rig import hashes

WORKER = "blockferry-move-blocks"


def request(snapshot_id: str, region: str, **options: Any) -> dict[str, Any]:
    defaults = {"blocks_per_range": 100, "max_concurrency": 2}
    return {"snapshot_id": snapshot_id, "targets": [{"region": region}], "options": {**defaults, **options}}


def target_of(cloud: CloudRig, arn: str) -> str:
    job_id = arn.rsplit(":", 1)[-1]
    found = cloud.client("ec2", cloud.recovery).describe_snapshots(
        Filters=[{"Name": "tag:blockferry:job-id", "Values": [job_id]}]
    )["Snapshots"]
    assert len(found) == 1
    return str(found[0]["SnapshotId"])


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
    finished = failed.ranges["succeeded"]
    assert finished >= 1

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
    # All but the finished ranges, and at most one range twice because its worker was killed.
    assert again <= 1000 - finished * 100 + 100


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
