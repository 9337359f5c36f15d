"""Input of the state machine ``sync``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, Strict, model_validator

from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import MAX_DESCRIPTION
from blockferry.requests.parts import (
    LINEAGE_FIELD,
    Lineage,
    Model,
    Party,
    Region,
    SnapshotId,
    Source,
    TransferOptions,
    check_tags,
    refuse_twins,
)


class SyncTarget(Party):
    """A snapshot to make on top of a parent, which is a clone of the base.

    ``encrypted`` and ``kms_key_arn`` are known only to say why they cannot be given.
    """

    place_is: ClassVar[str] = "region, role and parent"

    region: Region
    parent_snapshot_id: SnapshotId | None = Field(
        None, description="A snapshot in the target's region and account that equals the base."
    )
    description: str | None = Field(
        None, max_length=MAX_DESCRIPTION, description="Defaults to the source's description."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Added to the source's tags, and win.")
    encrypted: None = Field(None, description="Not for sync: the target is encrypted as its parent is.")
    kms_key_arn: None = Field(None, description="Not for sync: the target has its parent's key.")

    @model_validator(mode="before")
    @classmethod
    def _encryption_is_the_parents(cls, data: object) -> object:
        if isinstance(data, dict):
            for name in ("encrypted", "kms_key_arn"):
                if data.get(name) is not None:
                    raise ValueError(
                        f"{name}: a snapshot on top of a parent is encrypted as the parent is, with the same key, and "
                        f"EBS refuses to be told otherwise; leave {name} out, or make a full copy with the operation "
                        "copy and sync on top of that one from then on"
                    )
        return data

    @model_validator(mode="after")
    def _tags_fit(self) -> Self:
        check_tags(self.tags)
        return self

    @property
    def place(self) -> tuple[str | None, ...]:
        """The members in which two targets must differ."""
        return (self.region, self.role_arn, self.parent_snapshot_id)


class SyncOptions(TransferOptions):
    """How a sync is carried out."""

    holes: Annotated[HolePolicy, Strict(False)] | None = Field(
        None,
        description="preserve: nobody relies on zeros where the source has holes. Left out, a parent whose holes read "
        "otherwise is refused. Nothing else is possible on top of a parent.",
    )
    verify_parent: bool = Field(
        False, description="Read the base and every parent in full and compare them, instead of relying on tags."
    )

    @model_validator(mode="after")
    def _only_the_delta(self) -> Self:
        if self.holes not in (None, HolePolicy.PRESERVE):
            raise ValueError(
                f"holes: {self.holes.value} is not possible on top of a parent, whose data would be overwritten or "
                "show through; leave it out"
            )
        return self


class SyncRequest(Model):
    """Input of the state machine ``sync``: what changed from a base to a snapshot, on top of clones of the base."""

    snapshot_id: SnapshotId
    base_snapshot_id: SnapshotId | None = Field(
        None, description="An earlier snapshot of the same volume, which the parents equal."
    )
    follow: bool = Field(
        False, description="Find the base and the parents: the newest snapshot of which every target has a copy."
    )
    lineage: Lineage | None = LINEAGE_FIELD
    source: Source = Field(default_factory=lambda: Source())
    targets: tuple[SyncTarget, ...] = Field(min_length=1, max_length=100, strict=False)
    options: SyncOptions = Field(default_factory=lambda: SyncOptions())

    @model_validator(mode="after")
    def _base_and_parents(self) -> Self:
        named = [f"targets[{n}].parent_snapshot_id" for n, t in enumerate(self.targets) if t.parent_snapshot_id]
        if self.follow:
            if self.base_snapshot_id is not None or named:
                given = ["base_snapshot_id"] if self.base_snapshot_id is not None else []
                raise ValueError(f"follow finds base and parents by itself: leave out {', '.join(given + named)}")
        else:
            if self.base_snapshot_id is None:
                raise ValueError("base_snapshot_id is required, or follow: true, which finds it")
            if self.base_snapshot_id == self.snapshot_id:
                raise ValueError(
                    f"base_snapshot_id: {self.snapshot_id} is named twice; nothing changes between a snapshot and "
                    "itself"
                )
            for number, target in enumerate(self.targets):
                if target.parent_snapshot_id is None:
                    raise ValueError(
                        f"targets[{number}].parent_snapshot_id is required: a snapshot in {target.region} that equals "
                        f"{self.base_snapshot_id}; or follow: true, which finds it"
                    )
        refuse_twins(self.targets)
        return self
