"""Objects in S3 that are written, as inputs name them: where, in which class, under which key, with which tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from blockferry.core.quotas import MAX_KEY_BYTES, MAX_OBJECT_TAGS
from blockferry.requests.named import ImageUri
from blockferry.requests.parts import KeyArn, Party, Region

StorageClass = Literal[
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"
]


def check_object_tags(tags: Mapping[str, str]) -> None:
    """Raise ``ValueError`` for tags that S3 does not keep on an object (S3 user guide, object tags)."""
    if len(tags) > MAX_OBJECT_TAGS:
        raise ValueError(f"tags: {len(tags)} tags, S3 keeps at most {MAX_OBJECT_TAGS} on an object")
    for key, value in tags.items():
        fit = len(key) <= 128 and len(value) <= 256 and not key.lower().startswith("aws:")
        if not (fit and key and _is_tag(key) and _is_tag(value)):
            raise ValueError(
                f"tags: S3 does not take {key!r} with {value!r}: letters, digits, spaces and +-=._:/@ only, 1 to "
                "128 characters, 256 for the value, and no key that begins with aws:"
            )


def _is_tag(text: str) -> bool:
    return all(each.isalnum() or each.isspace() or each in "+-=._:/@" for each in text)


class ObjectTarget(Party):
    """A raw disk image to make: one object in S3, as long as the volume."""

    place_is: ClassVar[str] = "image_uri"

    image_uri: ImageUri = Field(description="s3://<bucket>/<key>, where there is no object yet.")
    region: Region | None = Field(None, description="Of the bucket; found out when left out.")
    storage_class: StorageClass = Field("STANDARD", description="Of the object.")
    kms_key_arn: KeyArn | None = Field(
        None, description="Encrypts the object (SSE-KMS); without it the bucket's own encryption does."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Of the object.")

    @model_validator(mode="after")
    def _key_and_tags_fit(self) -> Self:
        if len(self.key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"image_uri: the key has {len(self.key.encode())} bytes, S3 takes {MAX_KEY_BYTES}")
        if self.key.endswith("/"):
            raise ValueError("image_uri ends with a slash: name the object, not a folder")
        check_object_tags(self.tags)
        return self

    @property
    def bucket(self) -> str:
        return self.image_uri.removeprefix("s3://").partition("/")[0]

    @property
    def key(self) -> str:
        return self.image_uri.removeprefix("s3://").partition("/")[2]

    @property
    def place(self) -> tuple[str | None, ...]:
        """The member in which two targets must differ."""
        return (self.image_uri,)
