"""How fast a job can go, how many workers that takes, and how much each of them has under way: arithmetic only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

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

NEARLY = 1e-9
"""Part of a rate or quota that is nothing, since sums of fractions are not exact."""

J = TypeVar("J", bound=Hashable)


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
    return Rate(blocks, blocks_per_worker(in_place.total()))


def blocks_per_worker(targets: int) -> float:
    """Blocks a second that the network of one worker carries: each is received once and sent to every target."""
    return READ_BLOCKS_PER_SECOND / (1 + targets)


def blocks_in_flight(blocks_per_second: float, *, far: bool) -> float:
    """Little's law: blocks under way in a worker that moves so many, each of which is read and then written to all
    targets at once; ``far``: one of them, or the source, is in another Region."""
    return SLOWER * blocks_per_second * (NEAR_SECONDS + (FAR_SECONDS if far else NEAR_SECONDS))


@dataclass(frozen=True)
class Demand:
    """What a job that runs asks for: for each block so many ``requests`` of each quota, by the quota's name, and
    ``most`` blocks a second, more than which it could not use or may not."""

    requests: Mapping[str, int]
    most: float = math.inf

    @property
    def heaviest(self) -> int:
        """Requests a block of the quota of which it asks most."""
        return max(self.requests.values())


def shares(jobs: Mapping[J, Demand], *, quota: float = BLOCKS_PER_SECOND) -> dict[J, float]:
    """Blocks a second of each job, so that together they use what every quota of ``quota`` requests a second gives.

    All jobs grow evenly, by the requests of the quota that each asks most of, until they have the ``most`` that they
    can use or a quota of theirs is used up; what one leaves goes to the others (dominant resource fairness). By
    requests and not by blocks: a job of a hundred targets would leave one of a single target a hundredth of its pace.
    """
    rates = dict.fromkeys(jobs, 0.0)
    left = {name: quota for job in jobs.values() for name in job.requests}
    growing = dict(jobs)
    while growing:
        load: dict[str, float] = {}
        for job in growing.values():
            for name, requests in job.requests.items():
                load[name] = load.get(name, 0.0) + requests / job.heaviest
        steps = [left[name] / asked for name, asked in load.items()]
        steps += [(job.most - rates[each]) * job.heaviest for each, job in growing.items()]
        step = min(steps)
        for each, job in growing.items():
            rates[each] += step / job.heaviest
        for name, asked in load.items():
            left[name] -= step * asked
        used_up = {name for name, rest in left.items() if rest <= quota * NEARLY}
        growing = {
            each: job
            for each, job in growing.items()
            if rates[each] < job.most * (1 - NEARLY) and not used_up & job.requests.keys()
        }
    return rates
