"""Expire: backups whose days are over go."""

from __future__ import annotations

from blockferry.operations.operation import Operation
from blockferry.requests.lifecycle import ExpireRequest

OPERATION = Operation(
    name="expire",
    summary="mark backups by tag that are due, and delete those that an earlier run has marked",
    description="Looks at every backup by tag of the Region, marks those that are due, and deletes those that an "
    "earlier run has marked. What is protected, needed or in use stays, and the report says why.",
    request=ExpireRequest,
    functions=("plan_expiry", "mark_expired", "delete_expired", "write_report"),
)
