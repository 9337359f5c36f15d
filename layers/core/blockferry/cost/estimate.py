"""The estimate of a job: requests, bytes, time at the quotas and dollars, from counts of blocks and from places.

A source tells itself what reading it takes; the regions of the targets tell the rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import at, by_operation
from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.cost.bill import storage_a_month
from blockferry.cost.work import Work, cost_of, expected_gb_seconds
from blockferry.sources.reading import Reading

NOT_KNOWN = "unknown until the image is unpacked"
"""Why the figures of a compressed image are ``None`` before it is unpacked."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A job as everything that its price depends on.

    ``targets`` is the region of each target; ``home`` that of the workers; ``total_blocks`` the block indices of the
    targets; ``sharing`` the number of targets of one account in one region, which share its quota of writes.
    """

    reading: Reading
    targets: Sequence[str]
    home: str
    total_blocks: int
    sharing: int = 1
    writes: Callable[[int], Mapping[str, int]] | None = None
    """Requests that write so many blocks to all targets, where they are no snapshots."""

    def written(self, policy: HolePolicy) -> int:
        """Blocks written to each target; at most, where zeros are left out."""
        if policy is HolePolicy.ZERO_FILL:
            return self.total_blocks
        return self.reading.read + self.reading.removed

    def seconds(self, policy: HolePolicy) -> int:
        """Seconds at the quota of a snapshot, which reading shares with what is written in one account."""
        return math.ceil(max(self.reading.read, self.written(policy)) * self.sharing / BLOCKS_PER_SECOND)

    def work(self, policy: HolePolicy) -> Work:
        """The requests that the job would send, and what its workers would take."""
        written = self.written(policy)
        writes = writing(self.targets, written) if self.writes is None else Counter(self.writes(written))
        requests = Counter(self.reading.requests) + writes
        return Work(
            requests=requests,
            home=self.home,
            object_bytes=self.reading.object_bytes,
            gb_seconds=expected_gb_seconds(requests),
        )


def estimate(outline: Outline, policy: HolePolicy) -> dict[str, Any]:
    """The figures of a dry run: what of a receipt can be known before."""
    reading, written, work = outline.reading, outline.written(policy), outline.work(policy)
    return {
        "allocated_blocks": reading.allocated,
        "allocated_blocks_from": reading.basis,
        "changed_blocks": written - reading.removed,
        "removed_blocks": reading.removed,
        "bytes_read": reading.read * BLOCK_SIZE,
        "bytes_written": written * len(outline.targets) * BLOCK_SIZE,
        "requests": dict(by_operation(work.requests)),
        "seconds_at_quota": outline.seconds(policy),
        "cost_usd": cost_of(work),
    }


def unknown() -> dict[str, Any]:
    """The figures of a dry run of which nothing is known before the image is unpacked."""
    counts = ("allocated_blocks", "changed_blocks", "removed_blocks", "bytes_read", "bytes_written", "seconds_at_quota")
    return dict.fromkeys(counts) | {
        "allocated_blocks_from": NOT_KNOWN,
        "requests": {},
        "cost_usd": cost_of(Work(requests={}, home=None)),
    }


def holes_choices(
    outline: Outline | None, policies: Iterable[HolePolicy], *, chosen: HolePolicy, possible: Sequence[HolePolicy]
) -> list[dict[str, Any]]:
    """What each policy for holes would write and cost, once and a month; ``None`` where that cannot be known."""
    return [
        {"holes": policy.value, "possible": policy in possible, "chosen": policy is chosen} | _figures(outline, policy)
        for policy in policies
    ]


def _figures(outline: Outline | None, policy: HolePolicy) -> dict[str, Any]:
    if outline is None or policy is HolePolicy.SKIP_ZERO:
        told = NOT_KNOWN if outline is None else "unknown until the blocks are read: those of zeros are not counted"
        return {"blocks_written": None, "blocks_written_from": told, "usd_once": None, "usd_a_month": None}
    written = outline.written(policy)
    return {
        "blocks_written": written,
        "blocks_written_from": outline.reading.basis if policy is HolePolicy.PRESERVE else "size of the volume",
        "usd_once": cost_of(outline.work(policy))["total"],
        "usd_a_month": storage_a_month(outline.targets, written),
    }


def writing(regions: Iterable[str], blocks: int) -> Counter[str]:
    """Requests that write so many blocks to a snapshot in each of the regions."""
    requests: Counter[str] = Counter()
    for region in regions:
        requests[at("PutSnapshotBlock", region)] += blocks
    return requests
