"""A copy while everything around it fails now and then: the end is the same, or the job says that it failed."""

from __future__ import annotations

from typing import Any

from cloud_rig import CloudRig, filled
from rig import hashes

SEED = 20
"""Of every fault that is drawn by chance."""

EBS_FAULTS: list[dict[str, Any]] = [
    {"operation": "GetSnapshotBlock", "probability": 0.1, "seed": SEED, "action": "error", "status": 400,
     "code": "RequestThrottledException", "reason": "RESOURCE_LEVEL_THROTTLE"},
    {"operation": "PutSnapshotBlock", "probability": 0.1, "seed": SEED, "action": "error", "status": 400,
     "code": "ThrottlingException"},
    {"operation": "PutSnapshotBlock", "probability": 0.03, "seed": SEED, "action": "close_after"},
    {"operation": "GetSnapshotBlock", "probability": 0.03, "seed": SEED, "action": "close_before"},
    {"operation": "GetSnapshotBlock", "every": 41, "action": "flip_response"},
    {"operation": "GetSnapshotBlock", "every": 53, "action": "short_body"},
    {"operation": "PutSnapshotBlock", "nth": 60, "action": "flip_request"},
    {"operation": "ListSnapshotBlocks", "every": 3, "action": "error", "status": 500},
    {"operation": "GetSnapshotBlock", "nth": 70, "action": "expired_token"},
]  # fmt: skip

SERVICE_FAULTS: list[dict[str, Any]] = [
    {"service": "s3", "operation": "PutObject", "resource": "digests/", "every": 3, "action": "throttle"},
    {"service": "s3", "operation": "GetObject", "resource": "digests/", "every": 3, "action": "throttle"},
    {"service": "s3", "operation": "GetObject", "resource": "job.json", "every": 4, "action": "close_after"},
    {"service": "ec2", "operation": "DescribeSnapshots", "times": 2, "action": "throttle"},
]


def test_a_copy_under_faults_of_every_service_ends_bit_exact(cloud: CloudRig) -> None:
    print(f"seed {SEED}")
    blocks = filled(300)
    source = cloud.snapshot(blocks)
    for rule in EBS_FAULTS:
        cloud.control("ebs/faults", rule)
    cloud.control("faults", SERVICE_FAULTS)
    cloud.control("lambda/faults", {"function": "blockferry-move-blocks", "kind": "duplicate"})

    arn = cloud.start(
        {
            "snapshot_id": source,
            "targets": [{"region": cloud.home}, {"region": cloud.recovery}],
            "options": {"blocks_per_range": 100, "max_concurrency": 3},
        }
    )
    state = cloud.ended(arn)
    redriven = 0
    while state.status != "SUCCEEDED" and redriven < 3:
        # A failed job under faults is an honest end; what counts is that a redrive goes on from it.
        redriven += 1
        cloud.operator.resume(arn)
        state = cloud.ended(arn)

    assert state.status == "SUCCEEDED", f"{state.error}: {state.cause}"
    made = [target["snapshot_id"] for target in state.output["targets"]]
    cloud.clear_faults()
    assert [cloud.held(each) for each in made] == [hashes(blocks)] * 2
    assert state.output["allocated_blocks"] == state.output["changed_blocks"] == 300
    assert sum(state.output["retries"].values()) > 0
    pending = [s for s, found in cloud.snapshots().items() if found == "pending"]
    job = [s for s in pending if cloud.facts(s)["tags"].get("blockferry:job-id") == state.job_id]
    assert job == []
