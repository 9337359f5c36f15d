"""Look at what a request names, and refuse what cannot work before anything is started."""

from __future__ import annotations

from collections.abc import Mapping

from blockferry.aws import snapshots
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleMeaning
from blockferry.core.quotas import MAX_TAGS
from blockferry.jobs.record import JobSnapshot, JobTarget
from blockferry.requests.parts import CONTROL_PREFIX, Target
from blockferry.requests.sync import SyncTarget

TAGS_AT_THE_END = 2
"""Kept free for what is set when the target is completed: the checksum and the target's own id."""


def target_identity(target: Target | SyncTarget) -> Identity:
    """Where and as whom to write."""
    return Identity(target.region, target.role_arn, target.external_id)


def job_snapshot(facts: SnapshotFacts, identity: Identity, lineage: str | None) -> JobSnapshot:
    """The record of a snapshot that is read."""
    return JobSnapshot(
        region=identity.region,
        role_arn=identity.role_arn,
        external_id=identity.external_id,
        snapshot_id=facts.snapshot_id,
        owner_id=facts.owner_id,
        volume_id=facts.volume_id,
        size_gib=facts.size_gib,
        start_time=facts.start_time.isoformat(),
        encrypted=facts.encrypted,
        full_size_bytes=facts.full_size_bytes,
        lineage=lineage or facts.volume_id,
    )


def snapshot_tags(source: JobSnapshot, job_id: str, left: HoleMeaning) -> dict[str, str]:
    """The tags by which a copy of a snapshot is found again, and what its holes stand for."""
    return {
        snapshots.JOB_TAG: job_id,
        snapshots.SOURCE_TAG: source.snapshot_id,
        snapshots.SOURCE_REGION_TAG: source.region,
        snapshots.LINEAGE_TAG: source.lineage,
        snapshots.HOLES_TAG: left.value,
    }


def full_target(
    target: Target,
    *,
    encrypted: bool | None,
    own_tags: Mapping[str, str],
    size_gib: int,
    source_tags: Mapping[str, str],
    source_description: str,
) -> JobTarget:
    """A target that gets everything. ``encrypted`` is what ``will_be_encrypted`` has found."""
    return JobTarget(
        region=target.region,
        role_arn=target.role_arn,
        external_id=target.external_id,
        kms_key_arn=target.kms_key_arn,
        # What was decided about holes rests on it: it is asked for, and not left to a default that may change.
        encrypted=target.encrypted if target.kms_key_arn is not None else encrypted,
        description=source_description if target.description is None else target.description,
        tags=all_tags(source_tags, target.tags, own_tags, region=target.region),
        size_gib=size_gib,
    )


def all_tags(
    source: Mapping[str, str], asked: Mapping[str, str], own: Mapping[str, str], *, region: str
) -> dict[str, str]:
    """The source's tags, those asked for, which win, and the job's. Raises ``InvalidRequest`` for too many."""
    tags = {k: v for k, v in source.items() if not k.lower().startswith(("aws:", CONTROL_PREFIX))}
    tags |= asked
    tags |= own
    if len(tags) + TAGS_AT_THE_END > MAX_TAGS:
        raise InvalidRequest(
            f"target in {region}: {len(tags) + TAGS_AT_THE_END} tags (the source's, the target's and "
            f"{len(own) + TAGS_AT_THE_END} of the job), EC2 keeps {MAX_TAGS}; name fewer tags or remove some from the "
            "source"
        )
    return tags


def will_be_encrypted(target: Target, *, source_encrypted: bool, aws: Aws) -> bool | None:
    """Whether the target will be encrypted, the account's default included; ``None`` where that cannot be found out."""
    if target.encrypted is not None or target.kms_key_arn is not None:
        return target.encrypted is not False
    if source_encrypted:
        # The account's default may be no encryption: a copy is never less protected unless it is asked for.
        return True
    return snapshots.encrypted_by_default(aws.ec2(target_identity(target)))
