"""The report of a run: every thing that was looked at, by its id, for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from blockferry import __version__
from blockferry.backups import record
from blockferry.backups.record import Run
from blockferry.core.errors import ItemsFailed
from blockferry.core.words import counted
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import MARKDOWN, REPORT
from blockferry.lifecycle.items import Item, Outcome

REPORT_JSON = "report.json"

SHOWN = 5
"""Failed things that the cause of a failed execution names; the report has all."""


def write_report(call: JobCall, digest: str) -> dict[str, Any]:
    """Store the page and the facts of a run, and return its numbers.

    Returns ``{"job_id", "operation", "status", "planned", "done", "failed", "skipped", "dry_run", "problems",
    "report_uri", "report_json_uri"}``. Raises ``ItemsFailed`` when any thing failed, with both stored, and
    ``IncompleteTransfer`` when nobody knows what became of one.
    """
    folder = call.folder
    run = record.recorded(folder, digest)
    items = list(_items(call, run))
    count = Counter(item.outcome for item in items)
    failed = [item for item in items if item.outcome is Outcome.FAILED]
    facts: dict[str, Any] = {
        "job_id": run.job_id,
        "operation": run.operation,
        "status": "FAILED" if failed else "SUCCEEDED",
        **{outcome.value: count[outcome] for outcome in Outcome},
        "dry_run": run.dry_run,
        "as_of": run.now,
        "problems": len(run.problems),
        "notes": list(run.notes),
        "report_uri": folder.uri(REPORT),
        "report_json_uri": folder.uri(REPORT_JSON),
        "tool_version": __version__,
    }
    problems = [dict(zip(("resource", "tag", "value", "told"), each, strict=True)) for each in run.problems]
    whole = {**facts, "problems": problems, "items": [_fields(item) for item in items]}
    folder.write(REPORT_JSON, json.dumps(whole, indent=1).encode())
    folder.write(REPORT, _page(facts, run, items).encode(), content_type=MARKDOWN)
    if failed:
        raise ItemsFailed(_told(run, failed, facts["report_uri"]))
    return facts


def _items(call: JobCall, run: Run) -> Iterator[Item]:
    """All that was looked at: what had to be done first."""
    for function, first, stop in run.batches:
        became = record.outcome(call.folder, function, first)
        if run.operation != "backup":
            # A set of backups is several things.
            record.refuse_other_number(call.folder, became, stop - first)
        yield from became
    yield from record.looked(call.folder)


def _fields(item: Item) -> dict[str, str]:
    return {
        "resource": item.resource,
        "action": item.action.value,
        "outcome": item.outcome.value,
        "reason": item.reason,
    }


def _told(run: Run, failed: Sequence[Item], report: str) -> str:
    lines = [f"{counted(len(failed), 'item')} of {run.operation} {run.job_id} failed, all of them in {report}"]
    lines += [f"- {item.action.value} {item.resource}: {item.reason}" for item in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append(f"- and {len(failed) - SHOWN} more")
    lines.append("The others were tried all the same. The next run tries what failed again")
    return "\n".join(lines)


def _page(facts: dict[str, Any], run: Run, items: Sequence[Item]) -> str:
    lines = [
        f"# {run.operation} {run.job_id}: {facts['status']}",
        "",
        f"{'Dry run, nothing was changed. ' if run.dry_run else ''}As of {run.now}.",
        "",
        ", ".join(f"{facts[outcome.value]} {outcome.value}" for outcome in Outcome) + ".",
        "",
    ]
    lines += [line for note in run.notes for line in (f"Note: {note}.", "")]
    if run.problems:
        lines += [f"{counted(len(run.problems), 'tag')} that mean nothing:", ""]
        lines += ["| resource | tag | value | what holds |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(map(_cell, each))} |" for each in run.problems] + [""]
    lines += ["| resource | action | outcome | why |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(map(_cell, _fields(item).values()))} |" for item in items]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
