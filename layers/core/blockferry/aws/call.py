"""One call of a piece of work: with what it asks AWS, whose clock it goes by, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.counts import RequestCounts
from blockferry.core.retry import Clock, Deadline, RetryPolicy
from blockferry.core.tuning import Throughput, UnpackTuning, Waits

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

CONNECTIONS = 32


def _without_end() -> float:
    return math.inf


@dataclass(frozen=True, kw_only=True)
class Call:
    """The surroundings of one call, which every step and every kind of source and target works with.

    ``time_left`` gives the seconds that remain until Lambda ends it, ``memory_gb`` is the size by which its seconds are
    billed (0 where nobody bills them). Requests are noted in ``counts``. Clients keep ``connections`` open to a place,
    and give up in time for ``deadline``. How long things are waited for, and how much is under way, is in ``waits``,
    ``throughput`` and ``unpacking``.
    """

    aws: Aws
    time_left: Callable[[], float] = _without_end
    memory_gb: float = 0.0
    counts: RequestCounts = field(default_factory=RequestCounts)
    clock: Clock = field(default_factory=Clock)
    deadline: Deadline | None = None
    connections: int = CONNECTIONS
    waits: Waits = field(default_factory=Waits)
    throughput: Throughput = field(default_factory=Throughput)
    unpacking: UnpackTuning = field(default_factory=UnpackTuning)

    @property
    def seconds_left(self) -> float:
        return self.time_left()

    def until(self, deadline: Deadline, *, connections: int | None = None) -> Self:
        """The same call for work that has to end by ``deadline``."""
        return replace(self, deadline=deadline, connections=connections or self.connections)

    def reserving(self, seconds: float) -> Deadline:
        """The moment at which so many seconds of the call's time are left, but at least one second from now."""
        return Deadline(max(self.seconds_left - seconds, 1.0), clock=self.clock)

    def ebs(
        self, identity: Identity, *, policy: RetryPolicy | None = None, counts: RequestCounts | None = None
    ) -> EbsDirect:
        """A client of the EBS direct APIs; ``counts`` instead of the call's own."""
        return self.aws.ebs(
            identity,
            counts=self.counts if counts is None else counts,
            policy=policy or self.waits.requests,
            clock=self.clock,
            deadline=self.deadline,
            connections=self.connections,
        )

    def ec2(self, identity: Identity) -> EC2Client:
        return self.aws.ec2(identity)
