"""Which runs a moved clock brings about.

Expectations: EventBridge Scheduler user guide, "Schedule types" (first run of a rate), "Flexible time windows"; API
reference, CreateSchedule (StartDate, EndDate, State, ActionAfterCompletion); EventBridge user guide, "Creating a rule
that runs on a schedule".
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from localcloud.ebs.clock import ManualClock
from localcloud.events.expressions import parse
from localcloud.events.timetable import Timed, Timetable, TooManyRuns

HOUR = 3600.0
BEGIN = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""


class Plan:
    """One timed thing, a clock, and the hours (since ``BEGIN``) of its runs."""

    def __init__(self, expression: str, **more: object) -> None:
        self.clock = ManualClock(BEGIN)
        self.runs: list[float] = []
        self.finished = 0
        timed = Timed(
            key="k",
            version=1,
            expression=parse(expression),
            anchor=BEGIN,
            first=True,
            enabled=True,
            run=lambda due: self.runs.append((due - BEGIN) / HOUR),
            finish=self._finish,
        )
        self.timed: list[Timed] = [replace(timed, **more)]  # type: ignore[arg-type]
        self.table = Timetable(self.clock, lambda: self.timed)
        self.table.run_due()

    def _finish(self) -> None:
        self.finished += 1
        self.timed.clear()

    def change(self, **changes: object) -> None:
        self.timed[0] = replace(self.timed[0], **changes)  # type: ignore[arg-type]

    def advance(self, hours: float) -> list[float]:
        self.runs.clear()
        self.clock.advance(hours * HOUR)
        self.table.run_due()
        return self.runs


def test_an_hourly_schedule_runs_at_once_and_25_times_in_25_hours() -> None:
    plan = Plan("rate(1 hour)")

    assert plan.runs == [0.0]
    assert plan.advance(25) == [float(hour) for hour in range(1, 26)]
    assert plan.advance(0.5) == []
    assert plan.advance(0.5) == [26.0]


def test_a_rule_first_runs_one_interval_after_its_creation() -> None:
    plan = Plan("rate(1 hour)", first=False)

    assert plan.runs == []
    assert plan.advance(2) == [1.0, 2.0]


def test_standing_time_runs_nothing_twice() -> None:
    plan = Plan("rate(1 hour)")

    assert plan.advance(0) == []


def test_the_start_date_is_a_rates_first_run() -> None:
    plan = Plan("rate(6 hours)", start=BEGIN + 10 * HOUR)

    assert plan.runs == []
    assert plan.advance(24) == [10.0, 16.0, 22.0]


def test_nothing_runs_before_start_or_from_the_end_on() -> None:
    plan = Plan("cron(0 * * * ? *)", start=BEGIN + 2.5 * HOUR, end=BEGIN + 5 * HOUR)

    assert plan.advance(24) == [3.0, 4.0]


def test_a_recurring_schedule_is_complete_at_its_end() -> None:
    plan = Plan("rate(1 hour)", end=BEGIN + 3 * HOUR)

    assert plan.advance(2.9) == [1.0, 2.0]
    assert plan.finished == 0
    assert plan.advance(0.1) == []
    assert plan.finished == 1


def test_a_one_time_schedule_runs_once_whatever_its_dates_and_is_complete() -> None:
    plan = Plan("at(2026-01-01T05:00:00)", end=BEGIN + HOUR)

    assert plan.advance(24) == [5.0]
    assert plan.finished == 1
    assert plan.advance(24) == []


def test_what_was_due_while_disabled_is_not_made_up_for() -> None:
    plan = Plan("cron(0 * * * ? *)", enabled=False)
    assert plan.advance(5.5) == []

    plan.change(enabled=True)

    assert plan.advance(1) == [6.0]


def test_a_changed_schedule_begins_anew() -> None:
    plan = Plan("rate(1 hour)")
    plan.advance(1.5)

    plan.change(version=2, anchor=plan.clock.now(), expression=parse("rate(2 hours)"))

    assert plan.advance(4.5) == [1.5, 3.5, 5.5]


def test_a_flexible_window_moves_runs_within_it_and_loses_none() -> None:
    whole, steps = (Plan("cron(0 * * * ? *)", window_seconds=15 * 60.0, anchor=BEGIN + 1) for _ in range(2))

    at_once = list(whole.advance(48.5))
    in_steps = [run for _ in range(485) for run in list(steps.advance(0.1))]

    assert len(at_once) == 48
    assert all(hour <= run <= hour + 0.25 for hour, run in enumerate(at_once, 1))
    assert len({round(run % 1, 6) for run in at_once}) > 10
    assert [round(run, 6) for run in in_steps] == [round(run, 6) for run in at_once]


def test_runs_of_several_come_in_the_order_of_their_times() -> None:
    plan = Plan("cron(0 * * * ? *)", anchor=BEGIN + 1)
    plan.timed.append(replace(plan.timed[0], key="other", expression=parse("cron(30 * * * ? *)")))

    assert plan.advance(2) == [0.5, 1.0, 1.5, 2.0]


def test_moving_the_clock_by_too_much_is_refused() -> None:
    plan = Plan("rate(1 minute)")

    plan.table.check(6 * 24 * HOUR)
    with pytest.raises(TooManyRuns):
        plan.table.check(8 * 24 * HOUR)
