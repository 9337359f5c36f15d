"""Receipts and estimates as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MIB = 2**20


def source_line(receipt: Mapping[str, Any]) -> str:
    """What was read, and how much of it, in one line."""
    source = receipt["source"]
    if "image_uri" in source:
        name = f"image {source['image_uri']} ({source['codec']}, {source['image_bytes']} bytes)"
    elif source.get("base_snapshot_id"):
        name = f"changes from {source['base_snapshot_id']} to {source['snapshot_id']} in {source['region']}"
    else:
        name = f"{source['snapshot_id']} in {source['region']}"
    return name


def receipt_table(receipt: Mapping[str, Any]) -> str:
    """The receipt of a job, or the estimate of a dry run, as aligned rows."""
    rows: list[tuple[str, str]] = [
        ("job", str(receipt["job_id"])),
        ("operation", str(receipt["operation"])),
        ("status", str(receipt["status"])),
        ("source", source_line(receipt)),
    ]
    for target in receipt["targets"]:
        made = f"{target['snapshot_id']} in {target['region']}" if "snapshot_id" in target else target["region"]
        details = [str(target["state"])] if "state" in target else []
        if "blocks_written" in target:
            details.append(f"{target['blocks_written']} blocks written")
        rows.append(("target", ", ".join([made, *details])))
    rows.append(("allocated", f"{receipt['allocated_blocks']} blocks"))
    if "zero_blocks" in receipt:
        rows.append(("zero blocks", str(receipt["zero_blocks"])))
    rows.append(("read", f"{receipt['bytes_read'] / _MIB:.1f} MiB"))
    rows.append(("written", f"{receipt['bytes_written'] / _MIB:.1f} MiB"))
    if "linear_checksum" in receipt:
        rows.append(("checksum", f"{receipt['linear_checksum']} (LINEAR, SHA-256)"))
    rows.append(("requests", _counts(receipt["requests"])))
    if "retries" in receipt:
        rows.append(("repeated", _counts(receipt["retries"]) or "none"))
    if "duration_seconds" in receipt:
        rows.append(("duration", f"{receipt['duration_seconds']:.1f} s"))
    if "seconds_at_quota" in receipt:
        rows.append(("time at quota", f"{receipt['seconds_at_quota']} s"))
    rows.append(("cost", f"${receipt['cost_usd']['total']} ({receipt['cost_usd']['basis']})"))
    if receipt.get("receipt_uri"):
        rows.append(("receipt", str(receipt["receipt_uri"])))
    return aligned(rows)


def target_line(target: Mapping[str, Any]) -> str:
    """A target of a job that has not succeeded, in one line."""
    name = f"{target['snapshot_id'] or 'not started'} in {target['region']}"
    if target["completed"]:
        return f"{name}: completed"
    return f"{name}: {target['error'] or str(target['missing_ranges']) + ' ranges missing'}"


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first as wide as its widest cell."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(_items(counts))


def _items(counts: Mapping[str, int]) -> Iterable[str]:
    return (f"{name} {count}" for name, count in counts.items() if count)
