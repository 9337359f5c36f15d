"""The state of the EBS part, and how snapshots move through their states.

One re-entrant lock guards everything here. Block data is read, written and hashed outside of it.
"""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import uuid
from collections.abc import Iterator

from localcloud.ebs.blockmap import BlockMap
from localcloud.ebs.blockstore import BLOCK_SIZE, BlockStore
from localcloud.ebs.clock import Clock, Timers
from localcloud.ebs.config import EbsConfig
from localcloud.ebs.events import Events
from localcloud.ebs.kms import KeyResolver
from localcloud.ebs.limits import RateLimits
from localcloud.ebs.model import AccountSettings, Snapshot, Volume
from localcloud.ebs.tokens import Tokens


class Registry:
    """Snapshots, volumes and settings of every account and Region."""

    def __init__(
        self,
        *,
        store: BlockStore,
        clock: Clock,
        timers: Timers,
        config: EbsConfig,
        keys: KeyResolver,
        events: Events,
        tokens: Tokens,
    ) -> None:
        self.store = store
        self.clock = clock
        self.timers = timers
        self.config = config
        self.keys = keys
        self.events = events
        self.tokens = tokens
        self.limits = RateLimits(clock)
        self.lock = threading.RLock()
        self.snapshots: dict[str, Snapshot] = {}
        self.volumes: dict[str, Volume] = {}
        self._settings: dict[tuple[str, str], AccountSettings] = {}
        self._random = random.Random(config.seed or None)  # noqa: S311 - ids, not secrets

    # -- finding and adding ------------------------------------------------------

    def settings(self, account: str, region: str) -> AccountSettings:
        with self.lock:
            return self._settings.setdefault((account, region), AccountSettings())

    def snapshot(self, snapshot_id: str, region: str) -> Snapshot | None:
        found = self.snapshots.get(snapshot_id)
        return found if found is not None and found.region == region else None

    def volume(self, volume_id: str, *, account: str, region: str) -> Volume | None:
        found = self.volumes.get(volume_id)
        return found if found and (found.owner, found.region) == (account, region) else None

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-0{self._random.getrandbits(64):016x}"

    def new_map(self) -> BlockMap:
        return BlockMap(retain=self.store.retain, release=self.store.release)

    def new_lineage(self) -> str:
        return uuid.UUID(int=self._random.getrandbits(128), version=4).hex

    def add(self, snapshot: Snapshot) -> Snapshot:
        with self.lock:
            self.snapshots[snapshot.snapshot_id] = snapshot
        return snapshot

    def in_account(self, account: str, region: str) -> Iterator[Snapshot]:
        for snapshot in list(self.snapshots.values()):
            if snapshot.owner == account and snapshot.region == region:
                yield snapshot

    # -- states ------------------------------------------------------------------

    def complete(self, snapshot: Snapshot) -> None:
        with self.lock:
            snapshot.state = "completed"
            snapshot.progress = 100
            snapshot.completion_time = self.clock.now()
            self._drop_written(snapshot)
            if snapshot.lock is not None and snapshot.lock.duration_start is None:
                snapshot.lock.duration_start = snapshot.completion_time
                if snapshot.lock.duration_days is not None:
                    snapshot.lock.expires = snapshot.completion_time + snapshot.lock.duration_days * 86400

    def fail(self, snapshot: Snapshot, message: str) -> None:
        """The snapshot ends in ``error``: its data is gone, its record stays until it is deleted."""
        with self.lock:
            snapshot.state = "error"
            snapshot.state_message = message
            snapshot.lock = None  # a lock on a pending snapshot is cancelled when the snapshot fails
            self._drop_written(snapshot)
            snapshot.blocks.clear()

    def delete(self, snapshot: Snapshot) -> None:
        """Forget the snapshot and free the blocks that only it held."""
        with self.lock:
            snapshot.deleted = True
            self.snapshots.pop(snapshot.snapshot_id, None)
            self._drop_written(snapshot)
            snapshot.blocks.clear()
        self.limits.forget(snapshot.snapshot_id)

    def reset(self) -> None:
        """Forget every snapshot, volume and setting."""
        with self.lock:
            for snapshot in list(self.snapshots.values()):
                self.delete(snapshot)
            for volume in self.volumes.values():
                volume.blocks.clear()
            self.volumes.clear()
            self._settings.clear()
        self.limits.reset()

    def still_pending(self, snapshot: Snapshot) -> bool:
        return snapshot.state == "pending" and not snapshot.deleted

    def _drop_written(self, snapshot: Snapshot) -> None:
        written, snapshot.written = snapshot.written, None
        if written is not None and written is not snapshot.blocks:
            written.clear()

    # -- data --------------------------------------------------------------------

    def linear_checksum(self, blocks: BlockMap) -> str:
        """The LINEAR aggregate: SHA-256, base64, over the raw digests in ascending order of index.

        Raw 32-byte digests, not their base64 forms: that is what AWS's own coldsnap sends.
        """
        digests = hashlib.sha256()
        for _index, slot in blocks.allocated():
            digests.update(self.store.digest(slot))
        return base64.b64encode(digests.digest()).decode()

    def full_size(self, snapshot: Snapshot) -> int:
        return len(snapshot.blocks) * BLOCK_SIZE

    def data_key_id(self, snapshot: Snapshot) -> str | None:
        """DataEncryptionKeyId: equal exactly for encrypted snapshots of one lineage."""
        if not snapshot.encryption.encrypted:
            return None
        seed = f"{snapshot.lineage}|{snapshot.encryption.kms_key_arn}"
        return str(uuid.UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4))
