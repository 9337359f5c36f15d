"""The report of an inspection as a page for people (Markdown)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GIB = 2**30


def report_page(report: Mapping[str, Any]) -> str:
    """The page: what was counted, the ways to copy, the ways to keep, the chain, notes."""
    source = report["source"]
    lines = [
        f"# inspect {report['job_id']}: {report['status']}",
        "",
        f"Snapshot {source['snapshot_id']} in {source['region']}: volume {source['volume_id']} of "
        f"{source['volume_size_gib']} GiB, {_size(report['allocated_blocks'], report['allocated_bytes'])} allocated"
        + (f", {report['zero_blocks']} of them all zeros." if report["zero_blocks"] is not None else "."),
        "",
        *_delta(report),
        *_copying(report),
        *_keeping(report),
        *_chain(report),
        *([*(f"- {note}" for note in report["notes"]), ""] if report["notes"] else []),
        f"The inspection took {report['duration_seconds']} s and "
        + (", ".join(f"{count} {name}" for name, count in report["inspection"]["requests"].items()) or "no requests")
        + f", ${_usd(report['inspection']['cost_usd']['total'])}. Choices: {report['prices']}.",
        "",
    ]
    return "\n".join(lines)


def _delta(report: Mapping[str, Any]) -> list[str]:
    delta = report["delta"]
    if delta is None:
        return []
    return [
        f"Since {report['base']['snapshot_id']}: {delta['added_blocks']} blocks added, {delta['overwritten_blocks']} "
        f"overwritten, {delta['removed_blocks']} removed; {_gib(delta['bytes_to_write'])} to write.",
        "",
    ]


def _copying(report: Mapping[str, Any]) -> list[str]:
    advice = report["recommendation"]
    lines = ["## Copying it", "", f"**{advice['choice'] or 'no choice'}**: {advice['reason']}.", "", *_HEAD]
    lines += [_row(choice) for choice in report["choices"] if _copies(choice)]
    return [*lines, "", *_remarks(report, copies=True)]


def _keeping(report: Mapping[str, Any]) -> list[str]:
    cheapest = report["cheapest_keep"]
    freed = cheapest["deleting_frees_year_usd"]
    lines = [
        "## Keeping it for less",
        "",
        f"**{cheapest['choice']}**: ${_usd(cheapest['year_usd'])} over 12 months with one restore. As it is: at most "
        f"${_usd(cheapest['standard_year_usd'])}"
        + (f"; deleting it saves ${_usd(freed)}." if freed is not None else "."),
        "",
        *(f"- {caveat}" for caveat in cheapest["caveats"]),
        "",
        *_HEAD,
    ]
    lines += [_row(choice) for choice in report["choices"] if not _copies(choice)]
    return [*lines, "", *_remarks(report, copies=False)]


def _chain(report: Mapping[str, Any]) -> list[str]:
    chain = report["chain"]
    if chain is None:
        return []
    lines = [
        "## Chain",
        "",
        f"{len(chain['snapshots'])} snapshots of {chain['volume_id']} store "
        f"{_size(chain['stored_blocks'], chain['stored_bytes'])}, ${_usd(chain['stored_usd_month'])} a month.",
        "",
        "| snapshot | started | allocated | added | overwritten | removed | deleting it frees | $ a month | C12 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in chain["snapshots"]:
        delta = row["delta"] or {"added_blocks": "", "overwritten_blocks": "", "removed_blocks": ""}
        c12 = "" if row["c12_blocks"] is None else row["c12_blocks"]
        lines.append(
            f"| {row['snapshot_id']} | {row['start_time']} | {row['allocated_blocks']} | {delta['added_blocks']} | "
            f"{delta['overwritten_blocks']} | {delta['removed_blocks']} | {row['frees_blocks']} | "
            f"{_usd(row['frees_usd_month'])} | {c12} |"
        )
    lines += ["", *(f"- {note}" for note in chain["notes"])]
    if chain["other_snapshots"]:
        lines.append(f"- left out: {', '.join(chain['other_snapshots'])}")
    return [*lines, ""]


_HEAD = (
    "| choice | possible | time | $ once | $ a month | $ to restore | least days | $ over 12 months |",
    "|---|---|---|---|---|---|---|---|",
)

_COPYING = frozenset({"direct", "copy_snapshot", "time_based_copy"})


def _copies(choice: Mapping[str, Any]) -> bool:
    return choice["name"] in _COPYING


def _row(choice: Mapping[str, Any]) -> str:
    if not choice["possible"]:
        return f"| {choice['name']} | no | | | | | | |"
    seconds = "not promised" if choice["seconds"] is None else f"{choice['seconds']} s"
    possible = "on conditions" if choice["conditions"] else "yes"
    once, monthly, restore, year = (
        _usd(choice[name]) for name in ("one_time_usd", "monthly_usd", "restore_usd", "year_usd")
    )
    days = choice["minimum_days"]
    return f"| {choice['name']} | {possible} | {seconds} | {once} | {monthly} | {restore} | {days} | {year} |"


def _remarks(report: Mapping[str, Any], *, copies: bool) -> list[str]:
    """Reasons, conditions and notes, each once with the choices that it is about."""
    about: dict[str, list[str]] = {}
    for choice in report["choices"]:
        if _copies(choice) == copies:
            texts = [choice["why_not"]] if choice["why_not"] else [*choice["conditions"], *choice["notes"]]
            for text in texts:
                about.setdefault(text, []).append(choice["name"])
    return [*(f"- {', '.join(names)}: {text}" for text, names in about.items()), ""] if about else []


def _usd(amount: float) -> str:
    return f"{amount:.6f}"


def _size(blocks: int, size: int) -> str:
    return f"{blocks} blocks ({_gib(size)})"


def _gib(size: int) -> str:
    return f"{size / _GIB:.3f} GiB"
