"""The operations: what each one takes, which kinds of source and target it pairs, and which functions carry it out.

State machines, schemas, placeholders, the command line and the tests of Terraform and of the documentation read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from blockferry.aws.sessions import Identity
from blockferry.core.errors import InvalidRequest
from blockferry.jobs.call import JobCall
from blockferry.requests.archive import ArchiveRequest
from blockferry.requests.copy import CopyRequest
from blockferry.requests.fanout import FanoutRequest
from blockferry.requests.inspect import InspectRequest
from blockferry.requests.named import ImageNamed
from blockferry.requests.restore import RestoreRequest
from blockferry.requests.sync import SyncRequest
from blockferry.requests.verify import VerifyRequest
from blockferry.sources.archive import ExaminedArchive, JobArchive, examine_archive
from blockferry.sources.archiving import examine_for_archive
from blockferry.sources.chain import examine_delta
from blockferry.sources.delta import JobDelta
from blockferry.sources.foreign import ExaminedForeign, JobForeign, examine_foreign
from blockferry.sources.image import ExaminedImage, JobImage, examine_image
from blockferry.sources.kind import JobSource
from blockferry.sources.snapshot import ExaminedSnapshot, JobSnapshot, examine_snapshot
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_proposal import propose_archive
from blockferry.targets.full import FullSnapshot, propose_full
from blockferry.targets.kind import JobTarget
from blockferry.targets.on_parent import SnapshotOnParent, propose_on_parents
from blockferry.transfer.pairing import Pairing


def _snapshot(request: CopyRequest, identity: Identity, call: JobCall) -> ExaminedSnapshot:
    return examine_snapshot(request.snapshot_id, request.lineage, identity, call)


def _image_snapshot_or_archive(
    request: FanoutRequest, identity: Identity, call: JobCall
) -> ExaminedImage | ExaminedSnapshot | ExaminedArchive:
    if request.image_uri is not None:
        return examine_image(request, request.image_uri, identity, call)
    if request.manifest_uri is not None:
        return examine_archive(request.manifest_uri, identity, call)
    return examine_snapshot(request.snapshot_id or "", request.lineage, identity, call)


def _archive(
    request: RestoreRequest, identity: Identity, call: JobCall
) -> ExaminedArchive | ExaminedForeign | ExaminedImage:
    if request.foreign_uri is None:
        return examine_archive(request.manifest_uri or "", identity, call)
    if request.foreign_uri.endswith("/"):
        return examine_foreign(request.foreign_uri, identity, call)
    return examine_image(ImageNamed(image_uri=request.foreign_uri), request.foreign_uri, identity, call)


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


def _by_name(*operations: Operation) -> Mapping[str, Operation]:
    return MappingProxyType({operation.name: operation for operation in operations})


OPERATIONS = _by_name(
    Operation(
        name="copy",
        summary="copy a snapshot to other regions, accounts or keys",
        description="Copies an EBS snapshot to one or many regions, accounts and keys; each block is read once. "
        + RESUMED,
        request=CopyRequest,
        functions=TRANSFER,
        sources=(JobSnapshot,),
        targets=(FullSnapshot,),
        pairing=Pairing(CopyRequest, _snapshot, propose_full),
    ),
    Operation(
        name="sync",
        summary="copy what changed between two snapshots, on top of earlier copies",
        description="Brings what changed between two snapshots of a volume to copies of the earlier one, which gives "
        "copies of the later one, in one or many regions and accounts. " + RESUMED,
        request=SyncRequest,
        functions=TRANSFER,
        sources=(JobDelta,),
        targets=(SnapshotOnParent,),
        pairing=Pairing(SyncRequest, examine_delta, propose_on_parents),
    ),
    Operation(
        name="fanout",
        summary="make snapshots in many regions of a disk image in S3, a snapshot or an archive",
        description="Brings a disk image in S3, a snapshot or an archive to many regions, accounts and keys; each "
        "block is read once. " + RESUMED,
        request=FanoutRequest,
        functions=(*TRANSFER, "unpack_image"),
        sources=(JobImage, JobSnapshot, JobArchive),
        targets=(FullSnapshot,),
        pairing=Pairing(FanoutRequest, _image_snapshot_or_archive, propose_full),
    ),
    Operation(
        name="archive",
        summary="archive a snapshot, or what changed since an earlier archive, in an S3 bucket",
        description="Archives an EBS snapshot, in full or as what changed since an earlier archive, or a disk image, "
        "in an S3 bucket: compressed, provable, and readable with standard tools. " + RESUMED,
        request=ArchiveRequest,
        functions=(*TRANSFER, "unpack_image"),
        sources=(JobSnapshot, JobDelta, JobImage),
        targets=(ArchiveTarget,),
        pairing=Pairing(ArchiveRequest, examine_for_archive, propose_archive),
    ),
    Operation(
        name="restore",
        summary="make snapshots in one or many regions of an archive",
        description="Restores an archive, or the newest of a chain, to snapshots in one or many regions, accounts and "
        "keys; every block is checked and read once. " + RESUMED,
        request=RestoreRequest,
        functions=(*TRANSFER, "unpack_image"),
        sources=(JobArchive, JobForeign, JobImage),
        targets=(FullSnapshot,),
        pairing=Pairing(RestoreRequest, _archive, propose_full),
    ),
    Operation(
        name="verify",
        summary="check an archive, in full or by a sample, and against its snapshot or another archive",
        description="Verifies an archive: every stored hash or a sample of them, and, if asked for, what it holds "
        "against a snapshot or a second archive. Damage ends it as ArchiveDamaged, with all that was found on record.",
        request=VerifyRequest,
        functions=("plan_verification", "verify_blocks", "conclude_verification"),
    ),
    Operation(
        name="inspect",
        summary="report blocks, changes, and what copying or keeping would cost; makes nothing",
        description="Inspects snapshots: what they hold, what changed between them, what deleting them frees, and what "
        "each way to copy or keep them would cost. Makes nothing.",
        request=InspectRequest,
        functions=("inspect_snapshots",),
    ),
)


def pairing_of(operation: str) -> Pairing[Any, Any]:
    """What a transfer pairs. Raises ``InvalidRequest`` for an operation that this version does not know, or none."""
    found = OPERATIONS.get(operation)
    if found is None or found.pairing is None:
        raise InvalidRequest(f"operation {operation} is no transfer of this version: deploy one that knows it")
    return found.pairing
