"""How long a job waits, how much of it is under way at a time, and how fast it asks. None of it decides what a target
holds in the end. A call carries the figures; whoever wants others hands in others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.quotas import LISTS_PER_SECOND
from blockferry.core.retry import RetryPolicy


def _of_a_start() -> RetryPolicy:
    return RetryPolicy(budget_seconds=30.0)


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long AWS is waited for before its answer, or its silence, is taken for what it is."""

    requests: RetryPolicy = field(default_factory=RetryPolicy)
    """The budget of a request of the EBS direct APIs."""

    starts: RetryPolicy = field(default_factory=_of_a_start)
    """The budget of StartSnapshot: a Region that does not answer must not use up the time in which the other targets
    are started."""

    start_seconds: float = 300.0
    """Seconds, and not a rest of them, in which targets are started in Regions where another one could not be reached:
    most of an invocation (900 s) is left to those that can be."""

    looks: int = 10
    """Times that EC2 is asked about a snapshot, the first one included, before its answer is taken for what it is."""

    first_looks: tuple[float, ...] = (0.2, 0.4, 0.8)
    """Seconds between the first questions to EC2 whether targets are sealed, within a call: small ones are by then."""

    named_looks: tuple[float, ...] = (1.0, 2.0)
    """Seconds between the questions about a snapshot that somebody names and EC2 does not know: mostly it is a typing
    error, and at times what was made a moment ago."""

    look_seconds: float = 2.0
    """Seconds between two questions to EC2 about a snapshot that it calls pending or does not know yet."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How much of a transfer is under way at a time, and how fast it is proved."""

    places_at_a_time: int = 16
    """Places, each a Region and a role, that are asked about a job's targets at a time, and targets that are deleted at
    a time: a hundred places one after another would take longer than a step may."""

    starts_at_a_time: int = 8
    """Targets that are started at a time: EBS takes ten StartSnapshot a second of an account in a Region, and each
    takes some tenths of a second."""

    min_threads: int = 4
    """Blocks under way at a time in a worker, at least, so that a slow answer does not hold up all of it."""

    max_threads: int = 32
    """Blocks under way at a time in a worker, at most: it has no more than one vCPU, and more threads gain nothing at
    30 ms a request and cost memory."""

    max_writers: int = 64
    """Requests of a worker to targets under way beside those of its threads: at 100 ms a request four times what its
    network takes."""

    proving_threads: int = 8
    """Recounts that are fetched, or made, at a time when the transfer is proved."""

    proving_ahead: int = 16
    """Recounts in memory at a time (that of a range of 65,536 blocks has 2 MiB): enough to hide S3's answer time."""

    lists_per_second: float = LISTS_PER_SECOND
    """List requests a second of the last step, for ranges that nobody has counted: its share of the quota."""

    def threads(self, in_flight: float) -> int:
        """Threads of a worker that has so many blocks under way, within ``min_threads`` and ``max_threads``."""
        return max(self.min_threads, min(self.max_threads, math.ceil(in_flight)))


@dataclass(frozen=True, kw_only=True)
class UnpackTuning:
    """How a compressed image is cut and stored. All steps of a job must go by the same ``chunk_bytes``."""

    chunk_bytes: int = 64 * BLOCK_SIZE
    """Bytes of a stored chunk, whole blocks where workers are to read it: 32 MiB are large enough that S3's requests do
    not count, small enough that a worker holds several."""

    part_bytes: int = 16 * 1024 * 1024
    """Compressed bytes a request."""

    writers: int = 3
    """Chunks being compressed and stored while the next one is unpacked; each holds ``chunk_bytes``."""

    @property
    def chunk_blocks(self) -> int:
        """Blocks of a stored chunk."""
        return self.chunk_bytes // BLOCK_SIZE
