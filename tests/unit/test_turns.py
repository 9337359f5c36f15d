"""Whoever cannot be reached comes after all others."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from blockferry.transfer.turns import in_turn, side_by_side

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


PATIENCE_SECONDS = 5.0
"""Until an attempt that waits for another one gives up, and its test with it."""


@pytest.mark.parametrize(
    ("silent", "time", "tried", "untried"),
    [
        ("", True, {"a": 3, "b": 2, "c": 2, "d": 1}, []),
        ("a", True, {"a": 2, "b": 2, "c": 2, "d": 1}, [7]),
        ("a", False, {"a": 1, "b": 2, "c": 2, "d": 1}, [1, 7]),
        ("ac", True, {"a": 2, "b": 2, "c": 2, "d": 1}, [7]),
        ("abcd", False, {"a": 1, "b": 1, "c": 1, "d": 1}, [1, 3, 6, 7]),
    ],
)
def test_a_region_is_taken_for_dead_after_two_attempts(
    silent: str, time: bool, tried: dict[str, int], untried: list[int]
) -> None:
    regions, lock, made = "aabbcdca", threading.Lock(), Counter[str]()

    def attempt(number: int) -> bool:
        with lock:
            made[regions[number]] += 1
        return regions[number] not in silent

    left = side_by_side(range(8), region=regions.__getitem__, attempt=attempt, time_left=lambda: time, most=3)
    assert left == untried
    assert made == tried


def test_a_region_that_fails_once_has_all_its_turns() -> None:
    tried: list[int] = []

    def attempt(number: int) -> bool:
        tried.append(number)
        return number != 0

    assert side_by_side(range(5), region=lambda _: "a", attempt=attempt, time_left=lambda: True, most=1) == []
    assert tried == [0, 1, 2, 3, 4]


def test_a_region_that_is_slow_to_fail_holds_up_none_of_the_others() -> None:
    regions, others = "a" * 25 + "bcdb", threading.Barrier(2, timeout=PATIENCE_SECONDS)
    lock, done, tried = threading.Lock(), set[int](), Counter[str]()

    def attempt(number: int) -> bool:
        with lock:
            tried[regions[number]] += 1
        if regions[number] == "a":
            if tried["a"] == 1:
                others.wait()
            return False
        with lock:
            done.add(number)
            last = len(done) == 4
        if last:
            others.wait()
        return True

    left = side_by_side(range(29), region=regions.__getitem__, attempt=attempt, time_left=lambda: True, most=4)
    assert left == list(range(2, 25))
    assert tried == {"a": 2, "b": 2, "c": 1, "d": 1}


def test_what_is_refused_is_raised_when_all_under_way_has_ended_and_nothing_more_is_begun() -> None:
    ended: list[int] = []
    refused = threading.Event()

    def attempt(number: int) -> bool:
        if number == 0:
            refused.set()
            raise ValueError("no")
        assert refused.wait(PATIENCE_SECONDS)
        ended.append(number)
        return number != 3

    with pytest.raises(ValueError, match="no"):
        side_by_side(range(8), region="aaaabbbb".__getitem__, attempt=attempt, time_left=lambda: True, most=2)
    assert ended[0] == 4
    assert not {1, 2, 3} & set(ended)
