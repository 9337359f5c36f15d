"""The order in which targets have their turn: those that cannot be reached do not use up the time of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable


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
