"""What a job is about: its source and its targets, from the request of each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockferry import snapshots
from blockferry.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, MAX_VOLUME_GIB, blocks_of_volume
from blockferry.ebs.client import EbsDirect, RequestCounts
from blockferry.errors import InvalidRequest
from blockferry.holes import HolePolicy
from blockferry.images.address import examine
from blockferry.images.unpack import unpacked
from blockferry.jobs import JobImage, JobSnapshot, JobTarget
from blockferry.models import Target, TransferOptions, parse
from blockferry.requests import CopyRequest, FanoutRequest, SyncRequest, SyncTarget
from blockferry.sessions import Aws, Identity
from blockferry.transfer.examine import (
    full_target,
    job_snapshot,
    readable_snapshot,
    refuse_no_access,
    refuse_unknown_regions,
    snapshot_tags,
    source_identity,
    will_be_encrypted,
)
from blockferry.transfer.parents import parented_target, parents_of
from blockferry.workspace import Workspace

LONGEST_TAG_VALUE = 255

Request = CopyRequest | SyncRequest | FanoutRequest

_REQUESTS: Mapping[str, type[Request]] = {"copy": CopyRequest, "sync": SyncRequest, "fanout": FanoutRequest}


@dataclass(frozen=True)
class Subject:
    """A source, the targets, and how to treat holes. ``total_blocks`` is 0 for an image that has to be unpacked first;
    its targets have no size yet."""

    source: JobSnapshot | JobImage
    targets: tuple[JobTarget, ...]
    total_blocks: int
    holes: HolePolicy
    options: TransferOptions
    verify_parents: bool = False


def subject_of(
    operation: str,
    data: Mapping[str, Any],
    *,
    job_id: str,
    own_account: str,
    aws: Aws,
    workspace: Workspace,
    counts: RequestCounts,
) -> Subject:
    """What the request of this operation is about.

    Everything that can be known to be wrong is found here, before the first StartSnapshot. Raises ``InvalidRequest``.
    """
    request = parse(_REQUESTS[operation], data, what=operation)
    identity = source_identity(request.source, aws)
    targets: Sequence[Target | SyncTarget] = request.targets
    named = [(f"targets[{number}].region", target.region) for number, target in enumerate(targets)]
    refuse_unknown_regions(aws, [("source.region", identity.region), *named])
    if isinstance(request, FanoutRequest) and request.image_uri is not None:
        return _image(request, request.image_uri, identity, job_id=job_id, aws=aws, workspace=workspace)
    ebs = aws.ebs(identity, counts=counts)
    if isinstance(request, SyncRequest):
        return _delta(request, identity, job_id=job_id, own_account=own_account, aws=aws, ebs=ebs)
    return _snapshot(request, request.snapshot_id or "", identity, job_id=job_id, aws=aws, ebs=ebs)


def _snapshot(
    request: CopyRequest | FanoutRequest,
    snapshot_id: str,
    identity: Identity,
    *,
    job_id: str,
    aws: Aws,
    ebs: EbsDirect,
) -> Subject:
    facts = readable_snapshot(aws, identity, snapshot_id)
    refuse_no_access(ebs, snapshot_id)
    source = job_snapshot(facts, identity, request.lineage)
    if request.options.holes is HolePolicy.SKIP_ZERO:
        if facts.encrypted:
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe: {snapshot_id} is encrypted, and so are its copies; use preserve"
            )
        _refuse_skipping_zeros(request.targets, aws)
    targets = tuple(
        full_target(
            target,
            own_tags=snapshot_tags(source, job_id),
            size_gib=facts.size_gib,
            source_tags=facts.tags,
            source_description=facts.description,
            source_encrypted=facts.encrypted,
        )
        for target in request.targets
    )
    return Subject(source, targets, blocks_of_volume(facts.size_gib), request.options.holes, request.options)


def _delta(
    request: SyncRequest, identity: Identity, *, job_id: str, own_account: str, aws: Aws, ebs: EbsDirect
) -> Subject:
    facts = readable_snapshot(aws, identity, request.snapshot_id)
    refuse_no_access(ebs, request.snapshot_id)
    found = job_snapshot(facts, identity, request.lineage)
    base, parents = parents_of(request, found, aws=aws, ebs=ebs)
    source = found.model_copy(update={"base": base})
    targets = tuple(
        parented_target(
            target,
            number,
            parent=parent,
            base=base,
            source=source,
            source_facts=facts,
            job_id=job_id,
            own_account=own_account,
            verify=request.options.verify_parent,
            aws=aws,
        )
        for number, (target, parent) in enumerate(zip(request.targets, parents, strict=True))
    )
    # A parent may be larger than the snapshot; what lies behind its end is compared, too.
    total = blocks_of_volume(max(target.size_gib for target in targets))
    return Subject(
        source, targets, total, HolePolicy.PRESERVE, request.options, verify_parents=request.options.verify_parent
    )


def _image(
    request: FanoutRequest, uri: str, identity: Identity, *, job_id: str, aws: Aws, workspace: Workspace
) -> Subject:
    image = examine(aws.image_s3(identity), uri, request.image_codec, region=identity.region)
    raw_bytes, info = image.size_bytes, None
    if image.codec != "raw":
        info = unpacked(workspace, job_id)
        if info is not None and info.etag != image.etag:
            raise InvalidRequest(f"image {uri} was replaced after it was unpacked; start a new job")
        raw_bytes = 0 if info is None else info.raw_bytes
    source = JobImage(
        region=identity.region,
        role_arn=identity.role_arn,
        external_id=identity.external_id,
        uri=uri,
        etag=image.etag,
        size_bytes=image.size_bytes,
        codec=image.codec,
        raw_bytes=raw_bytes,
        unpack_requests=info.requests if info else {},
        unpack_gb_seconds=info.gb_seconds if info else 0.0,
    )
    size_gib = volume_size(source, request.volume_size_gib) if raw_bytes else 0
    own = {snapshots.JOB_TAG: job_id, snapshots.IMAGE_TAG: uri[:LONGEST_TAG_VALUE]}
    targets = tuple(
        full_target(
            target,
            own_tags=own,
            size_gib=size_gib,
            source_tags={},
            source_description=uri[:LONGEST_TAG_VALUE],
            source_encrypted=False,
        )
        for target in request.targets
    )
    total = blocks_of_volume(size_gib) if size_gib else 0
    return Subject(source, targets, total, _holes_of_image(request, aws), request.options)


def volume_size(image: JobImage, asked_gib: int | None) -> int:
    """GiB of a volume that holds the image. Raises ``InvalidRequest`` when the size that was asked for is too small."""
    needed = -(-image.raw_bytes // (BLOCK_SIZE * BLOCKS_PER_GIB))
    if needed > MAX_VOLUME_GIB:
        raise InvalidRequest(f"image {image.uri} has {image.raw_bytes} bytes, more than the largest volume (64 TiB)")
    if asked_gib is not None and asked_gib < needed:
        raise InvalidRequest(
            f"volume_size_gib: {asked_gib} GiB is too small for image {image.uri} of {image.raw_bytes} bytes; "
            f"{needed} GiB are needed"
        )
    return asked_gib or needed


def _holes_of_image(request: FanoutRequest, aws: Aws) -> HolePolicy:
    """An image does not tell holes from zeros. Zeros are left out where they are read back as zeros, which in an
    encrypted snapshot they are not."""
    if request.options.holes is HolePolicy.ZERO_FILL:
        return HolePolicy.ZERO_FILL
    if request.options.holes is HolePolicy.SKIP_ZERO:
        _refuse_skipping_zeros(request.targets, aws)
        return HolePolicy.SKIP_ZERO
    safe = not any(will_be_encrypted(target, aws) for target in request.targets)
    return HolePolicy.SKIP_ZERO if safe else HolePolicy.PRESERVE


def _refuse_skipping_zeros(targets: tuple[Target, ...], aws: Aws) -> None:
    for number, target in enumerate(targets):
        if will_be_encrypted(target, aws):
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe for targets[{number}]: the account encrypts by default in "
                f"{target.region}, or that cannot be found out, and a block that is absent there does not read as "
                "zeros; use preserve, or set encrypted to false"
            )
