"""What changed between two snapshots of one lineage, as a source of blocks."""

from __future__ import annotations

from collections.abc import Iterator

from blockferry.aws.ebs.client import Change, ChangedPage, EbsDirect
from blockferry.core.blocks import BlockRange
from blockferry.core.ports import Block, BlockRef
from blockferry.sources.listing import walk
from blockferry.sources.snapshot import SnapshotSource


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
