"""What a job is about: its source and its targets, from the request of each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, blocks_of_volume
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.quotas import MAX_TAG_VALUE, MAX_VOLUME_GIB
from blockferry.jobs.record import JobImage, JobSnapshot, JobTarget
from blockferry.jobs.workspace import Workspace
from blockferry.requests.copy import CopyRequest
from blockferry.requests.fanout import FanoutRequest
from blockferry.requests.parts import Target, TransferOptions, parse
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.address import examine
from blockferry.sources.meaning import for_delta, for_image, for_snapshot
from blockferry.sources.readable import readable_snapshot, refuse_no_access, source_identity
from blockferry.sources.unpack import unpacked
from blockferry.transfer.examine import full_target, job_snapshot, snapshot_tags, will_be_encrypted
from blockferry.transfer.parents import base_snapshot, parented_target, parents_of
from blockferry.transfer.sources import image_blocks

Request = CopyRequest | SyncRequest | FanoutRequest

_REQUESTS: Mapping[str, type[Request]] = {"copy": CopyRequest, "sync": SyncRequest, "fanout": FanoutRequest}


@dataclass(frozen=True)
class Subject:
    """A source, the targets, and what to do about holes. ``total_blocks`` is 0 for an image that has to be unpacked
    first; its targets have no size yet."""

    source: JobSnapshot | JobImage
    targets: tuple[JobTarget, ...]
    total_blocks: int
    holes: HoleDecision
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
    encrypted = _encrypted(request.targets, source_encrypted=facts.encrypted, aws=aws)
    if request.options.holes is HolePolicy.SKIP_ZERO:
        if facts.encrypted:
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe: {snapshot_id} is encrypted, and so are its copies; use preserve"
            )
        _refuse_skipping_zeros(request.targets, encrypted)
    holes = for_snapshot(request.options.holes, facts, may_be_encrypted=_any_may_be(encrypted))
    targets = tuple(
        full_target(
            target,
            encrypted=will_be,
            own_tags=snapshot_tags(source, job_id, holes.left),
            size_gib=facts.size_gib,
            source_tags=facts.tags,
            source_description=facts.description,
        )
        for target, will_be in zip(request.targets, encrypted, strict=True)
    )
    return Subject(source, targets, blocks_of_volume(facts.size_gib), holes, request.options)


def _delta(
    request: SyncRequest, identity: Identity, *, job_id: str, own_account: str, aws: Aws, ebs: EbsDirect
) -> Subject:
    facts = readable_snapshot(aws, identity, request.snapshot_id)
    refuse_no_access(ebs, request.snapshot_id)
    found = job_snapshot(facts, identity, request.lineage)
    base, parents = parents_of(request, found, aws=aws, ebs=ebs)
    source = found.model_copy(update={"base": base_snapshot(base)})
    holes = for_delta(request.options.holes, base, facts)
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
            holes=holes,
            aws=aws,
        )
        for number, (target, parent) in enumerate(zip(request.targets, parents, strict=True))
    )
    # A parent may be larger than the snapshot; what lies behind its end is compared, too.
    total = blocks_of_volume(max(target.size_gib for target in targets))
    return Subject(source, targets, total, holes, request.options, verify_parents=request.options.verify_parent)


def _image(
    request: FanoutRequest, uri: str, identity: Identity, *, job_id: str, aws: Aws, workspace: Workspace
) -> Subject:
    image = examine(
        aws.image_s3(identity), uri, request.image_codec, region=identity.region, image_format=request.image_format
    )
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
        believed_raw=image.believed_raw,
        unpack_requests=info.requests if info else {},
        unpack_gb_seconds=info.gb_seconds if info else 0.0,
    )
    size_gib = volume_size(source, request.volume_size_gib) if raw_bytes else 0
    total = blocks_of_volume(size_gib) if size_gib else 0
    encrypted = _encrypted(request.targets, source_encrypted=False, aws=aws)
    if request.options.holes is HolePolicy.SKIP_ZERO:
        _refuse_skipping_zeros(request.targets, encrypted)
    holes = for_image(
        request.options.holes,
        may_be_encrypted=_any_may_be(encrypted),
        fills_volume=image_blocks(source) == total > 0,
    )
    own = {
        snapshots.JOB_TAG: job_id,
        snapshots.IMAGE_TAG: uri[:MAX_TAG_VALUE],
        snapshots.HOLES_TAG: holes.left.value,
    }
    targets = tuple(
        full_target(
            target,
            encrypted=will_be,
            own_tags=own,
            size_gib=size_gib,
            source_tags={},
            source_description=uri[:MAX_TAG_VALUE],
        )
        for target, will_be in zip(request.targets, encrypted, strict=True)
    )
    return Subject(source, targets, total, holes, request.options)


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


def _encrypted(targets: tuple[Target, ...], *, source_encrypted: bool, aws: Aws) -> list[bool | None]:
    """Whether each target will be encrypted; ``None`` where that cannot be found out, which counts as true."""
    # The account is asked once for each place: two targets of which nothing is said there are twins, and refused.
    return [will_be_encrypted(target, source_encrypted=source_encrypted, aws=aws) for target in targets]


def _any_may_be(encrypted: list[bool | None]) -> bool:
    return any(will_be is not False for will_be in encrypted)


def _refuse_skipping_zeros(targets: tuple[Target, ...], encrypted: list[bool | None]) -> None:
    for number, (target, will_be) in enumerate(zip(targets, encrypted, strict=True)):
        if will_be is not False:
            raise InvalidRequest(
                f"options.holes: skip_zero is not safe for targets[{number}]: the account encrypts by default in "
                f"{target.region}, or that cannot be found out, and a block that is absent there does not read as "
                "zeros; use preserve, or set encrypted to false"
            )
