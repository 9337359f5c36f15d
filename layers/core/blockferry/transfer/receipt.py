"""Write receipt: what the job proves at its end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from blockferry import __version__, snapshots
from blockferry.blocks import BLOCK_SIZE
from blockferry.cost import request_cost
from blockferry.errors import IncompleteTransfer, TargetFailed
from blockferry.jobs import Job, JobTarget, Proof
from blockferry.sessions import Aws
from blockferry.transfer.steps import recorded_job
from blockferry.workspace import Workspace


def write_receipt(*, job_id: str, aws: Aws, workspace: Workspace, now: datetime | None = None) -> dict[str, Any]:
    """Confirm every target once more, write the checksum to its tags, and store ``receipt.json`` and ``report.md``.

    Returns the receipt (at most a few KiB). Raises ``TargetFailed`` when a target is not completed and
    ``IncompleteTransfer`` when the proof is gone: there is no receipt without a proof.
    """
    job = recorded_job(workspace, job_id)
    proof = workspace.proof(job_id)
    if proof is None:
        raise IncompleteTransfer(f"{workspace.uri(job_id, 'proof.json')} is gone; redrive from Complete transfer")
    targets = [_confirmed(target, job, proof, aws) for target in job.targets]
    requests = dict(proof.requests)
    # Counted by the plan and by completion, one each per target; they are free but part of the story.
    requests |= {"StartSnapshot": len(targets), "CompleteSnapshot": len(targets)}
    ended = now or datetime.now(UTC)
    receipt: dict[str, Any] = {
        "job_id": job_id,
        "operation": job.operation,
        "status": "SUCCEEDED",
        "source": {
            "snapshot_id": job.source.snapshot_id,
            "region": job.source.region,
            "owner_id": job.source.owner_id,
            "volume_id": job.source.volume_id,
            "volume_size_gib": job.source.size_gib,
            "start_time": job.source.start_time,
            "encrypted": job.source.encrypted,
        },
        "targets": targets,
        "manifest_uri": None,
        "allocated_blocks": proof.allocated_blocks,
        "changed_blocks": proof.blocks_written,
        "removed_blocks": 0,
        "zero_blocks": proof.zero_blocks,
        "bytes_read": proof.allocated_blocks * BLOCK_SIZE,
        "bytes_written": proof.blocks_written * BLOCK_SIZE * len(targets),
        "holes": job.holes.value,
        "linear_checksum": proof.linear_checksum,
        "duration_seconds": round((ended - datetime.fromisoformat(job.started_at)).total_seconds(), 3),
        "requests": dict(sorted(requests.items())),
        "retries": dict(sorted(proof.retries.items())),
        "cost_usd": request_cost(requests),
        "tool_version": __version__,
        "receipt_uri": workspace.uri(job_id, "receipt.json"),
        "report_uri": workspace.uri(job_id, "report.md"),
    }
    workspace.write(job_id, "report.md", report(receipt).encode(), content_type="text/markdown; charset=utf-8")
    workspace.write(job_id, "receipt.json", json.dumps(receipt, indent=1).encode())
    return receipt


def _confirmed(target: JobTarget, job: Job, proof: Proof, aws: Aws) -> dict[str, Any]:
    ec2 = aws.ec2(target.identity)
    snapshots.add_tags(ec2, target.snapshot_id, {snapshots.CHECKSUM_TAG: proof.linear_checksum})
    facts = snapshots.describe(ec2, target.snapshot_id, region=target.region)
    name = f"target {target.snapshot_id} in {target.region}"
    if facts.state != "completed":
        raise TargetFailed(f"{name} is in state {facts.state}, it was completed before")
    if facts.size_gib != job.source.size_gib:
        raise TargetFailed(f"{name} has {facts.size_gib} GiB, the source has {job.source.size_gib}")
    return {
        "region": target.region,
        "snapshot_id": target.snapshot_id,
        "state": facts.state,
        "owner_id": facts.owner_id,
        "encrypted": facts.encrypted,
        "kms_key_arn": facts.kms_key_id,
        "blocks_written": proof.blocks_written,
        "zero_blocks": proof.zero_blocks if job.holes.value != "skip_zero" else 0,
        "linear_checksum": proof.linear_checksum,
    }


def report(receipt: dict[str, Any]) -> str:
    """The receipt as a page for people (Markdown)."""
    source = receipt["source"]
    lines = [
        f"# {receipt['operation']} {receipt['job_id']}: {receipt['status']}",
        "",
        f"Source {source['snapshot_id']} in {source['region']}, {source['volume_size_gib']} GiB, "
        f"{receipt['allocated_blocks']} allocated blocks ({receipt['bytes_read'] / 2**20:.1f} MiB), "
        f"of them {receipt['zero_blocks']} all zeros.",
        "",
        "| target | region | state | blocks written | encrypted |",
        "|---|---|---|---|---|",
        *(
            f"| {t['snapshot_id']} | {t['region']} | {t['state']} | {t['blocks_written']} | {t['encrypted']} |"
            for t in receipt["targets"]
        ),
        "",
        f"LINEAR checksum `{receipt['linear_checksum']}`, accepted by EBS for every target.",
        "",
        f"Took {receipt['duration_seconds']} s. Requests: "
        + ", ".join(f"{count} {name}" for name, count in receipt["requests"].items())
        + ". Repeated: "
        + (", ".join(f"{count} {name}" for name, count in receipt["retries"].items()) or "none")
        + f". Cost of requests: ${receipt['cost_usd']['total']} ({receipt['cost_usd']['basis']}).",
        "",
    ]
    return "\n".join(lines)
