"""What is read of an image before anything is started, and what its name tells."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest
from blockferry.core.errors import InvalidRequest, RetryLater
from blockferry.sources.address import Image, codec_by_name, examine, refuse_other_format
from botocore.exceptions import ClientError, ReadTimeoutError
from image_files import ALL

TIB = 2**40


class OneImage:
    """An object of any size whose bytes are zeros behind its beginning."""

    def __init__(self, size: int, begin: bytes = b"", **head: Any) -> None:
        self.size, self.begin, self.head = size, begin, head
        self.asked: list[str] = []

    def head_object(self, **_: Any) -> dict[str, Any]:
        return {"ContentLength": self.size, "ETag": '"one"', **self.head}

    def get_object(self, *, Range: str, **_: Any) -> dict[str, Any]:
        self.asked.append(Range)
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        stop = min(last + 1, self.size)
        data = (self.begin[first:stop]).ljust(stop - first, b"\0")
        return {"Body": io.BytesIO(data), "ContentLength": len(data)}


def look(s3: OneImage, key: str = "disk.img", **more: Any) -> Any:
    return examine(s3, f"s3://images/{key}", None, region="us-east-1", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".zst", "zstd"),
        (".zstd", "zstd"),
        (".gz", "gzip"),
        (".gzip", "gzip"),
        (".xz", "xz"),
        (".bz2", "bzip2"),
        (".bzip2", "bzip2"),
        (".lz4", "lz4"),
        (".img", "raw"),
        ("", "raw"),
    ],
)
def test_every_suffix_of_a_codec_is_known_in_either_case(suffix: str, codec: str) -> None:
    assert codec_by_name(f"disk{suffix}") == codec_by_name(f"disk.img{suffix.upper()}") == codec


def test_the_first_and_the_last_512_bytes_of_a_raw_image_are_looked_at() -> None:
    s3 = OneImage(5_000)
    assert look(s3).codec == "raw"
    assert s3.asked == ["bytes=0-511", "bytes=4488-4999"]


@pytest.mark.parametrize("size", [1, 511, 512])
def test_a_raw_image_that_is_no_longer_than_its_beginning_is_read_once(size: int) -> None:
    s3 = OneImage(size)
    assert look(s3).size_bytes == size
    assert s3.asked == ["bytes=0-511"]


def test_a_mebibyte_of_a_compressed_image_is_unpacked_to_see_what_is_in_it() -> None:
    packed = gzip.compress(bytes(9_000), mtime=0)
    s3 = OneImage(len(packed), packed)
    assert look(s3, "disk.gz").codec == "gzip"
    assert s3.asked == ["bytes=0-1048575"]


def test_a_raw_image_may_have_64_tib_and_not_a_byte_more() -> None:
    assert look(OneImage(64 * TIB)).size_bytes == 64 * TIB
    with pytest.raises(InvalidRequest, match="64 TiB"):
        look(OneImage(64 * TIB + 1))


def test_what_a_compressed_image_unpacks_to_is_not_known_from_its_size() -> None:
    packed = gzip.compress(bytes(9_000), mtime=0)
    assert look(OneImage(64 * TIB + 1, packed), "disk.gz").codec == "gzip"


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_image_is_refused_before_it_is_read(storage_class: str) -> None:
    s3 = OneImage(5_000, StorageClass=storage_class)
    with pytest.raises(InvalidRequest, match="restore-object"):
        look(s3)
    assert s3.asked == []


def test_only_who_insists_has_an_image_believed_to_be_raw() -> None:
    assert look(OneImage(5_000)).believed_raw is False
    assert look(OneImage(5_000), image_format="raw").believed_raw is True


@pytest.mark.parametrize("status", [301, 307])
def test_a_bucket_in_another_region_is_told_with_where_to_name_it(status: int) -> None:
    class Elsewhere(OneImage):
        def head_object(self, **_: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Head")

    with pytest.raises(InvalidRequest, match=r"image s3://images/disk\.img: the bucket is not in us-east-1.*source"):
        look(Elsewhere(1))


@pytest.mark.parametrize(
    ("key", "begin"),
    [("disk.img", b""), ("disk.gz", gzip.compress(bytes(9_000), mtime=0))],
    ids=["raw", "packed"],
)
def test_all_that_is_looked_at_belongs_to_one_version_of_an_image(key: str, begin: bytes) -> None:
    class Replaced(OneImage):
        """Somebody uploads another one after the first answer."""

        def get_object(self, *, IfMatch: str | None = None, **more: Any) -> dict[str, Any]:
            if IfMatch in (None, '"two"'):
                return super().get_object(**more)
            answer = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
            raise ClientError(answer, "GetObject")

    with pytest.raises(InvalidRequest, match=f"image s3://images/{key} was replaced while it was looked at"):
        look(Replaced(5_000, begin), key)


def test_an_image_whose_bytes_do_not_arrive_is_left_to_a_later_attempt() -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise ReadTimeoutError(endpoint_url="s3")

    class Slow(OneImage):
        def get_object(self, **_: Any) -> dict[str, Any]:
            return {"Body": Broken()}

    with pytest.raises(RetryLater, match=r"image s3://images/disk\.img in us-east-1: .*s3"):
        look(Slow(5_000))


QCOW2 = ALL["qcow2"].body


@pytest.mark.parametrize(
    ("key", "body", "told"),
    [
        (
            "vm/disk.img",
            QCOW2,
            "is a qcow2 image, not a raw disk; nothing was started: convert .* disk.img disk.img.raw`",
        ),
        ("/", QCOW2, "is a qcow2 image, .* -O raw IMAGE IMAGE.raw`"),
        (
            "vm/disk.qcow2.gz",
            gzip.compress(QCOW2, mtime=0),
            "unpacks to a qcow2 image, .*nothing was started: convert .* raw disk.qcow2 disk.qcow2.raw`",
        ),
        (
            "vm/disk.gz.gz",
            gzip.compress(gzip.compress(bytes(600)), mtime=0),
            "unpacks to something compressed with gzip, .*nothing was started: decompress it with `gzip -dc disk.gz >",
        ),
        (
            "vm/disk",
            gzip.compress(bytes(600)),
            'is compressed with gzip, .*nothing was started: have it unpacked .*codec: "gzip" .*gzip -dc disk >',
        ),
    ],
    ids=["raw", "without a name", "packed", "packed twice", "packed under another name"],
)
def test_what_is_no_raw_disk_is_refused_with_a_command_for_that_file(key: str, body: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^image s3://images/{key} {told}"):
        look(OneImage(len(body), body), key)


def test_an_image_is_not_believed_to_be_raw_unless_somebody_says_so() -> None:
    image = Image("images", "disk", '"one"', 5_000, "raw", "STANDARD")
    with pytest.raises(InvalidRequest, match="is a qcow2 image"):
        refuse_other_format(image, QCOW2)
