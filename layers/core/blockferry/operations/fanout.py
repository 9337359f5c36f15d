"""Fanout: a disk image, a snapshot or an archive to snapshots in many places."""

from __future__ import annotations

from blockferry.aws.sessions import Identity
from blockferry.jobs.call import JobCall
from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.fanout import FanoutRequest
from blockferry.sources.archive import ExaminedArchive, JobArchive, examine_archive
from blockferry.sources.image import ExaminedImage, JobImage, examine_image
from blockferry.sources.snapshot import ExaminedSnapshot, JobSnapshot, examine_snapshot
from blockferry.targets.full import FullSnapshot, propose_full
from blockferry.transfer.pairing import Pairing


def _image_snapshot_or_archive(
    request: FanoutRequest, identity: Identity, call: JobCall
) -> ExaminedImage | ExaminedSnapshot | ExaminedArchive:
    if request.image_uri is not None:
        return examine_image(request, request.image_uri, identity, call)
    if request.manifest_uri is not None:
        return examine_archive(request.manifest_uri, identity, call)
    return examine_snapshot(request.snapshot_id or "", request.lineage, identity, call)


OPERATION = Operation(
    name="fanout",
    summary="make snapshots in many regions of a disk image in S3, a snapshot or an archive",
    description="Brings a disk image in S3, a snapshot or an archive to many regions, accounts and keys; each "
    "block is read once. " + RESUMED,
    request=FanoutRequest,
    functions=(*TRANSFER, "unpack_image"),
    sources=(JobImage, JobSnapshot, JobArchive),
    targets=(FullSnapshot,),
    pairing=Pairing(FanoutRequest, _image_snapshot_or_archive, propose_full),
)
