from __future__ import annotations

import pytest
from blockferry.blocks import BlockRange
from blockferry.digests import Coverage, Stretch, joined, pack, unpack
from blockferry.errors import IncompleteTransfer
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
    assert list(joined(parts, total_blocks=20)) == parts


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), max_size=20))
def test_repeated_and_overlapping_stretches_give_every_block_once(runs: list[tuple[int, int]]) -> None:
    total, held = 50, set(range(0, 50, 3))
    pieces = [(0, 50), *((first, min(first + length, total)) for first, length in runs)]
    parts = [stretch(a, b, *sorted(held & set(range(a, b)))) for a, b in sorted(pieces)]
    out = list(joined(parts, total_blocks=total))
    assert [entry for part in out for entry in part.digests] == [(i, digest(i)) for i in sorted(held)]
    assert sum(part.requests["GetSnapshotBlock"] for part in out) == sum(len(part.digests) for part in parts)


def test_a_gap_is_named() -> None:
    with pytest.raises(IncompleteTransfer, match="blocks 10 to 14"):
        list(joined([stretch(0, 10), stretch(15, 20)], total_blocks=20))


@pytest.mark.parametrize("parts", [[], [stretch(0, 10)]])
def test_a_missing_end_is_named(parts: list[Stretch]) -> None:
    with pytest.raises(IncompleteTransfer, match="of 20"):
        list(joined(parts, total_blocks=20))


def test_two_runs_that_read_different_content_are_not_trusted() -> None:
    with pytest.raises(IncompleteTransfer, match="different content for block 6"):
        list(joined([stretch(0, 10, 6), stretch(5, 20, 6, seed=1)], total_blocks=20))


def test_two_runs_that_disagree_on_what_is_allocated_are_not_trusted() -> None:
    with pytest.raises(IncompleteTransfer, match="different content for block 7"):
        list(joined([stretch(0, 10, 6, 7), stretch(5, 20, 6)], total_blocks=20))


def test_a_target_that_every_stretch_names_misses_nothing() -> None:
    coverage = Coverage(targets=2, total_blocks=20)
    for part in (stretch(0, 10, targets=(0, 1)), stretch(10, 20, targets=(0,)), stretch(10, 20, targets=(1,))):
        coverage.add(part)
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
        coverage.add(part)
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
        coverage.add(stretch(first, stop, targets=tuple(sorted(targets))))
        for target in targets:
            held[target] |= set(range(first, stop))
    planned: list[set[int]] = [set(), set(), set()]
    for piece, targets_missing in coverage.missing_by_range(8):
        assert piece.first // 8 == (piece.stop - 1) // 8
        for target in targets_missing:
            planned[target] |= set(range(piece.first, piece.stop))
    assert planned == [set(range(total)) - blocks for blocks in held]
