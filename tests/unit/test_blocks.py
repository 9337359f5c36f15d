from __future__ import annotations

import pytest
from blockferry.core.blocks import BLOCKS_PER_GIB, MAX_RANGES, BlockRange, blocks_of_volume, blocks_per_range, split
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 20_000), st.integers(1, 10_000))
def test_ranges_cover_every_block_once_in_order(total: int, length: int) -> None:
    due = 0
    for part in split(total, length):
        assert part.first == due
        assert 1 <= len(part) <= length
        due = part.stop
    assert due == total


def test_a_64_tib_volume_is_planned_without_a_list_and_in_a_countable_number_of_ranges() -> None:
    total = blocks_of_volume(65_536)
    assert total == 134_217_728
    length = blocks_per_range(total, 4_096)
    assert sum(1 for _ in split(total, length)) <= MAX_RANGES


def test_the_range_length_asked_for_is_kept_where_the_volume_allows_it() -> None:
    assert blocks_per_range(16_384 * BLOCKS_PER_GIB, 4_096) == 4_096
    assert blocks_per_range(2 * BLOCKS_PER_GIB, 64) == 64


@pytest.mark.parametrize("size", [0, -1, 65_537])
def test_a_volume_size_that_ebs_does_not_know_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"1 to 65536 GiB"):
        blocks_of_volume(size)


def test_what_is_left_of_a_range_starts_at_the_next_index_and_ends_with_the_range() -> None:
    part = BlockRange(10, 20)
    assert part.after(10) == part
    assert part.after(15) == BlockRange(15, 20)
    assert part.after(20) is None
    assert 10 in part
    assert 20 not in part


def test_what_of_a_range_lies_before_an_index_ends_there_or_with_the_range() -> None:
    part = BlockRange(10, 20)
    assert part.before(10) is None
    assert part.before(11) == BlockRange(10, 11)
    assert part.before(19) == BlockRange(10, 19)
    assert part.before(20) == part.before(99) == part
    assert part.after(9) == part
    assert part.after(19) == BlockRange(19, 20)


def test_a_range_holds_its_first_block_and_not_its_stop() -> None:
    part = BlockRange(10, 20)
    assert [index for index in range(30) if index in part] == list(range(10, 20))
    assert "15" not in part
    assert len(part) == 10
    assert BlockRange(0, 1).first == 0


def test_a_gibibyte_has_2048_blocks() -> None:
    assert blocks_of_volume(1) == 2_048


def test_ranges_become_longer_only_where_there_would_be_more_than_ten_thousand() -> None:
    assert blocks_per_range(10_000 * 64, 64) == 64
    assert blocks_per_range(10_000 * 64 + 1, 64) == 65


@pytest.mark.parametrize(("total", "length"), [(0, 1), (1, 0)])
def test_nothing_cannot_be_split(total: int, length: int) -> None:
    with pytest.raises(ValueError, match="nothing to split"):
        list(split(total, length))


@pytest.mark.parametrize(("first", "stop"), [(5, 5), (6, 5), (-1, 5)])
def test_an_empty_or_negative_range_cannot_be_made(first: int, stop: int) -> None:
    with pytest.raises(ValueError, match="first < stop"):
        BlockRange(first, stop)
