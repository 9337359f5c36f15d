"""Input of the state machine ``fanout``."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.named import ImageNamed, ManifestUri
from blockferry.requests.parts import (
    LINEAGE_FIELD,
    Lineage,
    SnapshotId,
    Source,
    Target,
    TransferOptions,
    refuse_twins,
    refuse_unsafe_holes,
)


class FanoutRequest(ImageNamed):
    """Input of the state machine ``fanout``: a disk image in S3, a snapshot or an archive, to many targets."""

    snapshot_id: SnapshotId | None = Field(None, description="A snapshot, instead of an image.")
    manifest_uri: ManifestUri | None = Field(None, description="An archive, by the address of its manifest.")
    source: Source = Field(
        default_factory=lambda: Source(),
        description="Where the bucket or the snapshot is, and as whom to read.",
    )
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())
    lineage: Lineage | None = LINEAGE_FIELD

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.image_uri, self.snapshot_id, self.manifest_uri].count(None) != 2:
            raise ValueError("name exactly one source: image_uri, snapshot_id or manifest_uri")
        self.refuse_of_image()
        if self.image_uri is not None and self.lineage is not None:
            raise ValueError("lineage: an image has none; name it in the copy of the first snapshot")
        if self.manifest_uri is not None and self.lineage is not None:
            raise ValueError("lineage: an archive has that of its snapshot's volume; leave it out")
        return self

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        refuse_twins(self.targets)
        refuse_unsafe_holes(self.targets, self.options)
        return self
