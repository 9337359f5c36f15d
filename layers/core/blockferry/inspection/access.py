"""Looks at everything that an inspection names, before anything is counted: is it there, and can it be read?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.call import Call
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts, has_volume
from blockferry.core.errors import InvalidRequest
from blockferry.cost.choice import KeyManager
from blockferry.inspection.count import Pair
from blockferry.sources import readable

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def described(call: Call, identity: Identity, named: Sequence[tuple[str, str]]) -> dict[str, SnapshotFacts]:
    """The facts of snapshots given as (field of the input, id), all of them readable in state and tier.

    Raises ``InvalidRequest`` for the first one that is not, with its field.
    """
    found: dict[str, SnapshotFacts] = {}
    for field, snapshot_id in named:
        if snapshot_id not in found:
            try:
                found[snapshot_id] = readable.readable_snapshot(call, identity, snapshot_id)
            except InvalidRequest as error:
                raise InvalidRequest(f"{field}: {error}") from error
    return found


def refuse_no_access(ebs: EbsDirect, snapshot_ids: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Raise ``InvalidRequest`` for a list that cannot be asked for: describing a snapshot and listing it are different
    permissions."""
    for snapshot_id in snapshot_ids:
        readable.refuse_no_access(ebs, snapshot_id)
    for first, second in pairs:
        if not readable.related(ebs, first, second):
            raise InvalidRequest(
                f"{first} and {second} in {ebs.region} are not of one volume and lineage (UNRELATED_SNAPSHOTS), so EBS "
                "cannot tell what changed between them. A copy with another key or in another account begins a "
                "lineage of its own; compare snapshots of the same volume"
            )


def key_manager(aws: Aws, identity: Identity, facts: SnapshotFacts) -> KeyManager | None:
    """The manager of the snapshot's key; ``None`` without a key, or when it cannot be looked up."""
    if not facts.encrypted or facts.kms_key_id is None:
        return None
    try:
        found = aws.kms(identity).describe_key(KeyId=facts.kms_key_id)["KeyMetadata"].get("KeyManager")
    except (ClientError, BotoCoreError):
        return None
    return found if found in ("AWS", "CUSTOMER") else None


def left_out(ec2: EC2Client, volume_id: str, chain: Sequence[str]) -> list[str] | None:
    """Other snapshots of the volume in the account; ``None`` when the id is not that of a volume."""
    if not has_volume(volume_id):
        return None
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "volume-id", "Values": [volume_id]}]
    )
    found = (snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"])
    return sorted(set(found) - set(chain))
