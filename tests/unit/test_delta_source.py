"""The list of changes between two snapshots as blocks to move."""

from __future__ import annotations

import pytest
from blockferry.aws.ebs.client import Change, ChangedPage, Page, StaleToken
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.ports import BlockRef
from blockferry.sources.delta import DeltaSource
from fakes import content

BASE, SNAPSHOT = "snap-00000000000000001", "snap-00000000000000002"


class FakeEbs:
    """Changes as they are given, in pages of one; a token of block ``i`` is ``i@`` and the number of the list."""

    def __init__(self, *changes: Change) -> None:
        self.changes = changes
        self.counts = RequestCounts()
        self.asked: list[tuple[int, int, str | None]] = []

    def list_changed_blocks(
        self, base: str, snapshot: str, *, start: int = 0, window: int = 10_000, page_token: str | None = None
    ) -> ChangedPage:
        assert (base, snapshot) == (BASE, SNAPSHOT)
        self.asked.append((start, window, page_token))
        at = int(page_token or 0)
        due = [change for change in self.changes if change.index >= start]
        return ChangedPage(tuple(due[:1]), str(at + 1) if len(due) > 1 else None)

    def list_blocks(self, snapshot: str, *, start: int, window: int, page_token: str | None = None) -> Page:
        assert snapshot == SNAPSHOT
        return Page(((start, f"{start}@new"),), None)

    def get_block(self, snapshot: str, index: int, token: str) -> tuple[bytes, bytes]:
        assert snapshot == SNAPSHOT
        if token != f"{index}@new":
            raise StaleToken(
                request="x", status=400, code="ValidationException", reason="INVALID_BLOCK_TOKEN", message=""
            )
        return content(index), digest_of(content(index))


def delta(ebs: FakeEbs, total_blocks: int | None = None) -> DeltaSource:
    return DeltaSource(ebs, BASE, SNAPSHOT, total_blocks=total_blocks)  # type: ignore[arg-type]


def change(index: int, first: str | None, second: str | None) -> Change:
    return Change(index, first, second)


def test_a_block_that_only_the_base_holds_is_removed_and_every_other_is_read() -> None:
    ebs = FakeEbs(change(1, "a", "b"), change(2, "a", None), change(5, None, "b"))
    assert list(delta(ebs).blocks(BlockRange(0, 9))) == [
        BlockRef(1, "b"),
        BlockRef(2, "", removed=True),
        BlockRef(5, "b"),
    ]
    assert ebs.asked == [(0, 9, None), (2, 7, "1"), (3, 6, "2")]


def test_nothing_is_asked_for_behind_the_end_of_both_volumes() -> None:
    ebs = FakeEbs(change(1, "a", "b"))
    assert list(delta(ebs, 4).changes(BlockRange(4, 9))) == []
    assert ebs.asked == []
    assert [c.index for c in delta(ebs, 4).changes(BlockRange(0, 9))] == [1]
    assert ebs.asked[0][:2] == (0, 4)


def test_a_stale_token_of_a_changed_block_is_mended_by_the_list_of_the_second_snapshot() -> None:
    block = delta(FakeEbs(change(3, "a", "b")), 4).read(BlockRef(3, "b"))
    assert (block.index, block.data) == (3, content(3))


def test_a_list_of_changes_that_does_not_ascend_is_not_trusted_and_named() -> None:
    class Confused(FakeEbs):
        def list_changed_blocks(self, *args: object, **kwargs: object) -> ChangedPage:
            return ChangedPage((change(3, "a", "b"), change(3, "a", "b")), None)

    with pytest.raises(IncompleteTransfer, match=f"changes from {BASE} to {SNAPSHOT} is not ascending"):
        list(delta(Confused()).blocks(BlockRange(0, 9)))
