"""Replicate: backups are copied where their tags want them."""

from __future__ import annotations

from blockferry.operations.operation import Operation
from blockferry.requests.lifecycle import ReplicateRequest

OPERATION = Operation(
    name="replicate",
    summary="copy backups to the destinations that their tags want, and hand protection on to the copies",
    description="Copies completed backups of the Region to the destinations that their tags want, twenty at a time to "
    "each Region, once each. Notes on the original which copies are complete, and protects those of what is protected.",
    request=ReplicateRequest,
    functions=("plan_replication", "copy_backups", "write_report"),
)
