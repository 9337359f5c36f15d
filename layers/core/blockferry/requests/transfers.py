"""Input of the state machines that make snapshots: ``copy``, ``sync`` and ``fanout``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, Field, Strict, StringConstraints, model_validator

from blockferry.core.blocks import MAX_VOLUME_GIB
from blockferry.core.holes import HolePolicy
from blockferry.formats.recognise import ImageCodec, ImageFormat
from blockferry.requests.parts import (
    MAX_DESCRIPTION,
    Model,
    Party,
    Region,
    SnapshotId,
    Source,
    Target,
    TransferOptions,
    check_tags,
)

LINEAGE = r"[A-Za-z0-9._:/=+@-]{1,128}"

Lineage = Annotated[str, StringConstraints(pattern=f"^{LINEAGE}$")]


def _image_uri(value: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+", value, re.DOTALL):
        raise ValueError(f"{value!r} is not the address of an object in S3 (s3://<bucket>/<key>)")
    return value


ImageUri = Annotated[str, AfterValidator(_image_uri)]

_LINEAGE_FIELD = Field(
    None,
    description="Name of the chain of copies that this one belongs to, for sync with follow. Defaults to the id of the "
    "source's volume.",
)


class CopyRequest(Model):
    """Input of the state machine ``copy``."""

    snapshot_id: SnapshotId
    source: Source = Field(default_factory=lambda: Source())
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())
    lineage: Lineage | None = _LINEAGE_FIELD

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        _refuse_twins(self.targets)
        _refuse_unsafe_holes(self.targets, self.options)
        return self


class FanoutRequest(Model):
    """Input of the state machine ``fanout``: a disk image in S3, or a snapshot, to many targets."""

    image_uri: ImageUri | None = Field(
        None, description="Raw disk image in S3, also compressed (.zst, .gz, .xz, .bz2): s3://<bucket>/<key>."
    )
    image_codec: ImageCodec | None = Field(
        None,
        description="How the image is compressed; told by its name (.zst, .gz, .xz, .bz2, else raw) when left out.",
    )
    image_format: ImageFormat | None = Field(
        None, description="raw: what the image holds, or unpacks to, is a raw disk, also if it looks like another file."
    )
    volume_size_gib: int | None = Field(
        None, ge=1, le=MAX_VOLUME_GIB, description="Size of the volumes; the image's, rounded up, when left out."
    )
    snapshot_id: SnapshotId | None = Field(None, description="A snapshot, instead of an image.")
    source: Source = Field(
        default_factory=lambda: Source(),
        description="Where the image's bucket or the snapshot is, and as whom to read.",
    )
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())
    lineage: Lineage | None = _LINEAGE_FIELD

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image_uri is None) == (self.snapshot_id is None):
            raise ValueError("name exactly one source: image_uri or snapshot_id")
        if self.image_uri is None:
            for name in ("image_codec", "image_format", "volume_size_gib"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to image_uri; a snapshot has its own")
        elif self.lineage is not None:
            raise ValueError("lineage: an image has none; name it in the copy of the first snapshot")
        return self

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        _refuse_twins(self.targets)
        _refuse_unsafe_holes(self.targets, self.options)
        return self


class SyncTarget(Party):
    """A snapshot to make on top of a parent, which is a clone of the base.

    ``encrypted`` and ``kms_key_arn`` are known only to say why they cannot be given.
    """

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
        """What makes two targets the same one."""
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
    lineage: Lineage | None = _LINEAGE_FIELD
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
        _refuse_twins(self.targets)
        return self


def _refuse_twins(targets: Sequence[Target | SyncTarget]) -> None:
    seen: dict[tuple[str | None, ...], int] = {}
    for number, target in enumerate(targets):
        if target.place in seen:
            what = "region, role and parent" if isinstance(target, SyncTarget) else "region, role and key"
            raise ValueError(
                f"targets[{number}] is identical to targets[{seen[target.place]}] ({what}): "
                "one copy would be made twice; remove it"
            )
        seen[target.place] = number


def _refuse_unsafe_holes(targets: tuple[Target, ...], options: TransferOptions) -> None:
    for number, target in enumerate(targets):
        if options.holes is HolePolicy.SKIP_ZERO and (target.encrypted or target.kms_key_arn):
            raise ValueError(
                f"options.holes: skip_zero is not safe for targets[{number}], which is encrypted: a block that "
                "is absent there is not the same as a block of zeros; use preserve"
            )
