"""Copy: a snapshot to snapshots in other places."""

from __future__ import annotations

from blockferry.aws.sessions import Identity
from blockferry.jobs.call import JobCall
from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.copy import CopyRequest
from blockferry.sources.snapshot import ExaminedSnapshot, JobSnapshot, examine_snapshot
from blockferry.targets.full import FullSnapshot, propose_full
from blockferry.transfer.pairing import Pairing


def _snapshot(request: CopyRequest, identity: Identity, call: JobCall) -> ExaminedSnapshot:
    return examine_snapshot(request.snapshot_id, request.lineage, identity, call)


OPERATION = Operation(
    name="copy",
    summary="copy a snapshot to other regions, accounts or keys",
    description="Copies an EBS snapshot to one or many regions, accounts and keys; each block is read once. " + RESUMED,
    request=CopyRequest,
    functions=TRANSFER,
    sources=(JobSnapshot,),
    targets=(FullSnapshot,),
    pairing=Pairing(CopyRequest, _snapshot, propose_full),
)
