"""The record of a job: what was planned, and what it started. Every step of a job reads it from the work bucket."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from blockferry.holes import HolePolicy
from blockferry.sessions import Identity


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSource(_Record):
    """The snapshot that is read, as it was when the job was planned. ``start_time`` is ISO 8601."""

    snapshot_id: str
    region: str
    role_arn: str | None
    external_id: str | None
    owner_id: str
    volume_id: str
    size_gib: int
    start_time: str
    encrypted: bool
    full_size_bytes: int | None

    @property
    def identity(self) -> Identity:
        return Identity(self.region, self.role_arn, self.external_id)


class JobTarget(_Record):
    """A snapshot that is made; ``snapshot_id`` is empty until it is started."""

    region: str
    role_arn: str | None
    external_id: str | None
    kms_key_arn: str | None
    encrypted: bool | None
    description: str
    tags: dict[str, str]
    snapshot_id: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(self.region, self.role_arn, self.external_id)


class Job(_Record):
    """Everything the steps of a job need to know. Stored as ``jobs/<job_id>/job.json``.

    ``blocks_per_second`` is one worker's share of the request quota; ``fingerprint`` the SHA-256 of the input.
    """

    job_id: str
    operation: str
    execution_arn: str
    started_at: str
    fingerprint: str
    source: JobSource
    targets: tuple[JobTarget, ...]
    total_blocks: int
    blocks_per_range: int
    max_concurrency: int
    blocks_per_second: float
    threads: int
    holes: HolePolicy
    swept_at: str | None = None
    """When the job was given up and its pending targets were deleted (ISO 8601)."""


class Proof(_Record):
    """What Complete found out, stored as ``jobs/<job_id>/proof.json`` for the receipt.

    ``requests`` counts what the workers that finished and the recount sent, by operation; ``retries`` what of it was
    sent again, by operation and error code.
    """

    allocated_blocks: int
    zero_blocks: int
    blocks_written: int
    linear_checksum: str
    requests: dict[str, int]
    retries: dict[str, int]
