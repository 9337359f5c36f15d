"""When schedules and scheduled rules are due, by the local cloud's clock.

Sources: EventBridge Scheduler user guide, "Schedule types" (a rate without StartDate begins at once; StartDate is its
first run), "Flexible time windows"; API reference, CreateSchedule (EndDate and one-time schedules,
ActionAfterCompletion); EventBridge user guide, "Creating a rule that runs on a schedule" (a rule's first run is one
interval after its creation).
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from localcloud.ebs.clock import Clock
from localcloud.events.expressions import At, Expression, Rate

MAX_RUNS_AT_ONCE = 10_000
"""Runs that one move of the clock may make due: those of a minute's schedule over a week. More is a mistake in what it
was moved by."""


class TooManyRuns(ValueError):
    """Moving the clock so far would run schedules more often than anyone wants."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A schedule or a scheduled rule as it is now.

    ``version`` changes when it was changed: its times are counted anew from ``anchor`` then. ``first`` tells whether
    a rate's first run is at the anchor (a schedule) or one interval later (a rule). ``window_seconds`` is the flexible
    time window. ``finish`` is called when nothing is due any more.
    """

    key: Hashable
    version: Hashable
    expression: Expression
    anchor: float
    first: bool
    enabled: bool
    run: Callable[[float], None]
    start: float | None = None
    end: float | None = None
    window_seconds: float = 0.0
    finish: Callable[[], None] | None = None


@dataclass
class _Progress:
    version: Hashable
    until: float


class Timetable:
    """Runs what is due. ``timed`` lists everything that exists at the moment."""

    def __init__(self, clock: Clock, timed: Callable[[], Iterable[Timed]]) -> None:
        self._clock = clock
        self._timed = timed
        self._progress: dict[Hashable, _Progress] = {}
        self._lock = threading.Lock()

    def run_due(self) -> int:
        """Run everything that has become due, in the order of its times; returns how many runs there were."""
        with self._lock:
            now = self._clock.now()
            timed = list(self._timed())
            self._take_note(timed)
            ran = 0
            for due, _order, one in self._due(timed, now):
                one.run(due)
                ran += 1
            for one in timed:
                self._progress[one.key].until = now
                if one.finish is not None and one.enabled and self._is_over(one, now):
                    one.finish()
            return ran

    def check(self, seconds: float) -> None:
        """Raise ``TooManyRuns`` if moving the clock by ``seconds`` is too much at once."""
        with self._lock:
            timed = list(self._timed())
            self._take_note(timed)
            runs = self._due(timed, self._clock.now() + seconds)
            if sum(1 for _ in itertools.islice(runs, MAX_RUNS_AT_ONCE + 1)) > MAX_RUNS_AT_ONCE:
                raise TooManyRuns(f"more than {MAX_RUNS_AT_ONCE} runs of schedules lie within {seconds:g} seconds")

    def _take_note(self, timed: Iterable[Timed]) -> None:
        known = set()
        for one in timed:
            known.add(one.key)
            progress = self._progress.get(one.key)
            if progress is None or progress.version != one.version:
                # What was due before it was made or changed is not made up for; its own beginning counts.
                at = min(one.anchor, self._clock.now())
                self._progress[one.key] = _Progress(one.version, math.nextafter(at, 0))
        for gone in set(self._progress) - known:
            del self._progress[gone]

    def _due(self, timed: Iterable[Timed], now: float) -> Iterator[tuple[float, int, Timed]]:
        def runs(order: int, one: Timed) -> Iterator[tuple[float, int, Timed]]:
            for due in _times(one, after=self._progress[one.key].until, until=now):
                yield due, order, one

        return heapq.merge(*(runs(order, one) for order, one in enumerate(timed) if one.enabled), key=lambda r: r[:2])

    def _is_over(self, one: Timed, now: float) -> bool:
        if isinstance(one.expression, At):
            return one.expression.moment + _shift(one, one.expression.moment) <= now
        return one.end is not None and now >= one.end


def _times(one: Timed, *, after: float, until: float) -> Iterator[float]:
    """When it runs in ``(after, until]``, ascending."""
    if not one.window_seconds:
        yield from itertools.takewhile(lambda due: due <= until, _nominal(one, after))
        return
    # Within windows a later run may come before an earlier one.
    nominal = itertools.takewhile(lambda due: due <= until, _nominal(one, after - one.window_seconds))
    yield from sorted(due for due in (each + _shift(one, each) for each in nominal) if after < due <= until)


def _nominal(one: Timed, after: float) -> Iterator[float]:
    """The times that the expression names later than ``after``, between StartDate and EndDate."""
    if isinstance(one.expression, At):
        yield from one.expression.after(after, anchor=one.anchor)
        return
    begin = one.anchor if one.start is None else max(one.start, one.anchor)
    if isinstance(one.expression, Rate):
        begin = one.anchor if one.start is None else one.start
        if (one.first or one.start is not None) and begin > after and (one.end is None or begin < one.end):
            yield begin
    for due in one.expression.after(max(after, math.nextafter(begin, 0)), anchor=begin):
        if one.end is not None and due >= one.end:
            return
        if due > begin or not isinstance(one.expression, Rate):
            yield due


def _shift(one: Timed, nominal: float) -> float:
    """Where in the flexible window a run falls: anywhere, and the same every time for the same run."""
    if not one.window_seconds:
        return 0.0
    return zlib.crc32(f"{one.key}{nominal}".encode()) / 2**32 * one.window_seconds
