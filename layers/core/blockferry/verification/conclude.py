"""Conclude verification: put together what was found, write it down, and let the manifest's tags tell it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from blockferry import __version__
from blockferry.aws.archives import bucket_of
from blockferry.core.blocks import BLOCK_SIZE, split
from blockferry.core.counts import by_operation
from blockferry.core.errors import ArchiveDamaged, IncompleteTransfer, RequestRefused
from blockferry.core.words import counted
from blockferry.cost.work import Work, cost_of
from blockferry.formats.archive.layout import MANIFEST, parse_manifest_uri
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RECEIPT, REPORT
from blockferry.verification.record import (
    COMPARED,
    STORED,
    Finding,
    Found,
    Verification,
    found,
    found_by,
    found_names,
    recorded,
)

SHOWN = 10
"""Findings in the error and in the receipt; the report has more."""

IN_THE_REPORT = 1_000

AT_A_TIME = 16

VERIFIED_TAG, RESULT_TAG = "blockferry:verified", "blockferry:verification"
"""Tags of a manifest: when it was verified last, and what came out."""

CONFIDENCE = 0.95


def conclude_verification(call: JobCall, record: str, *, now: datetime | None = None) -> dict[str, Any]:
    """Store ``receipt.json`` and ``report.md``, once, and return the receipt.

    Raises ``ArchiveDamaged`` when anything was found, with both of them stored, and ``IncompleteTransfer`` when a range
    was not looked at.
    """
    folder = call.folder
    plan = recorded(folder, record)
    total, findings, more = _together(plan, call)
    if total["segments_left_out"] and not total["segments"]:
        raise IncompleteTransfer(
            f"the sample of {plan.sample_percent:g} percent has none of the "
            f"{counted(total['segments_left_out'], 'segment')} of {plan.uri}, so nothing was verified: start a job "
            "with a larger sample_percent, or with another seed"
        )
    ended = now or datetime.now(UTC)
    damaged = bool(findings)
    uri = plan.uri
    warnings = [*_warnings(total), *(warning.model_dump() for warning in plan.warnings)]
    # Objects of another tool are left as they are.
    refusal = None if plan.foreign is not None else _tag(plan, uri, damaged=damaged, ended=ended, call=call)
    if refusal is not None:
        warnings.append({"code": "manifest_not_tagged", "message": refusal})
    receipt: dict[str, Any] = {
        "job_id": plan.job_id,
        "operation": "verify",
        "status": "FAILED" if damaged else "SUCCEEDED",
        "source": {"name": f"archive {uri}", "region": plan.place.region, "archives": len(plan.chain) or 1},
        "targets": [],
        "manifest_uri": uri if plan.foreign is None else None,
        "foreign_uri": uri if plan.foreign is not None else None,
        "snapshot_id": plan.snapshot_id,
        "other_manifest_uri": plan.other[0].manifest_uri if plan.other else None,
        "sample_percent": plan.sample_percent,
        "seed": plan.seed,
        "confidence": _confidence(plan, total),
        "segments_checked": total["segments"],
        "segments_left_out": total["segments_left_out"],
        "indexes_checked": total["indexes"],
        "blocks_checked": total["blocks"],
        "blocks_compared": total["compared"],
        "bytes_read": total["stored_bytes"],
        "bytes_written": 0,
        "findings": len(findings) + more,
        "first_findings": [finding.model_dump() for finding in findings[:SHOWN]],
        "orphans": total["orphans"],
        "duration_seconds": round((ended - datetime.fromisoformat(plan.started_at)).total_seconds(), 3),
        "requests": dict(sorted(by_operation(_counter(total, "request ")).items())),
        "retries": dict(sorted(_counter(total, "retry ").items())),
        "cost_usd": cost_of(
            Work(
                requests=_counter(total, "request "),
                home=Execution(plan.execution_arn).region,
                object_bytes={plan.place.region: total["stored_bytes"]},
                gb_seconds=total["gb_milliseconds"] / 1000,
            )
        ),
        "warnings": warnings,
        "tool_version": __version__,
        "receipt_uri": folder.uri(RECEIPT),
        "report_uri": folder.uri(REPORT),
    }
    stored = folder.save_receipt(receipt, lambda told: _page(told, findings))
    if damaged:
        raise ArchiveDamaged(_told(uri, findings, len(findings) + more, folder.uri(REPORT)))
    return stored


def _together(plan: Verification, call: JobCall) -> tuple[Counter[str], list[Finding], int]:
    """Sums over all calls, what was found, and how much more. Raises ``IncompleteTransfer`` for a range that was not
    looked at as a whole, its objects or the snapshot."""
    total: Counter[str] = Counter()
    findings = list(plan.damage)
    more = 0
    if plan.damage:
        return total, findings, more
    ranges = list(split(plan.total_blocks, plan.blocks_per_range))
    phases = (STORED,) if plan.snapshot_id is None else (STORED, COMPARED)
    reached = {(within.first, phase): within.first for within in ranges for phase in phases}
    names = list(found_names(call.folder))
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="found") as pool:
        for name, each in zip(names, pool.map(lambda name: found(call.folder, name), names), strict=True):
            of_call = found_by(name)
            if of_call not in reached:
                raise IncompleteTransfer(f"{call.folder.uri(name)} is of no range of this job; start a new job")
            if each.first == reached[of_call]:
                reached[of_call] = each.stop
            more += each.more_findings
            for finding in each.findings:
                if finding not in findings[-IN_THE_REPORT:] and len(findings) < IN_THE_REPORT:
                    findings.append(finding)
                elif finding not in findings[-IN_THE_REPORT:]:
                    more += 1
            total.update(_numbers(each))
    for within in ranges:
        if left := [reached[within.first, phase] for phase in phases if reached[within.first, phase] < within.stop]:
            raise IncompleteTransfer(f"blocks {min(left)} to {within.stop - 1} were not looked at; start a new job")
    seen = total["segments"] + total["segments_left_out"]
    # A range lists its own objects only: one that was deleted since the plan is in none of the lists.
    opened = all(finding.code != "manifest" for finding in findings)
    if plan.foreign is not None and opened and seen != plan.foreign.objects:
        raise IncompleteTransfer(
            f"there are {counted(seen, 'object')} below {plan.uri}, and were {plan.foreign.objects} when the job was "
            "planned: the archive was changed meanwhile. Start a new job"
        )
    return total, sorted(findings, key=lambda finding: (finding.first, finding.code)), more


def _numbers(each: Found) -> dict[str, int]:
    names = ("segments", "segments_left_out", "indexes", "blocks", "compared", "orphans", "stored_bytes")
    numbers: dict[str, int] = {name: getattr(each, name) for name in names}
    numbers |= {f"request {name}": count for name, count in each.requests.items()}
    numbers |= {f"retry {name}": count for name, count in each.retries.items()}
    return numbers | {"gb_milliseconds": round(each.gb_seconds * 1000)}


def _counter(total: Mapping[str, int], prefix: str) -> Counter[str]:
    return Counter({name.removeprefix(prefix): n for name, n in total.items() if name.startswith(prefix)})


def _confidence(plan: Verification, total: Mapping[str, int]) -> str:
    """What a verification without findings shows."""
    if plan.sample_percent >= 100:
        return "every stored byte was read and checked"
    checked, left = total["segments"], total["segments_left_out"]
    if checked == 0:
        return "the archive has no segment"
    share = 1 - (1 - CONFIDENCE) ** (1 / checked)
    most = min(math.floor(share * (checked + left)), left)
    return (
        f"{checked} of {counted(checked + left, 'segment')} {'was' if checked == 1 else 'were'} read and checked; if "
        f"none of them is damaged, at {CONFIDENCE:.0%} confidence no more than {most} of the others are "
        f"({share:.2%} of all)"
    )


def _warnings(total: Mapping[str, int]) -> list[dict[str, str]]:
    if not total["orphans"]:
        return []
    count = counted(total["orphans"], "object")
    return [
        {
            "code": "objects_without_reference",
            "message": f"{count} below segments/ that no index names: a worker left them that died; they cost storage, "
            "and nothing is read from them",
        }
    ]


def _tag(plan: Verification, uri: str, *, damaged: bool, ended: datetime, call: JobCall) -> str | None:
    """Let the manifest's tags tell what came out; returns why not, if that is so."""
    address = parse_manifest_uri(uri)
    how = "" if plan.sample_percent >= 100 else f" sample {plan.sample_percent:g} percent"
    tags = {
        VERIFIED_TAG: ended.strftime("%Y-%m-%dT%H:%M:%SZ"),
        RESULT_TAG: f"{'damaged' if damaged else 'intact'}{how}",
    }
    try:
        bucket_of(call, plan.place.identity, address.bucket).add_tags(address.key(MANIFEST), tags)
    except RequestRefused as error:
        return f"the result is not in the manifest's tags: {error}"
    return None


def _told(uri: str, findings: list[Finding], count: int, report: str) -> str:
    lines = [f"archive {uri} is damaged: {counted(count, 'finding')}, all of them in {report}"]
    lines += [f"- {finding.message}" for finding in findings[:SHOWN]]
    lost = sum(finding.stop - finding.first for finding in findings)
    lines.append(
        f"In all {counted(lost, 'block')} ({lost * BLOCK_SIZE / 2**20:.1f} MiB of the disk). What is not named is "
        "intact"
    )
    return "\n".join(lines)


def _page(receipt: Mapping[str, Any], findings: list[Finding]) -> str:
    """The receipt as a page for people (Markdown)."""
    lines = [
        f"# verify {receipt['job_id']}: {receipt['status']}",
        "",
        f"Archive: {receipt['manifest_uri'] or receipt['foreign_uri']}.",
        "",
        f"{counted(receipt['segments_checked'], 'segment')}, {counted(receipt['indexes_checked'], 'index', 'indexes')} "
        f"and {counted(receipt['blocks_checked'], 'block')} were checked, "
        f"{counted(receipt['blocks_compared'], 'block')} compared: {receipt['confidence']}.",
        "",
        f"Took {receipt['duration_seconds']} s. "
        f"Cost: ${receipt['cost_usd']['total']} ({receipt['cost_usd']['basis']}).",
        "",
        *(line for warning in receipt["warnings"] for line in (f"Warning: {warning['message']}.", "")),
    ]
    if findings:
        lines += [f"{counted(receipt['findings'], 'finding')}:", "", "| blocks | object | what |", "|---|---|---|"]
        lines += [f"| {each.first} to {each.stop - 1} | {each.object} | {each.message} |" for each in findings]
        lines.append("")
    return "\n".join(lines)
