"""Schedule expressions: ``rate(..)``, ``cron(..)``, ``at(..)``, and the moments they name.

Sources: EventBridge Scheduler user guide, "Schedule types" (expressions, time zones, daylight saving time);
EventBridge user guide, "Cron and rate expressions" (fields, wildcards, singular and plural units).
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

_UNITS = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS = {calendar.month_abbr[number].upper(): number for number in range(1, 13)}
_DAYS = {"SUN": 1, "MON": 2, "TUE": 3, "WED": 4, "THU": 5, "FRI": 6, "SAT": 7}
_YEARS = (1970, 2199)
_SEARCH_YEARS = 12
"""Years that are searched for the next time: February 29 is at most eight years away (around 2100), so what does not
come in twelve never does."""


class BadExpression(ValueError):
    """A schedule expression is none that AWS takes."""


class Expression(Protocol):
    def after(self, moment: float, *, anchor: float) -> Iterator[float]:
        """The times (seconds since the epoch) later than ``moment``, ascending; ``anchor`` is when a rate begins."""


@dataclass(frozen=True)
class Rate:
    """Every ``seconds``. A day is 24 hours, whatever clocks do ("Daylight savings time")."""

    seconds: int

    def after(self, moment: float, *, anchor: float) -> Iterator[float]:
        count = max(0, int((moment - anchor) // self.seconds))
        while True:
            due = anchor + count * self.seconds
            if due > moment:
                yield due
            count += 1


@dataclass(frozen=True)
class At:
    """Once. A wall time that the zone skips is taken with the offset before the change (AWS does not say)."""

    moment: float

    def after(self, moment: float, *, anchor: float) -> Iterator[float]:
        if self.moment > moment:
            yield self.moment


@dataclass(frozen=True)
class Cron:
    """Minutes of wall time in a zone.

    A time that does not exist is skipped, and one that comes twice runs once, the first time.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    years: frozenset[int]
    is_day: Callable[[date], bool]
    zone: ZoneInfo

    def after(self, moment: float, *, anchor: float) -> Iterator[float]:
        # A day back: the zone's date may be behind, and a repeated hour lies behind its first run.
        day = datetime.fromtimestamp(moment, self.zone).date() - timedelta(days=1)
        found = day.year
        while day.year - found <= _SEARCH_YEARS and day.year <= _YEARS[1]:
            if day.year in self.years and day.month in self.months and self.is_day(day):
                for due in self._on(day):
                    if due > moment:
                        found = day.year
                        yield due
            day += timedelta(days=1)

    def _on(self, day: date) -> list[float]:
        dues = []
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime.combine(day, time(hour, minute), tzinfo=self.zone)
                there = wall.astimezone(UTC)
                if there.astimezone(self.zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
                    dues.append(there.timestamp())
        return sorted(dues)


def parse(text: str, *, zone: ZoneInfo | None = None, rule: bool = False) -> Expression:
    """The expression, or ``BadExpression``. ``rule``: by the narrower syntax of EventBridge rules."""
    match = re.fullmatch(r"(rate|cron|at)\((.*)\)", text.strip())
    if match is None:
        raise BadExpression(f"{text!r} is none of rate(..), cron(..) and at(..)")
    kind, inner = match.groups()
    where = zone or ZoneInfo("UTC")
    if kind == "rate":
        return _rate(inner, rule=rule)
    if kind == "cron":
        return _cron(inner, where)
    if rule:
        raise BadExpression("a rule takes rate(..) and cron(..) only")
    return _at(inner, where)


def _rate(inner: str, *, rule: bool) -> Rate:
    match = re.fullmatch(r"([0-9]+)\s+(minute|hour|day)(s?)", inner.strip())
    if match is None or int(match[1]) == 0:
        raise BadExpression(f"rate({inner}): a positive number and minutes, hours or days are needed")
    value = int(match[1])
    if rule and (value == 1) == bool(match[3]):
        raise BadExpression(f"rate({inner}): the unit is singular for 1 and plural otherwise")
    return Rate(value * _UNITS[match[2]])


def _at(inner: str, zone: ZoneInfo) -> At:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", inner):
        raise BadExpression(f"at({inner}): yyyy-mm-ddThh:mm:ss is needed")
    try:
        return At(datetime.fromisoformat(inner).replace(tzinfo=zone).timestamp())
    except ValueError as error:
        raise BadExpression(f"at({inner}): {error}") from error


def _cron(inner: str, zone: ZoneInfo) -> Cron:
    fields = inner.upper().split()
    if len(fields) != 6:
        raise BadExpression(f"cron({inner}): six fields are needed")
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise BadExpression(f"cron({inner}): one of day-of-month and day-of-week must be ?, and only one")
    return Cron(
        minutes=tuple(sorted(_numbers(minutes, 0, 59))),
        hours=tuple(sorted(_numbers(hours, 0, 23))),
        months=frozenset(_numbers(months, 1, 12, _MONTHS)),
        years=frozenset(_numbers(years, *_YEARS)),
        is_day=_of_month(days) if weekdays == "?" else _of_week(weekdays),
        zone=zone,
    )


def _number(text: str, low: int, high: int, names: Mapping[str, int]) -> int:
    value = names.get(text, int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None)
    if value is None or not low <= value <= high:
        raise BadExpression(f"{text!r} is not between {low} and {high}")
    return value


def _numbers(field: str, low: int, high: int, names: Mapping[str, int] | None = None) -> set[int]:
    known = names or {}
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, high, {}) if slash else 1
        first_text, dash, last_text = span.partition("-")
        if span == "*":
            first, last = low, high
        else:
            first = _number(first_text, low, high, known)
            last = _number(last_text, low, high, known) if dash else (high if slash else first)
        if first > last:
            raise BadExpression(f"{part!r} ends before it begins")
        found.update(range(first, last + 1, step))
    return found


def _of_month(field: str) -> Callable[[date], bool]:
    """Day-of-month: numbers, ``L`` (last day), ``LW`` (last weekday), ``nW`` (weekday nearest to day n)."""
    rules: list[Callable[[date], bool]] = []
    for part in field.split(","):
        if part == "L":
            rules.append(lambda day: day.day == _last(day))
        elif part == "LW":
            rules.append(lambda day: day.day == _nearest_weekday(day, _last(day)))
        elif part.endswith("W"):
            wanted = _number(part[:-1], 1, 31, {})
            rules.append(lambda day, n=wanted: n <= _last(day) and day.day == _nearest_weekday(day, n))  # type: ignore[misc]
        else:
            numbers = frozenset(_numbers(part, 1, 31))
            rules.append(lambda day, among=numbers: day.day in among)  # type: ignore[misc]
    return lambda day: any(rule(day) for rule in rules)


def _of_week(field: str) -> Callable[[date], bool]:
    """Day-of-week, 1 is Sunday: numbers and names, ``nL`` (the month's last), ``n#k`` (its k-th), ``L`` (Saturday)."""
    rules: list[Callable[[date], bool]] = []
    for part in field.split(","):
        name, hash_sign, place = part.partition("#")
        if hash_sign:
            pair = _number(name, 1, 7, _DAYS), _number(place, 1, 5, {})
            rules.append(lambda day, p=pair: (_weekday(day), (day.day - 1) // 7 + 1) == p)  # type: ignore[misc]
        elif part == "L":
            rules.append(lambda day: _weekday(day) == 7)
        elif part.endswith("L"):
            wanted = _number(part[:-1], 1, 7, _DAYS)
            rules.append(lambda day, n=wanted: _weekday(day) == n and day.day + 7 > _last(day))  # type: ignore[misc]
        else:
            numbers = frozenset(_numbers(part, 1, 7, _DAYS))
            rules.append(lambda day, among=numbers: _weekday(day) in among)  # type: ignore[misc]
    return lambda day: any(rule(day) for rule in rules)


def _weekday(day: date) -> int:
    return day.isoweekday() % 7 + 1


def _last(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _nearest_weekday(day: date, wanted: int) -> int:
    """The weekday nearest to day ``wanted`` of the month, never in another month."""
    iso = day.replace(day=wanted).isoweekday()
    if iso == 6:
        return wanted - 1 if wanted > 1 else wanted + 2
    if iso == 7:
        return wanted + 1 if wanted < _last(day) else wanted - 2
    return wanted
