"""Input of the state machine ``archive``, and the place of an archive, which other operations name, too."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from blockferry.core.holes import HolePolicy
from blockferry.core.quotas import MAX_KEY_BYTES, MAX_VOLUME_GIB
from blockferry.formats.archive.index import MAX_SEGMENT_BLOCKS
from blockferry.formats.archive.layout import ARCHIVE_ID, segment_name
from blockferry.formats.archive.segment import DEFAULT_LEVEL, MAX_LEVEL, MIN_LEVEL
from blockferry.requests.named import ImageNamed, manifest_uri
from blockferry.requests.objects import StorageClass, check_object_tags
from blockferry.requests.parts import KeyArn, Model, Party, SnapshotId, Source, TransferOptions

LONGEST_ID = 128


def _bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(
            f"{value!r} is not the name of a bucket (3 to 63 small letters, digits, dots and dashes, no s3://; what "
            "comes behind the name goes into prefix)"
        )
    return value


def _prefix(value: str) -> str:
    longest = len(f"{value}/{'x' * LONGEST_ID}/{segment_name(0)}".encode())
    if longest > MAX_KEY_BYTES:
        raise ValueError(f"is too long: keys below it would have {longest} bytes, S3 takes {MAX_KEY_BYTES}")
    return value


def _archive_id(value: str) -> str:
    if not re.fullmatch(ARCHIVE_ID, value):
        raise ValueError(
            f"{value!r} is not an id: 1 to {LONGEST_ID} letters, digits, dots, dashes and underscores, the first a "
            "letter or digit"
        )
    return value


def _base(value: str) -> str:
    try:
        return value if value == "auto" else manifest_uri(value)
    except ValueError as error:
        raise ValueError(f"{error}, nor auto") from error


BucketName = Annotated[str, AfterValidator(_bucket)]


class ArchivePlace(Party):
    """Where an archive is written, and how."""

    bucket: BucketName = Field(description="The bucket, of any region or account.")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field("", description="Gets a slash at its end if it has none.")
    archive_id: Annotated[str, AfterValidator(_archive_id)] | None = Field(
        None, description="Defaults to the snapshot's id and eight digits that no other job has."
    )
    storage_class: StorageClass = Field(
        "STANDARD_IA", description="Of the segments; manifest and indexes are always in STANDARD."
    )
    kms_key_arn: KeyArn | None = Field(
        None, description="Encrypts the objects (SSE-KMS); without it the bucket's own encryption does."
    )
    compression_level: int = Field(DEFAULT_LEVEL, ge=MIN_LEVEL, le=MAX_LEVEL, description="Level of zstd.")
    segment_blocks: int = Field(
        MAX_SEGMENT_BLOCKS, ge=1, le=MAX_SEGMENT_BLOCKS, description="Blocks of 512 KiB in an object, at most."
    )
    tags: dict[str, str] = Field(
        default_factory=dict, description="Of every object; the snapshot's own tags are in the manifest."
    )

    @model_validator(mode="after")
    def _tags_fit(self) -> Self:
        check_object_tags(self.tags)
        return self


class ArchiveOptions(TransferOptions):
    """How an archive is made."""

    max_chain: int = Field(
        30,
        ge=1,
        le=1_000,
        description="Archives that a chain has at most: the next one is a full one. Each one must be kept as long as "
        "any that is built upon it.",
    )

    @model_validator(mode="after")
    def _holes_stay(self) -> Self:
        if self.holes not in (None, HolePolicy.PRESERVE):
            raise ValueError(
                f"holes: {self.holes.value} is not for archives, which hold exactly what their source holds, and what "
                "its holes stand for; it can be chosen when the archive is restored"
            )
        return self


class ArchiveRequest(ImageNamed):
    """Input of the state machine ``archive``: a snapshot, or a disk image in S3, into an archive in S3."""

    snapshot_id: SnapshotId | None = Field(None, description="The snapshot to archive, instead of an image.")
    source: Source = Field(
        default_factory=lambda: Source(), description="Where the snapshot or image is, and as whom to read."
    )
    base_manifest_uri: Annotated[str, AfterValidator(_base)] | None = Field(
        None,
        description="An earlier archive, on top of which only what changed since is stored: the address of its "
        "manifest, or auto: the newest one of the same volume below the prefix. Without it the archive is a full one.",
    )
    archive: ArchivePlace
    options: ArchiveOptions = Field(default_factory=lambda: ArchiveOptions())

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image_uri is None) == (self.snapshot_id is None):
            raise ValueError("name exactly one source: snapshot_id or image_uri")
        self.refuse_of_image()
        if self.image_uri is not None and self.base_manifest_uri is not None:
            raise ValueError("base_manifest_uri belongs to snapshot_id: an image is always archived in full")
        return self

    @property
    def targets(self) -> tuple[()]:
        """No snapshots are made."""
        return ()


class LocalArchiveOptions(ArchiveOptions):
    """How an archive of an image on a machine is made."""

    # One machine has a few ranges under way at a time, and an image that is smaller than that goes by one of them.
    blocks_per_range: int = Field(1_024, ge=1, le=65_536)


class LocalArchiveRequest(Model):
    """What ``blockferry archive`` is asked of an image on the machine that it runs on."""

    base_manifest_uri: Annotated[str, AfterValidator(_base)] | None = None
    volume_size_gib: int | None = Field(None, ge=1, le=MAX_VOLUME_GIB)
    archive: ArchivePlace
    options: LocalArchiveOptions = Field(default_factory=lambda: LocalArchiveOptions())
