"""Write receipt: what the job proves at its end."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import __version__
from blockferry.aws import snapshots
from blockferry.aws.errors import translated
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import by_operation
from blockferry.core.errors import BlockferryError, InvalidRequest, OutOfTime, RetryLater, TargetFailed
from blockferry.core.reserves import RECEIPT_SECONDS
from blockferry.cost.work import Work, cost_of
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import RECEIPT, REPORT
from blockferry.jobs.record import JobWarning, Proof
from blockferry.targets.kind import TargetFacts
from blockferry.transfer.check import said_of
from blockferry.transfer.job import Job, started_job
from blockferry.transfer.sentences import cost_line, holes_line, source_line


def write_receipt(call: JobCall, record: str, proof: str, *, now: datetime | None = None) -> dict[str, Any]:
    """Confirm every target once more, and store ``receipt.json`` and ``report.md``, once.

    ``proof`` is the SHA-256 of what Complete transfer has proved. Returns the receipt (at most a few KiB); of a call
    that is repeated, the one that is stored. A target that EC2 shows as pending once more is waited for. Raises
    ``TargetFailed`` naming the targets that are not completed or not what was asked for, ``RetryLater`` when one stays
    pending, and ``IncompleteTransfer`` when the proof is gone: there is no receipt without a proof.
    """
    folder = call.folder
    job = started_job(call, record)
    proved = folder.proof(proof)
    targets = _all_confirmed(job, proved, call)
    left = _cleared(job, call)
    unpack_requests, unpack_gb_seconds = job.source.spent
    requests = Counter(proved.requests)
    requests.update(unpack_requests)
    stored: Counter[str] = Counter()
    for number, target in enumerate(job.targets):
        requests.update(target.beside)
        if targets[number].get("stored_bytes"):
            stored[target.region] += targets[number]["stored_bytes"]
    snapshots_made = [
        {name: t[name] for name in ("region", "parent_snapshot_id", "snapshot_id")} for t in targets if t["snapshot_id"]
    ]
    ended = now or datetime.now(UTC)
    receipt: dict[str, Any] = {
        "job_id": job.job_id,
        "operation": job.operation,
        "status": "SUCCEEDED",
        "source": job.source.facts(),
        "targets": targets,
        "lineage": job.source.lineage(snapshots_made) if snapshots_made else None,
        "manifest_uri": targets[0].get("manifest_uri"),
        "allocated_blocks": proved.allocated_blocks,
        "changed_blocks": targets[0].get("changed_blocks", proved.changed_blocks),
        "removed_blocks": targets[0].get("removed_blocks", proved.removed_blocks),
        "zero_blocks": proved.zero_blocks,
        "parent_blocks_compared": proved.parent_blocks,
        "bytes_read": proved.blocks_read * BLOCK_SIZE,
        "bytes_written": sum(target.get("stored_bytes", target["blocks_written"] * BLOCK_SIZE) for target in targets),
        **choices(job),
        "linear_checksum": targets[0]["linear_checksum"],
        "duration_seconds": round((ended - datetime.fromisoformat(job.started_at)).total_seconds(), 3),
        "requests": dict(sorted(by_operation(requests).items())),
        "retries": dict(sorted(proved.retries.items())),
        "cost_usd": cost_of(
            Work(
                requests=requests,
                home=job.execution.region,
                object_bytes=job.source.object_bytes(proved.blocks_read * BLOCK_SIZE),
                stored_bytes=stored,
                gb_seconds=proved.worker_gb_seconds + unpack_gb_seconds,
            )
        ),
        "warnings": [warning.model_dump() for warning in (*job.warnings, *left)],
        "tool_version": __version__,
        "receipt_uri": folder.uri(RECEIPT),
        "report_uri": folder.uri(REPORT),
    }
    return folder.save_receipt(receipt, report)


def _cleared(job: Job, call: JobCall) -> tuple[JobWarning, ...]:
    """Delete what was stored of the source on the way; it may be many times larger than the rest of the job's record.

    Every target holds it by now: that it may not be deleted, or not all of it in a call's time, is told, and no reason
    to fail.
    """
    try:
        job.source.discard(call.until(call.reserving(RECEIPT_SECONDS)))
    except (ClientError, BotoCoreError, OutOfTime) as error:
        why = error if isinstance(error, OutOfTime) else translated(error)
        if isinstance(why, RetryLater):
            raise why from error
        told = (
            f"what was unpacked of the image lies below {call.folder.uri('image/')} until the bucket's rule removes it"
        )
        return (JobWarning(code="unpacked_image_left", message=f"{told}: it could not be deleted ({why})"),)
    return ()


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


def _all_confirmed(job: Job, proof: Proof, call: JobCall) -> list[dict[str, Any]]:
    facts: dict[int, Any] = {}
    failed: dict[int, BlockferryError] = {}

    def look() -> list[TargetFacts]:
        looked = job.look([n for n in range(len(job.targets)) if n not in facts or facts[n].state != "completed"], call)
        failed.clear()
        failed.update(looked.errors)
        facts.update(looked.facts)
        return list(facts.values())

    def unknown() -> bool:
        return any(isinstance(error, InvalidRequest) for error in failed.values())

    snapshots.settled(look, clock=call.clock, waits=call.waits, missing=unknown)
    for number, found in facts.items():
        try:
            job.targets[number].confirm(found)
        except BlockferryError as error:
            failed[number] = error
    if failed:
        kind = RetryLater if all(isinstance(error, RetryLater) for error in failed.values()) else TargetFailed
        raise kind("\n".join(f"targets[{number}]: {said_of(error)}" for number, error in sorted(failed.items())))
    written = {
        "blocks_written": proof.blocks_written,
        "zero_blocks": proof.zero_blocks if job.holes.value != "skip_zero" else 0,
        "linear_checksum": proof.linear_checksum,
    }
    return [written | target.facts(facts[number]) for number, target in enumerate(job.targets)]


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
            f"| {_made(t)} | {t['region']} | {t['state']} | {t['blocks_written']} | "
            f"{'yes' if t['encrypted'] else 'no'} |"
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
        + f". Cost: {cost_line(receipt['cost_usd'])}.",
        "",
        *(line for warning in receipt["warnings"] for line in (f"Warning: {warning['message']}.", "")),
    ]
    return "\n".join(lines)


def _made(target: dict[str, Any]) -> str:
    return str(target["snapshot_id"] or target.get("manifest_uri") or target["image_uri"])


def _sealed(receipt: dict[str, Any]) -> str:
    if receipt["manifest_uri"]:
        return f"LINEAR checksum `{receipt['linear_checksum']}` over every block, written into the manifest."
    if receipt["targets"][0].get("image_uri"):
        return "\n".join(
            f"`{target['image_uri']}` has {target['stored_bytes']} bytes, and S3 answered the SHA-256 of its parts, "
            f"`{target['checksum_sha256']}`, as it was computed when they were sent."
            for target in receipt["targets"]
        )
    if all(target["blocks_written"] == 0 for target in receipt["targets"]):
        return "No block was written: EBS accepted the count of 0 for every target. There is no checksum over nothing."
    return f"LINEAR checksum `{receipt['linear_checksum']}`, accepted by EBS for every target."
