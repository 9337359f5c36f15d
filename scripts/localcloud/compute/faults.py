"""Faults of functions on demand, from the config file (``lambda.faults``) or ``POST /_local/lambda/faults``.

A fault is an object::

    {"function": "blockferry-move-blocks" | "*",   name, or every function
     "kind": "crash" | "oom" | "timeout" | "duplicate" | "slow_start" | "throttle" | "service_error",
     "nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": 1, "after": 0,   see ``localcloud.faults``
     "when": "before" | "during" | "after",         see below; only for crash, oom and timeout; default "during"
     "after_ms": 50,                                with "during": milliseconds after the handler got the event
     "delay_ms": 3000}                              with slow_start

``before``: the environment ends as the event arrives, the handler never runs. ``during``: it ends ``after_ms``
after the handler got the event (0 is at once). ``after``: the handler runs to its end, then its answer is lost,
which is the case an idempotent function has to survive. ``duplicate``: a second environment gets the same event, with
the same request id, at the same time, as happens where delivery is at least once; the caller has the first answer.
``slow_start`` counts cold starts instead of invocations: the environment is there ``delay_ms`` later, as when its code
takes long to fetch; neither the time limit of the initialisation nor that of the function counts this. ``throttle``
answers 429 TooManyRequestsException and ``service_error`` 500 ServiceException, both without running anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from localcloud import faults
from localcloud.faults import number
from localcloud.host import ControlError

RunKind = Literal["crash", "oom", "timeout"]
RequestKind = Literal["throttle", "service_error"]
Kind = Literal["crash", "oom", "timeout", "duplicate", "slow_start", "throttle", "service_error"]
RUN_KINDS: tuple[str, ...] = get_args(RunKind)
DUPLICATE = "duplicate"
SLOW_START = "slow_start"
REQUEST_KINDS: tuple[str, ...] = get_args(RequestKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(faults.Rule):
    kind: Kind
    function: str
    when: Literal["before", "during", "after"] = "during"
    after_ms: int = number(0)
    delay_ms: int = number(0)


class Faults:
    """The faults that are armed now. Safe between threads."""

    def __init__(self) -> None:
        self._rules: faults.Rules[Fault] = faults.Rules()

    def add(self, raw: Mapping[str, Any]) -> int:
        """Arm a fault and return its number. Raises ``ControlError`` about the first key that is wrong."""
        if isinstance(raw, Mapping) and not raw.get("function"):
            raise ControlError("function must be the name of a function, or *")
        try:
            return self._rules.add(Fault.parse(raw))
        except ValueError as error:
            raise ControlError(str(error)) from error

    def remove(self, number: int | None) -> None:
        """Disarm one fault, or all."""
        if not self._rules.clear(number):
            raise ControlError(f"there is no fault {number}", status=404)

    def listing(self) -> list[dict[str, Any]]:
        return self._rules.listed()

    def strike(self, function: str, kinds: tuple[str, ...]) -> Fault | None:
        """Count one call of ``function`` with every fault of ``kinds``; the first that strikes, if any."""
        hits = self._rules.striking(lambda fault: fault.kind in kinds and fault.function in (function, "*"))
        return hits[0] if hits else None
