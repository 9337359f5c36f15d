"""Input of the state machine ``restore``: an archive, or the newest of a chain, to snapshots."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.named import ManifestUri
from blockferry.requests.parts import Model, Source, Target, TransferOptions, refuse_twins, refuse_unsafe_holes


class RestoreRequest(Model):
    """Input of the state machine ``restore``."""

    manifest_uri: ManifestUri = Field(description="The archive: s3://<bucket>/<prefix>/<archive id>/manifest.json.")
    source: Source = Field(
        default_factory=lambda: Source(), description="Where the archive's bucket is, and as whom to read."
    )
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        refuse_twins(self.targets)
        refuse_unsafe_holes(self.targets, self.options)
        return self
