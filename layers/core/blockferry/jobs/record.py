"""The record of a job: what was planned, and what it started. Every step of a job reads it from the work bucket."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockferry.aws.sessions import Identity
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.formats.recognise import ImageCodec


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Origin(_Record):
    region: str
    role_arn: str | None
    external_id: str | None

    @property
    def identity(self) -> Identity:
        return Identity(self.region, self.role_arn, self.external_id)


class BaseSnapshot(_Record):
    """The earlier snapshot of a delta, in the same place as the later one. ``start_time`` is ISO 8601."""

    snapshot_id: str
    size_gib: int
    start_time: str


class JobSnapshot(_Origin):
    """The snapshot that is read, as it was when the job was planned; with ``base`` only what changed since then."""

    kind: Literal["snapshot"] = "snapshot"
    snapshot_id: str
    owner_id: str
    volume_id: str
    size_gib: int
    start_time: str
    encrypted: bool
    full_size_bytes: int | None
    lineage: str
    base: BaseSnapshot | None = None

    @property
    def name(self) -> str:
        return self.snapshot_id


class JobImage(_Origin):
    """The disk image that is read. ``size_bytes`` is the object's, ``raw_bytes`` the disk's, 0 until it is unpacked;
    ``believed_raw`` says that the operator takes it for a raw disk whatever it looks like; ``unpack_requests``
    and ``unpack_gb_seconds`` are what unpacking took."""

    kind: Literal["image"] = "image"
    uri: str
    etag: str
    size_bytes: int
    codec: ImageCodec
    raw_bytes: int
    believed_raw: bool = False
    unpack_requests: dict[str, int] = {}
    unpack_gb_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.uri


class JobTarget(_Record):
    """A snapshot that is made; ``snapshot_id`` is empty until it is started. ``parent_snapshot_id`` is what it is made
    on top of; ``parent_size_gib``, ``parent_encrypted`` and ``parent_kms_key_arn`` tell of that one, and
    ``parent_is_full`` that the comparison with the base has to show that it has no holes. ``started_at`` is when
    StartSnapshot answered, in UTC (ISO 8601)."""

    region: str
    role_arn: str | None
    external_id: str | None
    kms_key_arn: str | None
    encrypted: bool | None
    description: str
    tags: dict[str, str]
    size_gib: int
    parent_snapshot_id: str | None = None
    parent_size_gib: int = 0
    parent_encrypted: bool = False
    parent_is_full: bool = False
    parent_kms_key_arn: str | None = None
    snapshot_id: str = ""
    started_at: str = ""

    def started_seconds_ago(self, now: datetime) -> float:
        """How old the snapshot is; infinity if the record does not say, as those of earlier versions."""
        return (now - datetime.fromisoformat(self.started_at)).total_seconds() if self.started_at else math.inf

    @property
    def identity(self) -> Identity:
        return Identity(self.region, self.role_arn, self.external_id)


class JobWarning(_Record):
    """What an operator should know of a job that goes on all the same; ``code`` is for programs."""

    code: str
    message: str


class Job(_Record):
    """Everything the steps of a job need to know. Stored as ``jobs/<job_id>/job.json``.

    ``blocks_per_second`` is one worker's share of the request quota; ``fingerprint`` the SHA-256 of the input.
    ``total_blocks`` is 0 as long as an image is not unpacked.
    """

    job_id: str
    operation: str
    execution_arn: str
    started_at: str
    fingerprint: str
    source: JobSnapshot | JobImage
    targets: tuple[JobTarget, ...]
    total_blocks: int
    blocks_per_range: int
    max_concurrency: int
    blocks_per_second: float
    threads: int
    workers_because: str = ""
    """Why ``max_concurrency`` is what it is."""
    warnings: tuple[JobWarning, ...] = ()
    holes: HolePolicy
    holes_taken_for: HoleMeaning = HoleMeaning.UNKNOWN
    """What the source's holes were taken to stand for, who decided about them, and why."""
    holes_decided_by: Literal["request", "default"] = "default"
    holes_reason: str = "planned by an earlier version"
    verify_parents: bool = False
    """Whether every range of the parents is compared with the base before anything is written on top of them."""
    swept_at: str | None = None
    """When the job was given up and its pending targets were deleted (ISO 8601)."""
    kept_at_sweep: bool = False
    """Whether targets that EBS was asked to seal were kept then, and have not come to their end yet."""


class Sealing(_Record):
    """How far the completion of a target has come, stored as ``jobs/<job_id>/sealing/<snapshot_id>.json``.

    ``asked`` is stored before EBS is asked, so that a target is never taken for unsealed because an answer or a process
    was lost: it is in doubt as long as nothing else is known. ``refused``: EBS did not take the completion, for
    certain.
    """

    state: Literal["asked", "accepted", "refused"]
    changed_blocks: int
    linear_checksum: str


class Proof(_Record):
    """What Complete found out, stored as ``jobs/<job_id>/proof.json`` for the receipt.

    ``allocated_blocks`` are those that the source holds, ``changed_blocks`` those of them that were written,
    ``removed_blocks`` those written as zeros because only the base holds them; ``blocks_read`` were asked for.
    ``requests`` counts what the workers that finished and the recount sent, by operation and region; ``retries`` what
    was sent again, by operation and error code; ``parent_blocks`` the blocks that were compared with parents.
    """

    allocated_blocks: int
    changed_blocks: int
    removed_blocks: int
    zero_blocks: int
    blocks_read: int
    blocks_written: int
    parent_blocks: int
    linear_checksum: str
    requests: dict[str, int]
    retries: dict[str, int]
    worker_gb_seconds: float
