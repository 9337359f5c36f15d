"""Images and archives in S3, as inputs name them."""

from __future__ import annotations

import re
import shlex
from typing import Annotated

from pydantic import AfterValidator, Field

from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.formats.archive.layout import parse_manifest_uri
from blockferry.formats.recognise import ImageCodec, ImageFormat
from blockferry.requests.parts import Model


def manifest_uri(value: str) -> str:
    """The address of a manifest. Raises ``ValueError`` for anything else."""
    try:
        parse_manifest_uri(value, what="it")
    except InvalidRequest as error:
        raise ValueError(str(error).removeprefix("it: ")) from error
    return value


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
ManifestUri = Annotated[str, AfterValidator(manifest_uri)]


class ImageNamed(Model):
    """The part of an input that may name a disk image in S3."""

    image_uri: ImageUri | None = Field(
        None, description="Raw disk image in S3, also compressed (.zst, .gz, .xz, .bz2, .lz4): s3://<bucket>/<key>."
    )
    image_codec: ImageCodec | None = Field(
        None,
        description="How the image is compressed; told by its name (.zst, .gz, .xz, .bz2, .lz4, else raw) when left "
        "out.",
    )
    image_format: ImageFormat | None = Field(
        None, description="raw: what the image holds, or unpacks to, is a raw disk, also if it looks like another file."
    )
    volume_size_gib: int | None = Field(
        None, ge=1, le=MAX_VOLUME_GIB, description="Size of the volumes; the image's, rounded up, when left out."
    )

    def refuse_of_image(self) -> None:
        """Raise ``ValueError`` for what is said of an image although none is named."""
        if self.image_uri is None:
            for name in ("image_codec", "image_format", "volume_size_gib"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to image_uri; a snapshot has its own")
