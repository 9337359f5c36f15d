"""When schedule expressions are due.

Expectations: EventBridge Scheduler user guide, "Schedule types" (with "Daylight savings time"); EventBridge user
guide, "Cron and rate expressions".
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from localcloud.events.expressions import BadExpression, parse

NEW_YORK = ZoneInfo("America/New_York")


def moment(text: str, zone: ZoneInfo | None = None) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()


def times(expression: str, after: str, count: int, zone: ZoneInfo | None = None) -> list[str]:
    """The next times in UTC."""
    found = itertools.islice(parse(expression, zone=zone).after(moment(after), anchor=moment(after)), count)
    return [datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%dT%H:%M") for each in found]


def test_a_rate_counts_from_its_anchor_and_not_from_when_one_looks() -> None:
    anchor = moment("2026-01-01T00:10")

    due = parse("rate(1 hour)").after(moment("2026-01-01T05:30"), anchor=anchor)

    assert next(due) == moment("2026-01-01T06:10")
    assert next(due) == moment("2026-01-01T07:10")


def test_a_day_of_a_rate_is_24_hours_when_clocks_change() -> None:
    found = times("rate(1 day)", "2026-03-07T12:00", 2, NEW_YORK)

    assert found == ["2026-03-07T12:00", "2026-03-08T12:00"] or found == ["2026-03-08T12:00", "2026-03-09T12:00"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cron(15 10 * * ? *)", ["2026-01-30T10:15", "2026-01-31T10:15", "2026-02-01T10:15"]),
        ("cron(0/15 8 ? * MON-FRI *)", ["2026-01-30T08:00", "2026-01-30T08:15", "2026-01-30T08:30"]),
        ("cron(0 8 L * ? *)", ["2026-01-31T08:00", "2026-02-28T08:00", "2026-03-31T08:00"]),
        ("cron(0 8 LW * ? *)", ["2026-01-30T08:00", "2026-02-27T08:00", "2026-03-31T08:00"]),
        ("cron(0 8 1W * ? *)", ["2026-02-02T08:00", "2026-03-02T08:00", "2026-04-01T08:00"]),
        ("cron(0 8 ? * 2#1 *)", ["2026-02-02T08:00", "2026-03-02T08:00", "2026-04-06T08:00"]),
        ("cron(0 8 ? * 6L *)", ["2026-01-30T08:00", "2026-02-27T08:00", "2026-03-27T08:00"]),
        ("cron(30 6 29 FEB ? *)", ["2028-02-29T06:30", "2032-02-29T06:30", "2036-02-29T06:30"]),
        ("cron(0 0 1 1 ? 2027-2028)", ["2027-01-01T00:00", "2028-01-01T00:00"]),
        ("cron(0 0 30 2 ? *)", []),
    ],
)
def test_the_fields_of_cron(expression: str, expected: list[str]) -> None:
    assert times(expression, "2026-01-30T00:00", 3) == expected


def test_a_time_that_the_spring_skips_does_not_run() -> None:
    assert times("cron(30 2 * * ? *)", "2026-03-07T00:00", 3, NEW_YORK) == [
        "2026-03-07T07:30",
        "2026-03-09T06:30",
        "2026-03-10T06:30",
    ]


def test_a_time_that_the_autumn_repeats_runs_once() -> None:
    assert times("cron(30 1 * * ? *)", "2026-10-31T12:00", 2, NEW_YORK) == ["2026-11-01T05:30", "2026-11-02T06:30"]


def test_the_hours_of_a_day_with_25_run_24_times() -> None:
    found = times("cron(0 * * * ? *)", "2026-11-01T03:30", 24, NEW_YORK)

    assert found[:3] == ["2026-11-01T04:00", "2026-11-01T05:00", "2026-11-01T07:00"]
    assert found[23] == "2026-11-02T04:00"


def test_a_one_time_schedule_is_wall_time_of_its_zone() -> None:
    assert times("at(2026-07-01T09:00:00)", "2026-01-01T00:00", 2, NEW_YORK) == ["2026-07-01T13:00"]
    assert times("at(2026-07-01T09:00:00)", "2026-07-02T00:00", 1, NEW_YORK) == []


@pytest.mark.parametrize(
    "expression",
    [
        "rate(0 minutes)",
        "rate(5 seconds)",
        "rate(-1 hours)",
        "rate(1.5 hours)",
        "cron(0 8 * * * *)",
        "cron(0 8 ? * ? *)",
        "cron(60 8 * * ? *)",
        "cron(0 8 32W * ? *)",
        "cron(0 8 * * ?)",
        "cron(0 9-8 * * ? *)",
        "at(2026-02-30T00:00:00)",
        "at(2026-02-03)",
        "hourly",
        "",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(BadExpression):
        parse(expression)


@pytest.mark.parametrize("expression", ["rate(1 hours)", "rate(2 hour)", "at(2026-01-01T00:00:00)"])
def test_rules_are_stricter_than_schedules(expression: str) -> None:
    parse(expression)
    with pytest.raises(BadExpression):
        parse(expression, rule=True)
