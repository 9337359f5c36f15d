"""Archive: a snapshot, what changed in it, or a disk image to an archive in S3."""

from __future__ import annotations

from blockferry.operations.operation import RESUMED, TRANSFER, Operation
from blockferry.requests.archive import ArchiveRequest
from blockferry.sources.archiving import examine_for_archive
from blockferry.sources.delta import JobDelta
from blockferry.sources.image import JobImage
from blockferry.sources.snapshot import JobSnapshot
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_proposal import propose_archive
from blockferry.transfer.pairing import Pairing

OPERATION = Operation(
    name="archive",
    summary="archive a snapshot, or what changed since an earlier archive, in an S3 bucket",
    description="Archives an EBS snapshot, in full or as what changed since an earlier archive, or a disk image, "
    "in an S3 bucket: compressed, provable, and readable with standard tools. " + RESUMED,
    request=ArchiveRequest,
    functions=(*TRANSFER, "unpack_image"),
    sources=(JobSnapshot, JobDelta, JobImage),
    targets=(ArchiveTarget,),
    pairing=Pairing(ArchiveRequest, examine_for_archive, propose_archive),
)
