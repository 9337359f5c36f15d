"""The objects that a request asks for: where there is none yet, in buckets that take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Identity
from blockferry.aws.uploads import UploadBucket, upload_bucket
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import InvalidRequest, RequestRefused
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.quotas import BLOCKS_PER_SECOND, MAX_OBJECT_GIB
from blockferry.core.rates import blocks_per_worker
from blockferry.core.together import together
from blockferry.core.words import counted
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.requests.objects import ObjectTarget
from blockferry.requests.parts import TransferOptions
from blockferry.sources.kind import Examined, JobSource
from blockferry.targets.image_object import SMALLEST_PART, ImageObject, part_blocks
from blockferry.targets.proposal import Proposal
from blockferry.targets.unfinished_object import made_by

PART_SECONDS = 300.0
"""A part is moved within one call of a worker, which has nearly three times as long: other jobs may slow it down."""

ACCESS = (
    "Buckets of this account are named in the Terraform variable restore_bucket_names, keys in archive_kms_key_arns; "
    "for another account's name a role of it in role_arn, which may s3:ListBucket and s3:ListBucketMultipartUploads on "
    "the bucket, and s3:GetObject, s3:PutObject, s3:PutObjectTagging, s3:AbortMultipartUpload and "
    "s3:ListMultipartUploadParts on the object"
)


class Asked(Protocol):
    """The part of a request that objects come from."""

    @property
    def options(self) -> TransferOptions: ...


def propose_objects(
    request: Asked, asked: Sequence[ObjectTarget], found: Examined[JobSource], execution: Execution, call: JobCall
) -> Proposal[ImageObject]:
    """An object for each one that is asked for. Raises ``InvalidRequest`` when a bucket cannot be used, there is an
    object already, or S3 takes none as large as the volume."""
    size = found.size_gib
    if size is not None:
        refuse_too_large(size, request.options, len(asked))
    numbered = list(enumerate(asked))
    regions = together(
        lambda each: _region(each[1], f"targets[{each[0]}]", execution, call),
        numbered,
        most=call.throughput.places_at_a_time,
    )
    since = datetime.now(UTC).isoformat()
    targets = tuple(
        ImageObject(
            region=region,
            role_arn=target.role_arn,
            external_id=target.external_id,
            bucket=target.bucket,
            key=target.key,
            storage_class=target.storage_class,
            kms_key_arn=target.kms_key_arn,
            object_tags=dict(target.tags),
            part_blocks=SMALLEST_PART if size is None else part_blocks(size),
            origin=found.source.name,
            since=since,
            job_id=execution.job_id,
            execution=execution.mark,
            size_gib=size,
        )
        for target, region in zip(asked, regions, strict=True)
    )
    # Every block of the volume is there: nothing has to be decided about holes, which are zeros.
    holes = found.decide(None, may_be_encrypted=False)
    holes = replace(holes, left=HoleMeaning.NONE, possible=(HolePolicy.PRESERVE,))
    return Proposal(targets, holes, warnings=found.warnings)


def refuse_too_large(size_gib: int, options: TransferOptions, targets: int) -> None:
    """Raise ``InvalidRequest`` for a volume that no object holds, or whose parts workers could not end in a call."""
    if size_gib > MAX_OBJECT_GIB:
        raise InvalidRequest(
            f"targets: the volume has {size_gib} GiB, and an object is written up to {MAX_OBJECT_GIB} GiB (5 TiB): "
            "restore to a snapshot instead; nothing was started"
        )
    part, most = part_blocks(size_gib), options.max_concurrency
    share = blocks_per_worker(targets)
    if most is not None:
        share = min(share, BLOCKS_PER_SECOND / targets / most)
    if part > share * PART_SECONDS:
        raise InvalidRequest(
            f"targets: parts of {part * BLOCK_SIZE >> 20} MiB, as a volume of {size_gib} GiB needs, are moved by one "
            f"call each, and with {counted(targets, 'target')} and options.max_concurrency {most or 'left out'} "
            "a worker is too slow for that: name fewer targets, or lower max_concurrency or leave it out; "
            "nothing was started"
        )


def _region(target: ObjectTarget, field: str, execution: Execution, call: JobCall) -> str:
    """The Region of the bucket. Raises ``InvalidRequest``."""
    where = f"{field}.image_uri"
    if target.bucket == call.folder.bucket:
        raise InvalidRequest(
            f"{where}: {target.bucket} is the work bucket of this deployment, whose objects expire; name another"
        )
    own = Identity(target.region or call.aws.own_region, target.role_arn, target.external_id)
    try:
        region = assuming(
            lambda: upload_bucket(call, own, target.bucket).region(default=own.region, access=""),
            f"{where} {target.bucket}",
        )
        if target.region not in (None, region):
            raise InvalidRequest(
                f"{field}.region: the bucket {target.bucket} is in {region}, not in {target.region}: correct it, or "
                "leave it out"
            )
        if target.kms_key_arn is not None and target.kms_key_arn.split(":")[3] != region:
            raise InvalidRequest(
                f"{field}.kms_key_arn names a key in {target.kms_key_arn.split(':')[3]}, the bucket {target.bucket} is "
                f"in {region}: name a key there"
            )
        there = upload_bucket(call, replace(own, region=region), target.bucket)
        _refuse_existing(there, target, where, execution)
    except RequestRefused as error:
        raise InvalidRequest(f"{where}: {str(error).rstrip('.')}. {ACCESS}; nothing was started") from error
    return region


def _refuse_existing(bucket: UploadBucket, target: ObjectTarget, where: str, execution: Execution) -> None:
    found = bucket.head(target.key)
    # What this execution has made itself is no obstacle: its plan is repeated.
    if found is not None and not made_by(execution.mark, found):
        raise InvalidRequest(
            f"{where}: there is an object {target.image_uri} already ({found['ContentLength']} bytes, of "
            f"{found['LastModified']:%Y-%m-%d}), and it is never written over: name another key, or move it away"
        )
