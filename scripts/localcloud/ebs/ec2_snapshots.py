"""DescribeSnapshots and DeleteSnapshot, and how EC2 finds and shows a snapshot.

Source: EC2 API reference of each action; members: botocore ec2 model; EBS user guide, "Delete an Amazon
EBS snapshot", for what cannot be deleted.
"""

from __future__ import annotations

import re

from localcloud.ebs.ec2_query import Answer, Call, Filter, page, tag_filters_fit, tag_set, timestamp
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.model import Snapshot

_SNAPSHOT_ID = re.compile(r"snap-([0-9a-f]{8}|[0-9a-f]{17})")
_FILTERS = frozenset(
    (
        "description",
        "encrypted",
        "owner-alias",
        "owner-id",
        "progress",
        "snapshot-id",
        "start-time",
        "status",
        "storage-tier",
        "tag-key",
        "tag-value",
        "transfer-type",
        "volume-id",
        "volume-size",
    )
)
_OWNER_ALIASES = ("amazon", "aws-marketplace", "aws-backup-vault")


def find(call: Call, snapshot_id: str) -> Snapshot:
    """A snapshot of the call's Region that the caller may see."""
    if not _SNAPSHOT_ID.fullmatch(snapshot_id):
        raise Ec2Error(
            "InvalidSnapshotID.Malformed",
            f'Invalid id: "{snapshot_id}" (expecting "snap-...")'
            if not snapshot_id.startswith("snap-")
            else f"The snapshot ID '{snapshot_id}' is malformed",
        )
    snapshot = call.registry.snapshot(snapshot_id, call.region)
    if snapshot is None or not _shown_to(snapshot, call.account) or _too_new(call, snapshot):
        raise Ec2Error("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot


def find_own(call: Call, snapshot_id: str) -> Snapshot:
    snapshot = find(call, snapshot_id)
    if snapshot.owner != call.account:
        raise Ec2Error("UnauthorizedOperation", f"You are not the owner of the snapshot '{snapshot_id}'.", status=403)
    return snapshot


def _shown_to(snapshot: Snapshot, account: str) -> bool:
    return snapshot.public or snapshot.shared_to(account)


def _too_new(call: Call, snapshot: Snapshot) -> bool:
    window = call.registry.config.describe_not_found_window_seconds
    return call.registry.clock.now() < snapshot.start_time + window


def _looks_stale(call: Call, snapshot: Snapshot) -> bool:
    """Whether this look still shows a completed snapshot as pending: every second one, for a while.

    AWS's own coldsnap asks for three completed answers in a row (wait.rs).
    """
    window = call.registry.config.describe_stale_seconds
    if not window or snapshot.state != "completed" or snapshot.completion_time is None:
        return False
    if call.registry.clock.now() >= snapshot.completion_time + window:
        return False
    snapshot.stale_looks += 1
    return snapshot.stale_looks % 2 == 0


def _as_pending(shown: Answer) -> Answer:
    return {**shown, "status": "pending", "progress": "99%", "completionTime": None, "fullSnapshotSizeInBytes": None}


def view(call: Call, snapshot: Snapshot) -> Answer:
    """The members of EC2's Snapshot. Tags and the key of somebody else's snapshot are not shown."""
    own = snapshot.owner == call.account
    encryption = snapshot.encryption
    return {
        "snapshotId": snapshot.snapshot_id,
        "volumeId": snapshot.volume_id,
        "status": snapshot.state,
        "statusMessage": snapshot.state_message or None,
        "startTime": timestamp(snapshot.start_time),
        "completionTime": timestamp(snapshot.completion_time) if snapshot.completion_time else None,
        "progress": f"{snapshot.progress}%" if snapshot.state != "error" else None,
        "ownerId": snapshot.owner,
        "volumeSize": snapshot.volume_gib,
        "fullSnapshotSizeInBytes": (call.registry.full_size(snapshot) if snapshot.state == "completed" else None),
        "description": snapshot.description,
        "encrypted": encryption.encrypted,
        "kmsKeyId": encryption.kms_key_arn,
        "dataEncryptionKeyId": call.registry.data_key_id(snapshot),
        "storageTier": snapshot.storage_tier,
        "restoreExpiryTime": timestamp(snapshot.restore_expiry) if snapshot.restore_expiry else None,
        "outpostArn": snapshot.outpost_arn,
        "transferType": snapshot.transfer_type,
        "completionDurationMinutes": snapshot.completion_minutes,
        "sseType": "sse-kms" if encryption.encrypted else "none",
        "tagSet": tag_set(snapshot.tags) if own else None,
    }


def describe_snapshots(call: Call) -> Answer:
    ids = call.params.texts("SnapshotId")
    if ids and call.params.text("MaxResults") is not None:
        raise Ec2Error(
            "InvalidParameterCombination",
            "The parameter SnapshotIds cannot be used with the parameter MaxResults",
        )
    filters = call.params.filters(_FILTERS)
    with call.registry.lock:
        if ids:
            candidates = [find(call, snapshot_id) for snapshot_id in dict.fromkeys(ids)]
        else:
            candidates = [
                snapshot
                for snapshot in list(call.registry.snapshots.values())
                if snapshot.region == call.region and _shown_to(snapshot, call.account) and not _too_new(call, snapshot)
            ]
        chosen = [
            snapshot
            for snapshot in candidates
            if _owner_fits(call, snapshot) and _restorable_fits(call, snapshot) and _fits(call, filters, snapshot)
        ]
        chosen.sort(key=lambda snapshot: (snapshot.start_time, snapshot.snapshot_id))
        shown, following = page(call, chosen, least=5, most=1000)
        views = [
            _as_pending(view(call, snapshot)) if _looks_stale(call, snapshot) else view(call, snapshot)
            for snapshot in shown
        ]
        return {"snapshotSet": views, "nextToken": following}


def _owner_fits(call: Call, snapshot: Snapshot) -> bool:
    owners = call.params.texts("Owner")
    if not owners:
        return True
    for owner in owners:
        if not re.fullmatch(r"self|[0-9]{12}|" + "|".join(_OWNER_ALIASES), owner):
            raise Ec2Error("InvalidUserID.Malformed", f'Invalid user id: "{owner}"')
    return snapshot.owner in owners or ("self" in owners and snapshot.owner == call.account)


def _restorable_fits(call: Call, snapshot: Snapshot) -> bool:
    users = call.params.texts("RestorableBy")
    if not users:
        return True
    return any(
        (user == "all" and snapshot.public)
        or (user != "all" and snapshot.shared_to(call.account if user == "self" else user))
        for user in users
    )


def _fits(call: Call, filters: list[Filter], snapshot: Snapshot) -> bool:
    own_tags = snapshot.tags if snapshot.owner == call.account else {}
    facts: dict[str, list[str]] = {
        "description": [snapshot.description],
        "encrypted": ["true" if snapshot.encryption.encrypted else "false"],
        "owner-alias": [],
        "owner-id": [snapshot.owner],
        "progress": [f"{snapshot.progress}%"],
        "snapshot-id": [snapshot.snapshot_id],
        "start-time": [timestamp(snapshot.start_time)],
        "status": [snapshot.state],
        "storage-tier": [snapshot.storage_tier],
        "transfer-type": [snapshot.transfer_type] if snapshot.transfer_type else [],
        "volume-id": [snapshot.volume_id],
        "volume-size": [str(snapshot.volume_gib)],
    }
    if not all(each.fits(facts[each.name]) for each in filters if each.name in facts):
        return False
    return tag_filters_fit(filters, own_tags)


def delete_snapshot(call: Call) -> Answer:
    registry = call.registry
    with registry.lock:
        snapshot = find_own(call, call.params.required("SnapshotId"))
        if snapshot.snapshot_id in registry.config.snapshots_in_use:
            raise Ec2Error(
                "InvalidSnapshot.InUse", f"The snapshot {snapshot.snapshot_id} is currently in use by an AMI."
            )
        lock = snapshot.lock
        if lock is not None and lock.state(registry.clock.now()) != "expired":
            raise Ec2Error("SnapshotLocked", f"The snapshot '{snapshot.snapshot_id}' is locked.")
        registry.delete(snapshot)
    return {"return": True}
