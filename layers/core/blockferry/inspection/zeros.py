"""Counting the blocks of a snapshot that hold nothing but zeros, for which every block has to be read."""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.aws.ebs.client import EbsDirect
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.pacing import Pace
from blockferry.core.rates import READ_BLOCKS_PER_SECOND
from blockferry.core.retry import Clock, Deadline
from blockferry.inspection.tuning import Tuning
from blockferry.sources.snapshot import SnapshotSource

MOST_DAYS = 6.5
"""Days of reading that fit into an execution, which ends after seven, with some left for lists and for other jobs."""


@dataclass
class Zeros:
    """Blocks of zeros among those read below ``next_index``."""

    next_index: int = 0
    blocks_read: int = 0
    zero_blocks: int = 0

    def to_json(self) -> dict[str, int]:
        """The members by name, which the constructor takes again."""
        return {"next_index": self.next_index, "blocks_read": self.blocks_read, "zero_blocks": self.zero_blocks}


def refuse_endless(snapshot_id: str, allocated: int) -> None:
    """Raise ``InvalidRequest`` for more blocks than one function reads in the time that an execution has."""
    days = allocated / READ_BLOCKS_PER_SECOND / 86_400
    if days > MOST_DAYS:
        raise InvalidRequest(
            f"options.count_zeros: {snapshot_id} has {allocated} allocated blocks, which one function reads in some "
            f"{days:.0f} days, and an execution ends after a week. Leave it out; the receipt of a copy counts zeros, "
            "with many workers"
        )


def count_zeros(
    snapshot_id: str,
    total_blocks: int,
    zeros: Zeros,
    ebs: EbsDirect,
    *,
    deadline: Deadline,
    clock: Clock,
    tuning: Tuning,
) -> None:
    """Read on from ``zeros.next_index`` to the end of the volume, or as far as the deadline allows.

    Raises what reading a block raises.
    """
    source = SnapshotSource(ebs, snapshot_id)
    pace = Pace(tuning.reads_per_second, clock=clock)
    while zeros.next_index < total_blocks and not deadline.passed():
        within = BlockRange(zeros.next_index, min(zeros.next_index + tuning.read_range, total_blocks))
        moved = move(
            within, source, [], holes=HolePolicy.PRESERVE, threads=tuning.read_threads, deadline=deadline, pace=pace
        )
        zeros.blocks_read += len(moved.digests)
        zeros.zero_blocks += sum(digest == ZERO_DIGEST for _, digest in moved.digests)
        zeros.next_index = moved.next_index
