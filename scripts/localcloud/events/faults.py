"""Deliveries that go wrong on demand: events are best effort, and targets are called at least once.

Sources: EventBridge user guide, "Event delivery level" and "How EventBridge retries delivering events".
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["drop", "duplicate", "delay", "fail"]
KINDS = ("drop", "duplicate", "delay", "fail")
_NUMBERS = {"probability": (0.0, 1.0), "seconds": (0.0, 604_800.0), "times": (1.0, 1e9), "copies": (1.0, 100.0)}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to deliveries whose target and origin (ARN of the rule or schedule) match; ``*`` matches any text.

    ``drop``: never delivered, no dead letter. ``duplicate``: ``copies`` more deliveries. ``delay``: ``seconds`` later,
    by the local cloud's clock. ``fail``: the call of the target fails with ``error`` and is retried as AWS would.
    """

    kind: Kind
    target: str = "*"
    origin: str = "*"
    probability: float = 1.0
    seconds: float = 60.0
    copies: int = 1
    error: str = "InternalFailure"
    times: int | None = None
    """How often it may still strike; ``None`` means always."""


def parse_fault(raw: Mapping[str, Any]) -> Fault:
    """Raises ``ValueError`` that names the field."""
    if unknown := sorted(set(raw) - set(Fault.__dataclass_fields__)):
        raise ValueError(f"unknown fields of a fault: {', '.join(unknown)}")
    if raw.get("kind") not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}")
    for name, (low, high) in _NUMBERS.items():
        value = raw.get(name, low)
        if value is None and name == "times":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} must be a number from {low:g} to {high:g}")
        if name in ("times", "copies") and value != int(value):
            raise ValueError(f"{name} must be a whole number")
    for name in ("target", "origin", "error"):
        if not isinstance(raw.get(name, ""), str):
            raise ValueError(f"{name} must be text")
    return Fault(**raw)


class Faults:
    """The faults in force. Which deliveries are struck depends on the seed and the order of deliveries only."""

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._faults: dict[int, Fault] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> int:
        with self._lock:
            number = next(self._numbers)
            self._faults[number] = fault
            return number

    def remove(self, number: int | None) -> None:
        """One fault, or all of them with ``None``."""
        with self._lock:
            if number is None:
                self._faults.clear()
            else:
                self._faults.pop(number, None)

    def listing(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{"id": number, **asdict(fault)} for number, fault in self._faults.items()]

    def strike(self, kinds: tuple[Kind, ...], *, target: str, origin: str) -> Fault | None:
        """The first fault of these kinds that strikes this delivery."""
        with self._lock:
            for number, fault in list(self._faults.items()):
                if fault.kind not in kinds or not fnmatchcase(target, fault.target):
                    continue
                if not fnmatchcase(origin, fault.origin) or self._random.random() >= fault.probability:
                    continue
                if fault.times is not None:
                    if fault.times == 1:
                        del self._faults[number]
                    else:
                        self._faults[number] = replace(fault, times=fault.times - 1)
                return fault
        return None
