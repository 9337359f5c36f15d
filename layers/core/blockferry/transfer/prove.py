"""Put together what was found when the ranges of a job were counted again: sums, coverage, and the LINEAR checksum.

At 64 TiB these are 10,000 objects and 4 GiB of digests. They are fetched ahead and hashed in bulk, so that no work is
left for each block; what has to be done for each block was done behind the worker that moved it.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from blockferry.core.blocks import BlockRange, split
from blockferry.core.checksums import Linear
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.pacing import Pace
from blockferry.core.together import ahead
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Coverage
from blockferry.jobs.record import Proof
from blockferry.jobs.recounts import Recounted
from blockferry.transfer.job import Job
from blockferry.transfer.recount import recount

A = TypeVar("A")
B = TypeVar("B")


def prove(job: Job, coverage: Coverage, call: JobCall) -> Proof:
    """What the job's source held and its workers wrote, by what was found in each range, in their order.

    ``coverage`` gets which targets hold what. A range that nobody has counted behind its worker is counted now, at the
    share of the list quota that is this step's. Raises ``IncompleteTransfer`` for a range that was not moved as a
    whole, a count that does not fit, and a source that cannot be what was planned.
    """
    pace = Pace(call.throughput.lists_per_second, clock=call.clock)
    linear = Linear()
    requests: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    allocated = read = removed = zeros = parent_blocks = 0
    gb_seconds = 0.0

    def counted(within: BlockRange) -> tuple[Recounted, bytes | memoryview]:
        known = call.folder.recount(within)
        if known is not None:
            return known
        for _ in range(job.source.pages(len(within))):
            pace.take()
        return recount(job, call, within)

    ranges = split(job.blocks, job.blocks_per_range)
    with ThreadPoolExecutor(max_workers=call.throughput.proving_threads, thread_name_prefix="prove") as pool:
        for found, digests in ahead(pool, counted, ranges, most=call.throughput.proving_ahead):
            for part in found.held:
                coverage.add(part.first, part.stop, part.targets)
            allocated += found.allocated
            removed += found.removed
            read += found.read
            zeros += found.zeros
            requests.update(found.requests)
            retries.update(found.retries)
            parent_blocks += found.parent_blocks
            gb_seconds += found.gb_seconds
            linear.extend(found.stop - 1, digests)
    contradiction = job.source.contradiction(allocated, linear.value(), job.holes)
    if contradiction is not None:
        raise IncompleteTransfer(contradiction)
    return Proof(
        allocated_blocks=allocated,
        changed_blocks=linear.blocks - removed,
        removed_blocks=removed,
        zero_blocks=zeros,
        blocks_read=read,
        blocks_written=linear.blocks,
        parent_blocks=parent_blocks,
        linear_checksum=linear.value(),
        requests=dict(requests),
        retries=dict(retries),
        worker_gb_seconds=round(gb_seconds, 3),
    )
