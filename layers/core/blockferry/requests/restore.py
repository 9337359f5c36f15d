"""Input of the state machine ``restore``: an archive, or the newest of a chain, to snapshots or to objects in S3."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from blockferry.core.holes import HolePolicy
from blockferry.requests.named import ImageUri, ManifestUri
from blockferry.requests.objects import ObjectTarget
from blockferry.requests.parts import Model, Source, Target, TransferOptions, refuse_twins, refuse_unsafe_holes


def _kind(value: Any) -> str:
    named = value.get("image_uri") if isinstance(value, dict) else getattr(value, "image_uri", None)
    return "(snapshot)" if named is None else "(object)"


RestoreTarget = Annotated[
    Annotated[Target, Tag("(snapshot)")] | Annotated[ObjectTarget, Tag("(object)")], Discriminator(_kind)
]


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
    targets: tuple[RestoreTarget, ...] = Field(
        min_length=1,
        max_length=100,
        strict=False,
        description="Snapshots, or objects in S3 that hold the whole volume (image_uri); not both in one job.",
    )
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
        if self.objects and self.snapshots:
            raise ValueError("targets: snapshots and objects (image_uri) are not made by one job: start one for each")
        if self.objects and self.options.holes not in (None, HolePolicy.PRESERVE):
            raise ValueError(
                f"options.holes: {self.options.holes.value} is not for objects, which hold every block of the volume, "
                "holes as zeros: leave it out"
            )
        refuse_unsafe_holes(self.snapshots, self.options)
        return self

    @property
    def snapshots(self) -> tuple[Target, ...]:
        return tuple(target for target in self.targets if isinstance(target, Target))

    @property
    def objects(self) -> tuple[ObjectTarget, ...]:
        return tuple(target for target in self.targets if isinstance(target, ObjectTarget))
