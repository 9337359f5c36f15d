"""Which snapshots the EBS direct APIs may read or write for whom."""

from __future__ import annotations

import re

from localcloud.ebs.errors import (
    EbsError,
    account_not_authorized,
    invalid,
    key_access_denied,
    snapshot_not_found,
)
from localcloud.ebs.model import Snapshot
from localcloud.ebs.registry import Registry

_SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]{1,59}")


def _found(registry: Registry, snapshot_id: str, *, account: str, region: str) -> Snapshot:
    if not _SNAPSHOT_ID.fullmatch(snapshot_id):
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' is not a snapshot id.")
    snapshot = registry.snapshot(snapshot_id, region)
    if snapshot is None:
        raise snapshot_not_found(snapshot_id)
    if not snapshot.shared_to(account):
        # A public snapshot too: the direct APIs do not serve them (EBS user guide, considerations).
        raise _no_access(registry, snapshot_id)
    if snapshot.outpost_arn is not None:
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' is a local snapshot on an Outpost.")
    return snapshot


def _no_access(registry: Registry, snapshot_id: str) -> EbsError:
    if registry.config.unshared_snapshot == "not_found":
        return snapshot_not_found(snapshot_id)
    return account_not_authorized(snapshot_id)


def readable(registry: Registry, snapshot_id: str, *, account: str, region: str) -> Snapshot:
    """A completed snapshot in the standard tier. Whether its key may be used is ``check_key``'s matter."""
    snapshot = _found(registry, snapshot_id, account=account, region=region)
    if snapshot.state != "completed":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is {snapshot.state}.")
    if snapshot.storage_tier != "standard":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is archived.")
    return snapshot


def check_key(registry: Registry, snapshot: Snapshot) -> None:
    """Raise AccessDeniedException unless the snapshot's key can be used. Call it without the registry's lock:
    the answer may come from another process."""
    arn = snapshot.encryption.kms_key_arn
    if arn is None or not registry.config.check_key_on_read:
        return
    key = registry.keys.find(arn, account=snapshot.owner, region=snapshot.region)
    if key is None or not key.enabled:
        raise key_access_denied(f"The KMS key '{arn}' of '{snapshot.snapshot_id}' cannot be used.")


def writable(registry: Registry, snapshot_id: str, *, account: str, region: str) -> Snapshot:
    """The account's own pending snapshot of StartSnapshot, not sealed yet."""
    snapshot = _found(registry, snapshot_id, account=account, region=region)
    if snapshot.owner != account:
        raise _no_access(registry, snapshot_id)
    if registry.clock.now() < snapshot.start_time + registry.config.not_found_window_seconds:
        raise snapshot_not_found(snapshot_id)  # eventual consistency right after StartSnapshot
    if snapshot.origin != "direct":
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' was not started by StartSnapshot.")
    if snapshot.state != "pending":
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is {snapshot.state}.")
    return snapshot


def parent(registry: Registry, snapshot_id: str, *, account: str, region: str) -> Snapshot:
    """A snapshot that may be a new snapshot's parent."""
    snapshot = _found(registry, snapshot_id, account=account, region=region)
    if snapshot.owner != account and registry.config.shared_parent == "refuse":
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' belongs to another account.")
    if snapshot.state != "completed" or snapshot.storage_tier != "standard":
        raise invalid("INVALID_SNAPSHOT_ID", f"'{snapshot_id}' is not completed in the standard tier.")
    return snapshot
