"""The order in which targets have their turn: those that cannot be reached do not use up the time of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

CHANCES = 2
"""Targets of a Region that may fail to be reached until it is taken for dead: one failure may be its role's alone."""


def in_turn(
    numbers: Iterable[int],
    *,
    region: Callable[[int], str],
    attempt: Callable[[int], bool],
    time_left: Callable[[], bool],
) -> list[int]:
    """Make an attempt for each target. Behind the first of a region for which it says ``False``, which is that the
    target could not be reached, the rest of that region comes after all others, as long as there is time left.

    Returns the positions of those that had no turn.
    """
    silent: set[str] = set()
    later: list[int] = []
    for number in numbers:
        if region(number) in silent:
            later.append(number)
        elif not attempt(number):
            silent.add(region(number))
    untried: list[int] = []
    for number in later:
        if time_left():
            attempt(number)
        else:
            untried.append(number)
    return untried


def side_by_side(
    numbers: Iterable[int],
    *,
    region: Callable[[int], str],
    attempt: Callable[[int], bool],
    time_left: Callable[[], bool],
    most: int,
) -> list[int]:
    """Make an attempt for each target, ``most`` at a time, in every Region at once.

    The first target of a Region goes ahead. If it is reached, the rest of the Region follows at once; if it is not,
    which ``attempt`` says with ``False``, one more is tried, as long as there is time left, and then the Region is left
    alone. What ``attempt`` raises is raised once all that is under way has ended, and nothing more is begun.

    Returns the positions of those that had no turn.
    """
    waiting: dict[str, list[int]] = {}
    for number in numbers:
        waiting.setdefault(region(number), []).append(number)
    failures: Counter[str] = Counter()
    untried: list[int] = []
    raised: list[BaseException] = []

    def in_time(number: int) -> bool | None:
        # One that waited for a thread may learn here what became of its Region in the meantime.
        return None if failures[region(number)] >= CHANCES else attempt(number)

    with ThreadPoolExecutor(max_workers=most, thread_name_prefix="turn") as pool:
        begun: dict[Future[bool | None], int] = {}

        def begin(where: str, count: int | None) -> None:
            following = waiting.get(where, [])
            waiting[where] = [] if count is None else following[count:]
            begun.update((pool.submit(in_time, number), number) for number in following[:count])

        for where in waiting:
            begin(where, 1)
        while begun:
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                number = begun.pop(future)
                where = region(number)
                if (error := future.exception()) is not None:
                    raised.append(error)
                elif (reached := future.result()) is None:
                    untried.append(number)
                elif not reached:
                    failures[where] += 1
                if raised or failures[where] >= CHANCES or (failures[where] and not reached and not time_left()):
                    untried += waiting.pop(where, [])
                else:
                    begin(where, None if reached else 1)
    if raised:
        raise raised[0]
    return sorted(untried)
