from __future__ import annotations

import pytest
from blockferry.digests import Stretch, joined, pack, unpack
from blockferry.errors import IncompleteTransfer
from hypothesis import given
from hypothesis import strategies as st


def digest(seed: int) -> bytes:
    return seed.to_bytes(32, "big")


def stretch(first: int, stop: int, *indices: int, seed: int = 0) -> Stretch:
    return Stretch(first, stop, tuple((i, digest(i + seed)) for i in indices), {"GetSnapshotBlock": len(indices)}, {})


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
