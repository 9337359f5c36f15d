"""Input of the state machine ``fanout``."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.formats.recognise import ImageCodec, ImageFormat
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


def _image_uri(value: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+", value, re.DOTALL):
        raise ValueError(f"{value!r} is not the address of an object in S3 (s3://<bucket>/<key>)")
    version = re.fullmatch(r"s3://([^/]+)/(.+\?versionId=[^/?&]+)", value, re.DOTALL)
    if version:
        bucket, named = version[1], shlex.quote("/".join(version.groups()))
        copied = f"aws s3api copy-object --copy-source {named} --bucket {bucket} --key KEY"
        raise ValueError(
            f"{value!r} names a version of an object, and an image is read as it is when the job starts: make an "
            f"object of that version with `{copied}`, and name s3://{bucket}/KEY"
        )
    return value


ImageUri = Annotated[str, AfterValidator(_image_uri)]


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
    lineage: Lineage | None = LINEAGE_FIELD

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
        refuse_twins(self.targets)
        refuse_unsafe_holes(self.targets, self.options)
        return self
