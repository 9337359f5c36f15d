"""Backup: what asks for it by its tags is backed up."""

from __future__ import annotations

from blockferry.operations.operation import Operation
from blockferry.requests.lifecycle import BackupRequest

OPERATION = Operation(
    name="backup",
    summary="make the backups that the tags of instances and volumes ask for, once in each slot of the schedule",
    description="Makes the snapshots that the tags of instances and volumes of the Region ask for, all volumes of an "
    "instance at one instant. Each volume has one in a slot of the schedule, whoever starts how many runs.",
    request=BackupRequest,
    functions=("plan_backup", "take_backups", "write_report"),
)
