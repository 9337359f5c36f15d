"""The report of an inspection as a page for people: Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.layout import columns, filled
from blockferry.core.words import counted
from blockferry.cost.bill import usd
from blockferry.inspection.answer import COPYING, answer, lasting, number, possible, size
from blockferry.transfer.sentences import cost_line


def report_page(report: Mapping[str, Any]) -> str:
    """The page: the answer, then what was counted, the ways to copy, the ways to keep, the chain, notes, prices."""
    parts = [
        f"# inspect {report['job_id']}: {report['status']}",
        # All but its last line, which tells where this page is.
        "\n".join(["```", *answer(report)[:-1], "```"]),
        _contents(report),
        _copying(report),
        _keeping(report),
        _chain(report["chain"]),
        _bullets("Notes", report["notes"]),
        _ending(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _contents(report: Mapping[str, Any]) -> str:
    source, delta = report["source"], report["delta"]
    text = f"{source['snapshot_id']} of {source['volume_id']} was taken at {source['start_time'][:19]} and is in the "
    text += f"{source['tier']} tier. It holds {report['allocated_blocks']:,} blocks of 512 KiB"
    if report["zero_blocks"] is not None:
        text += f", {report['zero_blocks']:,} of them all zeros"
    text += "."
    if delta is not None:
        counts = ", ".join(f"{delta[f'{name}_blocks']:,} {name}" for name in ("added", "overwritten", "removed"))
        text += f" Since {report['base']['snapshot_id']}, blocks: {counts}."
    return f"## What is in it\n\n{filled(text)}"


def _copying(report: Mapping[str, Any]) -> str:
    advice = report["recommendation"]
    choices = [choice for choice in report["choices"] if choice["name"] in COPYING]
    parts = [f"## Copying it\n\n{filled(advice['reason'] + '.')}"]
    if advice["commands"]:
        parts.append("\n".join(["```sh", *advice["commands"], "```"]))
    parts += [_choices(possible(choices, copies=True)), _remarks(choices)]
    return "\n\n".join(part for part in parts if part)


def _keeping(report: Mapping[str, Any]) -> str:
    cheapest = report["cheapest_keep"]
    kept = possible(report["choices"], copies=False)
    return "\n\n".join(["## Keeping it for less", _choices(kept), _items([*cheapest["caveats"]])])


def _choices(choices: Sequence[Mapping[str, Any]]) -> str:
    if not choices:
        return ""
    head = ("", "once", "a month", "a restore", "at least", "12 months", "time")
    rows = [
        (
            choice["title"],
            usd(choice["one_time_usd"]),
            usd(choice["monthly_usd"]),
            usd(choice["restore_usd"]),
            counted(choice["minimum_days"], "day") if choice["minimum_days"] else "",
            usd(choice["year_usd"]),
            lasting(choice["seconds"]),
        )
        for choice in choices
    ]
    return _table([head, *rows], left=1)


def _remarks(choices: Sequence[Mapping[str, Any]]) -> str:
    """Why a choice is not possible, on which conditions it is, and what else is to be known of it.

    What several choices share is told once.
    """
    about: dict[str, list[str]] = {}
    for choice in choices:
        texts = [f"not possible: {choice['why_not']}"] if choice["why_not"] else []
        texts += [f"on condition that {text}" for text in choice["conditions"]]
        for text in [*texts, *choice["notes"]]:
            about.setdefault(text, []).append(choice["title"])
    return _items([f"{', '.join(titles)}: {text}" for text, titles in about.items()])


def _chain(chain: Mapping[str, Any] | None) -> str:
    if chain is None:
        return ""
    head = ("snapshot", "started", "GiB", "new", "overwritten", "gone", "deleting it frees", "a month", "C12")
    rows = [_member(row) for row in chain["snapshots"]]
    stored = f"{len(rows)} snapshots of {chain['volume_id']} store {size(chain['stored_bytes'])}, "
    stored += f"{usd(chain['stored_usd_month'])} a month."
    notes = list(chain["notes"])
    if chain["other_snapshots"]:
        notes.append(f"left out: {', '.join(chain['other_snapshots'])}")
    return "\n\n".join(["## Chain", filled(stored), _table([head, *rows], left=2), _items(notes)])


def _member(row: Mapping[str, Any]) -> tuple[str, ...]:
    delta = row["delta"]
    changes = ("added", "overwritten", "removed")
    return (
        row["snapshot_id"],
        row["start_time"][:19],
        number(row["allocated_bytes"]),
        *("" if delta is None else number(delta[f"{name}_blocks"] * BLOCK_SIZE) for name in changes),
        number(row["frees_bytes"]),
        usd(row["frees_usd_month"]),
        "" if row["c12_bytes"] is None else number(row["c12_bytes"]),
    )


def _ending(report: Mapping[str, Any]) -> str:
    spent = report["inspection"]
    asked = ", ".join(f"{count:,} {name}" for name, count in spent["requests"].items()) or "no requests"
    return "\n\n".join(
        [
            "## Prices",
            filled(
                "What a job of this software costs has EBS and S3 requests, transfer between regions, Lambda, Step "
                "Functions and storage in it, what AWS's copies cost has transfer and storage; KMS, logs, free tiers, "
                f"discounts and taxes are left out: {report['prices']}."
            ),
            filled(
                f"This inspection took {report['duration_seconds']:.1f} s and {asked}: {cost_line(spent['cost_usd'])}."
            ),
            f"Receipt: {report['receipt_uri']}  \nThis page: {report['report_uri']}",
        ]
    )


def _table(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A table of Markdown whose columns also stand below each other in a terminal."""
    padded = columns(rows, left=left)
    rule = ["-" * len(cell) if n < left else "-" * (len(cell) - 1) + ":" for n, cell in enumerate(padded[0])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def _bullets(title: str, texts: Sequence[str]) -> str:
    return f"## {title}\n\n{_items(texts)}" if texts else ""


def _items(texts: Sequence[str]) -> str:
    return "\n".join(filled(text, first="- ", rest="  ") for text in texts)
