"""Records of jobs, short of nothing, for tests that need no planning."""

from __future__ import annotations

from typing import Any

from blockferry.core.holes import HolePolicy
from blockferry.jobs.record import Job, JobImage, JobSnapshot, JobTarget, Proof

HOME, RECOVERY, THIRD = "us-east-1", "eu-west-1", "ap-southeast-2"

PROOF = Proof(
    allocated_blocks=7,
    changed_blocks=5,
    removed_blocks=2,
    zero_blocks=3,
    blocks_read=11,
    blocks_written=13,
    parent_blocks=17,
    linear_checksum="c",
    requests={f"PutSnapshotBlock {RECOVERY}": 13, f"GetSnapshotBlock {HOME}": 11},
    retries={"b": 2, "a": 1},
    worker_gb_seconds=1_000.0,
)


def _place(region: str) -> dict[str, Any]:
    return {"region": region, "role_arn": None, "external_id": None}


def source(*, encrypted: bool = False, **more: Any) -> JobSnapshot:
    known = {
        "snapshot_id": "snap-0",
        "owner_id": "111122223333",
        "volume_id": "vol-1",
        "size_gib": 1,
        "start_time": "2026-01-01T00:00:00+00:00",
        "encrypted": encrypted,
        "full_size_bytes": None,
        "lineage": "vol-1",
    }
    return JobSnapshot(**{**_place(HOME), **known, **more})


def image(**more: Any) -> JobImage:
    known = {"uri": "s3://b/k", "etag": "e", "size_bytes": 1, "codec": "raw", "raw_bytes": 2}
    return JobImage(**{**_place(HOME), **known, **more})


def target(**asked: Any) -> JobTarget:
    known = {"kms_key_arn": None, "encrypted": None, "description": "", "tags": {}, "size_gib": 1}
    return JobTarget(**{**_place(RECOVERY), **known, "snapshot_id": "snap-1", **asked})


def job(of: JobSnapshot | JobImage, *targets: JobTarget, holes: HolePolicy = HolePolicy.PRESERVE, **more: Any) -> Job:
    known: dict[str, Any] = {
        "job_id": "job-1",
        "operation": "copy",
        "execution_arn": f"arn:aws:states:{HOME}:111122223333:execution:blockferry-copy:job-1",
        "started_at": "2026-01-01T00:00:00+00:00",
        "fingerprint": "f",
        "total_blocks": 2_048,
        "blocks_per_range": 512,
        "max_concurrency": 4,
        "blocks_per_second": 1.0,
        "threads": 1,
    }
    return Job(**{**known, "source": of, "targets": targets, "holes": holes, **more})
