"""What the EBS part knows of snapshots, volumes and accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from localcloud.ebs.blockmap import BlockMap
from localcloud.ebs.blockstore import BLOCK_SIZE

BLOCKS_PER_GIB = 2**30 // BLOCK_SIZE
MAX_VOLUME_GIB = 65536

State = Literal["pending", "completed", "error"]
Origin = Literal["direct", "volume", "copy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How data is encrypted: ``kms_key_arn`` is ``None`` exactly for unencrypted data."""

    kms_key_arn: str | None

    @property
    def encrypted(self) -> bool:
        return self.kms_key_arn is not None


UNENCRYPTED = Encryption(kms_key_arn=None)


@dataclass(slots=True, kw_only=True)
class Lock:
    """LockSnapshot's state; times in epoch seconds, durations in the API's units."""

    mode: Literal["governance", "compliance"]
    created: float
    cool_off_hours: int
    duration_days: int | None
    expires: float | None
    duration_start: float | None

    def state(self, now: float) -> str:
        if self.expires is not None and now >= self.expires:
            return "expired"
        if self.mode == "compliance" and now < self.cool_off_ends:
            return "compliance-cooloff"
        return self.mode

    @property
    def cool_off_ends(self) -> float:
        return self.created + self.cool_off_hours * 3600


@dataclass(slots=True, kw_only=True)
class Tiering:
    """The last ModifySnapshotTier or RestoreSnapshotTier of a snapshot."""

    operation: Literal["archival", "permanent-restore", "temporary-restore"]
    started: float
    progress: int = 0
    outcome: Literal["in-progress", "completed", "failed"] = "in-progress"
    restore_days: int | None = None

    @property
    def status(self) -> str:
        return f"{self.operation}-{self.outcome}"


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """One snapshot. ``blocks`` is what it holds, inherited blocks included; ``written`` is what
    PutSnapshotBlock wrote while it was pending (the same map for a snapshot without a parent)."""

    snapshot_id: str
    owner: str
    region: str
    origin: Origin
    volume_id: str
    volume_gib: int
    start_time: float
    encryption: Encryption
    lineage: str
    blocks: BlockMap
    written: BlockMap | None = None
    parent_id: str | None = None
    source_snapshot_id: str | None = None
    source_region: str | None = None
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    state: State = "pending"
    state_message: str = ""
    progress: int = 0
    completion_time: float | None = None
    timeout_seconds: float = 3600.0
    last_activity: float = 0.0
    sealed_with: tuple[int, str | None] | None = None
    changed_blocks_count: int = 0
    linear_checksum: str | None = None
    storage_tier: Literal["standard", "archive"] = "standard"
    tiering: Tiering | None = None
    archival_complete_time: float | None = None
    restore_expiry: float | None = None
    shared_with: set[str] = field(default_factory=set)
    public: bool = False
    lock: Lock | None = None
    outpost_arn: str | None = None
    transfer_type: str | None = None
    completion_minutes: int | None = None
    incremental: bool = False
    copy_group: str = ""
    listing: int = 0
    deleted: bool = False
    stale_looks: int = 0

    @property
    def block_limit(self) -> int:
        """The number of block indices of the volume, which all are below it."""
        return self.volume_gib * BLOCKS_PER_GIB

    def shared_to(self, account: str) -> bool:
        return account == self.owner or account in self.shared_with


@dataclass(slots=True, kw_only=True)
class Volume:
    volume_id: str
    owner: str
    region: str
    size_gib: int
    zone: str
    created: float
    encryption: Encryption
    lineage: str
    blocks: BlockMap
    snapshot_id: str = ""
    volume_type: str = "gp2"
    iops: int | None = None
    throughput: int | None = None
    multi_attach: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    last_snapshot_id: str | None = None
    instance_id: str | None = None
    device: str | None = None

    @property
    def block_limit(self) -> int:
        return self.size_gib * BLOCKS_PER_GIB


@dataclass(slots=True, kw_only=True)
class AccountSettings:
    """One account's EBS settings in one Region."""

    encryption_by_default: bool = False
    default_key: str | None = None
