"""What changed between two snapshots of one lineage, as a source: what a job records of it, and its blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from blockferry.aws.call import Call
from blockferry.aws.ebs.client import Change, ChangedPage, EbsDirect
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BlockRange, blocks_of_volume
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.ports import Block, BlockRef, BlockSource
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Record
from blockferry.sources.equal import Clone, EqualSnapshots
from blockferry.sources.kind import NOTHING_LISTED, Examined, Extent, Listed, Tally, counted, range_of
from blockferry.sources.listing import walk
from blockferry.sources.meaning import for_delta
from blockferry.sources.reading import Reading, comparing, reading_snapshot
from blockferry.sources.snapshot import SnapshotOrigin, SnapshotSource


class BaseSnapshot(Record):
    """The earlier snapshot of a delta, in the same place as the later one. ``start_time`` is ISO 8601."""

    snapshot_id: str
    size_gib: int
    start_time: str


class JobDelta(SnapshotOrigin):
    """A snapshot of which only what changed since ``base`` is read."""

    kind: Literal["delta"] = "delta"
    base: BaseSnapshot

    @property
    def base_snapshot_id(self) -> str:
        return self.base.snapshot_id

    @property
    def read_snapshots(self) -> tuple[str, ...]:
        return (self.base.snapshot_id, self.snapshot_id)

    @property
    def due(self) -> str:
        return "changed"

    @property
    def policies(self) -> tuple[HolePolicy, ...]:
        return (HolePolicy.PRESERVE,)

    def open(self, call: JobCall) -> BlockSource:
        return self._changes(call)

    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        """Hold the list of changes against the allocated blocks of the snapshot, which come from another list."""
        within = range_of(first, stop)
        if within is None:
            return NOTHING_LISTED
        allocated = self.allocated(call, within)
        changes = {change.index: change for change in self._changes(call).changes(within)}
        removed = frozenset(index for index, change in changes.items() if change.second_token is None)
        for index in changes:
            if (index in removed) == (index in allocated):
                raise IncompleteTransfer(
                    f"the list of changes from {self.base.snapshot_id} says that block {index} is "
                    f"{'not in' if index in removed else 'in'} {self.snapshot_id}, the list of its blocks says the "
                    "opposite; no target was completed"
                )
        return Listed(frozenset(changes), removed, len(allocated))

    def beside(self, call: JobCall, clones: Sequence[Clone]) -> EqualSnapshots:
        base = SnapshotSource(
            call.ebs(self.identity), self.base.snapshot_id, total_blocks=blocks_of_volume(self.base.size_gib)
        )
        return EqualSnapshots(f"base {self.base.snapshot_id}", base, clones)

    def reading(self, call: JobCall, extent: Extent, tally: Tally) -> Reading | None:
        if not counted(self, call, extent.total_blocks, tally):
            return None
        requests = reading_snapshot(
            self.region,
            read=tally.read,
            total_blocks=extent.total_blocks,
            blocks_per_range=extent.blocks_per_range,
            changes=True,
        )
        basis = "ListChangedBlocks and ListSnapshotBlocks"
        return Reading(
            allocated=tally.allocated, read=tally.read, removed=tally.removed, basis=basis, requests=requests
        )

    def comparing(self, regions: Sequence[str], extent: Extent) -> Counter[str]:
        places = (self.region, *regions)
        return comparing(places, total_blocks=extent.total_blocks, blocks_per_range=extent.blocks_per_range)

    def _changes(self, call: Call) -> DeltaSource:
        total = blocks_of_volume(max(self.size_gib, self.base.size_gib))
        return DeltaSource(call.ebs(self.identity), self.base.snapshot_id, self.snapshot_id, total_blocks=total)


@dataclass(frozen=True, kw_only=True)
class ExaminedDelta(Examined[JobDelta]):
    """A snapshot, its base, and the parent of each target, in the order of the targets."""

    snapshot: SnapshotFacts
    base: SnapshotFacts
    parents: Sequence[SnapshotFacts]

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        return for_delta(asked, self.base, self.snapshot)


def base_record(facts: SnapshotFacts) -> BaseSnapshot:
    """The record of a base."""
    return BaseSnapshot(snapshot_id=facts.snapshot_id, size_gib=facts.size_gib, start_time=facts.start_time.isoformat())


class DeltaSource:
    """The blocks by which ``snapshot_id`` differs from ``base_snapshot_id``.

    A block that only the base holds comes as ``removed``: on top of a copy of the base it has to be written as zeros,
    otherwise the base's data would show through.
    """

    def __init__(
        self, ebs: EbsDirect, base_snapshot_id: str, snapshot_id: str, *, total_blocks: int | None = None
    ) -> None:
        self._ebs = ebs
        self._base = base_snapshot_id
        self._snapshot_id = snapshot_id
        # A refused token is mended there: a changed block is an allocated one, so its own list has it, too.
        self._second = SnapshotSource(ebs, snapshot_id)
        self._total_blocks = total_blocks

    def changes(self, within: BlockRange) -> Iterator[Change]:
        """The entries of the list of changed blocks in ``within``, ascending, with the tokens of both sides."""

        def ask(start: int, window: int, page_token: str | None) -> ChangedPage:
            return self._ebs.list_changed_blocks(
                self._base, self._snapshot_id, start=start, window=window, page_token=page_token
            )

        own = within if self._total_blocks is None else within.before(self._total_blocks)
        if own is None:
            return iter(())
        return walk(own, ask, lambda change: change.index, what=f"changes from {self._base} to {self._snapshot_id}")

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The changed blocks of ``within``, ascending, removed ones among them. Raises what ``walk`` raises."""
        for change in self.changes(within):
            yield BlockRef(change.index, change.second_token or "", removed=change.second_token is None)

    def read(self, ref: BlockRef) -> Block:
        """The block as the second snapshot holds it. Raises what ``SnapshotSource.read`` raises."""
        return self._second.read(ref)
