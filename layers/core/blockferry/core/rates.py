"""How fast a job can go, how many workers that takes, and how much each of them has under way: arithmetic only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.quotas import BLOCKS_PER_SECOND

NETWORK_BITS_PER_SECOND = 600e6
"""What one function sends and receives in all. AWS publishes no figure; 610 to 625 Mbit/s were measured in public, and
whether both directions share them is not known, so they are taken to."""

READ_BLOCKS_PER_SECOND = NETWORK_BITS_PER_SECOND / 8 / BLOCK_SIZE
"""Blocks a second that one function reads and writes nowhere."""

NEAR_SECONDS, FAR_SECONDS = 0.03, 0.1
"""Answer time of a block request inside a Region, and to another one, for Little's law."""

SLOWER = 2.0
"""Times the usual answer time that is allowed for before the rate falls."""


@dataclass(frozen=True)
class Rate:
    """``blocks_per_second`` of a whole job, as its quotas allow, and ``per_worker`` what the network of one carries."""

    blocks_per_second: float
    per_worker: float

    @property
    def workers(self) -> int:
        """Workers that reach the rate."""
        return math.ceil(self.blocks_per_second / self.per_worker)

    def share(self, workers: int) -> float:
        """Blocks a second of one of so many workers: together they ask for what the quotas allow, and no more."""
        return self.blocks_per_second / workers

    def seconds(self, blocks: int, workers: int) -> float:
        """Seconds in which so many workers move so many blocks: as the quotas allow, or their networks."""
        return blocks / min(self.blocks_per_second, workers * self.per_worker)


def rate_of(places: Iterable[object], *, read: float = BLOCKS_PER_SECOND, written: float = BLOCKS_PER_SECOND) -> Rate:
    """The rate of a job with one target in each of ``places``, a Region and an account, which may repeat.

    ``read`` and ``written`` are the requests a second that the source, and each place, has left for this job. Every
    target of a place gets every block, so they share its requests.
    """
    in_place = Counter(places)
    blocks = min(read, written / max(in_place.values()))
    return Rate(blocks, READ_BLOCKS_PER_SECOND / (1 + in_place.total()))


def blocks_in_flight(blocks_per_second: float, *, far: bool) -> float:
    """Little's law: blocks under way in a worker that moves so many, each of which is read and then written to all
    targets at once; ``far``: one of them, or the source, is in another Region."""
    return SLOWER * blocks_per_second * (NEAR_SECONDS + (FAR_SECONDS if far else NEAR_SECONDS))
