"""What became of each thing that a run looked at, as reports have it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What is to be done with a resource."""

    CREATE = "create"
    COPY = "copy"
    MARK = "mark"
    DELETE = "delete"
    NONE = "none"


class Outcome(StrEnum):
    """What became of that."""

    PLANNED = "planned"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Item:
    """One line of a report. ``resource`` is the id of an instance, a volume or a snapshot; ``reason`` is for people."""

    resource: str
    action: Action
    outcome: Outcome
    reason: str
