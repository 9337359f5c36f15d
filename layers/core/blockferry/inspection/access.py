"""Whether everything that an inspection names is there and can be read: found out before anything is counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from blockferry import snapshots
from blockferry.cost import partition_of
from blockferry.ebs.client import EbsDirect, EbsError
from blockferry.errors import InvalidRequest, RequestRefused
from blockferry.inspection.choice import KeyManager
from blockferry.inspection.count import Pair
from blockferry.sessions import Aws, Identity
from blockferry.snapshots import SnapshotFacts
from blockferry.transfer.targets import assuming

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def refuse_unknown_regions(aws: Aws, source_region: str, target_regions: Sequence[str]) -> None:
    """Raise ``InvalidRequest`` for a region that does not exist, or a source's that is not enabled here.

    A target may be in another partition, of which this one knows nothing: how to get there is what is asked.
    """
    try:
        answer = aws.ec2(Identity(aws.own_region)).describe_regions(AllRegions=True)
    except (ClientError, BotoCoreError) as error:
        raise RequestRefused(f"DescribeRegions in {aws.own_region}: {error}") from error
    known = {r["RegionName"]: r.get("OptInStatus", "opt-in-not-required") for r in answer["Regions"]}
    named = [("source.region", source_region)]
    named += [(f"targets[{n}].region", region) for n, region in enumerate(target_regions)]
    for field, region in named:
        if field != "source.region" and partition_of(region) != partition_of(aws.own_region):
            continue
        if region not in known:
            raise InvalidRequest(
                f"{field}: {region} is unknown to AWS (seen from {aws.own_region}); check its spelling. A snapshot of "
                "another partition cannot be read with a role"
            )
        if known[region] == "not-opted-in":
            raise InvalidRequest(f"{field}: {region} is not enabled in this account; enable it or name another one")


def described(ec2: EC2Client, named: Sequence[tuple[str, str]], *, region: str) -> dict[str, SnapshotFacts]:
    """The facts of snapshots given as (field of the input, id), all of them readable in state and tier.

    Raises ``InvalidRequest`` for the first one that is not, with its field.
    """
    found: dict[str, SnapshotFacts] = {}
    for field, snapshot_id in named:
        if snapshot_id not in found:
            try:
                facts = assuming(partial(snapshots.describe, ec2, snapshot_id, region=region), f"source in {region}")
                snapshots.refuse_unreadable(facts, region=region)
            except InvalidRequest as error:
                raise InvalidRequest(f"{field}: {error}") from error
            found[snapshot_id] = facts
    return found


def refuse_no_access(ebs: EbsDirect, snapshot_ids: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Describing a snapshot and listing it are different permissions: ask for one page of every list."""
    for snapshot_id in snapshot_ids:
        try:
            ebs.list_blocks(snapshot_id, window=1)
        except RequestRefused as error:
            raise InvalidRequest(
                f"snapshot {snapshot_id} in {ebs.region} cannot be read through the EBS direct APIs: {error}. The "
                "reading role needs ebs:ListSnapshotBlocks, ebs:ListChangedBlocks and ebs:GetSnapshotBlock on it and "
                "kms:Decrypt on its key; public snapshots and those on Outposts are not supported by EBS"
            ) from error
    for first, second in pairs:
        try:
            ebs.list_changed_blocks(first, second, window=1)
        except RequestRefused as error:
            if isinstance(error.__cause__, EbsError) and error.__cause__.reason == "UNRELATED_SNAPSHOTS":
                raise InvalidRequest(
                    f"{first} and {second} in {ebs.region} are not of one volume and lineage, so EBS cannot tell what "
                    "changed between them. A copy with another key or in another account begins a lineage of its "
                    f"own; compare snapshots of the same volume ({error})"
                ) from error
            raise InvalidRequest(
                f"the changes from {first} to {second} in {ebs.region} cannot be listed: {error}. The reading role "
                "needs ebs:ListChangedBlocks on both and kms:Decrypt on their key"
            ) from error


def key_manager(aws: Aws, identity: Identity, facts: SnapshotFacts) -> KeyManager | None:
    """Who manages the snapshot's key; ``None`` without a key, or when it cannot be looked up."""
    if not facts.encrypted or facts.kms_key_id is None:
        return None
    try:
        found = aws.kms(identity).describe_key(KeyId=facts.kms_key_id)["KeyMetadata"].get("KeyManager")
    except (ClientError, BotoCoreError):
        return None
    return found if found in ("AWS", "CUSTOMER") else None


def has_volume(volume_id: str) -> bool:
    """Whether the id is that of a volume: copies carry an arbitrary one (EBS user guide, copy a snapshot)."""
    return volume_id.startswith("vol-") and not volume_id.startswith("vol-ffff")


def left_out(ec2: EC2Client, volume_id: str, chain: Sequence[str]) -> list[str] | None:
    """Other snapshots of the volume in the account; ``None`` when the id is not that of a volume."""
    if not has_volume(volume_id):
        return None
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "volume-id", "Values": [volume_id]}]
    )
    found = (snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"])
    return sorted(set(found) - set(chain))
