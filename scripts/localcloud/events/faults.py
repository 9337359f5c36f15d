"""Deliveries that go wrong on demand: events are best effort, and targets are called at least once.

A fault is an object::

    {"kind": "drop" | "duplicate" | "delay" | "fail",
     "target": "*", "origin": "*",                  ARNs with wildcards: of the target, of the rule or schedule
     "nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": 1, "after": 0,   see ``localcloud.faults``
     "copies": 1, "seconds": 60, "error": "InternalFailure"}

``drop``: never delivered, no dead letter. ``duplicate``: ``copies`` more deliveries. ``delay``: ``seconds`` later by
the local cloud's clock. ``fail``: the call of the target fails with ``error`` and is tried again as AWS would.

Sources: EventBridge user guide, "Event delivery level" and "How EventBridge retries delivering events".
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from localcloud import faults
from localcloud.faults import number

Kind = Literal["drop", "duplicate", "delay", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(faults.Rule):
    kind: Kind
    target: str = "*"
    origin: str = "*"
    copies: int = number(1, least=1, most=100)
    seconds: float = number(60.0)
    error: str = "InternalFailure"


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._rules: faults.Rules[Fault] = faults.Rules()

    def add(self, fault: Fault) -> int:
        return self._rules.add(fault)

    def remove(self, number: int | None) -> bool:
        """One fault, or all of them with ``None``; whether there was one."""
        return self._rules.clear(number)

    def listing(self) -> list[dict[str, Any]]:
        return self._rules.listed()

    def strike(self, kind: Kind, *, target: str, origin: str) -> Fault | None:
        """The first fault of this kind that strikes this delivery."""
        struck = self._rules.striking(
            lambda fault: fault.kind == kind and fnmatchcase(target, fault.target) and fnmatchcase(origin, fault.origin)
        )
        return struck[0] if struck else None
