from __future__ import annotations

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.digests import Coverage, Stretch, joined, pack, unpack
from hypothesis import given
from hypothesis import strategies as st


def digest(seed: int) -> bytes:
    return seed.to_bytes(32, "big")


def stretch(first: int, stop: int, *indices: int, seed: int = 0, targets: tuple[int, ...] = (0,)) -> Stretch:
    return Stretch(
        first, stop, targets, tuple((i, digest(i + seed)) for i in indices), {"GetSnapshotBlock": len(indices)}, {}
    )


@given(st.sets(st.integers(0, 2**27 - 1), max_size=50))
def test_a_stretch_survives_its_object(indices: set[int]) -> None:
    whole = stretch(0, 2**27, *sorted(indices))
    assert unpack(pack(whole), name="x") == whole


def test_the_object_of_a_stretch_is_a_line_of_json_and_36_bytes_for_each_block() -> None:
    whole = Stretch(
        3,
        9,
        (0, 2),
        ((3, digest(5)), (8, digest(6))),
        {"b": 2, "a": 1},
        {"d": 4, "c": 3},
        parent_blocks=7,
        gb_seconds=1.5,
    )
    data = (
        b'{"format": "blockferry-digests-1", "first": 3, "stop": 9, "targets": [0, 2], "blocks": 2, '
        b'"requests": {"a": 1, "b": 2}, "retries": {"c": 3, "d": 4}, "parent_blocks": 7, "gb_seconds": 1.5}\n'
        b"\x00\x00\x00\x03" + digest(5) + b"\x00\x00\x00\x08" + digest(6)
    )
    assert pack(whole) == data
    assert unpack(data, name="x") == whole


def test_a_stretch_that_was_not_compared_with_parents_says_so() -> None:
    assert b'"parent_blocks": 0, "gb_seconds": 0.0}' in pack(Stretch(0, 1, (0,), (), {}, {}))


@pytest.mark.parametrize("index", [2, 9])
def test_a_block_just_outside_of_its_stretch_is_damage(index: int) -> None:
    with pytest.raises(IncompleteTransfer, match=f"block {index} is out of order or range"):
        unpack(pack(stretch(3, 9, index)), name="x")


@pytest.mark.parametrize("data", [b"{}\n", b"[]\n", b"3\n", b"\xff\n", pack(stretch(0, 10)).rstrip(b"\n")])
def test_an_object_that_is_cut_off_or_something_else_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(IncompleteTransfer, match=r"digest object s3://b/k is damaged"):
        unpack(data, name="s3://b/k")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"blockferry-digests-1", b"blockferry-digests-9"),
        lambda data: b"",
        lambda data: data.replace(b'"blocks": 2', b'"blocks": 1'),
        lambda data: data[:-36] + data[-72:-36],
    ],
)
def test_a_damaged_object_is_refused_by_name(damage) -> None:  # type: ignore[no-untyped-def]
    data = pack(stretch(0, 10, 3, 4))
    with pytest.raises(IncompleteTransfer, match=r"s3://b/k is damaged"):
        unpack(damage(data), name="s3://b/k")


def test_a_block_outside_of_its_stretch_is_damage() -> None:
    with pytest.raises(IncompleteTransfer, match="block 12 is out of order or range"):
        unpack(pack(stretch(0, 10, 12)), name="x")


def test_stretches_that_tile_the_volume_are_passed_on_in_order() -> None:
    parts = [stretch(0, 10, 1, 9), stretch(10, 15), stretch(15, 20, 15)]
    assert list(joined(parts, BlockRange(0, 20))) == parts


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), max_size=20))
def test_repeated_and_overlapping_stretches_give_every_block_once(runs: list[tuple[int, int]]) -> None:
    total, held = 50, set(range(0, 50, 3))
    pieces = [(0, 50), *((first, min(first + length, total)) for first, length in runs)]
    parts = [stretch(a, b, *sorted(held & set(range(a, b)))) for a, b in sorted(pieces)]
    out = list(joined(parts, BlockRange(0, total)))
    assert [entry for part in out for entry in part.digests] == [(i, digest(i)) for i in sorted(held)]
    assert sum(part.requests["GetSnapshotBlock"] for part in out) == sum(len(part.digests) for part in parts)


def test_a_gap_is_named() -> None:
    with pytest.raises(IncompleteTransfer, match="blocks 10 to 14"):
        list(joined([stretch(0, 10), stretch(15, 20)], BlockRange(0, 20)))


@pytest.mark.parametrize("parts", [[], [stretch(0, 10)]])
def test_a_missing_end_is_named(parts: list[Stretch]) -> None:
    with pytest.raises(IncompleteTransfer, match=r"no digests for blocks \d+ to 19: they were not moved"):
        list(joined(parts, BlockRange(0, 20)))


def test_two_runs_that_read_different_content_are_not_trusted() -> None:
    with pytest.raises(IncompleteTransfer, match="different content for block 6"):
        list(joined([stretch(0, 10, 6), stretch(5, 20, 6, seed=1)], BlockRange(0, 20)))


def test_two_runs_that_disagree_on_what_is_allocated_are_not_trusted() -> None:
    with pytest.raises(IncompleteTransfer, match="different content for block 7"):
        list(joined([stretch(0, 10, 6, 7), stretch(5, 20, 6)], BlockRange(0, 20)))


def test_the_first_block_on_which_two_runs_disagree_is_named() -> None:
    with pytest.raises(IncompleteTransfer, match="different content for block 6"):
        list(joined([stretch(0, 10, 6, 8), stretch(5, 20, 6, 8, seed=1)], BlockRange(0, 20)))


def test_stretches_that_only_touch_are_not_compared() -> None:
    parts = [stretch(0, 10, 9), stretch(10, 20, 10)]
    assert [part.digests for part in joined(parts, BlockRange(0, 20))] == [((9, digest(9)),), ((10, digest(10)),)]


def test_a_run_that_went_further_than_the_one_before_brings_only_what_is_new() -> None:
    parts = list(joined([stretch(0, 10, 1, 9), stretch(5, 20, 9, 10)], BlockRange(0, 20)))
    assert [(part.first, part.stop, part.digests) for part in parts] == [
        (0, 10, ((1, digest(1)), (9, digest(9)))),
        (10, 20, ((10, digest(10)),)),
    ]


def test_a_repeated_run_brings_nothing_but_its_requests() -> None:
    _, again = joined([stretch(0, 20, 1, 9), stretch(5, 15, 9)], BlockRange(0, 20))
    assert (again.first, again.stop, again.digests, again.requests) == (20, 20, (), {"GetSnapshotBlock": 1})


def test_a_range_need_not_begin_with_the_volume() -> None:
    parts = [stretch(10, 12, 11), stretch(12, 20)]
    assert list(joined(parts, BlockRange(10, 20))) == parts
    with pytest.raises(IncompleteTransfer, match="no digests for blocks 10 to 11"):
        list(joined(parts[1:], BlockRange(10, 20)))


def test_more_blocks_than_the_volume_has_are_as_wrong_as_fewer() -> None:
    with pytest.raises(IncompleteTransfer, match="end at block 21 of a range that ends at 20"):
        list(joined([stretch(0, 21)], BlockRange(0, 20)))


def test_a_target_that_every_stretch_names_misses_nothing() -> None:
    coverage = Coverage(targets=2, total_blocks=20)
    for part in (stretch(0, 10, targets=(0, 1)), stretch(10, 20, targets=(0,)), stretch(10, 20, targets=(1,))):
        coverage.add(part.first, part.stop, part.targets)
    assert coverage.missing(0) == coverage.missing(1) == []
    assert coverage.missing_by_range(7) == []


def test_what_a_target_misses_is_cut_into_ranges_with_the_targets_that_miss_them() -> None:
    coverage = Coverage(targets=3, total_blocks=30)
    for part in (
        stretch(0, 10, targets=(0,)),
        stretch(0, 10, targets=(1,)),
        stretch(10, 20, targets=(0,)),
        stretch(20, 30, targets=(0, 1)),
    ):
        coverage.add(part.first, part.stop, part.targets)
    assert coverage.missing(1) == [BlockRange(10, 20)]
    assert coverage.missing(2) == [BlockRange(0, 30)]
    assert coverage.missing_by_range(10) == [
        (BlockRange(0, 10), (2,)),
        (BlockRange(10, 20), (1, 2)),
        (BlockRange(20, 30), (2,)),
    ]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.sets(st.integers(0, 2))), max_size=15))
def test_what_is_missing_is_exactly_what_no_stretch_brought(runs: list[tuple[int, int, set[int]]]) -> None:
    total, coverage = 50, Coverage(targets=3, total_blocks=50)
    held: list[set[int]] = [set(), set(), set()]
    for first, length, targets in sorted(runs, key=lambda run: run[0]):
        stop = min(first + length, total)
        coverage.add(first, stop, targets)
        for target in targets:
            held[target] |= set(range(first, stop))
    planned: list[set[int]] = [set(), set(), set()]
    pieces = coverage.missing_by_range(8)
    # No two workers are in a range of the plan at a time.
    assert len({piece.first // 8 for piece, _ in pieces}) == len(pieces)
    for piece, targets_missing in pieces:
        assert piece.first // 8 == (piece.stop - 1) // 8
        for target in targets_missing:
            planned[target] |= set(range(piece.first, piece.stop))
    missing = [set(range(total)) - blocks for blocks in held]
    assert all(those <= moved for those, moved in zip(missing, planned, strict=True))
    # Each end of a piece, and each of its targets, is there for something that is missing.
    for piece, targets_missing in pieces:
        assert {piece.first, piece.stop - 1} <= set().union(*(missing[target] for target in targets_missing))
        assert all(missing[target] & set(range(piece.first, piece.stop)) for target in targets_missing)
