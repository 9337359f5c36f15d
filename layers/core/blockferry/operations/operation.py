"""What the table of operations says of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from blockferry.sources.kind import JobSource
from blockferry.targets.kind import JobTarget
from blockferry.transfer.pairing import Pairing

TRANSFER = ("plan_transfer", "move_blocks", "complete_transfer", "check_targets", "write_receipt")
"""The functions that the state machine of every transfer calls, folders of functions/."""

RESUMED = "A failed execution goes on where it stopped when it is redriven."


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation, whose state machine and command have its ``name``.

    ``summary`` is for the command line, ``description`` for whoever opens the state machine. ``sources`` and
    ``targets`` are the kinds that it may pair; without a ``pairing`` it makes nothing.
    """

    name: str
    summary: str
    description: str
    request: type[BaseModel]
    functions: tuple[str, ...]
    sources: tuple[type[JobSource], ...] = ()
    targets: tuple[type[JobTarget], ...] = ()
    pairing: Pairing[Any, Any] | None = None
