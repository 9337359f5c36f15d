"""Look at what a request names, and refuse what cannot work before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.ebs.refusals import EbsError
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest, RequestRefused
from blockferry.core.holes import HoleMeaning
from blockferry.jobs.record import JobSnapshot, JobTarget
from blockferry.requests.parts import CONTROL_PREFIX, MAX_TAGS, Source, Target
from blockferry.requests.sync import SyncTarget
from blockferry.transfer.targets import assuming

TAGS_AT_THE_END = 2
"""Kept free for what is set when the target is completed: the checksum and the target's own id."""


def source_identity(source: Source, aws: Aws) -> Identity:
    """Where and as whom to read."""
    return Identity(source.region or aws.own_region, source.role_arn, source.external_id)


def target_identity(target: Target | SyncTarget) -> Identity:
    """Where and as whom to write."""
    return Identity(target.region, target.role_arn, target.external_id)


def refuse_unknown_regions(aws: Aws, named: Iterable[tuple[str, str]]) -> None:
    """Raise ``InvalidRequest`` for a region, given as (field of the input, name), that AWS does not know or that the
    account has not enabled."""
    try:
        answer = aws.ec2(Identity(aws.own_region)).describe_regions(AllRegions=True)
    except (ClientError, BotoCoreError) as error:
        raise RequestRefused(f"DescribeRegions in {aws.own_region}: {error}") from error
    known = {r["RegionName"]: r.get("OptInStatus", "opt-in-not-required") for r in answer["Regions"]}
    for field, region in named:
        if region not in known:
            raise InvalidRequest(
                f"{field}: region {region} is unknown to AWS (seen from {aws.own_region}); check its spelling. Regions "
                "of another partition cannot be reached with a role"
            )
        if known[region] == "not-opted-in":
            raise InvalidRequest(
                f"{field}: region {region} is not enabled in this account; enable it or choose another one"
            )


def readable_snapshot(aws: Aws, identity: Identity, snapshot_id: str) -> SnapshotFacts:
    """The facts of a completed snapshot that the direct APIs can read. Raises ``InvalidRequest`` for any other."""
    (facts,) = snapshots.settled(
        lambda: [
            assuming(
                lambda: snapshots.describe(aws.ec2(identity), snapshot_id, region=identity.region),
                f"source in {identity.region}",
            )
        ]
    )
    snapshots.refuse_unreadable(facts, region=identity.region)
    return facts


def refuse_no_access(ebs: EbsDirect, snapshot_id: str) -> None:
    """Describing a snapshot and reading it are different permissions: try one page before anything is started."""
    try:
        ebs.list_blocks(snapshot_id, window=1)
    except RequestRefused as error:
        raise InvalidRequest(
            f"snapshot {snapshot_id} in {ebs.region} cannot be read through the EBS direct APIs: {error}. The reading "
            "role needs ebs:ListSnapshotBlocks and ebs:GetSnapshotBlock on it and kms:Decrypt on its key; public "
            "snapshots and those on Outposts are not supported by EBS"
        ) from error


def related(ebs: EbsDirect, first: str, second: str) -> bool:
    """Whether EBS lists changes between the two. Raises ``InvalidRequest`` when it refuses for another reason."""
    try:
        ebs.list_changed_blocks(first, second, window=1)
    except RequestRefused as error:
        if isinstance(error.__cause__, EbsError) and error.__cause__.reason == "UNRELATED_SNAPSHOTS":
            return False
        raise InvalidRequest(
            f"the changes from {first} to {second} in {ebs.region} cannot be listed: {error}. The reading role needs "
            "ebs:ListChangedBlocks on both and kms:Decrypt on their key"
        ) from error
    return True


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
