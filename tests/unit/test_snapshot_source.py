"""Listing and reading a snapshot: pages, windows and tokens (EBS user guide, reading snapshots)."""

from __future__ import annotations

import pytest
from blockferry.aws.ebs.client import Page
from blockferry.aws.ebs.refusals import StaleToken
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, RetryLater
from blockferry.core.ports import BlockRef
from blockferry.sources.snapshot import MAX_RELISTS, SnapshotSource
from fakes import content


def stale(reason: str) -> StaleToken:
    return StaleToken(request="x", status=400, code="ValidationException", reason=reason, message="")


class FakeEbs:
    """Lists in pages of at most ``page`` indices of the scan window; tokens carry the number of the list call."""

    def __init__(self, indices: list[int], *, page: int = 4) -> None:
        self.indices = indices
        self.page = page
        self.counts = RequestCounts()
        self.lists: list[tuple[int, int, str | None]] = []
        self.expired_pages: set[str] = set()
        self.dead_tokens: set[str] = set()
        self.gone: set[int] = set()

    def list_blocks(
        self, snapshot_id: str, *, start: int = 0, window: int = 10_000, page_token: str | None = None
    ) -> Page:
        self.lists.append((start, window, page_token))
        if page_token in self.expired_pages:
            self.expired_pages.discard(page_token)
            raise stale("INVALID_PAGE_TOKEN")
        at = int(page_token) if page_token else start
        entries = tuple(
            (i, f"{i}@{len(self.lists)}") for i in self.indices if at <= i < at + self.page and i not in self.gone
        )
        more = any(i >= at + self.page for i in self.indices)
        return Page(entries, str(at + self.page) if more else None)

    def get_block(self, snapshot_id: str, index: int, token: str) -> tuple[bytes, bytes]:
        if token in self.dead_tokens or "all" in self.dead_tokens:
            raise stale("INVALID_BLOCK_TOKEN")
        assert token.startswith(f"{index}@")
        data = content(index)
        return data, digest_of(data)


def source(ebs: FakeEbs) -> SnapshotSource:
    return SnapshotSource(ebs, "snap-00000001")  # type: ignore[arg-type]


def listed(ebs: FakeEbs, first: int, stop: int) -> list[int]:
    return [ref.index for ref in source(ebs).blocks(BlockRange(first, stop))]


def test_only_the_range_is_listed_and_the_list_stops_at_its_end() -> None:
    ebs = FakeEbs(list(range(0, 100, 3)))
    assert listed(ebs, 10, 31) == [12, 15, 18, 21, 24, 27, 30]
    assert ebs.lists[0][0] == 10
    assert max(int(token or 0) for _, _, token in ebs.lists) <= 31


def test_empty_pages_with_a_token_are_no_end() -> None:
    ebs = FakeEbs([0, 99])
    assert listed(ebs, 0, 100) == [0, 99]
    assert len(ebs.lists) > 20


def test_an_expired_page_token_goes_on_behind_the_last_block_seen() -> None:
    ebs = FakeEbs(list(range(20)))
    ebs.expired_pages = {"8"}
    assert listed(ebs, 0, 20) == list(range(20))
    assert (8, 12, None) in ebs.lists


def test_a_list_that_does_not_ascend_is_not_trusted() -> None:
    class Confused(FakeEbs):
        def list_blocks(self, *args: object, **kwargs: object) -> Page:
            return Page(((3, "a"), (2, "b")), None)

    with pytest.raises(IncompleteTransfer, match="not ascending"):
        listed(Confused([]), 0, 10)


def test_a_refused_block_token_is_replaced_by_listing_from_that_index() -> None:
    ebs = FakeEbs([5, 6, 7], page=10)
    ebs.dead_tokens = {"6@1"}
    one = source(ebs)
    refs = list(one.blocks(BlockRange(0, 10)))
    assert [one.read(ref).data for ref in refs] == [content(5), content(6), content(7)]
    assert ebs.lists[-1][0] == 6
    assert ebs.counts.retries["GetSnapshotBlock StaleToken"] == 1


def test_tokens_that_are_always_refused_end_in_a_clear_error() -> None:
    ebs = FakeEbs([5])
    ebs.dead_tokens = {"all"}
    with pytest.raises(RetryLater, match=f"refused {MAX_RELISTS} times"):
        source(ebs).read(BlockRef(5, "5@0"))


def test_a_block_that_is_not_listed_any_more_is_not_skipped() -> None:
    ebs = FakeEbs([5, 6], page=10)
    ebs.dead_tokens = {"5@1"}
    one = source(ebs)
    refs = list(one.blocks(BlockRange(0, 10)))
    ebs.gone = {5}
    with pytest.raises(IncompleteTransfer, match="block 5"):
        one.read(refs[0])


def test_a_first_page_that_is_refused_as_stale_is_not_asked_for_again() -> None:
    class Refusing(FakeEbs):
        def list_blocks(self, *args: object, **kwargs: object) -> Page:
            self.lists.append((0, 0, None))
            raise stale("INVALID_PAGE_TOKEN")

    ebs = Refusing([])
    with pytest.raises(StaleToken):
        listed(ebs, 0, 10)
    assert len(ebs.lists) == 1


def test_a_list_that_names_a_block_twice_is_not_trusted() -> None:
    class Confused(FakeEbs):
        def list_blocks(self, *args: object, **kwargs: object) -> Page:
            return Page(((3, "a"), (3, "b")), None)

    with pytest.raises(IncompleteTransfer, match="block 3 came where 4 or later was due"):
        listed(Confused([]), 0, 10)


def test_a_list_that_begins_before_the_range_is_not_trusted() -> None:
    class Confused(FakeEbs):
        def list_blocks(self, *args: object, **kwargs: object) -> Page:
            return Page(((4, "a"),), None)

    with pytest.raises(IncompleteTransfer, match="block 4 came where 5 or later was due"):
        listed(Confused([]), 5, 10)


def test_nothing_is_asked_for_behind_the_last_block_of_the_range() -> None:
    ebs = FakeEbs(list(range(20)))
    assert listed(ebs, 0, 4) == [0, 1, 2, 3]
    assert ebs.lists == [(0, 4, None)]


def test_nothing_is_asked_for_behind_the_end_of_the_volume() -> None:
    ebs = FakeEbs(list(range(4)))
    small = SnapshotSource(ebs, "snap-00000001", total_blocks=4)  # type: ignore[arg-type]
    assert [ref.index for ref in small.blocks(BlockRange(2, 9))] == [2, 3]
    assert list(small.blocks(BlockRange(4, 9))) == []
    assert ebs.lists == [(2, 2, None)]


def test_a_token_that_is_refused_again_is_listed_again() -> None:
    ebs = FakeEbs([5, 6], page=10)
    ebs.dead_tokens = {"5@1", "5@2"}
    one = source(ebs)
    refs = list(one.blocks(BlockRange(0, 10)))
    assert one.read(refs[0]).data == content(5)
    assert [start for start, _, _ in ebs.lists] == [0, 5, 5]


def test_the_token_that_another_thread_has_listed_meanwhile_is_used_without_listing_again() -> None:
    class Shared(FakeEbs):
        def get_block(self, snapshot_id: str, index: int, token: str) -> tuple[bytes, bytes]:
            if token == "6@1":
                one.read(refs[0])  # what another thread does while this request is under way
                raise stale("INVALID_BLOCK_TOKEN")
            return super().get_block(snapshot_id, index, token)

    ebs = Shared([5, 6], page=10)
    ebs.dead_tokens = {"5@1"}
    one = source(ebs)
    refs = list(one.blocks(BlockRange(0, 10)))
    assert one.read(refs[1]).data == content(6)
    assert len(ebs.lists) == 2


def test_a_block_is_looked_for_behind_empty_pages() -> None:
    class Sparse(FakeEbs):
        def list_blocks(
            self, snapshot_id: str, *, start: int = 0, window: int = 10_000, page_token: str | None = None
        ) -> Page:
            if window == 1 and page_token is None:
                self.lists.append((start, window, None))
                return Page((), str(start))
            return super().list_blocks(snapshot_id, start=start, window=window, page_token=page_token)

    ebs = Sparse([5], page=10)
    ebs.dead_tokens = {"5@1"}
    one = source(ebs)
    (ref,) = one.blocks(BlockRange(0, 10))
    assert one.read(ref).data == content(5)
    assert ebs.lists[1:] == [(5, 1, None), (5, 1, "5")]


def test_the_search_for_a_block_ends_with_the_first_page_that_has_any() -> None:
    ebs = FakeEbs(list(range(20)), page=4)
    ebs.dead_tokens = {"5@2"}
    one = source(ebs)
    refs = list(one.blocks(BlockRange(0, 20)))
    asked = len(ebs.lists)
    assert one.read(refs[5]).data == content(5)
    assert ebs.lists[asked:] == [(5, 1, None)]


def test_a_block_that_no_page_has_any_more_is_not_skipped() -> None:
    ebs = FakeEbs([5], page=10)
    ebs.dead_tokens = {"5@1"}
    one = source(ebs)
    (ref,) = one.blocks(BlockRange(0, 10))
    ebs.indices = []
    with pytest.raises(IncompleteTransfer, match="block 5"):
        one.read(ref)


def test_a_block_right_behind_the_range_is_not_part_of_it() -> None:
    assert listed(FakeEbs(list(range(20)), page=10), 0, 4) == [0, 1, 2, 3]
    assert listed(FakeEbs([0, 4], page=10), 0, 4) == [0]
