from __future__ import annotations

import pytest
from blockferry.core.pacing import Pace, growing
from blockferry.core.retry import Attempts, Deadline, RetryPolicy
from fakes import ManualClock


def test_delays_double_up_to_the_cap_and_end_with_the_budget() -> None:
    clock = ManualClock()
    policy = RetryPolicy(budget_seconds=10, first_delay_seconds=1, max_delay_seconds=3, max_attempts=100)
    attempts = Attempts(policy, clock=clock, deadline=Deadline(None, clock=clock))
    while attempts.pause():
        pass
    assert clock.slept == [1, 2, 3, 3]
    assert not attempts.out_of_time


def test_jitter_is_full() -> None:
    clock = ManualClock()
    asked: list[tuple[float, float]] = []
    clock.uniform = lambda low, high: asked.append((low, high)) or 0.0  # type: ignore[func-returns-value]
    attempts = Attempts(RetryPolicy(), clock=clock, deadline=Deadline(None, clock=clock))
    attempts.pause()
    attempts.pause()
    assert asked == [(0.0, 0.1), (0.0, 0.2)]


def test_the_default_budget_outlasts_the_two_minutes_in_which_a_new_snapshot_may_be_unknown() -> None:
    clock = ManualClock()
    attempts = Attempts(RetryPolicy(), clock=clock, deadline=Deadline(None, clock=clock))
    while attempts.pause():
        pass
    assert 120 <= sum(clock.slept) <= 130


def test_a_deadline_ends_the_attempts_as_unfinished_not_as_failed() -> None:
    clock = ManualClock()
    attempts = Attempts(RetryPolicy(first_delay_seconds=2), clock=clock, deadline=Deadline(1.0, clock=clock))
    assert not attempts.pause()
    assert attempts.out_of_time
    assert clock.slept == []


def test_attempts_are_bounded_in_number() -> None:
    clock = ManualClock()
    clock.uniform = lambda _low, _high: 0.0
    attempts = Attempts(RetryPolicy(max_attempts=5), clock=clock, deadline=Deadline(None, clock=clock))
    while attempts.pause():
        pass
    assert attempts.failed == 5


@pytest.mark.parametrize(("budget", "slept"), [(3.0, [1.0]), (3.1, [1.0, 2.0])])
def test_an_attempt_that_could_only_begin_when_the_budget_ends_is_not_made(budget: float, slept: list[float]) -> None:
    clock = ManualClock()
    policy = RetryPolicy(budget_seconds=budget, first_delay_seconds=1, max_delay_seconds=2)
    attempts = Attempts(policy, clock=clock, deadline=Deadline(None, clock=clock))
    while attempts.pause():
        pass
    assert clock.slept == slept
    assert not attempts.out_of_time


@pytest.mark.parametrize(("seconds", "left"), [(2.0, False), (2.1, True)])
def test_an_attempt_that_could_only_begin_at_the_deadline_is_left_to_the_next_invocation(
    seconds: float, left: bool
) -> None:
    clock = ManualClock()
    policy = RetryPolicy(first_delay_seconds=2)
    attempts = Attempts(policy, clock=clock, deadline=Deadline(seconds, clock=clock))
    assert attempts.pause() is left
    assert attempts.out_of_time is not left


def test_by_default_no_delay_is_longer_than_eight_seconds_however_many_came_before() -> None:
    policy = RetryPolicy()
    assert [policy.delay_ceiling(attempt) for attempt in (1, 2, 3, 7, 8, 5_000)] == [0.1, 0.2, 0.4, 6.4, 8.0, 8.0]


def test_a_long_budget_may_have_delays_of_hours() -> None:
    policy = RetryPolicy(first_delay_seconds=1, max_delay_seconds=1e12)
    assert policy.delay_ceiling(31) == 2.0**30
    assert policy.delay_ceiling(32) == 2.0**30
    assert policy.delay_ceiling(5_000) == 2.0**30


def test_by_default_forty_attempts_are_enough_whatever_the_jitter() -> None:
    clock = ManualClock()
    clock.uniform = lambda _low, _high: 0.0
    attempts = Attempts(RetryPolicy(), clock=clock, deadline=Deadline(None, clock=clock))
    while attempts.pause():
        pass
    assert attempts.failed == 40


def test_a_deadline_has_passed_at_its_moment_and_none_never_passes() -> None:
    clock = ManualClock()
    deadline, none = Deadline(5, clock=clock), Deadline(None, clock=clock)
    clock.advance(4)
    assert (deadline.remaining(), deadline.passed()) == (1, False)
    clock.advance(1)
    assert (deadline.remaining(), deadline.passed()) == (0, True)
    clock.advance(1e9)
    assert (none.remaining(), none.passed()) == (float("inf"), False)


def test_a_share_lets_calls_through_evenly() -> None:
    clock = ManualClock()
    pace = Pace(10, clock=clock)
    for _ in range(21):
        pace.take()
    assert clock.now - 1_000 == pytest.approx(2.0)


def test_time_lost_to_a_slow_answer_is_caught_up_only_for_a_second() -> None:
    clock = ManualClock()
    pace = Pace(10, clock=clock)
    pace.take()
    clock.advance(60)
    free = 0
    while True:
        before = clock.now
        pace.take()
        if clock.now > before:
            break
        free += 1
    assert 10 <= free <= 11


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Pace(0, clock=ManualClock())


def test_pauses_grow_by_a_tenth_up_to_the_longest() -> None:
    pauses = growing(0.2, longest=0.25)
    assert [next(pauses) for _ in range(5)] == pytest.approx([0.2, 0.22, 0.242, 0.25, 0.25])
    assert next(growing(3.0, longest=1.0)) == 1.0
