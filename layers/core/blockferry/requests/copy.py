"""Input of the state machine ``copy``."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.parts import (
    LINEAGE_FIELD,
    Lineage,
    Model,
    SnapshotId,
    Source,
    Target,
    TransferOptions,
    refuse_twins,
    refuse_unsafe_holes,
)


class CopyRequest(Model):
    """Input of the state machine ``copy``."""

    snapshot_id: SnapshotId
    source: Source = Field(default_factory=lambda: Source())
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())
    lineage: Lineage | None = LINEAGE_FIELD

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        refuse_twins(self.targets)
        refuse_unsafe_holes(self.targets, self.options)
        return self
