"""ModifySnapshotTier, RestoreSnapshotTier, DescribeSnapshotTierStatus.

Source: EC2 API reference; EBS user guide, "Archive Amazon EBS snapshots" and its monitoring page.
"""

from __future__ import annotations

from localcloud.ebs import ec2_snapshots
from localcloud.ebs.ec2_query import Answer, Call, page, tag_filters_fit, tag_set, timestamp
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.events import iso
from localcloud.ebs.model import Snapshot, Tiering
from localcloud.ebs.registry import Registry

_FILTERS = frozenset({"snapshot-id", "volume-id", "last-tiering-operation", "tag-key", "tag-value"})
_EVENTS = {
    "archival": "archiveSnapshot",
    "permanent-restore": "permanentRestoreSnapshot",
    "temporary-restore": "temporaryRestoreSnapshot",
}


def modify_tier(call: Call) -> Answer:
    if call.params.text("StorageTier") != "archive":
        raise Ec2Error("InvalidParameterValue", "StorageTier must be archive.")
    registry = call.registry
    with registry.lock:
        snapshot = _ready(call)
        if snapshot.storage_tier == "archive":
            raise Ec2Error("IncorrectState", f"The snapshot '{snapshot.snapshot_id}' is archived already.")
        snapshot.tiering = Tiering(operation="archival", started=registry.clock.now())
        _finish_later(registry, snapshot, snapshot.tiering)
        return {
            "snapshotId": snapshot.snapshot_id,
            "tieringStartTime": timestamp(snapshot.tiering.started),
        }


def restore_tier(call: Call) -> Answer:
    registry = call.registry
    days, permanent = call.params.number("TemporaryRestoreDays"), bool(call.params.flag("PermanentRestore"))
    if permanent == (days is not None):
        raise Ec2Error("InvalidParameterCombination", "Give either TemporaryRestoreDays or PermanentRestore.")
    if days is not None and not 1 <= days <= 180:
        raise Ec2Error("InvalidParameterValue", "TemporaryRestoreDays must be 1 to 180.")
    with registry.lock:
        snapshot = _ready(call)
        if snapshot.storage_tier != "archive" and snapshot.restore_expiry is None:
            raise Ec2Error("IncorrectState", f"The snapshot '{snapshot.snapshot_id}' is not archived.")
        snapshot.tiering = Tiering(
            operation="permanent-restore" if permanent else "temporary-restore",
            started=registry.clock.now(),
            restore_days=days,
        )
        _finish_later(registry, snapshot, snapshot.tiering)
        return {
            "snapshotId": snapshot.snapshot_id,
            "restoreStartTime": timestamp(snapshot.tiering.started),
            "restoreDuration": days,
            "isPermanentRestore": permanent,
        }


def _ready(call: Call) -> Snapshot:
    snapshot = ec2_snapshots.find_own(call, call.params.required("SnapshotId"))
    if snapshot.state != "completed":
        raise Ec2Error("IncorrectState", f"The snapshot '{snapshot.snapshot_id}' is {snapshot.state}.")
    if snapshot.tiering is not None and snapshot.tiering.outcome == "in-progress":
        raise Ec2Error("IncorrectState", f"The snapshot '{snapshot.snapshot_id}' is changing its tier.")
    return snapshot


def _finish_later(registry: Registry, snapshot: Snapshot, tiering: Tiering) -> None:
    due = registry.clock.now() + registry.config.tier_seconds
    registry.timers.at(due, lambda: _finish(registry, snapshot, tiering))


def _finish(registry: Registry, snapshot: Snapshot, tiering: Tiering) -> None:
    now = registry.clock.now()
    with registry.lock:
        if snapshot.deleted or snapshot.tiering is not tiering:
            return
        tiering.outcome, tiering.progress = "completed", 100
        snapshot.restore_expiry = None
        if tiering.operation == "archival":
            snapshot.storage_tier, snapshot.archival_complete_time = "archive", now
        else:
            snapshot.storage_tier = "standard"
            if tiering.restore_days is not None:
                expiry = now + tiering.restore_days * 86400.0
                snapshot.restore_expiry = expiry
                registry.timers.at(expiry, lambda: _expire(registry, snapshot, expiry))
    extra = {"recycleBinExitTime": ""}
    if snapshot.restore_expiry is not None:
        extra["restoreExpiryTime"] = iso(snapshot.restore_expiry)
    _notify(registry, snapshot, _EVENTS[tiering.operation], now, extra)


def _expire(registry: Registry, snapshot: Snapshot, expiry: float) -> None:
    """A temporary restore is over: the snapshot is in the archive again."""
    with registry.lock:
        if snapshot.deleted or snapshot.restore_expiry != expiry:
            return
        snapshot.restore_expiry, snapshot.storage_tier = None, "archive"
    _notify(registry, snapshot, "restoreExpiry", registry.clock.now(), {"recycleBinExitTime": ""})


def _notify(registry: Registry, snapshot: Snapshot, event: str, now: float, extra: dict[str, str]) -> None:
    started = snapshot.tiering.started if snapshot.tiering else now
    registry.events.notify(
        registry.config,
        snapshot,
        event=event,
        result="succeeded",
        end=now,
        extra={"startTime": iso(started), **extra},
    )


def describe_status(call: Call) -> Answer:
    filters = call.params.filters(_FILTERS)
    registry = call.registry
    found = []
    with registry.lock:
        for snapshot in sorted(registry.in_account(call.account, call.region), key=lambda s: s.snapshot_id):
            facts = {
                "snapshot-id": [snapshot.snapshot_id],
                "volume-id": [snapshot.volume_id],
                "last-tiering-operation": [snapshot.tiering.status] if snapshot.tiering else [],
            }
            named = [each for each in filters if each.name in facts]
            if all(each.fits(facts[each.name]) for each in named) and tag_filters_fit(filters, snapshot.tags):
                found.append(_view(snapshot))
    shown, following = page(call, found, least=5, most=1000)
    return {"snapshotTierStatusSet": shown, "nextToken": following}


def _view(snapshot: Snapshot) -> Answer:
    tiering, archived = snapshot.tiering, snapshot.archival_complete_time
    return {
        "snapshotId": snapshot.snapshot_id,
        "volumeId": snapshot.volume_id,
        "status": snapshot.state,
        "ownerId": snapshot.owner,
        "tagSet": tag_set(snapshot.tags),
        "storageTier": snapshot.storage_tier,
        "lastTieringStartTime": timestamp(tiering.started) if tiering else None,
        "lastTieringProgress": tiering.progress if tiering else None,
        "lastTieringOperationStatus": tiering.status if tiering else None,
        "archivalCompleteTime": timestamp(archived) if archived else None,
        "restoreExpiryTime": timestamp(snapshot.restore_expiry) if snapshot.restore_expiry else None,
    }
