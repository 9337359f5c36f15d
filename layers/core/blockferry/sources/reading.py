"""What it takes to read a source once: blocks, and requests by operation and Region."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from blockferry.core.counts import at
from blockferry.core.quotas import MAX_PAGE


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The reading of a source once.

    ``allocated`` blocks are in it; ``read`` of them are asked for, and ``removed`` are only in its base. ``basis`` is
    where the counts come from, in words. ``requests`` is by operation and region, ``object_bytes`` by region of the
    bucket that they are read from.
    """

    allocated: int
    read: int
    removed: int = 0
    basis: str
    requests: Mapping[str, int]
    object_bytes: Mapping[str, int] = field(default_factory=dict)


def reading_snapshot(
    region: str, *, read: int, total_blocks: int, blocks_per_range: int, changes: bool
) -> Counter[str]:
    """Requests that read blocks of a snapshot, with ``changes`` only those that a base does not have."""
    pages = _pages(total_blocks, blocks_per_range)
    # The first is the plan's look; every range is listed by its worker and once more for the proof.
    lists = 2 * pages + 1
    if not changes:
        return Counter({at("ListSnapshotBlocks", region): lists, at("GetSnapshotBlock", region): read})
    # The proof holds the changed blocks against the snapshot's own list.
    return Counter(
        {
            at("ListSnapshotBlocks", region): pages + 1,
            at("ListChangedBlocks", region): lists,
            at("GetSnapshotBlock", region): read,
        }
    )


def comparing(regions: Iterable[str], *, total_blocks: int, blocks_per_range: int) -> Counter[str]:
    """Requests that compare a base with its clones, each snapshot given by its region: at most every block of each."""
    requests: Counter[str] = Counter()
    for region in regions:
        requests[at("GetSnapshotBlock", region)] += total_blocks
        requests[at("ListSnapshotBlocks", region)] += _pages(total_blocks, blocks_per_range)
    return requests


def reading_objects(region: str, *, read: int, blocks_per_request: int) -> Counter[str]:
    """Requests that read so many blocks from the objects of a bucket."""
    return Counter({at("GetObject", region): math.ceil(read / blocks_per_request)})


def _pages(total_blocks: int, blocks_per_range: int) -> int:
    """Pages of a list that is asked for range by range; a long range takes several."""
    return math.ceil(total_blocks / min(blocks_per_range, MAX_PAGE))
