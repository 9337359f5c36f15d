"""Failures on demand: which request is spoiled, when, and how.

A rule is JSON of this form (the config file's ``ebs.faults`` is a list of them, ``POST /_local/faults`` takes one or
a list)::

    {"operation": "PutSnapshotBlock" | "*", "snapshot_id": null, "account": null, "region": null,
     "block_index": null,
     "nth": 3 | "every": 5 | "probability": 0.1, "seed": 7, "times": null, "after": 0,   see ``localcloud.faults``
     "action": "error" | "latency" | "close_before" | "close_after" | "short_body" | "flip_request"
               | "flip_response" | "corrupt_block" | "expired_token" | "unencrypted" | "other_key",
     "status": 500, "code": "InternalServerException", "reason": null, "message": null,
     "latency_ms": 0, "bit": 12}

close_before: the connection closes before any work. close_after: the work is done, the answer never comes
(a timeout after success). short_body: the full length is announced, half of the body sent.
flip_request: one bit of the body changes before the service sees it. flip_response: one bit of the body
changes on its way to the client, its checksum header does not. corrupt_block: one bit changes on disk
before the block is served. expired_token: the block or page token is refused. unencrypted, other_key: the
snapshot of this StartSnapshot comes out unencrypted, or encrypted with another key than it should be.

The one ValidationException that is worth a retry is ``{"operation": "PutSnapshotBlock", "action": "error",
"status": 400, "code": "ValidationException", "message": "Failed to read block data"}``; a denied call is
``{"action": "error", "status": 403, "code": "AccessDeniedException", ..}``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from localcloud import faults
from localcloud.faults import number

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
    "unencrypted",
    "other_key",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(faults.Rule):
    action: Act
    operation: str = "*"
    snapshot_id: str | None = None
    account: str | None = None
    region: str | None = None
    block_index: int | None = number()
    status: int = number(500, least=100, most=599)
    code: str = "InternalServerException"
    reason: str | None = None
    message: str | None = None
    latency_ms: float = number(0.0)
    bit: int = number(12)


class Faults(faults.Rules[Rule]):
    """The active rules. Thread-safe. ``operations`` are those that a rule can be about."""

    def __init__(self, operations: Iterable[str]) -> None:
        super().__init__()
        self._operations = ("*", *operations)

    def checked(self, rule: Rule) -> Rule:
        """The rule; ``ValueError`` where it would never strike."""
        if rule.operation not in self._operations:
            raise ValueError(f"operation: there is no {rule.operation!r} here; there are {', '.join(self._operations)}")
        return rule

    def matching(
        self, *, operation: str, snapshot_id: str | None, account: str, region: str, block_index: int | None
    ) -> list[Rule]:
        """The rules that spoil this call, in the order they were added."""
        return self.striking(
            lambda rule: (
                rule.operation in ("*", operation)
                and rule.snapshot_id in (None, snapshot_id)
                and rule.account in (None, account)
                and rule.region in (None, region)
                and rule.block_index in (None, block_index)
            )
        )
