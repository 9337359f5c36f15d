"""Input of the state machine ``verify``: what an archive holds against what it was, and against others."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from blockferry.requests.named import ImageUri, ManifestUri
from blockferry.requests.parts import Model, SnapshotId, Source


class VerifyOptions(Model):
    """How an archive is verified."""

    max_concurrency: int | None = Field(
        None, ge=1, le=1_000, description="Workers at the same time. Without it as many as the archive's size asks for."
    )
    blocks_per_range: int = Field(
        4_096, ge=1, le=65_536, description="Blocks of 512 KiB per task; raised where a volume gave over 10,000."
    )
    seed: str = Field(
        "", max_length=128, description="Of a sample: another seed chooses other segments. Defaults to the job's id."
    )


class VerifyRequest(Model):
    """Input of the state machine ``verify``."""

    manifest_uri: ManifestUri | None = Field(
        None, description="The archive: s3://<bucket>/<prefix>/<archive id>/manifest.json."
    )
    foreign_uri: ImageUri | None = Field(
        None,
        description="An archive that flexible-snapshot-proxy has made, by its folder: s3://<bucket>/<snapshot>.<GiB>/.",
    )
    snapshot_id: SnapshotId | None = Field(None, description="The snapshot that was archived: compared block by block.")
    other_manifest_uri: ManifestUri | None = Field(None, description="A second archive that must hold the same.")
    source: Source = Field(
        default_factory=lambda: Source(), description="Where the archives and the snapshot are, and as whom to read."
    )
    sample_percent: float = Field(
        100.0,
        gt=0,
        le=100,
        strict=False,
        description="Of the segments, and of what is compared with the snapshot: chosen by the seed.",
    )
    options: VerifyOptions = Field(default_factory=lambda: VerifyOptions())

    @model_validator(mode="after")
    def _another_one(self) -> Self:
        if (self.manifest_uri is None) == (self.foreign_uri is None):
            raise ValueError("name exactly one archive: manifest_uri or foreign_uri")
        if self.foreign_uri is not None:
            if not self.foreign_uri.endswith("/"):
                raise ValueError(
                    "foreign_uri: only the folder of an archive, with its slash, has hashes to verify. An image has "
                    "the checksums of its codec, which are checked when it is restored"
                )
            if self.other_manifest_uri is not None:
                raise ValueError("other_manifest_uri: an archive of another tool is compared with a snapshot only")
        elif self.other_manifest_uri == self.manifest_uri:
            raise ValueError("other_manifest_uri names the same archive: it would be compared with itself")
        return self
