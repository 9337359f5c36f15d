"""Failures on demand: which request is spoiled, when, and how.

A rule is JSON of this form (``POST /_local/faults`` takes one or a list)::

    {"operation": "PutSnapshotBlock" | "*", "snapshot_id": null, "account": null, "block_index": null,
     "nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": null, "after": 0,
     "action": "error" | "latency" | "close_before" | "close_after" | "short_body" | "flip_request"
               | "flip_response" | "corrupt_block" | "expired_token",
     "status": 500, "code": "InternalServerException", "reason": null, "message": null,
     "latency_ms": 0, "bit": 12}

``nth`` spoils the n-th matching call only, ``every`` each n-th, ``probability`` by a generator seeded
with ``seed``; none of them: every matching call. ``times`` bounds how often the rule acts, ``after``
lets that many matching calls pass first.

close_before: the connection closes before any work. close_after: the work is done, the answer never comes
(a timeout after success). short_body: the full length is announced, half of the body sent.
flip_request: one bit of the body changes before the service sees it. flip_response: one bit of the body
changes on its way to the client, its checksum header does not. corrupt_block: one bit changes on disk
before the block is served. expired_token: the block or page token is refused.

The one ValidationException that is worth a retry is ``{"operation": "PutSnapshotBlock", "action": "error",
"status": 400, "code": "ValidationException", "message": "Failed to read block data"}``; a denied call is
``{"action": "error", "status": 403, "code": "AccessDeniedException", ..}``.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

Act = Literal[
    "error",
    "latency",
    "close_before",
    "close_after",
    "short_body",
    "flip_request",
    "flip_response",
    "corrupt_block",
    "expired_token",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    action: Act
    operation: str = "*"
    snapshot_id: str | None = None
    account: str | None = None
    block_index: int | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    seed: int = 0
    times: int | None = None
    after: int = 0
    status: int = 500
    code: str = "InternalServerException"
    reason: str | None = None
    message: str | None = None
    latency_ms: float = 0.0
    bit: int = 12

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Rule:
        """``ValueError`` says which member is wrong."""
        hints = get_type_hints(cls)
        unknown = sorted(set(given) - set(hints))
        if unknown:
            raise ValueError(f"unknown members of a fault rule: {', '.join(unknown)}")
        if given.get("action") not in get_args(Act):
            raise ValueError(f"action must be one of {', '.join(get_args(Act))}, not {given.get('action')!r}")
        for field in fields(cls):
            if field.name == "action" or given.get(field.name) is None:
                continue
            wanted: type | tuple[type, ...] = str
            if hints[field.name] in (int, int | None):
                wanted = int
            elif hints[field.name] in (float, float | None):
                wanted = (int, float)
            value = given[field.name]
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"{field.name}: {value!r} has the wrong type")
            if field.name in ("nth", "every") and isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} must be at least 1")
        members = {name: value for name, value in given.items() if value is not None}
        if sum(name in members for name in ("nth", "every", "probability")) > 1:
            raise ValueError("nth, every and probability exclude each other")
        return cls(**members)


class _Active:
    """A rule and what it has counted."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.number = number
        self.rule = rule
        self.seen = 0
        self.acted = 0
        self._random = random.Random(rule.seed)  # noqa: S311 - repeatable on purpose

    def acts_now(self) -> bool:
        """Count one matching call and say whether it is spoiled."""
        rule = self.rule
        self.seen += 1
        call = self.seen - rule.after
        if call < 1 or (rule.times is not None and self.acted >= rule.times):
            return False
        if rule.nth is not None:
            acts = call == rule.nth
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


class Faults:
    """The active rules. Thread-safe."""

    def __init__(self) -> None:
        self._rules: list[_Active] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> int:
        with self._lock:
            active = _Active(next(self._numbers), rule)
            self._rules.append(active)
            return active.number

    def clear(self, number: int | None = None) -> None:
        with self._lock:
            self._rules = [] if number is None else [r for r in self._rules if r.number != number]

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [active.as_dict() for active in self._rules]

    def matching(self, *, operation: str, snapshot_id: str | None, account: str, block_index: int | None) -> list[Rule]:
        """The rules that spoil this call, in the order they were added."""
        if not self._rules:
            return []  # the hot path: no lock
        with self._lock:
            return [
                active.rule
                for active in self._rules
                if active.rule.operation in ("*", operation)
                and active.rule.snapshot_id in (None, snapshot_id)
                and active.rule.account in (None, account)
                and active.rule.block_index in (None, block_index)
                and active.acts_now()
            ]


def flipped(body: bytes | bytearray, bit: int) -> bytes:
    """``body`` with one bit changed; an empty one stays as it is."""
    if not body:
        return b""
    spoiled = bytearray(body)
    spoiled[bit // 8 % len(spoiled)] ^= 1 << bit % 8
    return bytes(spoiled)
