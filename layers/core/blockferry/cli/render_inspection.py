"""The report of an inspection as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from blockferry.cli.render import aligned, counts
from blockferry.cost.bill import usd

_GIB = 2**30
_WIDTH = 120

_CHOICES = ("choice", "possible", "time", "once", "a month", "restore", "least days", "12 months")

_CHAIN = ("snapshot", "started", "allocated", "added", "overwritten", "removed", "deleting frees", "a month", "C12")


def inspection_report(report: Mapping[str, Any]) -> str:
    """What was found, the ways to copy and to keep it with their prices, and what is recommended."""
    parts = [
        aligned(_facts(report)),
        _copying(report),
        _keeping(report),
        _table(_CHOICES, [_choice(choice) for choice in report["choices"]], left=3),
        _remarks(report["choices"]),
        _chain(report["chain"]),
        _bullets(report["notes"]),
        aligned(_ending(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, delta = report["source"], report["delta"]
    kept = ", ".join(["encrypted" if source["encrypted"] else "not encrypted", f"{source['tier']} tier"])
    rows = [
        ("job", str(report["job_id"])),
        ("status", str(report["status"])),
        ("snapshot", f"{source['snapshot_id']} in {source['region']}, {kept}"),
        ("volume", f"{source['volume_id']} of {source['volume_size_gib']} GiB, {source['start_time']}"),
        ("allocated", _size(report["allocated_blocks"], report["allocated_bytes"])),
    ]
    if report["zero_blocks"] is not None:
        rows.append(("zero blocks", f"{report['zero_blocks']}, {report['nonzero_blocks']} are not"))
    if delta is not None:
        text = ", ".join(f"{delta[f'{name}_blocks']} blocks {name}" for name in ("added", "overwritten", "removed"))
        rows.append(
            ("delta", f"since {report['base']['snapshot_id']}: {text}; {_gib(delta['bytes_to_write'])} to write")
        )
    rows += [
        ("a job would", f"send {counts(report['requests']) or 'nothing'}"),
        ("read", _gib(report["bytes_read"])),
        ("written", _gib(report["bytes_written"])),
        ("time at quota", f"{report['seconds_at_quota']} s" if report["seconds_at_quota"] is not None else "unknown"),
    ]
    return rows


def _copying(report: Mapping[str, Any]) -> str:
    advice = report["recommendation"]
    return _filled(f"To copy it: {advice['choice'] or 'no way is possible'}. {advice['reason']}.")


def _keeping(report: Mapping[str, Any]) -> str:
    cheapest = report["cheapest_keep"]
    text = f"To keep it for less: {cheapest['choice']}, {usd(cheapest['year_usd'])} over 12 months with one restore. "
    text += f"As it is: at most {usd(cheapest['standard_year_usd'])}."
    if cheapest["deleting_frees_year_usd"] is not None:
        text += f" Deleting it saves {usd(cheapest['deleting_frees_year_usd'])}."
    return "\n".join(part for part in (_filled(text), _bullets(cheapest["caveats"])) if part)


def _choice(choice: Mapping[str, Any]) -> list[str]:
    if not choice["possible"]:
        return [str(choice["name"]), "no", *[""] * 6]
    return [
        str(choice["name"]),
        "on conditions" if choice["conditions"] else "yes",
        "not promised" if choice["seconds"] is None else f"{choice['seconds']} s",
        usd(choice["one_time_usd"]),
        usd(choice["monthly_usd"]),
        usd(choice["restore_usd"]),
        str(choice["minimum_days"] or ""),
        usd(choice["year_usd"]),
    ]


def _remarks(choices: Sequence[Mapping[str, Any]]) -> str:
    """Why a choice is not possible, on which conditions it is, and what else is to be known of it.

    What several choices share is told once.
    """
    names: dict[str, list[str]] = {}
    for choice in choices:
        for text in [choice["why_not"]] if choice["why_not"] else [*choice["conditions"], *choice["notes"]]:
            names.setdefault(text, []).append(choice["name"])
    return _bullets([f"{', '.join(of)}: {text}" for text, of in names.items()])


def _chain(chain: Mapping[str, Any] | None) -> str:
    if chain is None:
        return ""
    stored = _size(chain["stored_blocks"], chain["stored_bytes"])
    head = (
        f"Chain: {len(chain['snapshots'])} snapshots of {chain['volume_id']} store {stored}, "
        f"{usd(chain['stored_usd_month'])} a month."
    )
    notes = list(chain["notes"])
    if chain["other_snapshots"]:
        notes.append(f"left out: {', '.join(chain['other_snapshots'])}")
    table = _table(_CHAIN, [_member(row) for row in chain["snapshots"]], left=2)
    return "\n".join(part for part in (head, table, _bullets(notes)) if part)


def _member(row: Mapping[str, Any]) -> list[str]:
    delta = row["delta"] or {}
    return [
        str(row["snapshot_id"]),
        str(row["start_time"])[:19],
        str(row["allocated_blocks"]),
        *(str(delta.get(f"{name}_blocks", "")) for name in ("added", "overwritten", "removed")),
        str(row["frees_blocks"]),
        usd(row["frees_usd_month"]),
        "" if row["c12_blocks"] is None else str(row["c12_blocks"]),
    ]


def _ending(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    spent = report["inspection"]
    return [
        ("prices", str(report["prices"])),
        ("this inspection", f"{report['duration_seconds']:.1f} s, {counts(spent['requests']) or 'no requests'}"),
        ("its cost", f"{usd(spent['cost_usd']['total'])} ({spent['cost_usd']['basis']})"),
        ("receipt", str(report["receipt_uri"])),
        ("report", str(report["report_uri"])),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Columns as wide as their widest cell: the first ``left`` ones begin, the others end in one line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def _filled(text: str, *, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(_filled(text, first="- ", rest="  ") for text in texts)


def _size(blocks: int, size: int) -> str:
    return f"{blocks} blocks ({_gib(size)})"


def _gib(size: int) -> str:
    return f"{size / _GIB:.3f} GiB"
