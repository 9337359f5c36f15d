"""Restore: an archive, ours or one of another tool, to snapshots."""

from __future__ import annotations

from blockferry.aws.sessions import Identity
from blockferry.jobs.call import JobCall
from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.named import ImageNamed
from blockferry.requests.restore import RestoreRequest
from blockferry.sources.archive import ExaminedArchive, JobArchive, examine_archive
from blockferry.sources.foreign import ExaminedForeign, JobForeign, examine_foreign
from blockferry.sources.image import ExaminedImage, JobImage, examine_image
from blockferry.targets.full import FullSnapshot, propose_full
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


OPERATION = Operation(
    name="restore",
    summary="make snapshots in one or many regions of an archive",
    description="Restores an archive, or the newest of a chain, to snapshots in one or many regions, accounts and "
    "keys; every block is checked and read once. " + RESUMED,
    request=RestoreRequest,
    functions=(*TRANSFER, "unpack_image"),
    sources=(JobArchive, JobForeign, JobImage),
    targets=(FullSnapshot,),
    pairing=Pairing(RestoreRequest, _archive, propose_full),
)
