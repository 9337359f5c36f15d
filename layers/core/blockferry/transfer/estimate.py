"""What a job would take, and the question about holes that only an operator can answer. Nothing is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from blockferry.core.blocks import blocks_of_volume, blocks_per_range
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.words import counted
from blockferry.cost import estimate as cost
from blockferry.cost.bill import GIB, Bill
from blockferry.cost.estimate import Outline
from blockferry.jobs.call import JobCall
from blockferry.sources.kind import Extent, Tally
from blockferry.transfer.job import Job
from blockferry.transfer.receipt import choices
from blockferry.transfer.sentences import choice_line


def estimate(job: Job, possible: Sequence[HolePolicy], call: JobCall, tally: Tally) -> dict[str, Any] | None:
    """The outcome of a dry run: the members of a receipt that can be known before. Nothing is started or written.

    ``possible`` are the policies for holes that the operator may choose. Of an image that is compressed that is known
    which it tells of itself, or the size of the volume that was asked for; without either the counts are ``None``. What
    an image has of zeros is not known either, so its writes are an upper bound. ``None`` when the call's deadline came
    first: ``tally`` is how far the source was counted.
    """
    known: dict[str, Any] = {
        "job_id": job.job_id,
        "operation": job.operation,
        "status": "DRY_RUN",
        "source": job.source.facts(),
        "targets": [target.planned() for target in job.targets],
        **choices(job),
        "warnings": [warning.model_dump() for warning in job.warnings],
    }
    if job.total_blocks is None:
        known |= {"workers": None, "workers_because": None}
        outline = _outline_of_what_is_expected(job, call)
        if outline is None:
            return known | cost.unknown() | {"holes_choices": _holes_choices(job, None, possible)}
    else:
        outline = _outline(job, call, tally)
        if outline is None:
            return None
    found = known | cost.estimate(outline, job.holes) | {"holes_choices": _holes_choices(job, outline, possible)}
    return found | _forecast(job, outline.written(job.holes), call)


def _forecast(job: Job, blocks: int, call: JobCall) -> dict[str, Any]:
    """What only a sample tells of targets that compress. They hold what their source does: there is no choice."""
    if job.total_blocks is None:
        return {}
    forecasts = [
        (target, forecast)
        for target in job.targets
        if (forecast := target.forecast(job.source, call, total_blocks=job.blocks, blocks=blocks)) is not None
    ]
    if not forecasts:
        return {}
    stored = sum(forecast.stored_bytes for _, forecast in forecasts)
    sampled = sum(forecast.sampled_blocks for _, forecast in forecasts)
    month = Bill()
    for target, forecast in forecasts:
        month.add(f"S3.{forecast.storage_class}.storage", target.region, forecast.stored_bytes / GIB)
    return {
        "bytes_written": stored,
        **({"bytes_written_from": f"a sample of {counted(sampled, 'block')}"} if sampled else {}),
        "usd_a_month": round(month.usd, 6),
        "holes_choices": [],
    }


def question(job: Job, decision: HoleDecision, call: JobCall, tally: Tally) -> str | None:
    """What an operator is asked who alone can know what the holes of the source stand for, with the prices.

    ``None`` when the call's deadline came first, as for ``estimate``.
    """
    outline = _outline(job, call, tally)
    if outline is None:
        return None
    price = {
        each["holes"]: choice_line(each | {"chosen": False}) for each in _holes_choices(job, outline, decision.possible)
    }
    return (
        f"options.holes: {decision.reason}. A target is or may be encrypted, and a hole reads as noise there, not as "
        "zeros, so this has to be decided (on the command line with --holes); nothing was started:\n"
        f"- {price['preserve']}; right if nobody relies on zeros where the source has holes\n"
        f"- {price['zero_fill']}; right in any case"
    )


def _holes_choices(job: Job, outline: Outline | None, possible: Sequence[HolePolicy]) -> list[dict[str, Any]]:
    return cost.holes_choices(outline, job.source.policies, chosen=job.holes, possible=possible)


def _outline_of_what_is_expected(job: Job, call: JobCall) -> Outline | None:
    """The outline of a job whose source is not prepared yet, what preparing it takes included."""
    expected = job.source.expected(call)
    if expected is None:
        return None
    total = blocks_of_volume(expected.size_gib)
    length = blocks_per_range(total, job.blocks_per_range)
    prepared = job.model_copy(
        update={"source": expected.source, "total_blocks": total, "blocks_per_range": length},
    )
    outline = _outline(prepared, call, Tally())
    if outline is None:
        return None
    requests = Counter(outline.reading.requests) + Counter(expected.source.spent[0])
    return replace(outline, reading=replace(outline.reading, basis=expected.basis, requests=requests))


def _outline(job: Job, call: JobCall, tally: Tally) -> Outline | None:
    extent = Extent(job.blocks, job.blocks_per_range, job.execution.region)
    regions = tuple(target.region for target in job.targets)
    reading = job.source.reading(call, extent, tally)
    if reading is None:
        return None
    if job.verify_parents:
        comparing = Counter(reading.requests) + Counter(job.source.comparing(regions, extent))
        reading = replace(reading, requests=comparing)
    return Outline(
        reading=reading,
        targets=regions,
        home=extent.home,
        total_blocks=extent.total_blocks,
        writes=lambda blocks: _writes(job, blocks),
        sharing=max(Counter(target.quota(job.execution.account) for target in job.targets).values()),
    )


def _writes(job: Job, blocks: int) -> Counter[str]:
    requests: Counter[str] = Counter()
    for target in job.targets:
        requests.update(target.writing(blocks, -(-job.blocks // job.blocks_per_range)))
    return requests
