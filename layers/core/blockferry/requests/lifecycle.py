"""Input of the state machines that look after backups by tag."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, field_validator

from blockferry.requests.parts import Model, SnapshotId


class LifecycleRequest(Model):
    """What every machine that looks after backups takes."""

    dry_run: bool = Field(False, description="Say what would be done, and do nothing of it.")
    as_of: str | None = Field(
        None,
        description="Act as if it were then: ISO 8601 with a zone, as 2026-11-27T02:00:00Z. Refused unless the "
        "deployment allows it.",
    )

    @field_validator("as_of")
    @classmethod
    def _with_a_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError as error:
                raise ValueError(f"{value} is no instant such as 2026-11-27T02:00:00Z") from error
            if moment.tzinfo is None:
                raise ValueError(f"{value} says no zone: end it with Z or an offset such as +01:00")
        return value


class BackupRequest(LifecycleRequest):
    """Input of the state machine ``backup``."""


class ReplicateRequest(LifecycleRequest):
    """Input of the state machine ``replicate``."""

    snapshot_ids: tuple[SnapshotId, ...] | None = Field(
        None, max_length=1_000, strict=False, description="Only these backups. Without it, all that want a copy."
    )


class ExpireRequest(LifecycleRequest):
    """Input of the state machine ``expire``."""
