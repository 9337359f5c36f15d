"""The demo's archives: both nights go into a bucket, a damaged copy is noticed, and the disk comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from blockferry.cli.operate import Operator
from localcloud.state import CloudInfo

from tools.demo_jobs import Night, Say, ended, succeeded
from tools.readback import client, restore, same_bytes

PREFIX = "demo/"


def archive_both_nights(
    first_snapshot_id: str,
    night: Night,
    *,
    info: CloudInfo,
    operator: Operator,
    folder: Path,
    checks: dict[str, bool],
    say: Say,
) -> dict[str, Any]:
    """Archive the first night in full and the second on top of it, damage a copy, verify, restore and compare."""
    bucket, recovery = info.buckets[info.regions[0]]["archive"], info.regions[1]
    place = {"bucket": bucket, "prefix": PREFIX}
    full = succeeded(operator, "archive", {"snapshot_id": first_snapshot_id, "archive": place}, say)
    say(_told("the first night in full", full))
    base = full["manifest_uri"]
    request = {"snapshot_id": night.uploaded.snapshot_id, "base_manifest_uri": base, "archive": place}
    increment = succeeded(operator, "archive", request, say)
    say(_told("the second night on top of it", increment))
    uri = increment["manifest_uri"]
    checks["the second night's archive has the changed blocks and no others"] = (
        increment["changed_blocks"] + increment["removed_blocks"] == night.changes.total
    )
    verified = succeeded(operator, "verify", {"manifest_uri": uri}, say)
    say(f"verify: {verified['segments_checked']} segments of both archives, {verified['confidence']}")

    damaged = _damaged_copy(bucket, base)
    state = ended(operator, "verify", {"manifest_uri": damaged}, say)
    say(f"verify of a copy with one byte changed: {state.error}: {(state.cause or '').splitlines()[1:2]}")
    checks["verify finds the one byte that was changed"] = (
        state.status == "FAILED" and state.error == "ArchiveDamaged" and "1 finding" in (state.cause or "")
    )
    refused = ended(operator, "restore", {"manifest_uri": damaged, "targets": [{"region": recovery}]}, say)
    checks["a damaged archive is not restored"] = refused.status == "FAILED" and refused.error == "TransferFailed"

    targets = [{"region": recovery, "encrypted": False}]
    restored = succeeded(operator, "restore", {"manifest_uri": uri, "targets": targets}, say)
    rebuilt = folder / "restored.img"
    restore(client(recovery), restored["targets"][0]["snapshot_id"], rebuilt, size=night.image.stat().st_size)
    checks["the restored snapshot is the changed disk, byte for byte"] = same_bytes(night.image, rebuilt)
    checks["its checksum is that of the archive"] = restored["linear_checksum"] == increment["linear_checksum"]
    rebuilt.unlink()
    say(f"restored {restored['allocated_blocks']} blocks from both archives to {recovery}")
    return {"full": full, "increment": increment, "verify": verified, "restore": restored}


def _told(what: str, receipt: Mapping[str, Any]) -> str:
    stored, read = receipt["bytes_written"] / 2**20, receipt["bytes_read"] / 2**20
    return f"archived {what}: {read:.1f} MiB read, {stored:.1f} MiB stored, {receipt['duration_seconds']:.1f} s"


def _damaged_copy(bucket: str, manifest_uri: str) -> str:
    """A copy of a full archive in which one byte of the last segment is another one; the address of its manifest."""
    s3 = boto3.client("s3")
    folder = manifest_uri.removeprefix(f"s3://{bucket}/").removesuffix("manifest.json")
    # Whose folder has the id's own name: a manifest says which archive it is of.
    there = f"damaged/{folder.removeprefix(PREFIX)}"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]]
    for key in keys:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if key == keys[-1]:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        s3.put_object(Bucket=bucket, Key=there + key.removeprefix(folder), Body=body)
    return f"s3://{bucket}/{there}manifest.json"
