"""Restore: an archive, ours or one of another tool, to snapshots or to objects in S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blockferry.aws.sessions import Identity
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.named import ImageNamed
from blockferry.requests.parts import Target, TransferOptions
from blockferry.requests.restore import RestoreRequest
from blockferry.sources.archive import ExaminedArchive, JobArchive, examine_archive
from blockferry.sources.foreign import ExaminedForeign, JobForeign, examine_foreign
from blockferry.sources.image import ExaminedImage, JobImage, examine_image
from blockferry.targets.full import FullSnapshot, propose_full
from blockferry.targets.image_object import ImageObject
from blockferry.targets.object_proposal import propose_objects
from blockferry.targets.proposal import Proposal
from blockferry.transfer.pairing import Pairing


def _archive(
    request: RestoreRequest, identity: Identity, call: JobCall
) -> ExaminedArchive | ExaminedForeign | ExaminedImage:
    if request.foreign_uri is None:
        return examine_archive(request.manifest_uri or "", identity, call)
    if request.foreign_uri.endswith("/"):
        return examine_foreign(request.foreign_uri, identity, call)
    named = ImageNamed(image_uri=request.foreign_uri)
    return examine_image(named, request.foreign_uri, identity, call, declares=True)


@dataclass(frozen=True)
class _Snapshots:
    """A request, as far as snapshots come from it."""

    targets: Sequence[Target]
    options: TransferOptions


def _propose(
    request: RestoreRequest,
    found: ExaminedArchive | ExaminedForeign | ExaminedImage,
    execution: Execution,
    call: JobCall,
) -> Proposal[FullSnapshot | ImageObject]:
    if request.objects:
        return propose_objects(request, request.objects, found, execution, call)
    return propose_full(_Snapshots(request.snapshots, request.options), found, execution, call)


OPERATION = Operation(
    name="restore",
    summary="make snapshots in one or many regions, or a raw image in S3, of an archive",
    description="Restores an archive, or the newest of a chain, to snapshots in one or many regions, accounts and "
    "keys, or to raw disk images in S3; every block is checked and read once. " + RESUMED,
    request=RestoreRequest,
    functions=(*TRANSFER, "unpack_image"),
    sources=(JobArchive, JobForeign, JobImage),
    targets=(FullSnapshot, ImageObject),
    pairing=Pairing(RestoreRequest, _archive, _propose),
)
