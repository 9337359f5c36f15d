"""Whoever cannot be reached comes after all others."""

from __future__ import annotations

import pytest
from blockferry.transfer.turns import in_turn

REGIONS = "aabbacca"


@pytest.mark.parametrize(
    ("silent", "turns", "order", "untried"),
    [
        ("", 0, [0, 1, 2, 3, 4, 5, 6, 7], []),
        ("a", 9, [0, 2, 3, 5, 6, 1, 4, 7], []),
        ("a", 2, [0, 2, 3, 5, 6, 1, 4], [7]),
        ("a", 0, [0, 2, 3, 5, 6], [1, 4, 7]),
        ("ac", 9, [0, 2, 3, 5, 1, 4, 6, 7], []),
        ("abc", 1, [0, 2, 5, 1], [3, 4, 6, 7]),
    ],
)
def test_the_rest_of_a_silent_region_comes_last_and_as_long_as_there_is_time(
    silent: str, turns: int, order: list[int], untried: list[int]
) -> None:
    tried: list[int] = []
    left = iter([True] * turns + [False] * 9)

    def attempt(number: int) -> bool:
        tried.append(number)
        return REGIONS[number] not in silent

    assert in_turn(range(8), region=REGIONS.__getitem__, attempt=attempt, time_left=lambda: next(left)) == untried
    assert tried == order
