"""Snapshots that are to be read: looked at, and refused before anything is started if they cannot be."""

from __future__ import annotations

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.ebs.refusals import EbsError
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest, RequestRefused
from blockferry.requests.parts import Source


def source_identity(source: Source, aws: Aws) -> Identity:
    """Where and as whom to read."""
    return Identity(source.region or aws.own_region, source.role_arn, source.external_id)


def readable_snapshot(call: Call, identity: Identity, snapshot_id: str) -> SnapshotFacts:
    """The facts of a completed snapshot that the direct APIs can read. Raises ``InvalidRequest`` for any other."""
    (facts,) = snapshots.settled(
        lambda: [
            assuming(
                lambda: snapshots.describe(call.ec2(identity), snapshot_id, region=identity.region),
                f"source in {identity.region}",
            )
        ],
        clock=call.clock,
        waits=call.waits,
    )
    snapshots.refuse_unreadable(facts, region=identity.region)
    return facts


def refuse_no_access(ebs: EbsDirect, snapshot_id: str) -> None:
    """Describing a snapshot and reading it are different permissions: try one page before anything is started."""
    try:
        ebs.list_blocks(snapshot_id, window=1)
    except RequestRefused as error:
        _refuse_unknown(error, snapshot_id, ebs.region)
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
        _refuse_unknown(error, f"{first} or {second}", ebs.region)
        raise InvalidRequest(
            f"the changes from {first} to {second} in {ebs.region} cannot be listed: {error}. The reading role needs "
            "ebs:ListChangedBlocks on both and kms:Decrypt on their key"
        ) from error
    return True


def _refuse_unknown(error: RequestRefused, names: str, region: str) -> None:
    """A snapshot that EC2 knows and the direct APIs do not is no question of permissions."""
    if isinstance(error.__cause__, EbsError) and error.__cause__.code == "ResourceNotFoundException":
        raise InvalidRequest(
            f"snapshot {names} in {region}: EC2 knows it, but the EBS direct APIs do not: {error}. If it was completed "
            "a moment ago, start again in some minutes; they never know what is public, on an Outpost or deleted"
        ) from error
