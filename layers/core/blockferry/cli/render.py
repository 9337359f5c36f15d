"""Receipts and estimates as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blockferry.core.layout import filled
from blockferry.core.words import counted
from blockferry.cost.bill import usd
from blockferry.transfer.sentences import choice_line, cost_line, holes_line, source_line

_MIB = 2**20


def upload_table(estimate: Mapping[str, Any]) -> str:
    """The estimate of an upload as aligned rows."""
    size = f"{estimate['volume_size_gib']} GiB in {estimate['region']}"
    rows = [
        ("operation", "upload"),
        ("status", str(estimate["status"])),
        ("snapshot", size + (f" on top of {parent}" if (parent := estimate["parent_snapshot_id"]) else "")),
        ("image", f"{counted(estimate['image_blocks'], 'block')}, {estimate['data_blocks']} of them not zeros"),
        ("holes", holes_line(estimate)),
        *(("choice", choice_line(choice)) for choice in estimate["holes_choices"]),
        ("cost", cost_line(estimate["cost_usd"])),
        *(("warning", warning["message"]) for warning in estimate["warnings"]),
    ]
    return aligned(rows)


def receipt_table(receipt: Mapping[str, Any]) -> str:
    """The receipt of a job, or the estimate of a dry run, as aligned rows."""
    rows: list[tuple[str, str]] = [
        ("job", str(receipt["job_id"])),
        ("operation", str(receipt["operation"])),
        ("status", str(receipt["status"])),
        ("source", source_line(receipt)),
    ]
    if receipt.get("lineage"):
        rows.append(("lineage", str(receipt["lineage"]["name"])))
    rows += [("target", _target(target)) for target in receipt["targets"]]
    rows += _counted(receipt)
    if receipt.get("holes_taken_for"):
        rows.append(("holes", holes_line(receipt)))
    rows += [("choice", choice_line(choice)) for choice in receipt.get("holes_choices", ())]
    if "linear_checksum" in receipt:
        rows.append(("checksum", f"{receipt['linear_checksum']} (LINEAR, SHA-256)"))
    if receipt["requests"]:
        rows.append(("requests", counts(receipt["requests"])))
    if "retries" in receipt:
        rows.append(("repeated", counts(receipt["retries"]) or "none"))
    if "duration_seconds" in receipt:
        rows.append(("duration", f"{receipt['duration_seconds']:.1f} s"))
    if receipt.get("seconds_at_quota") is not None:
        rows.append(("time at quota", f"{receipt['seconds_at_quota']} s"))
    if receipt["allocated_blocks"] is not None:
        rows.append(("cost", cost_line(receipt["cost_usd"])))
    if receipt.get("workers"):
        rows.append(("workers", f"{receipt['workers']} ({receipt['workers_because']})"))
    rows += [("warning", str(warning["message"])) for warning in receipt.get("warnings", ())]
    if receipt.get("receipt_uri"):
        rows.append(("receipt", str(receipt["receipt_uri"])))
    return aligned(rows)


def verification_table(receipt: Mapping[str, Any]) -> str:
    """The receipt of a verification as aligned rows."""
    rows = [
        ("job", str(receipt["job_id"])),
        ("status", str(receipt["status"])),
        ("archive", str(receipt["manifest_uri"] or receipt["foreign_uri"])),
        (
            "checked",
            f"{counted(receipt['segments_checked'], 'segment')}, {counted(receipt['blocks_checked'], 'block')}",
        ),
        ("shown", str(receipt["confidence"])),
    ]
    if receipt["snapshot_id"] or receipt["other_manifest_uri"]:
        other = receipt["snapshot_id"] or receipt["other_manifest_uri"]
        rows.append(("compared", f"{counted(receipt['blocks_compared'], 'block')} with {other}"))
    rows += [
        ("findings", str(receipt["findings"] or "none")),
        ("duration", f"{receipt['duration_seconds']:.1f} s"),
        ("cost", cost_line(receipt["cost_usd"])),
        *(("warning", str(warning["message"])) for warning in receipt["warnings"]),
        ("receipt", str(receipt["receipt_uri"])),
    ]
    return aligned(rows)


def run_table(numbers: Mapping[str, Any]) -> str:
    """The numbers of a run that looked after backups as aligned rows."""
    rows = [
        ("job", str(numbers["job_id"])),
        ("operation", str(numbers["operation"]) + (" (dry run: nothing was changed)" if numbers["dry_run"] else "")),
        ("status", str(numbers["status"])),
        ("as of", str(numbers["as_of"])),
        ("items", ", ".join(f"{numbers[each]} {each}" for each in ("planned", "done", "failed", "skipped"))),
        *(("note", str(note)) for note in numbers["notes"]),
    ]
    if numbers["problems"]:
        rows.append(("tags", f"{counted(numbers['problems'], 'value')} that mean nothing, listed in the report"))
    rows.append(("report", str(numbers["report_uri"])))
    return aligned(rows)


def target_line(target: Mapping[str, Any]) -> str:
    """A target of a job that has not succeeded, in one line."""
    name = f"{target['snapshot_id'] or 'not started'} in {target['region']}"
    if target["completed"]:
        return f"{name}: completed"
    return f"{name}: {target['error'] or counted(target['missing_ranges'], 'range') + ' missing'}"


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first as wide as its widest cell; what flows in the second goes on below itself."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(filled(value, first=f"{name:<{width}}  ", rest=" " * (width + 2)) for name, value in rows)


def counts(of: Mapping[str, int]) -> str:
    """Names with their counts, without those that are zero."""
    return ", ".join(_items(of))


def _items(of: Mapping[str, int]) -> Iterable[str]:
    return (f"{name} {count}" for name, count in of.items() if count)


def _target(target: Mapping[str, Any]) -> str:
    made = target.get("snapshot_id") or target.get("manifest_uri") or target.get("image_uri")
    parts = [f"{made} in {target['region']}" if made else str(target["region"])]
    if "state" in target:
        parts.append(str(target["state"]))
    if "blocks_written" in target:
        parts.append(f"{counted(target['blocks_written'], 'block')} written")
    if target.get("volume_size_gib"):
        parts.append(f"{target['volume_size_gib']} GiB")
    if target.get("encrypted"):
        parts.append("encrypted")
    below = target.get("parent_snapshot_id") or target.get("base_manifest_uri")
    if below:
        parts.append(f"on top of {below}")
    return ", ".join(parts)


def _counted(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Blocks and bytes; of an image that has to be unpacked first none are known before a job."""
    basis = receipt.get("allocated_blocks_from")
    if receipt["allocated_blocks"] is None:
        return [("size and cost", f"{basis}; --size-gib N bounds them")]
    archive = any(target.get("manifest_uri") for target in receipt["targets"])
    rows = [("allocated", counted(receipt["allocated_blocks"], "block") + (f", by {basis}" if basis else ""))]
    if receipt["source"].get("base_snapshot_id"):
        rows.append(("changed", counted(receipt["changed_blocks"], "block")))
        removed = counted(receipt["removed_blocks"], "block")
        rows.append(("removed", removed + ("" if archive else ", written as zeros")))
    if "zero_blocks" in receipt:
        rows.append(("zero blocks", str(receipt["zero_blocks"])))
    if receipt.get("parent_blocks_compared"):
        rows.append(
            ("parents", f"{counted(receipt['parent_blocks_compared'], 'block')} compared with the base, all equal")
        )
    rows.append(("read", f"{receipt['bytes_read'] / _MIB:.1f} MiB"))
    by = receipt.get("bytes_written_from")
    rows.append(("written", f"{receipt['bytes_written'] / _MIB:.1f} MiB" + (f", by {by}" if by else "")))
    if "usd_a_month" in receipt:
        rows.append(("to keep", f"{usd(receipt['usd_a_month'])} a month"))
    return rows
