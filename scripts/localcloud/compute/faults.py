"""Faults of functions on demand, from the config file (``lambda.faults``) or ``POST /_local/lambda/faults``.

A fault is an object::

    {"function": "blockferry-move-blocks" | "*",   name, or every function
     "kind": "crash" | "oom" | "timeout" | "throttle" | "service_error",
     "nth": 3                                       the n-th invocation from now on (1 is the next), or
     "probability": 0.1, "seed": 7,                 each invocation with this probability, reproducibly
     "times": 1,                                    how often it strikes in all; default 1 with nth, else no end
     "when": "before" | "during" | "after",         see below; only for crash, oom and timeout; default "during"
     "after_ms": 50}                                with "during": milliseconds after the handler got the event

``before``: the environment ends as the event arrives, the handler never runs. ``during``: it ends ``after_ms``
after the handler got the event (0 is at once). ``after``: the handler runs to its end, then its answer is lost,
which is the case an idempotent function has to survive. ``throttle`` answers 429 TooManyRequestsException and
``service_error`` 500 ServiceException, both without running anything.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.host import ControlError

RUN_KINDS = ("crash", "oom", "timeout")
REQUEST_KINDS = ("throttle", "service_error")
_KEYS = frozenset(("function", "kind", "nth", "probability", "seed", "times", "when", "after_ms"))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A validated fault; exactly one of ``nth`` and ``probability`` is set."""

    id: int
    function: str
    kind: str
    nth: int | None
    probability: float | None
    seed: int
    times: int | None
    when: str
    after_ms: int

    @classmethod
    def parse(cls, number: int, raw: Mapping[str, Any]) -> Fault:
        """Raises ``ControlError`` with a sentence about the first key that is wrong."""
        if not isinstance(raw, Mapping):
            raise ControlError("a fault must be a JSON object")
        if unknown := sorted(set(raw) - _KEYS):
            raise ControlError(f"unknown keys in the fault: {', '.join(unknown)}")
        kind = raw.get("kind")
        if kind not in RUN_KINDS + REQUEST_KINDS:
            raise ControlError(f"kind must be one of {', '.join(RUN_KINDS + REQUEST_KINDS)}, not {kind!r}")
        if not isinstance(raw.get("function"), str) or not raw["function"]:
            raise ControlError("function must be the name of a function, or *")
        if ("nth" in raw) == ("probability" in raw):
            raise ControlError("give either nth or probability")
        when = raw.get("when", "during")
        if when not in ("before", "during", "after"):
            raise ControlError(f"when must be before, during or after, not {when!r}")
        nth = _integer(raw, "nth", minimum=1)
        probability = raw.get("probability")
        if probability is not None and not (isinstance(probability, int | float) and 0 <= probability <= 1):
            raise ControlError(f"probability must be a number from 0 to 1, not {probability!r}")
        return cls(
            id=number,
            function=raw["function"],
            kind=kind,
            nth=nth,
            probability=None if probability is None else float(probability),
            seed=_integer(raw, "seed", minimum=0) or 0,
            times=_integer(raw, "times", minimum=1) or (1 if nth is not None else None),
            when=when,
            after_ms=_integer(raw, "after_ms", minimum=0) or 0,
        )


def _integer(raw: Mapping[str, Any], key: str, *, minimum: int) -> int | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ControlError(f"{key} must be a whole number of at least {minimum}, not {value!r}")
    return value


class _Armed:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0
        self.struck = 0
        self._random = random.Random(fault.seed)  # noqa: S311  # reproducible on purpose

    def strikes(self) -> bool:
        """Count one invocation; whether the fault strikes it. With ``nth`` and ``times``: that many in a row."""
        self.seen += 1
        if self.fault.times is not None and self.struck >= self.fault.times:
            return False
        if self.fault.nth is not None:
            hit = self.seen >= self.fault.nth
        else:
            hit = self._random.random() < (self.fault.probability or 0.0)
        self.struck += hit
        return hit


class Faults:
    """The faults that are armed now. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._armed: dict[int, _Armed] = {}

    def add(self, raw: Mapping[str, Any]) -> int:
        fault = Fault.parse(next(self._numbers), raw)
        with self._lock:
            self._armed[fault.id] = _Armed(fault)
        return fault.id

    def remove(self, number: int | None) -> None:
        """Disarm one fault, or all."""
        with self._lock:
            if number is None:
                self._armed.clear()
            elif self._armed.pop(number, None) is None:
                raise ControlError(f"there is no fault {number}", status=404)

    def listing(self) -> list[dict[str, Any]]:
        with self._lock:
            return [vars(armed.fault) | {"seen": armed.seen, "struck": armed.struck} for armed in self._armed.values()]

    def strike(self, function: str, kinds: tuple[str, ...]) -> Fault | None:
        """Count one invocation of ``function`` with every fault of ``kinds``; the first that strikes, if any."""
        with self._lock:
            hits = [
                armed.fault
                for armed in self._armed.values()
                if armed.fault.kind in kinds and armed.fault.function in (function, "*") and armed.strikes()
            ]
        return hits[0] if hits else None
