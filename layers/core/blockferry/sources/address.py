"""The image that an operator names: where it is, how it is compressed, and whether it can be read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.errors import translated
from blockferry.aws.objects import status_of
from blockferry.core.errors import BlockferryError, InvalidRequest, RetryLater
from blockferry.core.quotas import MAX_VOLUME_GIB
from blockferry.formats.codecs import first_unpacked
from blockferry.formats.lz4 import MAX_BLOCK, MAX_HEADER
from blockferry.formats.recognise import (
    HEAD_BYTES,
    TAIL_BYTES,
    Format,
    ImageCodec,
    ImageFormat,
    PackedCodec,
    looks_like,
    packed_as,
    refusal,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"

MAX_IMAGE_BYTES = MAX_VOLUME_GIB * 2**30
"""No volume is larger (64 TiB)."""

PEEK_BYTES = 2**20
"""Read of a compressed image to see what is in it: the largest block of bzip2, the most that a codec but lz4 needs."""

_PEEK_LZ4 = MAX_HEADER + MAX_BLOCK + 8
"""The first block of lz4 and what is around it: nothing of a block is unpacked before all of it is there."""

INSIST = 'image_format: "raw" (--format raw)'

_SUFFIXES: Mapping[str, PackedCodec] = {
    ".zst": "zstd",
    ".zstd": "zstd",
    ".gz": "gzip",
    ".gzip": "gzip",
    ".xz": "xz",
    ".bz2": "bzip2",
    ".bzip2": "bzip2",
    ".lz4": "lz4",
}

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that are read only after a restore (S3 user guide, archived objects)."""


@dataclass(frozen=True)
class Address:
    """An object in S3; ``key`` may hold anything."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Image:
    """An image that can be read. ``etag`` as S3 sends it, in quotes; ``size_bytes`` the object's. ``believed_raw``:
    what it holds, or unpacks to, is a raw disk whatever it looks like. ``metadata`` is what users wrote beside it."""

    bucket: str
    key: str
    etag: str
    size_bytes: int
    codec: ImageCodec
    storage_class: str
    believed_raw: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def uri(self) -> str:
        return Address(self.bucket, self.key).uri


def parse_address(uri: str) -> Address:
    """The parts of ``s3://bucket/key``. Raises ``InvalidRequest`` for anything else."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket or not key:
        raise InvalidRequest(f"image {uri}: this is not the address of an object; name it as s3://<bucket>/<key>")
    return Address(bucket, key)


def codec_by_name(key: str) -> ImageCodec:
    """How an image of this name is compressed."""
    return next((codec for suffix, codec in _SUFFIXES.items() if key.lower().endswith(suffix)), "raw")


def examine(
    s3: S3Client, uri: str, codec: ImageCodec | None, *, region: str, image_format: ImageFormat | None = None
) -> Image:
    """The image at ``uri`` as it is now; three requests at most. ``region`` is where ``s3`` asks.

    Its first and last bytes, or what the first ones unpack to, must be those of a raw disk, unless ``codec`` or
    ``image_format`` says raw. Raises ``InvalidRequest`` when it cannot be read or is not what ``codec`` (or its name)
    says or no raw disk, ``RetryLater`` when S3 is not to be reached.
    """
    address = parse_address(uri)
    head = _head(s3, address, region)
    size, etag = int(head["ContentLength"]), str(head["ETag"])
    if size == 0:
        raise InvalidRequest(f"image {uri} is empty (0 bytes): upload the image again")
    storage_class = str(head.get("StorageClass") or "STANDARD")
    _refuse_archived(address, head, storage_class)
    found = codec or codec_by_name(address.key)
    if found == "raw" and size > MAX_IMAGE_BYTES:
        raise InvalidRequest(
            f"image {uri} has {size} bytes, and the largest volume has {MAX_IMAGE_BYTES} ({MAX_VOLUME_GIB // 1024} "
            "TiB): name a smaller image"
        )
    believed_raw = "raw" in (codec, image_format)
    metadata = head.get("Metadata") or {}
    image = Image(address.bucket, address.key, etag, size, found, storage_class, believed_raw, metadata)
    begin = _bytes(s3, address, etag, region, length=_looked_at(found))
    if found == "raw":
        last = max(size - TAIL_BYTES, 0)
        end = _bytes(s3, address, etag, region, first=last, length=TAIL_BYTES) if last else begin
        refuse_other_format(image, begin, end)
    else:
        _refuse_other_codec(image, begin, found, told="its name" if codec is None else "image_codec")
        refuse_other_format(image, first_unpacked(begin, found, name=uri))
    return image


def _looked_at(codec: ImageCodec) -> int:
    """Bytes of an image's beginning that tell what is in it."""
    if codec == "raw":
        return HEAD_BYTES
    return _PEEK_LZ4 if codec == "lz4" else PEEK_BYTES


def refuse_other_format(image: Image, head: bytes, tail: bytes | None = None) -> None:
    """Raise ``InvalidRequest`` if these are the first and last bytes of something else than a raw disk. They are those
    that the image unpacks to, if it is compressed; ``tail`` is ``None`` while it is not known."""
    found = None if image.believed_raw else looks_like(head, tail)
    if found is None:
        return
    name = PurePosixPath(image.key)
    packed = image.codec != "raw"
    raise InvalidRequest(
        refusal(
            image.uri,
            found,
            file=(name.stem if packed else name.name) or "IMAGE",
            insist=INSIST,
            packed=packed,
            unpack="" if packed else _unpacked_here(found),
        )
    )


def _unpacked_here(found: Format) -> str:
    return f'have it unpacked with image_codec: "{found.codec}" (--codec {found.codec})'


def _head(s3: S3Client, address: Address, region: str) -> Mapping[str, Any]:
    try:
        return s3.head_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if status_of(error) == 404:
            # The answer to HEAD has no body; the one to GET tells whether it is the key or the bucket.
            _bytes(s3, address, None, region, length=1)
        raise _unreadable(address, error, region) from error
    except BotoCoreError as error:
        raise RetryLater(f"image {address.uri} in {region}: {translated(error)}") from error


def _bytes(s3: S3Client, address: Address, etag: str | None, region: str, *, first: int = 0, length: int) -> bytes:
    """Bytes of the object, fewer at its end."""
    condition: Any = {} if etag is None else {"IfMatch": etag}
    try:
        answer = s3.get_object(
            Bucket=address.bucket, Key=address.key, Range=f"bytes={first}-{first + length - 1}", **condition
        )
        with closing(answer["Body"]) as body:
            return body.read()
    except ClientError as error:
        raise _unreadable(address, error, region) from error
    except BotoCoreError as error:
        raise RetryLater(f"image {address.uri} in {region}: {translated(error)}") from error


def _unreadable(address: Address, error: ClientError, region: str) -> BlockferryError:
    image = f"image {address.uri}"
    code, status = error.response["Error"]["Code"], status_of(error)
    said = translated(error)
    if isinstance(said, RetryLater):
        return RetryLater(f"{image} in {region}: {said}")
    if code == "NoSuchBucket":
        return InvalidRequest(f"{image}: there is no bucket {address.bucket} (asked in {region}): correct image_uri")
    if code == "InvalidObjectState":
        return InvalidRequest(_archived_text(address, "an archive"))
    if status == 404:
        return InvalidRequest(
            f"{image}: the bucket {address.bucket} has no such object: upload it, or correct image_uri"
        )
    if status == 403:
        return InvalidRequest(
            f"{image}: reading it is not permitted ({said}), or it does not exist and listing the bucket is not "
            f"permitted either: allow s3:GetObject on it, and kms:Decrypt on the key that it is encrypted with. A "
            f"bucket whose requester pays (Requester Pays) answers the same and cannot be read from: copy the image "
            f"into one of your own with `aws s3 cp --request-payer requester {shlex.quote(address.uri)} s3://BUCKET/KEY`"
        )
    if status == 412:
        return InvalidRequest(f"{image} was replaced while it was looked at: start the job when its upload is complete")
    if status in (301, 307):
        return InvalidRequest(f"{image}: the bucket is not in {region} ({said}): name its region as source.region")
    return InvalidRequest(f"{image} cannot be read in {region} ({said}): correct image_uri")


def _refuse_archived(address: Address, head: Mapping[str, Any], storage_class: str) -> None:
    restore = str(head.get("Restore"))
    archive = head.get("ArchiveStatus") or (storage_class if storage_class in _ARCHIVED else None)
    if archive is None or 'ongoing-request="false"' in restore:
        return
    if 'ongoing-request="true"' in restore:
        raise InvalidRequest(
            f"image {address.uri} is in {archive} and is being restored: start the job again when `aws s3api "
            f"head-object --bucket {address.bucket} --key '{address.key}'` shows an expiry-date"
        )
    raise InvalidRequest(_archived_text(address, str(archive)))


def _archived_text(address: Address, archive: str) -> str:
    return (
        f"image {address.uri} is in {archive} and cannot be read: restore it first with `aws s3api restore-object "
        f"--bucket {address.bucket} --key '{address.key}' --restore-request Days=7`"
    )


def _refuse_other_codec(image: Image, begin: bytes, codec: PackedCodec, *, told: str) -> None:
    if packed_as(begin) == codec:
        return
    looks = looks_like(begin)
    raise InvalidRequest(
        f"image {image.uri} is not compressed with {codec}, as {told} says: it "
        f"{f'is {looks.name}' if looks else f'begins with {begin[:8].hex()}'}; nothing was started. Name what it is as "
        "image_codec (--codec: raw, gzip, zstd, xz, bzip2, lz4), or upload it again"
    )
