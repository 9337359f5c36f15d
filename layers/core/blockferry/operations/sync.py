"""Sync: what changed between two snapshots, on top of copies of the earlier one."""

from __future__ import annotations

from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.sync import SyncRequest
from blockferry.sources.chain import examine_delta
from blockferry.sources.delta import JobDelta
from blockferry.targets.on_parent import SnapshotOnParent, propose_on_parents
from blockferry.transfer.pairing import Pairing

OPERATION = Operation(
    name="sync",
    summary="copy what changed between two snapshots, on top of earlier copies",
    description="Brings what changed between two snapshots of a volume to copies of the earlier one, which gives "
    "copies of the later one, in one or many regions and accounts. " + RESUMED,
    request=SyncRequest,
    functions=TRANSFER,
    sources=(JobDelta,),
    targets=(SnapshotOnParent,),
    pairing=Pairing(SyncRequest, examine_delta, propose_on_parents),
)
