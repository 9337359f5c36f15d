"""Which call a fault strikes: the one vocabulary and the one counter of every part of the local cloud.

A rule says *when* with these members, besides what the part adds to say *which calls* and *what happens*::

    {"nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": 2, "after": 10}

``nth`` strikes the n-th call from now on (1 is the next); with ``times``, that many in a row from there.
``every`` strikes each n-th call. ``probability`` draws for every call from a generator of the rule's own, seeded
with ``seed``: the same calls in the same order are struck the same way. None of the three: every call. ``times``
bounds how often the rule strikes, ``after`` lets that many calls pass first. Only calls that the rule is about
are counted, and every rule counts for itself.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Generic, Literal, Self, TypeVar, get_args, get_origin, get_type_hints


def number(default: Any = None, *, least: float = 0, most: float | None = None) -> Any:
    """A dataclass field whose value has bounds."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What every fault has in common; parts add their members in a subclass."""

    nth: int | None = number(least=1)
    every: int | None = number(least=1)
    probability: float | None = number(most=1)
    seed: int = number(0)
    times: int | None = number(least=1)
    after: int = number(0)

    @classmethod
    def parse(cls, given: Any) -> Self:
        """A rule from JSON, ``null`` standing for an absent member; ``ValueError`` names the member that is wrong."""
        if not isinstance(given, Mapping):
            raise ValueError(f"a fault must be a JSON object, not {given!r}")
        hints = get_type_hints(cls)
        if unknown := sorted(set(given) - set(hints)):
            raise ValueError(f"unknown members of a fault: {', '.join(unknown)}; there are {', '.join(sorted(hints))}")
        members: dict[str, Any] = {}
        for each in fields(cls):
            if given.get(each.name) is not None:
                members[each.name] = _checked(each.name, given[each.name], hints[each.name], each.metadata)
            elif each.default is MISSING:
                choices = get_args(hints[each.name])
                raise ValueError(f"{each.name} must be {'one of ' + ', '.join(choices) if choices else 'given'}")
        if sum(name in members for name in ("nth", "every", "probability")) > 1:
            raise ValueError("nth, every and probability exclude each other")
        return cls(**members)

    @classmethod
    def parse_all(cls, given: Any) -> list[Self]:
        """The rules of a config file's ``faults``; ``ValueError`` says which one is wrong."""
        if not isinstance(given, list):
            raise ValueError("faults must be a list of rules")
        rules = []
        for index, each in enumerate(given):
            try:
                rules.append(cls.parse(each))
            except ValueError as error:
                raise ValueError(f"faults[{index}]: {error}") from error
        return rules


def _checked(name: str, value: Any, hint: Any, bounds: Mapping[str, Any]) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(get_args(hint))}, not {value!r}")
        return value
    if hint in (str, str | None):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a text, not {value!r}")
        return value
    whole = hint in (int, int | None)
    least, most = bounds.get("least", 0), bounds.get("most")
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):
        upper = f" and at most {most}" if most is not None else ""
        raise ValueError(f"{name} must be a {'whole ' * whole}number of at least {least}{upper}, not {value!r}")
    return value


class _Armed:
    """A rule and what it has counted."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.number = number
        self.rule = rule
        self.seen = 0
        self.acted = 0
        self._random = random.Random(rule.seed)  # noqa: S311 - repeatable on purpose

    def strikes(self) -> bool:
        """Count one call that the rule is about and say whether it is struck."""
        rule = self.rule
        self.seen += 1
        call = self.seen - rule.after
        limit = rule.times or (1 if rule.nth is not None else None)
        if call < 1 or (limit is not None and self.acted >= limit):
            return False
        if rule.nth is not None:
            acts = call >= rule.nth
        elif rule.every is not None:
            acts = call % rule.every == 0
        elif rule.probability is not None:
            acts = self._random.random() < rule.probability
        else:
            acts = True
        self.acted += acts
        return acts

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.number, **asdict(self.rule), "seen": self.seen, "acted": self.acted}


R = TypeVar("R", bound=Rule)


class Rules(Generic[R]):
    """The rules in force. Safe between threads."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._armed)

    def add(self, rule: R) -> int:
        """Arm a rule; the number is its id."""
        with self._lock:
            armed = _Armed(next(self._numbers), rule)
            self._armed = [*self._armed, armed]
            return armed.number

    def clear(self, number: int | None = None) -> bool:
        """Disarm one rule, or all; whether there was such a rule."""
        with self._lock:
            kept = [] if number is None else [armed for armed in self._armed if armed.number != number]
            found = number is None or len(kept) < len(self._armed)
            self._armed = kept
            return found

    def listed(self) -> list[dict[str, Any]]:
        """Members of every rule with its ``id``, the calls it has ``seen`` and how often it ``acted``."""
        with self._lock:
            return [armed.as_dict() for armed in self._armed]

    def striking(self, is_about: Callable[[R], bool]) -> list[R]:
        """Count one call with every rule that is about it; those that strike it, in the order they were added."""
        if not self._armed:
            return []  # the hot path: no lock
        with self._lock:
            found: list[R] = []
            for armed in self._armed:
                rule: R = armed.rule  # type: ignore[assignment]  # add takes nothing else
                if is_about(rule) and armed.strikes():
                    found.append(rule)
            return found


def flipped(body: bytes | bytearray, bit: int) -> bytes:
    """``body`` with one bit changed; an empty one stays as it is."""
    if not body:
        return b""
    spoiled = bytearray(body)
    spoiled[bit // 8 % len(spoiled)] ^= 1 << bit % 8
    return bytes(spoiled)
