"""What every kind of source is: a value that a job records, and that knows how it is looked at, read and proved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from blockferry.core.blocks import BlockRange, blocks_of_volume
from blockferry.core.errors import IncompleteTransfer, OutOfTime
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.pacing import Pace
from blockferry.core.ports import BlockSource
from blockferry.core.quotas import DRY_RUN_LISTS_PER_SECOND, MAX_PAGE
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import JobWarning, Place
from blockferry.sources.equal import Clone, EqualSnapshots
from blockferry.sources.reading import Reading


@dataclass(frozen=True)
class Listed:
    """What a stretch of the source must have given: the blocks to move, those of them that only the base of a delta
    holds, and how many the source has allocated there."""

    indices: frozenset[int]
    removed: frozenset[int]
    allocated: int


NOTHING_LISTED = Listed(frozenset(), frozenset(), 0)


@dataclass(frozen=True)
class Extent:
    """The size of a job in blocks: of the largest volume, and of a range; ``home`` is the Region of its workers."""

    total_blocks: int
    blocks_per_range: int
    home: str


@dataclass
class Tally:
    """The blocks below ``next_index`` that lists gave so far: allocated, to be read, and only in the base."""

    next_index: int = 0
    allocated: int = 0
    read: int = 0
    removed: int = 0

    def to_json(self) -> dict[str, int]:
        """Its numbers by name, which the constructor takes again."""
        return asdict(self)

    def add(self, listed: Listed, stop: int) -> None:
        """Count in what was listed from ``next_index`` up to ``stop``."""
        self.allocated += listed.allocated
        self.read += len(listed.indices) - len(listed.removed)
        self.removed += len(listed.removed)
        self.next_index = stop


@dataclass(frozen=True)
class Expected:
    """A source as it may be once it is prepared, GiB of its volume, and what tells its size, in words."""

    source: JobSource
    size_gib: int
    basis: str


class JobSource(Place, ABC):
    """A source of a job, as it was when the job was planned."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The id or address by which operators know it."""

    @property
    def prepared(self) -> bool:
        """Whether it can be read block by block, and its size is known."""
        return True

    def expected(self, call: JobCall) -> Expected | None:
        """What it will be once it is prepared, as far as anybody can tell before; ``None`` when nobody can."""
        return None

    def prepare(self, call: JobCall, progress: Mapping[str, Any] | None) -> dict[str, Any]:
        """Go on with making it readable; ``progress`` is what the last call returned, ``None`` at first.

        Returns ``{"done", "progress", "raw_bytes"}``. Raises ``IncompleteTransfer`` where there is nothing to do.
        """
        raise IncompleteTransfer(f"{self.name} is read as it is: there is nothing to unpack. Start a new job")

    @abstractmethod
    def open(self, call: JobCall) -> BlockSource:
        """The blocks that a worker reads. Nothing is asked for yet."""

    @abstractmethod
    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        """List ``first <= index < stop`` independently of the worker that moved it.

        Raises ``IncompleteTransfer`` when two lists of the source contradict each other.
        """

    def pages(self, blocks: int) -> int:
        """Requests of each list operation that listing a stretch of so many blocks again takes at least."""
        return -(-blocks // MAX_PAGE)

    def beside(self, call: JobCall, clones: Sequence[Clone]) -> EqualSnapshots:
        """What the parents of targets must equal, beside these. Raises ``IncompleteTransfer`` where there is none."""
        raise IncompleteTransfer(f"{self.name} has no base to compare parents with")

    def contradiction(self, allocated: int, linear_checksum: str, holes: HolePolicy) -> str | None:
        """Why a source that lists so many blocks in all, of which those that were written have this LINEAR checksum,
        cannot be what was planned; ``None`` when it can be. Raises ``ArchiveDamaged`` for an archive."""
        return None

    @property
    def read_from_ebs(self) -> bool:
        """Whether its blocks are asked of EBS, whose quotas they use."""
        return True

    def gone(self, call: JobCall, *, home: str) -> str | None:
        """Why it can never be read again, as far as anybody can tell for certain; ``None`` while it may be. ``home`` is
        the account of the function."""
        return None

    @property
    def may_change(self) -> bool:
        """Whether what is read may be replaced while the job runs."""
        return False

    @property
    def due(self) -> str:
        """What a listed block is, in a sentence about one that was not moved."""
        return "allocated"

    @property
    def policies(self) -> tuple[HolePolicy, ...]:
        """What can be done about its holes."""
        return tuple(HolePolicy)

    @abstractmethod
    def reading(self, call: JobCall, extent: Extent, tally: Tally) -> Reading | None:
        """What reading it once would take; lists are asked for where nobody tells the numbers before.

        ``None`` when the call's deadline came before the end of the lists: ``tally`` is how far they were counted.
        """

    def comparing(self, regions: Sequence[str], extent: Extent) -> Mapping[str, int]:
        """Requests that comparing its base with clones in these Regions would take, by operation and Region."""
        return {}

    @property
    def spent(self) -> tuple[Mapping[str, int], float]:
        """What preparing it took: requests by operation and Region, and GB-seconds."""
        return {}, 0.0

    def object_bytes(self, raw_bytes: int) -> Mapping[str, int]:
        """Bytes read from buckets, by their Region, when ``raw_bytes`` of the disk were read."""
        return {}

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a receipt tells of it: its ``region``, a ``name`` if it is neither a snapshot nor an image, and more."""

    def lineage(self, targets: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Which snapshot was made of which, for the next sync of the chain; ``None`` for what has no chain."""
        return None

    def discard(self, call: JobCall) -> None:
        """Delete what was stored to make it readable; harmless when nothing is there. Raises ``OutOfTime`` when that
        is more than the call's deadline allows."""


S_co = TypeVar("S_co", bound=JobSource, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Examined(ABC, Generic[S_co]):
    """A source that was looked at for a new job.

    ``size_gib`` is that of its volume, ``None`` as long as nobody can know. ``description`` and ``tags`` go over to the
    targets; ``own_tags`` are those by which a copy of it is found again; ``warnings`` go to the receipt.
    """

    source: S_co
    size_gib: int | None
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)
    own_tags: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    warnings: tuple[JobWarning, ...] = ()

    @property
    def total_blocks(self) -> int | None:
        return None if self.size_gib is None else blocks_of_volume(self.size_gib)

    @abstractmethod
    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        """What a full copy does about holes. Raises ``InvalidRequest`` for a choice that could lose zeros."""


def counted(source: JobSource, call: JobCall, total_blocks: int, tally: Tally) -> bool:
    """Count the source's own lists on from ``tally``; whether the end was reached before the call's deadline."""
    pace = Pace(DRY_RUN_LISTS_PER_SECOND, clock=call.clock)
    # By windows: the list of a whole volume would not fit into memory.
    while tally.next_index < total_blocks:
        if call.deadline is not None and call.deadline.passed():
            return False
        stop = min(tally.next_index + MAX_PAGE, total_blocks)
        pace.take()
        try:
            listed = source.relist(call, tally.next_index, stop)
        except OutOfTime:
            return False
        tally.add(listed, stop)
    return True


def range_of(first: int, stop: int) -> BlockRange | None:
    """The stretch as a range; ``None`` when there is nothing in it."""
    return BlockRange(first, stop) if first < stop else None
