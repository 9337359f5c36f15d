"""Input of the state machine ``inspect``."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.parts import Model, SnapshotId, Source, Target


class InspectOptions(Model):
    """What to find out beyond the counts of lists."""

    count_zeros: bool = Field(
        False,
        description="Count the blocks that are all zeros, by reading every block of snapshot_id: this costs, "
        "and takes about four hours per TiB.",
    )


class InspectRequest(Model):
    """Input of the state machine ``inspect``: a snapshot, a delta, a chain, or several of these at once."""

    snapshot_id: SnapshotId | None = Field(
        None, description="The snapshot to look at; the newest of the chain when only that is given."
    )
    base_snapshot_id: SnapshotId | None = Field(
        None, description="A snapshot of the same volume: also report what changed since then."
    )
    source: Source = Field(default_factory=lambda: Source())
    chain: tuple[SnapshotId, ...] | None = Field(
        None,
        min_length=2,
        max_length=100,
        strict=False,
        description="Snapshots of one volume, in any order: report what each holds and what deleting it would free.",
    )
    targets: tuple[Target, ...] = Field(
        (),
        max_length=100,
        strict=False,
        description="What a copy would go to; nothing is made. Without any: one copy in another region.",
    )
    options: InspectOptions = Field(default_factory=lambda: InspectOptions())

    @model_validator(mode="after")
    def _something_to_look_at(self) -> Self:
        if self.snapshot_id is None and self.chain is None:
            raise ValueError("snapshot_id is required, or chain, whose newest snapshot is taken then")
        return self

    @model_validator(mode="after")
    def _two_snapshots(self) -> Self:
        if self.base_snapshot_id is not None and self.base_snapshot_id == self.snapshot_id:
            raise ValueError(
                f"base_snapshot_id: {self.snapshot_id} is named twice; nothing changes between a snapshot and itself"
            )
        return self

    @model_validator(mode="after")
    def _chain_without_twins(self) -> Self:
        seen: dict[str, int] = {}
        for number, snapshot_id in enumerate(self.chain or ()):
            if snapshot_id in seen:
                raise ValueError(f"chain[{number}]: {snapshot_id} is chain[{seen[snapshot_id]}] already; name it once")
            seen[snapshot_id] = number
        return self
