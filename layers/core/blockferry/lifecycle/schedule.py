"""Slots: the instants of a schedule, each of which has at most one backup of a volume.

A schedule names times of day and days of the week in a time zone, as the cron expressions have them by which
EventBridge Scheduler starts the runs. Where clocks go forward a time that does not exist has no slot, where they go
back one that comes twice has its first: so does Scheduler (its user guide, time zones and daylight saving time).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")

LOOK_BACK_DAYS = 9
"""A week has every weekday; one more where clocks skip its time, and one for zones ahead of UTC."""

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True)
class Schedule:
    """``times`` of day as ``01:30``, on ``weekdays``, in ``zone`` (a name of the IANA database)."""

    times: tuple[str, ...]
    weekdays: tuple[str, ...] = WEEKDAYS
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for one that has no instant, or a name that is none."""
        if not self.times or not all(_TIME.fullmatch(each) for each in self.times):
            raise ValueError(f"times must be some of 00:00 to 23:59, not {list(self.times)}")
        if not self.weekdays or not set(self.weekdays) <= set(WEEKDAYS):
            raise ValueError(f"weekdays must be some of {', '.join(WEEKDAYS)}, not {list(self.weekdays)}")
        ZoneInfo(self.zone)

    def slot(self, now: datetime) -> datetime:
        """The last instant of the schedule at or before ``now``, in UTC."""
        return max(instant for instant in self._around(now) if instant <= now)

    def next_slot(self, now: datetime) -> datetime:
        """The first instant of the schedule after ``now``, in UTC."""
        return min(instant for instant in self._around(now) if instant > now)

    def day_of(self, instant: datetime) -> date:
        """The date of an instant where the schedule is."""
        return instant.astimezone(ZoneInfo(self.zone)).date()

    def _around(self, now: datetime) -> Iterator[datetime]:
        today = self.day_of(now)
        for days in range(-LOOK_BACK_DAYS, LOOK_BACK_DAYS + 1):
            day = today + timedelta(days=days)
            if WEEKDAYS[day.weekday()] in self.weekdays:
                for each in self.times:
                    instant = _instant(day, time.fromisoformat(each), ZoneInfo(self.zone))
                    if instant is not None:
                        yield instant


def slot_name(slot: datetime) -> str:
    """A slot as a tag and a key have it: ``2026-11-27T01:00:00Z``."""
    return slot.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime | None:
    """A time of a day in UTC; the first of two, ``None`` where clocks skip it."""
    local = datetime.combine(day, at, tzinfo=zone)
    instant = local.astimezone(UTC)
    return instant if instant.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None) else None
