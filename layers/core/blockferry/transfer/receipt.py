"""Write receipt: what the job proves at its end."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from blockferry import __version__
from blockferry.aws import snapshots
from blockferry.aws.sessions import Aws
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.cli.render import holes_line, source_line
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import by_operation
from blockferry.core.errors import BlockferryError, IncompleteTransfer, RetryLater, TargetFailed
from blockferry.cost.work import Work, cost_of
from blockferry.jobs.record import Job, JobImage, JobSnapshot, JobTarget, Proof
from blockferry.jobs.workspace import Workspace
from blockferry.sources.unpack import drop_unpacked
from blockferry.transfer.encryption import refuse_as_described
from blockferry.transfer.look import look_at
from blockferry.transfer.steps import recorded_job


def write_receipt(*, job_id: str, aws: Aws, workspace: Workspace, now: datetime | None = None) -> dict[str, Any]:
    """Confirm every target once more, and store ``receipt.json`` and ``report.md``.

    Returns the receipt (at most a few KiB). A target that EC2 shows as pending once more is waited for. Raises
    ``TargetFailed`` naming the targets that are not completed or not what was asked for, ``RetryLater`` when one stays
    pending, and ``IncompleteTransfer`` when the proof is gone: there is no receipt without a proof.
    """
    job = recorded_job(workspace, job_id)
    proof = workspace.proof(job_id)
    if proof is None:
        raise IncompleteTransfer(f"{workspace.uri(job_id, 'proof.json')} is gone; redrive from Complete transfer")
    targets = _all_confirmed(job, proof, aws)
    if isinstance(job.source, JobImage):
        # Every target holds it by now; it may be many times larger than the rest of the job's record.
        drop_unpacked(workspace, job_id)
    requests = Counter(proof.requests)
    gb_seconds = proof.worker_gb_seconds
    if isinstance(job.source, JobImage):
        requests.update(job.source.unpack_requests)
        gb_seconds += job.source.unpack_gb_seconds
    # Counted by the plan and by completion, one each per target; they are free but part of the story.
    requests.update({"StartSnapshot": len(targets), "CompleteSnapshot": len(targets)})
    ended = now or datetime.now(UTC)
    receipt: dict[str, Any] = {
        "job_id": job_id,
        "operation": job.operation,
        "status": "SUCCEEDED",
        "source": source_facts(job.source),
        "targets": targets,
        "lineage": _lineage(job),
        "manifest_uri": None,
        "allocated_blocks": proof.allocated_blocks,
        "changed_blocks": proof.changed_blocks,
        "removed_blocks": proof.removed_blocks,
        "zero_blocks": proof.zero_blocks,
        "parent_blocks_compared": proof.parent_blocks,
        "bytes_read": proof.blocks_read * BLOCK_SIZE,
        "bytes_written": proof.blocks_written * BLOCK_SIZE * len(targets),
        **choices(job),
        "linear_checksum": proof.linear_checksum,
        "duration_seconds": round((ended - datetime.fromisoformat(job.started_at)).total_seconds(), 3),
        "requests": dict(sorted(by_operation(requests).items())),
        "retries": dict(sorted(proof.retries.items())),
        "cost_usd": cost_of(
            Work(
                requests=requests,
                home=job.execution_arn.split(":")[3],
                object_bytes=object_bytes(job.source, proof.blocks_read * BLOCK_SIZE),
                gb_seconds=gb_seconds,
            )
        ),
        "warnings": [warning.model_dump() for warning in job.warnings],
        "tool_version": __version__,
        "receipt_uri": workspace.uri(job_id, "receipt.json"),
        "report_uri": workspace.uri(job_id, "report.md"),
    }
    workspace.write(job_id, "report.md", report(receipt).encode(), content_type="text/markdown; charset=utf-8")
    workspace.write(job_id, "receipt.json", json.dumps(receipt, indent=1).encode())
    return receipt


def choices(job: Job) -> dict[str, Any]:
    """What the plan chose, and why, as a receipt and a dry run tell it."""
    return {
        "holes": job.holes.value,
        "holes_taken_for": job.holes_taken_for.value,
        "holes_decided_by": job.holes_decided_by,
        "holes_reason": job.holes_reason,
        "workers": job.max_concurrency,
        "workers_because": job.workers_because,
    }


def source_facts(source: JobSnapshot | JobImage) -> dict[str, Any]:
    """What a receipt tells of the source."""
    if isinstance(source, JobImage):
        return {
            "image_uri": source.uri,
            "region": source.region,
            "etag": source.etag,
            "codec": source.codec,
            "object_bytes": source.size_bytes,
            "image_bytes": source.raw_bytes,
        }
    return {
        "snapshot_id": source.snapshot_id,
        "base_snapshot_id": None if source.base is None else source.base.snapshot_id,
        "region": source.region,
        "owner_id": source.owner_id,
        "volume_id": source.volume_id,
        "volume_size_gib": source.size_gib,
        "start_time": source.start_time,
        "encrypted": source.encrypted,
    }


def _lineage(job: Job) -> dict[str, Any] | None:
    """Which snapshot was made of which: what the next sync of the chain starts from."""
    if isinstance(job.source, JobImage):
        return None
    return {
        "name": job.source.lineage,
        "base_snapshot_id": None if job.source.base is None else job.source.base.snapshot_id,
        "snapshot_id": job.source.snapshot_id,
        "targets": [
            {"region": t.region, "parent_snapshot_id": t.parent_snapshot_id, "snapshot_id": t.snapshot_id}
            for t in job.targets
        ],
    }


def object_bytes(source: JobSnapshot | JobImage, raw_bytes: int) -> dict[str, int]:
    """Bytes read from the bucket of an image, by its region: ``raw_bytes`` of a raw one, else the object's, once."""
    if not isinstance(source, JobImage):
        return {}
    return {source.region: raw_bytes if source.codec == "raw" else source.size_bytes}


def _all_confirmed(job: Job, proof: Proof, aws: Aws) -> list[dict[str, Any]]:
    facts: dict[int, SnapshotFacts] = {}
    failed: dict[int, BlockferryError] = {}

    def look() -> list[SnapshotFacts]:
        looked = look_at(
            {n: t for n, t in enumerate(job.targets) if n not in facts or facts[n].state != "completed"}, aws
        )
        failed.clear()
        failed.update(looked.errors)
        facts.update(looked.facts)
        return list(facts.values())

    snapshots.settled(look)
    for number, found in facts.items():
        try:
            _refuse_other(job, job.targets[number], found)
        except BlockferryError as error:
            failed[number] = error
    if failed:
        kind = RetryLater if all(isinstance(error, RetryLater) for error in failed.values()) else TargetFailed
        raise kind("\n".join(f"targets[{number}]: {error}" for number, error in sorted(failed.items())))
    return [_confirmed(target, facts[number], job, proof) for number, target in enumerate(job.targets)]


def _refuse_other(job: Job, target: JobTarget, facts: SnapshotFacts) -> None:
    name = f"target {target.snapshot_id} in {target.region}"
    if facts.state == "pending":
        raise RetryLater(f"{name} is shown as pending, it was completed before; EC2's answers differ for a while")
    if facts.state != "completed":
        raise TargetFailed(f"{name} is in state {facts.state}, it was completed before")
    if facts.size_gib != target.size_gib:
        raise TargetFailed(f"{name} has {facts.size_gib} GiB, it was started with {target.size_gib}")
    refuse_as_described(job, target, facts)


def _confirmed(target: JobTarget, facts: SnapshotFacts, job: Job, proof: Proof) -> dict[str, Any]:
    return {
        "region": target.region,
        "snapshot_id": target.snapshot_id,
        "state": facts.state,
        "volume_size_gib": facts.size_gib,
        "parent_snapshot_id": target.parent_snapshot_id,
        "owner_id": facts.owner_id,
        "encrypted": facts.encrypted,
        "kms_key_arn": facts.kms_key_id,
        "holes_stand_for": target.tags.get(snapshots.HOLES_TAG),
        "blocks_written": proof.blocks_written,
        "zero_blocks": proof.zero_blocks if job.holes.value != "skip_zero" else 0,
        "linear_checksum": proof.linear_checksum,
    }


def report(receipt: dict[str, Any]) -> str:
    """The receipt as a page for people (Markdown)."""
    lines = [
        f"# {receipt['operation']} {receipt['job_id']}: {receipt['status']}",
        "",
        f"Source: {source_line(receipt)}.",
        "",
        "| target | region | state | blocks written | encrypted |",
        "|---|---|---|---|---|",
        *(
            f"| {t['snapshot_id']} | {t['region']} | {t['state']} | {t['blocks_written']} | {t['encrypted']} |"
            for t in receipt["targets"]
        ),
        "",
        f"Holes: {holes_line(receipt)}.",
        "",
        _sealed(receipt),
        "",
        f"Took {receipt['duration_seconds']} s. Requests: "
        + ", ".join(f"{count} {name}" for name, count in receipt["requests"].items())
        + ". Repeated: "
        + (", ".join(f"{count} {name}" for name, count in receipt["retries"].items()) or "none")
        + f". Cost of requests: ${receipt['cost_usd']['total']} ({receipt['cost_usd']['basis']}).",
        "",
        *(line for warning in receipt["warnings"] for line in (f"Warning: {warning['message']}.", "")),
    ]
    return "\n".join(lines)


def _sealed(receipt: dict[str, Any]) -> str:
    if all(target["blocks_written"] == 0 for target in receipt["targets"]):
        return "No block was written: EBS accepted the count of 0 for every target. There is no checksum over nothing."
    return f"LINEAR checksum `{receipt['linear_checksum']}`, accepted by EBS for every target."
