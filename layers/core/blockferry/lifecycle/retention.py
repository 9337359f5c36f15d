"""How long backups are kept: for some days, and the last one of some weeks, months and years beyond them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

MOST = {"d": 36_500, "w": 5_200, "m": 1_200, "y": 100}
"""The largest number of each unit: a hundred years. More is a slip, and would not end in anybody's time."""

_NAMES = {"d": "day", "w": "week", "m": "month", "y": "year"}

_PART = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[dwmy]?)")

K = TypeVar("K")


class NotARetention(ValueError):
    """A value that does not say how long something is kept; the text says what would."""


@dataclass(frozen=True)
class Retention:
    """All backups of the last ``days`` days, and the last one of each of the newest ``weeks`` (ISO 8601), ``months``
    and ``years`` that have any."""

    days: int
    weeks: int = 0
    months: int = 0
    years: int = 0

    @classmethod
    def read(cls, value: str, *, default_days: int) -> Retention:
        """What a tag says: ``14``, ``14d`` or ``7d 4w 12m 3y``; ``default_days`` where it names tiers only.

        Raises ``NotARetention``.
        """
        counts: dict[str, int] = {}
        parts = value.split()
        for part in parts:
            found = _PART.fullmatch(part)
            if found is None:
                raise NotARetention("it must be a number of days such as 14, or tiers such as 7d 4w 12m 3y")
            unit = found["unit"] or "d"
            if unit in counts:
                raise NotARetention(f"it names {_NAMES[unit]}s twice")
            counts[unit] = int(found["count"])
            if not 1 <= counts[unit] <= MOST[unit]:
                raise NotARetention(f"{part} must be 1 to {MOST[unit]:,} {_NAMES[unit]}s")
        if not parts:
            raise NotARetention("it is empty")
        return cls(counts.get("d", default_days), counts.get("w", 0), counts.get("m", 0), counts.get("y", 0))

    def __str__(self) -> str:
        """As a tag has it."""
        counts = {"d": self.days, "w": self.weeks, "m": self.months, "y": self.years}
        return " ".join(f"{count}{unit}" for unit, count in counts.items() if count)

    @property
    def tiered(self) -> bool:
        """Whether anything is kept beyond the days."""
        return bool(self.weeks or self.months or self.years)

    def first_delete_on(self, made: date) -> date:
        """The first day on which a backup of that day may be deleted, by the days alone."""
        try:
            return made + timedelta(days=self.days)
        except OverflowError:
            return date.max


A_WEEK = Retention(7)
"""What holds where nobody says anything, as in aws-ebs-snapshots-lambda."""


def kept_by_tiers(backups: Mapping[K, tuple[date, Retention]], *, newest_first: Iterable[K]) -> dict[K, str]:
    """Which backups of one volume a tier keeps, each with the tier's name for people (``week 2026-W48``).

    ``newest_first`` has their keys from the newest to the oldest. Of each week, month and year the last backup counts,
    and only periods that have any: a volume that was not backed up for long does not lose what it has. Each backup goes
    by its own retention.
    """
    kept: dict[K, str] = {}
    seen: dict[str, set[str]] = {unit: set() for unit in ("w", "m", "y")}
    for key in newest_first:
        day, retention = backups[key]
        week = "{}-W{:02d}".format(*day.isocalendar()[:2])
        for unit, period, count in (
            ("w", week, retention.weeks),
            ("m", f"{day:%Y-%m}", retention.months),
            ("y", f"{day:%Y}", retention.years),
        ):
            if period in seen[unit]:
                continue
            seen[unit].add(period)
            if len(seen[unit]) <= count:
                kept.setdefault(key, f"{_NAMES[unit]} {period}")
    return kept
