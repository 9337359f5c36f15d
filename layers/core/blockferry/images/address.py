"""The image that an operator names: where it is, how it is compressed, and whether it can be read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws_errors import translated
from blockferry.blocks import MAX_VOLUME_GIB
from blockferry.errors import BlockferryError, InvalidRequest, RetryLater
from blockferry.images.codecs import GZIP_MAGIC, ZSTD_MAGIC, is_skippable
from blockferry.images.objects import status_of
from blockferry.requests import ImageCodec

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"

MAX_IMAGE_BYTES = MAX_VOLUME_GIB * 2**30
"""No volume is larger (64 TiB)."""

_SUFFIXES: Mapping[str, ImageCodec] = {".zst": "zstd", ".zstd": "zstd", ".gz": "gzip", ".gzip": "gzip"}

_OTHER_FORMATS = {
    b"QFI\xfb": "a qcow2 image: convert it (qemu-img convert -O raw)",
    b"KDMV": "a VMDK image: convert it (qemu-img convert -O raw)",
    b"vhdx": "a VHDX image: convert it (qemu-img convert -O raw)",
    b"\xfd7zX": "compressed with xz: compress it with zstd or gzip instead",
    b"PK\x03\x04": "a zip archive: store the image in it by itself",
}
"""What no disk begins with, and a name without a known suffix may hide."""

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
    """An image that can be read. ``etag`` as S3 sends it, in quotes; ``size_bytes`` the object's."""

    bucket: str
    key: str
    etag: str
    size_bytes: int
    codec: ImageCodec
    storage_class: str

    @property
    def uri(self) -> str:
        return Address(self.bucket, self.key).uri


def parse_address(uri: str) -> Address:
    """The parts of ``s3://bucket/key``. Raises ``InvalidRequest`` for anything else."""
    bucket, slash, key = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket or not slash or not key:
        raise InvalidRequest(f"image {uri}: this is not the address of an object; name it as s3://<bucket>/<key>")
    return Address(bucket, key)


def codec_by_name(key: str) -> ImageCodec:
    """How an image of this name is compressed."""
    return next((codec for suffix, codec in _SUFFIXES.items() if key.lower().endswith(suffix)), "raw")


def examine(s3: S3Client, uri: str, codec: ImageCodec | None, *, region: str) -> Image:
    """The image at ``uri`` as it is now; two requests. ``region`` is where ``s3`` asks.

    Raises ``InvalidRequest`` when it cannot be read or is not what ``codec`` (or its name) says, ``RetryLater`` when
    S3 is not to be reached.
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
    _check_content(address, _first_bytes(s3, address, etag, region), found, named=codec is not None)
    return Image(address.bucket, address.key, etag, size, found, storage_class)


def _head(s3: S3Client, address: Address, region: str) -> Mapping[str, Any]:
    try:
        return s3.head_object(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if status_of(error) == 404:
            # The answer to HEAD has no body; the one to GET tells whether it is the key or the bucket.
            _first_bytes(s3, address, None, region)
        raise _unreadable(address, error, region) from error
    except BotoCoreError as error:
        raise RetryLater(f"image {address.uri} in {region}: {translated(error)}") from error


def _first_bytes(s3: S3Client, address: Address, etag: str | None, region: str) -> bytes:
    condition: Any = {} if etag is None else {"IfMatch": etag}
    try:
        answer = s3.get_object(Bucket=address.bucket, Key=address.key, Range="bytes=0-3", **condition)
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
            f"permitted either: allow s3:GetObject on it, and kms:Decrypt on the key that it is encrypted with"
        )
    if status == 412:
        return InvalidRequest(f"{image} was replaced while it was looked at: start the job when its upload is complete")
    if status in (301, 307):
        return InvalidRequest(f"{image}: the bucket is not in {region} ({said}): name its region as source.region")
    return InvalidRequest(f"{image} cannot be read in {region} ({said}): correct image_uri")


def _refuse_archived(address: Address, head: Mapping[str, Any], storage_class: str) -> None:
    restore = str(head.get("Restore") or "")
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


def _check_content(address: Address, begin: bytes, codec: ImageCodec, *, named: bool) -> None:
    """Refuse an image whose first bytes contradict its codec; raw is believed when the operator says so."""
    image = f"image {address.uri}"
    told = "image_codec" if named else "its name"
    looks_zstd = begin == ZSTD_MAGIC or is_skippable(begin)
    looks_gzip = begin.startswith(GZIP_MAGIC)
    if (codec == "zstd" and not looks_zstd) or (codec == "gzip" and not looks_gzip):
        raise InvalidRequest(
            f"{image} is not compressed with {codec}, as {told} says: it begins with {begin.hex()}; name what it is "
            "as image_codec (raw, gzip, zstd), or upload it again"
        )
    if codec != "raw" or named:
        return
    # A raw disk may begin like a skippable frame by chance, but not like these.
    for looks, packed in ((begin == ZSTD_MAGIC, "zstd"), (looks_gzip, "gzip")):
        if looks:
            raise InvalidRequest(
                f"{image} is raw by its name, but begins like something compressed with {packed} ({begin.hex()}): "
                f'name image_codec: "{packed}", or "raw" if it really is a raw disk'
            )
    if begin in _OTHER_FORMATS:
        raise InvalidRequest(
            f'{image} is raw by its name, but looks like {_OTHER_FORMATS[begin]}; or name image_codec: "raw" if it '
            "really is a raw disk"
        )
