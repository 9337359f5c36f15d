"""Counting, against a model that keeps every version of every block."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, cast

import pytest
from blockferry.aws.ebs.client import Change, ChangedPage, EbsDirect, Page
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import ZERO_DIGEST, digest_of
from blockferry.core.delta import Delta
from blockferry.core.errors import IncompleteTransfer, OutOfTime
from blockferry.core.retry import Deadline
from blockferry.inspection.chain import chain_report, in_order, predecessors_estimate
from blockferry.inspection.count import Counts, DeltaBits, ListReader, Lists, Window, count_lists
from blockferry.inspection.tuning import Tuning
from blockferry.inspection.zeros import Zeros, count_zeros
from fakes import ManualClock, content
from hypothesis import given
from hypothesis import strategies as st

VOLUME = 64

Snapshot = Mapping[int, int]
"""Index to content."""


class ListedEbs:
    """The two lists over snapshots in memory. Pages scan ``page`` positions; every ``empty_every``-th is empty."""

    def __init__(self, held: Mapping[str, Snapshot], *, page: int = 1000, empty_every: int = 0) -> None:
        self._held = held
        self._page = page
        self._empty_every = empty_every
        self.asked = 0
        self.fail_after: int | None = None

    def list_blocks(self, snapshot_id: str, *, start: int, window: int, page_token: str | None) -> Page:
        found, token = self._scan(sorted(self._held[snapshot_id]), start, window, page_token)
        return Page(tuple((index, "token") for index in found), token)

    def list_changed_blocks(
        self, first: str, second: str, *, start: int, window: int, page_token: str | None
    ) -> ChangedPage:
        a, b = self._held[first], self._held[second]
        found, token = self._scan(sorted(a.keys() | b.keys()), start, window, page_token)
        changes = (Change(n, "1" if n in a else None, "2" if n in b else None) for n in found if a.get(n) != b.get(n))
        return ChangedPage(tuple(changes), token)

    def _scan(
        self, indices: Sequence[int], start: int, window: int, page_token: str | None
    ) -> tuple[list[int], str | None]:
        self.asked += 1
        if self.fail_after is not None and self.asked > self.fail_after:
            raise OutOfTime("no time left")
        begin = start if page_token is None else int(page_token)
        scan = min(self._page, window)
        if self._empty_every and self.asked % self._empty_every == 0:
            scan = 0
        found = list(islice((n for n in indices if n >= begin), scan + 1))
        return found[:scan], str(found[scan]) if len(found) > scan else None


def counted(
    held: Mapping[str, Snapshot],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    snapshots: Sequence[str] | None = None,
    ebs: ListedEbs | None = None,
    window: int = VOLUME,
    stop_after: int | None = None,
) -> Counts:
    """All counts of a chain in the order of ``held``; with ``stop_after`` in calls of so many requests each."""
    chain = tuple(held) if pairs is None else ()
    lists = Lists(
        snapshots=tuple(snapshots if snapshots is not None else held),
        pairs=tuple(pairs if pairs is not None else pairwise(held)),
        chain=chain,
        blocks=dict.fromkeys(held, VOLUME),
        tuning=Tuning(lists_per_second=1e9, page=window, pages_per_window=1),
    )
    source = ebs or ListedEbs(held)
    counts = Counts()
    for _ in range(10_000):
        clock = ManualClock()
        source.fail_after = None if stop_after is None else source.asked + stop_after
        reader = ListReader(cast(EbsDirect, source), lists, clock=clock)
        count_lists(lists, counts, reader, deadline=Deadline(None, clock=clock))
        counts = Counts.from_json(json.loads(json.dumps(counts.to_json())))
        if counts.next_index == lists.total_blocks:
            return counts
    raise AssertionError("counting does not end")


def versions_freed(chain: Sequence[Snapshot], position: int) -> int:
    """Brute force: EBS stores each version of a block once, from the snapshot that wrote it to the last unchanged one.

    Deleting a snapshot frees the versions that no other snapshot refers to.
    """
    referred: dict[tuple[int, int], set[int]] = defaultdict(set)
    for index in range(VOLUME):
        version = 0
        for number, held in enumerate(chain):
            if number and held.get(index) != chain[number - 1].get(index):
                version += 1
            if index in held:
                referred[index, version].add(number)
    return sum(snapshots == {position} for snapshots in referred.values())


block_maps = st.dictionaries(st.integers(0, VOLUME - 1), st.integers(1, 3), max_size=40)
chains = st.lists(block_maps, min_size=2, max_size=6)
page_sizes = st.sampled_from([1, 2, 7, 1000])
empties = st.sampled_from([0, 2, 3])


def named(maps: Sequence[Snapshot]) -> dict[str, Snapshot]:
    return {f"snap-{number:08x}": held for number, held in enumerate(maps)}


@given(maps=chains, page=page_sizes, empty_every=empties, window=st.sampled_from([5, 16, 64]))
def test_every_figure_of_a_chain_is_that_of_the_model(
    maps: list[dict[int, int]], page: int, empty_every: int, window: int
) -> None:
    held = named(maps)
    names = list(held)
    counts = counted(held, ebs=ListedEbs(held, page=page, empty_every=empty_every), window=window)
    assert counts.allocated == {name: len(blocks) for name, blocks in held.items()}
    for (first, second), delta in counts.changed.items():
        a, b = held[first], held[second]
        assert delta == Delta(
            len(b.keys() - a.keys()), sum(a[n] != b[n] for n in a.keys() & b.keys()), len(a.keys() - b.keys())
        )
        estimate = predecessors_estimate(delta, len(a), len(b))
        assert estimate == delta.overwritten + 2 * delta.removed
    assert counts.frees == {name: versions_freed(maps, position) for position, name in enumerate(names)}


@given(maps=chains, page=page_sizes, stop_after=st.integers(12, 40))
def test_counting_in_pieces_of_any_length_gives_the_same(
    maps: list[dict[int, int]], page: int, stop_after: int
) -> None:
    held = named(maps)
    whole = counted(held)
    # A window of one list has to fit into a call, else nothing would ever be done.
    stop_after *= 8 * len(maps)
    assert counted(held, ebs=ListedEbs(held, page=page), window=8, stop_after=stop_after) == whole


@given(maps=st.lists(block_maps, min_size=3, max_size=3))
def test_the_versions_of_a_chain_are_its_first_snapshot_and_what_each_later_one_wrote(
    maps: list[dict[int, int]],
) -> None:
    held = named(maps)
    counts = counted(held)
    found = chain_report(facts(list(held)), counts, region="us-east-1", others=[])
    stored = len(maps[0]) + sum(held[n] != before.get(n) for before, held in pairwise(maps) for n in held)
    assert found["stored_blocks"] == stored
    assert found["stored_bytes"] == stored * BLOCK_SIZE


def facts(names: Sequence[str], **changes: Any) -> list[SnapshotFacts]:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        SnapshotFacts(
            **{
                "snapshot_id": name,
                "state": "completed",
                "size_gib": 1,
                "tier": "standard",
                "owner_id": "111122223333",
                "volume_id": "vol-0123456789abcdef0",
                "start_time": begin + timedelta(days=number),
                "description": "",
                "tags": {},
                "encrypted": False,
                "kms_key_id": None,
                "full_size_bytes": None,
                "state_message": "",
                **changes,
            }
        )
        for number, name in enumerate(names)
    ]


def test_deleting_a_middle_snapshot_frees_only_what_neither_neighbour_has() -> None:
    maps = [{0: 1, 1: 1, 2: 1}, {0: 1, 1: 2, 2: 2, 3: 5}, {0: 1, 1: 2, 2: 3}]
    counts = counted(named(maps))
    # 0 is shared by all, 1 with the next one, 2 with nobody, 3 is in the middle one alone.
    assert list(counts.frees.values()) == [2, 2, 1]
    report = chain_report(facts(list(named(maps))), counts, region="us-east-1", others=["snap-0000000f"])
    middle = report["snapshots"][1]
    assert (middle["frees_blocks"], middle["frees_bytes"]) == (2, 2 * BLOCK_SIZE)
    # D12 - (S2 - S1) = 2 - (3 - 4): block 3 counts twice and the estimate is 3.
    assert middle["c12_blocks"] == 3
    assert report["other_snapshots"] == ["snap-0000000f"]


def test_a_block_that_changes_and_changes_back_is_stored_three_times() -> None:
    assert list(counted(named([{0: 1}, {0: 2}, {0: 1}])).frees.values()) == [1, 1, 1]


def test_a_gib_that_only_one_snapshot_has_saves_five_cents_a_month() -> None:
    counts = Counts(2048, {"snap-a": 2048, "snap-b": 0}, {("snap-a", "snap-b"): Delta(0, 0, 2048)}, {})
    counts.frees = {"snap-a": 2048, "snap-b": 0}
    rows = chain_report(facts(["snap-a", "snap-b"]), counts, region="us-east-1", others=[])["snapshots"]
    assert (rows[0]["frees_usd_month"], rows[0]["c12_usd_month"]) == (0.05, 0.1)
    assert (rows[1]["frees_usd_month"], rows[1]["c12_usd_month"]) == (0.0, None)


def test_the_predecessors_worked_example_gives_its_dollars() -> None:
    # flexible-snapshot-proxy, Scenarios.md: 2,529,689,420 bytes are $0.13 a month (it took GB of 10^9).
    blocks = round(2_529_689_420 / BLOCK_SIZE)
    delta = Delta(added=100, overwritten=blocks, removed=0)
    assert predecessors_estimate(delta, 1000, 1100) == blocks
    counts = Counts(0, {"snap-a": 1000, "snap-b": 1100}, {("snap-a", "snap-b"): delta}, {"snap-a": 0, "snap-b": 0})
    row = chain_report(facts(["snap-a", "snap-b"]), counts, region="us-east-1", others=[])["snapshots"][0]
    assert row["c12_usd_month"] == pytest.approx(0.13, abs=0.015)


def test_a_chain_is_put_in_order_of_time() -> None:
    older, newer = facts(["snap-2", "snap-1"])
    assert in_order([newer, older]) == ("snap-2", "snap-1")


def test_members_that_name_different_volumes_are_told() -> None:
    members = [facts(["snap-a"])[0], facts(["snap-b"], volume_id="vol-00000000000000001")[0]]
    counts = counted({"snap-a": {}, "snap-b": {}})
    notes = chain_report(members, counts, region="us-east-1", others=[])["notes"]
    assert any("the members name different volumes" in note for note in notes)


def window(**changes: Any) -> Window:
    bits: dict[str, int] = {"added": 0b001, "overwritten": 0b010, "removed": 0b100, **changes}
    lists = {"a": bits.pop("a", 0b1110), "b": bits.pop("b", 0b1011)}
    return Window(lists, {("a", "b"): DeltaBits(**bits)})


def test_lists_that_fit_each_other_are_taken() -> None:
    window().refuse_contradictions(BlockRange(100, 104))


@pytest.mark.parametrize(
    ("wrong", "index"),
    [
        (window(a=0b1111), 100),  # added, but in the first
        (window(b=0b1010), 100),  # added, but not in the second
        (window(a=0b1100), 101),  # overwritten, but not in the first
        (window(b=0b1001), 101),  # overwritten, but not in the second
        (window(a=0b1010), 102),  # removed, but not in the first
        (window(b=0b1111), 102),  # removed, but in the second
        (window(removed=0), 102),  # only in the first, but not changed
        (window(added=0), 100),  # only in the second, but not changed
        (window(a=0b1111, removed=0), 100),  # the first of several
    ],
)
def test_lists_that_contradict_each_other_fail_and_name_the_block(wrong: Window, index: int) -> None:
    with pytest.raises(IncompleteTransfer, match=f"contradicts itself about block {index}:"):
        wrong.refuse_contradictions(BlockRange(100, 104))


def test_a_delta_is_also_held_against_the_one_list_that_there_is() -> None:
    alone = Window({"b": 0b1010}, {("a", "b"): DeltaBits(added=1)})
    with pytest.raises(IncompleteTransfer, match="block 0"):
        alone.refuse_contradictions(BlockRange(0, 4))
    alone = Window({"a": 0b1010}, {("a", "b"): DeltaBits(removed=0b100)})
    with pytest.raises(IncompleteTransfer, match="block 2"):
        alone.refuse_contradictions(BlockRange(0, 4))
    Window({"a": 0b1010}, {("a", "b"): DeltaBits(removed=0b10)}).refuse_contradictions(BlockRange(0, 4))


def test_lists_that_contradict_each_other_end_the_count() -> None:
    class Forgetful(ListedEbs):
        def list_changed_blocks(self, first: str, second: str, **more: Any) -> ChangedPage:
            return ChangedPage((), None)

    held = named([{1: 1}, {1: 1, 5: 1}])
    with pytest.raises(IncompleteTransfer, match="contradicts itself about block 5:"):
        counted(held, ebs=Forgetful(held))


def test_the_fullest_list_of_a_window_is_one_of_blocks_or_of_changes() -> None:
    assert Window({"a": 0b1, "b": 0b111}, {}).fullest == 3
    assert Window({"a": 0b1}, {("a", "b"): DeltaBits(0b1, 0b10, 0b1100)}).fullest == 4
    assert Window({}, {}).fullest == 0


def test_nothing_changes_behind_the_end_of_both_volumes_and_nothing_is_asked_there() -> None:
    held: dict[str, Snapshot] = {"snap-a": {1: 1}, "snap-b": {}}
    ebs = ListedEbs(held)
    lists = Lists(("snap-a",), (("snap-a", "snap-b"),), (), {"snap-a": 8, "snap-b": 8})
    reader = ListReader(cast(EbsDirect, ebs), lists, clock=ManualClock())
    behind = reader.changed(("snap-a", "snap-b"), BlockRange(8, 16))
    assert (behind, behind.any) == (DeltaBits(0, 0, 0), 0)
    assert ebs.asked == 0
    assert reader.changed(("snap-a", "snap-b"), BlockRange(0, 16)) == DeltaBits(0, 0, 0b10)


def test_nothing_is_asked_when_time_is_up() -> None:
    held: dict[str, Snapshot] = {"snap-a": {1: 1}}
    ebs, counts, clock = ListedEbs(held), Counts(), ManualClock()
    lists = Lists(("snap-a",), (), (), {"snap-a": VOLUME})
    deadline = Deadline(1.0, clock=clock)
    clock.advance(2.0)
    count_lists(lists, counts, ListReader(cast(EbsDirect, ebs), lists, clock=clock), deadline=deadline)
    assert (ebs.asked, counts) == (0, Counts())


def test_counting_zeros_ends_where_the_volume_ends() -> None:
    zeros, clock = Zeros(), ManualClock()
    count_zeros(
        "snap-a",
        10,
        zeros,
        cast(EbsDirect, ListedEbs({"snap-a": {}})),
        deadline=Deadline(None, clock=clock),
        clock=clock,
        tuning=Tuning(),
    )
    assert zeros == Zeros(next_index=10, blocks_read=0, zero_blocks=0)


def test_blocks_are_read_at_their_share_of_the_quota() -> None:
    class Readable(ListedEbs):
        def get_block(self, _snapshot_id: str, index: int, _token: str) -> tuple[bytes, bytes]:
            data = content(index % 2)
            return data, digest_of(data)

    zeros, clock = Zeros(), ManualClock()
    ebs = cast(EbsDirect, Readable({"snap-a": dict.fromkeys(range(20), 1)}))
    deadline, tuning = Deadline(None, clock=clock), Tuning(reads_per_second=10.0, read_threads=1)
    began = clock.monotonic()
    count_zeros("snap-a", 20, zeros, ebs, deadline=deadline, clock=clock, tuning=tuning)
    assert zeros == Zeros(next_index=20, blocks_read=20, zero_blocks=10)
    assert clock.monotonic() - began == pytest.approx(1.9)


def test_a_single_delta_needs_no_list_of_its_base() -> None:
    held = {"snap-a": {1: 1, 2: 1, 3: 1}, "snap-b": {1: 1, 2: 2, 9: 1}}
    ebs = ListedEbs(held)
    counts = counted(held, pairs=[("snap-a", "snap-b")], snapshots=["snap-b"], ebs=ebs)
    assert counts.changed == {("snap-a", "snap-b"): Delta(added=1, overwritten=1, removed=1)}
    assert (counts.allocated, counts.frees, ebs.asked) == ({"snap-b": 3}, {}, 2)


def test_a_list_is_not_asked_behind_the_end_of_a_smaller_volume() -> None:
    held: dict[str, Snapshot] = {"snap-a": {1: 1}, "snap-b": {1: 1, 63: 1}}
    asked: list[tuple[str, int]] = []

    class Watched(ListedEbs):
        def list_blocks(self, snapshot_id: str, **more: Any) -> Page:
            asked.append((snapshot_id, more["start"]))
            return super().list_blocks(snapshot_id, **more)

    short = Tuning(page=8, pages_per_window=1)
    lists = Lists(("snap-a", "snap-b"), (("snap-a", "snap-b"),), (), {"snap-a": 8, "snap-b": VOLUME}, short)
    counts, clock = Counts(), ManualClock()
    reader = ListReader(cast(EbsDirect, Watched(held)), lists, clock=clock)
    count_lists(lists, counts, reader, deadline=Deadline(None, clock=clock))
    assert counts.allocated == {"snap-a": 1, "snap-b": 2}
    assert [start for name, start in asked if name == "snap-a"] == [0]
    assert [start for name, start in asked if name == "snap-b"][-1] > 8


@pytest.mark.parametrize(("lists", "pages"), [(1, 16), (2, 8), (16, 1), (199, 1)])
def test_a_window_is_shorter_the_more_lists_there_are(lists: int, pages: int) -> None:
    names = tuple(f"snap-{n}" for n in range(lists))
    assert Lists(names, (), (), {}).window == pages * 10_000


def test_a_window_grows_where_little_is_allocated_and_shrinks_where_it_is_full() -> None:
    lists = Lists(("snap-a", "snap-b"), (("snap-a", "snap-b"),), (), {})
    assert lists.window == 50_000
    assert lists.next_window(50_000, fullest=50_000) == 50_000
    assert lists.next_window(50_000, fullest=100) == 100_000
    assert lists.next_window(100_000, fullest=30_000) == 100_000
    assert lists.next_window(100_000, fullest=60_000) == 50_000
    assert lists.next_window(200_000, fullest=60_000) == 100_000
    assert lists.next_window(100_000, fullest=50_000) == 100_000
    assert lists.next_window(50_000, fullest=25_000) == 50_000
    assert lists.next_window(50_000, fullest=24_999) == 100_000
    length = 50_000
    for _ in range(40):
        length = lists.next_window(length, fullest=0)
    # Three bitmaps at most for each of three lists of five windows.
    assert length * 3 * 3 * 5 / 8 <= lists.tuning.bitmap_bytes < length * 3 * 3 * 5 / 8 + 10


def test_a_sparse_volume_of_64_tib_takes_few_requests() -> None:
    held: dict[str, Snapshot] = {"snap-a": dict.fromkeys(range(0, 134_217_728, 500_000), 1)}
    ebs, counts, clock = ListedEbs(held, page=10_000), Counts(), ManualClock()
    lists = Lists(("snap-a",), (), (), {"snap-a": 134_217_728})
    count_lists(
        lists,
        counts,
        ListReader(cast(EbsDirect, ebs), lists, clock=clock),
        deadline=Deadline(None, clock=clock),
    )
    assert (counts.allocated, counts.next_index) == ({"snap-a": 269}, 134_217_728)
    assert ebs.asked < 100


def test_each_list_operation_keeps_to_its_own_half_of_the_quota() -> None:
    held: dict[str, Snapshot] = {"snap-a": {}, "snap-b": {}}
    clock = ManualClock()
    lists = Lists(tuple(held), (), (), dict.fromkeys(held, VOLUME))
    reader = ListReader(cast(EbsDirect, ListedEbs(held)), lists, clock=clock)
    ask: list[Callable[[], object]] = [
        lambda: reader.allocated("snap-a", BlockRange(0, VOLUME)),
        lambda: reader.changed(("snap-a", "snap-b"), BlockRange(0, VOLUME)),
    ]
    # 100 of each at 25 a second; side by side, not one after the other.
    for calls in (ask[:1], ask[1:], ask):
        clock.advance(10.0)
        began = clock.monotonic()
        for _ in range(100):
            for call in calls:
                call()
        # What was left over when nobody asked may be caught up on.
        assert clock.monotonic() - began == pytest.approx(99 / 25 - 1.0, abs=0.05)


def test_an_error_of_a_list_ends_the_count_with_that_error() -> None:
    class Broken(ListedEbs):
        def list_blocks(self, snapshot_id: str, **more: Any) -> Page:
            raise IncompleteTransfer(f"{snapshot_id} is broken")

    with pytest.raises(IncompleteTransfer, match="snap-00000000 is broken") as told:
        counted(named([{}, {}]), ebs=Broken(named([{}, {}])))
    # Their pool is still there, as the error knows where it was raised.
    assert told.tb is not None
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("list")] == []


def test_the_digest_that_zeros_are_known_by_is_that_of_a_block_of_zeros() -> None:
    assert ZERO_DIGEST.hex()[:8] == "07854d2f"
