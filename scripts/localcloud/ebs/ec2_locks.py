"""LockSnapshot, UnlockSnapshot, DescribeLockedSnapshots.

Source: EC2 API reference; EBS user guide, "Amazon EBS snapshot lock".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from localcloud.ebs import ec2_snapshots
from localcloud.ebs.ec2_query import Answer, Call, page, timestamp
from localcloud.ebs.errors import Ec2Error
from localcloud.ebs.model import Lock, Snapshot

_DAY = 86400.0


def lock_snapshot(call: Call) -> Answer:
    mode = call.params.required("LockMode")
    if mode not in ("governance", "compliance"):
        raise Ec2Error("InvalidParameterValue", f"LockMode '{mode}' is neither governance nor compliance.")
    cool_off = call.params.number("CoolOffPeriod")
    if cool_off is not None and (mode != "compliance" or not 1 <= cool_off <= 72):
        raise Ec2Error("InvalidParameterValue", "CoolOffPeriod is 1 to 72 hours, for compliance mode only.")
    days, expires = _period(call)
    registry = call.registry
    now = registry.clock.now()
    if expires is not None and expires <= now + _DAY:
        raise Ec2Error("InvalidParameterValue", "ExpirationDate must be more than a day ahead.")
    with registry.lock:
        snapshot = ec2_snapshots.find_own(call, call.params.required("SnapshotId"))
        if snapshot.state == "error":
            raise Ec2Error("IncorrectState", f"The snapshot '{snapshot.snapshot_id}' is in state error.")
        begins = snapshot.completion_time and now  # of a pending snapshot it begins when it is completed
        new = Lock(
            mode=_mode(mode),
            created=now,
            cool_off_hours=cool_off or 0,
            duration_days=days,
            expires=expires if expires is not None else (begins + (days or 0) * _DAY if begins else None),
            duration_start=begins or None,
        )
        _refuse_weaker(snapshot, new, now)
        snapshot.lock = new
        return _view(snapshot, new, now)


def _mode(text: str) -> Literal["governance", "compliance"]:
    return "compliance" if text == "compliance" else "governance"


def _period(call: Call) -> tuple[int | None, float | None]:
    """Days or a date, exactly one of them."""
    days, date = call.params.number("LockDuration"), call.params.text("ExpirationDate")
    if (days is None) == (date is None):
        raise Ec2Error("InvalidParameterCombination", "Give either LockDuration or ExpirationDate.")
    if days is not None:
        if not 1 <= days <= 36500:
            raise Ec2Error("InvalidParameterValue", "LockDuration must be 1 to 36500 days.")
        return days, None
    try:
        parsed = datetime.fromisoformat(str(date).replace("Z", "+00:00"))
    except ValueError:
        raise Ec2Error("InvalidParameterValue", f"ExpirationDate '{date}' is not a date.") from None
    return None, (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _refuse_weaker(snapshot: Snapshot, new: Lock, now: float) -> None:
    """A compliance lock past its cool-off period can only be made longer."""
    old = snapshot.lock
    if old is None or old.state(now) != "compliance":
        return
    shorter = old.expires is not None and (new.expires is None or new.expires < old.expires)
    if new.mode != "compliance" or shorter or new.cool_off_hours:
        raise Ec2Error("SnapshotLocked", "A compliance lock past its cool-off period can only be extended.")


def unlock_snapshot(call: Call) -> Answer:
    registry = call.registry
    with registry.lock:
        snapshot = ec2_snapshots.find_own(call, call.params.required("SnapshotId"))
        lock = snapshot.lock
        if lock is None:
            raise Ec2Error("SnapshotNotLocked", f"The snapshot '{snapshot.snapshot_id}' is not locked.")
        if lock.state(registry.clock.now()) == "compliance":
            raise Ec2Error("SnapshotLocked", "A compliance lock past its cool-off period cannot be removed.")
        snapshot.lock = None
    return {"snapshotId": snapshot.snapshot_id}


def describe_locked(call: Call) -> Answer:
    ids, filters = call.params.texts("SnapshotId"), call.params.filters(frozenset({"lock-state"}))
    registry = call.registry
    now = registry.clock.now()
    with registry.lock:
        chosen = (
            [ec2_snapshots.find_own(call, each) for each in ids]
            if ids
            else list(registry.in_account(call.account, call.region))
        )
        found = [_view(s, s.lock, now) for s in sorted(chosen, key=lambda s: s.snapshot_id) if s.lock]
    for each in filters:
        found = [item for item in found if each.fits([item["lockState"]])]
    shown, following = page(call, found, least=5, most=1000)
    return {"snapshotSet": shown, "nextToken": following}


def _view(snapshot: Snapshot, lock: Lock, now: float) -> Answer:
    compliance = lock.mode == "compliance" and lock.cool_off_hours > 0
    return {
        "ownerId": snapshot.owner,
        "snapshotId": snapshot.snapshot_id,
        "lockState": lock.state(now),
        "lockDuration": lock.duration_days,
        "coolOffPeriod": lock.cool_off_hours if compliance else None,
        "coolOffPeriodExpiresOn": timestamp(lock.cool_off_ends) if compliance else None,
        "lockCreatedOn": timestamp(lock.created),
        "lockDurationStartTime": timestamp(lock.duration_start) if lock.duration_start else None,
        "lockExpiresOn": timestamp(lock.expires) if lock.expires else None,
    }
