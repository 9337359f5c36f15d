"""Input of the state machine ``restore``: an archive, or the newest of a chain, to snapshots."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.named import ImageUri, ManifestUri
from blockferry.requests.parts import Model, Source, Target, TransferOptions, refuse_twins, refuse_unsafe_holes


class RestoreRequest(Model):
    """Input of the state machine ``restore``."""

    manifest_uri: ManifestUri | None = Field(
        None, description="The archive: s3://<bucket>/<prefix>/<archive id>/manifest.json."
    )
    foreign_uri: ImageUri | None = Field(
        None,
        description="An archive that another tool has made: the folder of flexible-snapshot-proxy "
        "(s3://<bucket>/<snapshot>.<GiB>/), or the key of a whole-volume image of snap-to-s3 (.img.lz4, .img.zstd).",
    )
    source: Source = Field(
        default_factory=lambda: Source(), description="Where the archive's bucket is, and as whom to read."
    )
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100, strict=False)
    options: TransferOptions = Field(default_factory=lambda: TransferOptions())

    @model_validator(mode="after")
    def _targets_differ_and_fit(self) -> Self:
        if (self.manifest_uri is None) == (self.foreign_uri is None):
            raise ValueError("name exactly one archive: manifest_uri or foreign_uri")
        if self.foreign_uri is not None and self.foreign_uri.endswith(".gpg"):
            raise ValueError(
                "foreign_uri: images that are encrypted with gpg are not read: decrypt it with gpg -d, upload the "
                "image, and name it in a fanout"
            )
        if self.foreign_uri is not None and ".tar." in self.foreign_uri:
            raise ValueError("foreign_uri: this is an archive of files, not of a volume: unpack it onto a file system")
        refuse_twins(self.targets)
        refuse_unsafe_holes(self.targets, self.options)
        return self
