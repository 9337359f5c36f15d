"""Records of jobs, short of nothing, for tests that need no planning."""

from __future__ import annotations

from typing import Any, cast

from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.retry import Clock
from blockferry.core.tuning import Throughput, Waits
from blockferry.formats.archive.manifest import SourceFacts
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Proof
from blockferry.sources.delta import BaseSnapshot, JobDelta
from blockferry.sources.image import JobImage, Unpacked
from blockferry.sources.snapshot import JobSnapshot
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.full import FullSnapshot
from blockferry.targets.kind import Started
from blockferry.targets.on_parent import SnapshotOnParent
from blockferry.transfer.job import Job, Source, Target, save_job, save_started

HOME, RECOVERY, THIRD = "us-east-1", "eu-west-1", "ap-southeast-2"

EXECUTION = Execution(f"arn:aws:states:{HOME}:111122223333:execution:blockferry-copy:job-1")
"""That of the job, unless a test says otherwise."""

AT_ONCE = Waits(look_seconds=0.0)
"""Looks at a snapshot that is shown as pending follow each other at once."""

UNPACED = Throughput(lists_per_second=10_000.0)
"""Without the share of a quota that no server here has: it would only make the tests wait."""

LONG_BEFORE = "2026-01-01T00:00:00+00:00"

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
    return JobSnapshot(**_snapshot(encrypted=encrypted, **more))


def delta(base: BaseSnapshot, **more: Any) -> JobDelta:
    return JobDelta(**_snapshot(**more), base=base)


def _snapshot(**more: Any) -> dict[str, Any]:
    known = {
        "snapshot_id": "snap-0",
        "owner_id": "111122223333",
        "volume_id": "vol-1",
        "size_gib": 1,
        "start_time": LONG_BEFORE,
        "encrypted": False,
        "full_size_bytes": None,
        "lineage_name": "vol-1",
    }
    return {**_place(HOME), **known, **more}


def image(*, raw_bytes: int = 2, **more: Any) -> JobImage:
    """A raw image of so many bytes, or a compressed one that unpacks to them."""
    known = {"uri": "s3://b/k", "etag": "e", "codec": "raw", **more}
    if known["codec"] == "raw":
        known["size_bytes"] = raw_bytes
    else:
        known = {"size_bytes": 1, "unpacked": Unpacked(raw_bytes=raw_bytes), **known}
    return JobImage(**{**_place(HOME), **known})


def target(*, snapshot_id: str = "snap-1", started_at: str = LONG_BEFORE, **asked: Any) -> FullSnapshot:
    """A target that is started, unless its id is empty."""
    known = {"kms_key_arn": None, "encrypted": None, "description": "", "tags": {}, "size_gib": 1}
    return FullSnapshot(**{**_place(RECOVERY), **known, "started": _started(snapshot_id, started_at), **asked})


def on_parent(
    parent_snapshot_id: str, *, snapshot_id: str = "snap-1", started_at: str = LONG_BEFORE, **asked: Any
) -> SnapshotOnParent:
    """A target on top of a parent that is started, unless its id is empty."""
    parent = {"parent_size_gib": 1, "parent_encrypted": False, "parent_kms_key_arn": None}
    known = {"description": "", "tags": {}, "size_gib": 1, "parent_snapshot_id": parent_snapshot_id, **parent}
    return SnapshotOnParent(**{**_place(RECOVERY), **known, "started": _started(snapshot_id, started_at), **asked})


def _started(snapshot_id: str, at: str) -> Started | None:
    return Started(snapshot_id=snapshot_id, at=at) if snapshot_id else None


def archive(*, archive_id: str = "archive-1", started_at: str = LONG_BEFORE, **asked: Any) -> ArchiveTarget:
    """An archive that is started, unless ``started_at`` is empty."""
    known: dict[str, Any] = {
        **_place(HOME),
        "bucket": "archives",
        "prefix": "disks/",
        "storage_class": "STANDARD_IA",
        "kms_key_arn": None,
        "level": 1,
        "segment_blocks": 64,
        "source": SourceFacts(snapshot_id="snap-0"),
        "holes": HoleMeaning.NOISE,
        "job_id": "job-1",
        "execution": EXECUTION.mark,
        "size_gib": 1,
        "started": _started(archive_id if started_at else "", started_at),
    }
    return ArchiveTarget(archive_id=archive_id, **{**known, **asked})


def job(of: Source, *targets: Target, holes: HolePolicy = HolePolicy.PRESERVE, **more: Any) -> Job:
    known: dict[str, Any] = {
        "job_id": "job-1",
        "operation": "copy",
        "started_at": LONG_BEFORE,
        "fingerprint": "f",
        "total_blocks": 2_048,
        "blocks_per_range": 512,
        "max_concurrency": 4,
        "blocks_per_second": 1.0,
        "threads": 1,
        **more,
    }
    arn = f"arn:aws:states:{HOME}:111122223333:execution:blockferry-{known['operation']}:{known['job_id']}"
    return Job(**{"execution_arn": arn, **known, "source": of, "targets": targets, "holes": holes})


def recorded(folder: JobFolder, of: Job) -> str:
    """Put a job on record; returns the SHA-256 by which its steps go."""
    save_job(folder, of)
    return save_started(folder, of)


def folder_of(of: Job, s3: Any, bucket: str = "blockferry-work-111122223333-us-east-1") -> JobFolder:
    """The folder of a job in a bucket."""
    return JobFolder(bucket, cast(Any, s3), of.operation, of.job_id)


def job_call(aws: Any, folder: JobFolder, *, clock: Clock, seconds_left: float = 900.0, **more: Any) -> JobCall:
    """A call of a step that has so many seconds from now on by its clock."""
    began = clock.monotonic()
    return JobCall(
        aws=cast(Any, aws),
        folder=folder,
        clock=clock,
        time_left=lambda: seconds_left - (clock.monotonic() - began),
        **more,
    )
