"""Inspect: what snapshots hold and what keeping or copying them costs."""

from __future__ import annotations

from blockferry.operations.operation import Operation
from blockferry.requests.inspect import InspectRequest

OPERATION = Operation(
    name="inspect",
    summary="report blocks, changes, and what copying or keeping would cost; makes nothing",
    description="Inspects snapshots: what they hold, what changed between them, what deleting them frees, and what "
    "each way to copy or keep them would cost. Makes nothing.",
    request=InspectRequest,
    functions=("inspect_snapshots",),
)
