"""Count a range again: hold what its workers have recorded against another list of the source.

The digests are read back from the work bucket, so that one which was lost on its way is noticed, and the source is
listed by requests of its own. The last call of Move blocks for a range does it; Complete transfer does it for a range
that nobody has counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import DIGEST_SIZE, ZERO_DIGEST
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.holes import HolePolicy
from blockferry.core.words import counted
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Stretch, joined
from blockferry.jobs.recounts import Held, Recounted
from blockferry.sources.kind import Listed
from blockferry.transfer.job import Job


def range_around(job: Job, index: int) -> BlockRange:
    """The range of the job's plan that the block is in."""
    first = index - index % job.blocks_per_range
    return BlockRange(first, min(first + job.blocks_per_range, job.blocks))


def recount(job: Job, call: JobCall, within: BlockRange) -> tuple[Recounted, bytes]:
    """What the range is found to hold, and the raw digests of the blocks that were written, 32 bytes each, ascending.

    Raises ``IncompleteTransfer`` when a block is listed but was not moved, or the other way round, when something else
    than zeros was written for a block that is gone, and what ``joined`` raises.
    """
    began = call.clock.monotonic()
    stored = call.folder.stretches(within)
    parts = list(joined(stored, within))
    entries = [entry for part in parts for entry in part.digests]
    with call.counts.apart() as counts:
        listed = job.source.relist(replace(call, counts=counts), within.first, within.stop)
    _compare(job, within, {index for index, _ in entries}, listed)
    zeros = 0
    digests = bytearray()
    for index, digest in entries:
        if index in listed.removed:
            if digest != ZERO_DIGEST:
                raise IncompleteTransfer(
                    f"block {index} is gone from {job.source.name}, but something else than zeros was written there; "
                    "no target was completed"
                )
        else:
            zeros += digest == ZERO_DIGEST
        if job.holes.writes(digest):
            digests += digest
    for number in sorted({number for part in stored for number in part.targets}):
        job.targets[number].counted(call, number, within, entries, listed.allocated)
    seconds = call.clock.monotonic() - began
    found = Recounted(
        first=within.first,
        stop=within.stop,
        blocks=len(digests) // DIGEST_SIZE,
        allocated=listed.allocated,
        removed=len(listed.removed),
        read=len(listed.indices) - len(listed.removed),
        zeros=zeros,
        held=_held(stored),
        requests=dict(sum((Counter(part.requests) for part in parts), counts.placed)),
        retries=dict(sum((Counter(part.retries) for part in parts), counts.retries)),
        parent_blocks=sum(part.parent_blocks for part in parts),
        gb_seconds=round(sum(part.gb_seconds for part in parts) + seconds * call.memory_gb, 6),
    )
    return found, bytes(digests)


def _held(stretches: Iterable[Stretch]) -> tuple[Held, ...]:
    """What the targets hold, with stretches that continue each other as one: a slow range leaves many of them."""
    held: list[Held] = []
    for stretch in stretches:
        last = held[-1] if held else None
        if last is not None and last.targets == stretch.targets and last.first <= stretch.first <= last.stop:
            held[-1] = last.model_copy(update={"stop": max(last.stop, stretch.stop)})
        else:
            held.append(Held(first=stretch.first, stop=stretch.stop, targets=stretch.targets))
    return tuple(held)


def _compare(job: Job, within: BlockRange, moved: set[int], listed: Listed) -> None:
    missing = listed.indices - moved
    between = f"between {within.first} and {within.stop}"
    if missing:
        raise IncompleteTransfer(
            f"block {min(missing)} of {job.source.name} is {job.source.due} but was not moved "
            f"({counted(len(missing), 'such block')} {between}); no target was completed"
        )
    if job.holes is HolePolicy.ZERO_FILL:
        if len(moved) != len(within):
            raise IncompleteTransfer(
                f"holes are to be filled, but only {counted(len(moved), 'block')} {between} "
                f"{'was' if len(moved) == 1 else 'were'} moved; no target was completed"
            )
    elif moved - listed.indices:
        raise IncompleteTransfer(
            f"block {min(moved - listed.indices)} was moved but is not {job.source.due} in {job.source.name}; no "
            "target was completed"
        )
