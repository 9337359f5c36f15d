from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import boto3
import lz4.frame
import pytest
import zstandard
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RequestRefused, RetryLater
from blockferry.core.retry import Clock, RetryPolicy
from blockferry.core.tuning import UnpackTuning
from blockferry.formats.stream import MAX_PIECE
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JOB, JobFolder
from blockferry.sources.address import Image, examine
from blockferry.sources.image import UnpackedImageSource
from blockferry.sources.unpack import MARKER, UnpackedInfo, drop_unpacked, expand, unpack_image, unpacked
from fakes import ManualClock, TickingClock
from image_files import ALL, DISK, vhd_footer, xz_of_blocks
from job_records import job_call
from moto import mock_aws
from pydantic import ValidationError

REGION = "us-east-1"
IMAGES = "images"
SMALL_CHUNK = 3 * MAX_PIECE + 1_000
"""Not a multiple of a piece, so that pieces lie across the ends of chunks."""

SMALL = UnpackTuning(chunk_bytes=SMALL_CHUNK, part_bytes=50_000)
"""Chunks and reads so small that little images have many of them."""

RESERVE = 60.0


@pytest.fixture(scope="module")
def moto_s3() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        with mock_aws():
            # One client for all tests: making it takes longer than most of them.
            yield boto3.client("s3", region_name=REGION)


@pytest.fixture
def s3(moto_s3: Any) -> Any:
    """A client of moto's S3 with an empty bucket for images and an empty work bucket."""
    for bucket in (IMAGES, "work"):
        moto_s3.create_bucket(Bucket=bucket)
        for item in moto_s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
            moto_s3.delete_object(Bucket=bucket, Key=item["Key"])
    return moto_s3


@pytest.fixture
def folder(s3: Any) -> JobFolder:
    return JobFolder("work", s3, "fanout", "job")


def upload(s3: Any, stream: bytes, *, codec: Any = "zstd") -> Image:
    s3.put_object(Bucket=IMAGES, Key="disk", Body=stream)
    return examine(s3, f"s3://{IMAGES}/disk", codec, region=REGION)


def step(
    s3: Any,
    folder: JobFolder,
    image: Image,
    progress: Any = None,
    *,
    work_seconds: float = 800.0,
    clock: Clock | None = None,
    max_bytes: int = 1 << 40,
    unpacking: UnpackTuning = SMALL,
    memory_gb: float = 0.0,
    **more: Any,
) -> dict[str, Any]:
    seconds = RESERVE + work_seconds
    call = job_call(
        None,
        folder,
        clock=clock or ManualClock(),
        seconds_left=seconds,
        memory_gb=memory_gb,
        unpacking=unpacking,
    )
    return unpack_image(call, image, s3, progress=progress, max_bytes=max_bytes, **more)


def stored(folder: JobFolder) -> dict[str, bytes]:
    """What the job holds, by name."""
    listed = folder.s3.list_objects_v2(Bucket="work", Prefix=folder.prefix).get("Contents", [])
    names = [item["Key"].removeprefix(folder.prefix) for item in listed]
    return {name: folder.read(name) or b"" for name in names}


def image_in(folder: JobFolder) -> bytes:
    info = unpacked(folder)
    assert info is not None
    names = [f"image/{number:08d}.zst" for number in range(info.chunks)]
    assert sorted(stored(folder)) == [*names, "image/image.json"]
    data = b"".join(zstandard.decompress(folder.read(name) or b"") for name in names)
    assert len(data) == info.raw_bytes
    return data


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": partial(bz2.compress, compresslevel=1),
    "xz": partial(lzma.compress, preset=1),
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
}


def frames(pieces: list[bytes], codec: str) -> bytes:
    return b"".join(PACK[codec](piece) for piece in pieces)


def pieces_of_disk(count: int) -> list[bytes]:
    """Pieces of all lengths, smaller and larger than a chunk, some of them all zeros."""
    dice = random.Random(5)
    return [
        dice.randbytes(5_000) + bytes(dice.choice((0, 1, 100, SMALL_CHUNK - 5_000, SMALL_CHUNK, 2 * SMALL_CHUNK)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("codec", PACK)
def test_an_image_is_unpacked_and_read_as_it_was(s3: Any, folder: JobFolder, codec: str) -> None:
    raw = random.Random(1).randbytes(3 * BLOCK_SIZE) + bytes(40 << 20) + b"the end"
    image = upload(s3, frames([raw], codec), codec=codec)
    result = step(s3, folder, image, max_bytes=len(raw), unpacking=UnpackTuning())
    assert (result["done"], result["raw_bytes"]) == (True, len(raw))
    requests = {"GetObject us-east-1": 1, "PutObject us-east-1": 2}
    assert unpacked(folder) == UnpackedInfo(
        raw_bytes=len(raw), chunks=2, etag=image.etag, codec=codec, requests=requests
    )
    assert result["progress"]["requests"] == requests
    reads = UnpackedImageSource(folder, len(raw), chunk_blocks=64)
    blocks = [reads.read(ref).data for ref in reads.blocks(BlockRange(0, 2048))]
    assert b"".join(blocks)[: len(raw)] == raw


def test_a_chunk_is_one_checked_frame_that_tells_its_size(s3: Any, folder: JobFolder) -> None:
    step(s3, folder, upload(s3, frames([bytes(SMALL_CHUNK + 5)], "zstd")))
    for name, size in (("image/00000000.zst", SMALL_CHUNK), ("image/00000001.zst", 5)):
        parameters = zstandard.get_frame_parameters(stored(folder)[name])
        assert (parameters.content_size, parameters.has_checksum) == (size, True)
    record = json.loads(stored(folder)["image/image.json"])
    assert sorted(record) == ["chunks", "codec", "etag", "format", "gb_seconds", "raw_bytes", "requests"]


@pytest.mark.parametrize("raw_bytes", [1, SMALL_CHUNK - 1, SMALL_CHUNK, SMALL_CHUNK + 1, 2 * SMALL_CHUNK])
def test_images_end_anywhere(s3: Any, folder: JobFolder, raw_bytes: int) -> None:
    raw = random.Random(2).randbytes(raw_bytes)
    assert step(s3, folder, upload(s3, frames([raw], "zstd")), max_bytes=raw_bytes)["done"]
    assert image_in(folder) == raw


@pytest.mark.parametrize(
    ("how", "looks"),
    [
        *((how, looks) for how in ("gzip", "zstd") for looks in (17, 19, 23, 29, 61)),
        # What these yield before a stream or block ends are more and smaller pieces.
        *((how, 29) for how in ("xz", "xz of blocks", "bzip2", "lz4")),
    ],
)
def test_unpacking_in_many_invocations_gives_the_same_chunks(s3: Any, folder: JobFolder, how: str, looks: int) -> None:
    pieces = pieces_of_disk(40)
    image = upload(s3, xz_of_blocks(pieces) if how == "xz of blocks" else frames(pieces, how), codec=how.split()[0])
    step(s3, folder, image)
    at_once = stored(folder)
    assert image_in(folder) == b"".join(pieces)
    drop_unpacked(folder)
    assert stored(folder) == {}
    progress, calls = None, 0
    while True:
        result = step(s3, folder, image, progress, work_seconds=looks, clock=TickingClock())
        calls += 1
        if result["done"]:
            break
        assert unpacked(folder) is None
        assert result["raw_bytes"] is None
        progress = json.loads(json.dumps(result["progress"]))
        assert progress["raw_offset"] <= progress["chunks"] * SMALL_CHUNK
    assert calls > 2
    pieces_now = stored(folder)
    # What it took differs, what it gave does not.
    record, before = json.loads(pieces_now.pop("image/image.json")), json.loads(at_once.pop("image/image.json"))
    assert pieces_now == at_once
    assert record.pop("requests")["GetObject us-east-1"] > before.pop("requests")["GetObject us-east-1"]
    assert record == before
    # Once more what was done already, from the last progress and from the start.
    for again in (progress, None):
        assert step(s3, folder, image, again)["raw_bytes"] == len(b"".join(pieces))
        pieces_now = stored(folder)
        assert json.loads(pieces_now.pop("image/image.json"))["raw_bytes"] == record["raw_bytes"]
        assert pieces_now == at_once


WAYS_OUT = {
    "gzip": "one by one",
    "zstd": "pzstd",
    "xz": "xz --threads=0 --block-size",
    "bzip2": "pbzip2",
    "lz4": "one by one",
}


@pytest.mark.parametrize("how", [*PACK, "xz of blocks"])
def test_a_frame_that_takes_whole_invocations_is_refused_with_a_way_out(s3: Any, folder: JobFolder, how: str) -> None:
    huge, codec = bytes(40 * SMALL_CHUNK), how.split()[0]
    stream = xz_of_blocks([bytes(5 * SMALL_CHUNK), huge]) if how == "xz of blocks" else PACK[codec](huge)
    image = upload(s3, stream, codec=codec)
    chunks = [-1]

    def unpack_on() -> None:
        progress = None
        for _ in range(50):
            result = step(s3, folder, image, progress, work_seconds=40, clock=TickingClock())
            progress = json.loads(json.dumps(result["progress"]))
            chunks.append(progress["chunks"])

    expected = rf"(?s)image s3://images/disk.*{codec} stream.*{WAYS_OUT[codec]}.*upload it raw"
    with pytest.raises(InvalidRequest, match=expected):
        unpack_on()
    assert chunks == sorted(set(chunks))
    assert len(chunks) > 1
    assert unpacked(folder) is None


def test_another_image_under_the_same_job_begins_at_its_start(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([bytes(9 * SMALL_CHUNK)] * 2, "zstd"))
    first = step(s3, folder, image, work_seconds=20, clock=TickingClock())
    assert first["progress"]["chunks"] > 1
    step(s3, folder, image)
    other = upload(s3, frames([b"another disk"], "zstd"))
    assert step(s3, folder, other, first["progress"])["done"]
    assert image_in(folder) == b"another disk"


def test_an_image_larger_than_its_volume_is_refused(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([bytes(1_000), bytes(1_000)], "zstd"))
    with pytest.raises(InvalidRequest, match=r"image s3://images/disk unpacks to more than 1999 bytes"):
        step(s3, folder, image, max_bytes=1_999)
    assert step(s3, folder, image, max_bytes=2_000)["done"]


@pytest.mark.parametrize("codec", PACK)
def test_an_image_of_zero_bytes_is_refused(s3: Any, folder: JobFolder, codec: str) -> None:
    with pytest.raises(InvalidRequest, match="image s3://images/disk unpacks to 0 bytes"):
        step(s3, folder, upload(s3, PACK[codec](b""), codec=codec))
    assert stored(folder) == {}


def test_a_damaged_image_is_refused_with_the_place_of_the_damage(s3: Any, folder: JobFolder) -> None:
    stream = frames([random.Random(3).randbytes(5 * SMALL_CHUNK)], "zstd")
    with pytest.raises(InvalidRequest, match=r"image s3://images/disk is damaged at byte \d+ of its zstd stream"):
        step(s3, folder, upload(s3, stream[:-1]))
    assert unpacked(folder) is None


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_an_image_that_changes_meanwhile_is_refused(s3: Any, folder: JobFolder, how: str) -> None:
    image = upload(s3, frames([bytes(20 * SMALL_CHUNK)] * 20, "zstd"))
    progress = step(s3, folder, image, work_seconds=100, clock=TickingClock())["progress"]
    if how == "replaced":
        upload(s3, frames([b"another disk"], "zstd"))
    else:
        s3.delete_object(Bucket=IMAGES, Key="disk")
    with pytest.raises(InvalidRequest, match=rf"s3://images/disk.*{how}.*no snapshot was started"):
        step(s3, folder, image, progress)


class Refusing:
    """An S3 client whose answers to GetObject are server errors from the ``good``-th on."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, s3: Any, good: int, *, status: int = 503, code: str = "SlowDown") -> None:
        self._s3, self._good = s3, good
        self._answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    def get_object(self, **arguments: Any) -> Any:
        self._good -= 1
        if self._good < 0:
            raise self._s3.exceptions.ClientError(self._answer, "GetObject")
        return self._s3.get_object(**arguments)


def test_what_was_stored_before_time_ran_out_is_kept(s3: Any, folder: JobFolder) -> None:
    pieces = [random.Random(seed).randbytes(SMALL_CHUNK) for seed in range(4)]
    image = upload(s3, frames(pieces, "zstd"))
    part_way = step(Refusing(s3, 20), folder, image, work_seconds=30)
    assert not part_way["done"]
    assert part_way["progress"]["chunks"] == 2
    assert step(s3, folder, image, part_way["progress"])["done"]
    assert image_in(folder) == b"".join(pieces)


def test_an_image_that_cannot_be_read_for_long_is_left_to_a_later_attempt(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([b"disk"], "zstd"))
    with pytest.raises(RetryLater, match=r"s3://images/disk.*SlowDown"):
        step(Refusing(s3, 0), folder, image)
    with pytest.raises(RetryLater, match=r"s3://images/disk could be read in time.*SlowDown"):
        step(Refusing(s3, 0), folder, image, work_seconds=5)
    with pytest.raises(RequestRefused, match=r"s3://images/disk.*AccessDenied"):
        step(Refusing(s3, 0, status=403, code="AccessDenied"), folder, image, policy=RetryPolicy())


def test_a_chunk_that_cannot_be_stored_fails_the_step(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([bytes(9 * SMALL_CHUNK)], "zstd"))
    s3.delete_bucket(Bucket="work")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        step(s3, folder, image, {"etag": image.etag, "chunks": 1, "compressed_offset": 0, "raw_offset": 0})


def test_a_raw_image_is_not_unpacked(s3: Any, folder: JobFolder) -> None:
    with pytest.raises(ValueError, match="raw"):
        step(s3, folder, upload(s3, b"disk", codec="raw"))


def test_the_record_is_missing_or_damaged(folder: JobFolder) -> None:
    assert unpacked(folder) is None
    folder.write(MARKER, b"{}")
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/fanout/job/image/image\.json is damaged"):
        unpacked(folder)


def test_dropping_leaves_the_rest_of_the_job(s3: Any, folder: JobFolder) -> None:
    drop_unpacked(folder)
    folder.write(JOB, b"{}")
    folder.write("images.txt", b"")
    step(s3, folder, upload(s3, frames([bytes(3 * SMALL_CHUNK)], "zstd")))
    drop_unpacked(folder)
    assert sorted(stored(folder)) == ["images.txt", JOB]


# -- what it unpacks to ------------------------------------------------------------------------------------------------


def image_of(s3: Any, stream: bytes, codec: Any, *, believed_raw: bool = False) -> Image:
    """As it was examined before it held this."""
    etag = s3.put_object(Bucket=IMAGES, Key="disk", Body=stream)["ETag"]
    return Image(IMAGES, "disk", etag, len(stream), codec, "STANDARD", believed_raw)


@pytest.mark.parametrize("codec", PACK)
def test_what_is_no_raw_disk_is_refused_with_its_first_bytes(s3: Any, folder: JobFolder, codec: str) -> None:
    raw = ALL["qcow2"].body + bytes(40 * SMALL_CHUNK)
    with pytest.raises(InvalidRequest, match="image s3://images/disk unpacks to a qcow2 image"):
        step(s3, folder, image_of(s3, frames([raw[:100], raw[100:]], codec), codec))
    assert stored(folder) == {}


@pytest.mark.parametrize("length", [1, 511])
def test_a_footer_is_seen_wherever_unpacking_went_on(s3: Any, folder: JobFolder, length: int) -> None:
    """The last frame has less than the footer, and all of it but that is stored before time is up."""
    raw = bytes(2 * SMALL_CHUNK - 512) + vhd_footer(2)
    cuts = [0, SMALL_CHUNK, len(raw) - length, len(raw)]
    image = image_of(s3, frames([raw[first:stop] for first, stop in pairwise(cuts)], "zstd"), "zstd")
    part_way = []

    def begin_and_go_on(looks: int) -> None:
        part_way.append(step(s3, folder, image, work_seconds=looks, clock=TickingClock())["progress"])
        step(s3, folder, image, part_way[-1])

    for looks in range(7, 30):
        drop_unpacked(folder)
        with pytest.raises(InvalidRequest, match=r"unpacks to a VHD image of fixed size.*nothing was started"):
            begin_and_go_on(looks)
        assert unpacked(folder) is None
    assert {progress["chunks"] for progress in part_way} >= {1, 2}


def test_only_the_beginning_of_a_disk_is_looked_at_wherever_unpacking_went_on(s3: Any, folder: JobFolder) -> None:
    """A disk may hold other images."""
    pieces = [bytes(SMALL_CHUNK - 5_000)] + [ALL["qcow2"].body + bytes(SMALL_CHUNK)] * 6
    image, progress, begun = image_of(s3, frames(pieces, "gzip"), "gzip"), None, set()
    for _ in range(50):
        result = step(s3, folder, image, progress, work_seconds=20, clock=TickingClock())
        progress = result["progress"]
        if result["done"]:
            break
        begun.add(progress["raw_offset"])
    assert begun - {0}
    assert image_in(folder) == b"".join(pieces)


def test_what_is_said_to_be_a_raw_disk_is_unpacked_whatever_it_looks_like(s3: Any, folder: JobFolder) -> None:
    raw = ALL["qcow2"].body + DISK + vhd_footer(2)
    assert step(s3, folder, image_of(s3, frames([raw], "xz"), "xz", believed_raw=True))["done"]
    assert image_in(folder) == raw


# -- what a step leaves ------------------------------------------------------------------------------------------------


def test_a_chunk_has_32_mib_of_the_disk(s3: Any, folder: JobFolder) -> None:
    step(s3, folder, upload(s3, frames([bytes(65 * BLOCK_SIZE)], "zstd")), unpacking=UnpackTuning())
    sizes = {name: zstandard.frame_content_size(data) for name, data in stored(folder).items() if "zst" in name}
    assert sizes == {"image/00000000.zst": 32 << 20, "image/00000001.zst": 512 << 10}
    head = s3.head_object(Bucket="work", Key="jobs/fanout/job/image/00000001.zst")
    assert head["ContentType"] == "application/zstd"


@pytest.mark.parametrize("lengths", [[0.4] * 20, [1.0] * 8, [2.3, 0.1, 0.1, 1.6, 0.5, 1.2, 0.7, 1.1]])
def test_a_step_goes_on_from_the_last_frame_that_lies_in_what_is_stored(
    s3: Any, folder: JobFolder, lengths: list[float]
) -> None:
    pieces = [random.Random(n).randbytes(int(length * SMALL_CHUNK)) for n, length in enumerate(lengths)]
    image = upload(s3, frames(pieces, "zstd"))
    begins = [0]
    for piece in pieces:
        begins.append(begins[-1] + len(piece))
    progress, seen = None, set()
    for looks in (29, 40, 30, 35, 28, 45, 31, 60):
        result = step(s3, folder, image, progress, work_seconds=looks, clock=TickingClock())
        progress = json.loads(json.dumps(result["progress"]))
        if result["done"]:
            break
        held = progress["chunks"] * SMALL_CHUNK - 512
        assert progress["raw_offset"] == max([begin for begin in begins if begin <= held], default=0)
        seen.add(progress["raw_offset"])
    assert len(seen) > 1
    while not result["done"]:
        result = step(s3, folder, image, result["progress"])
    assert image_in(folder) == b"".join(pieces)


def test_what_all_steps_took_is_added_up(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames(pieces_of_disk(30), "zstd"))
    progress, seconds, requests, steps = None, 0.0, 0, 0
    while True:
        clock = TickingClock()
        began = clock.now + 2.0
        result = step(s3, folder, image, progress, work_seconds=40, clock=clock, memory_gb=0.0625)
        before, progress = (progress or {}).get("requests", {}), result["progress"]
        steps += 1
        # The first look at the clock is that of the call, the second when the work begins, the last one when it ends.
        seconds = round(seconds + (clock.now - began) * 0.0625, 3)
        assert progress["gb_seconds"] == seconds
        assert sum(progress["requests"].values()) > sum(before.values())
        requests = progress["requests"]
        if result["done"]:
            break
    info = unpacked(folder)
    assert info is not None
    assert (info.gb_seconds, info.requests, steps > 2) == (seconds, requests, True)
    assert requests["PutObject us-east-1"] >= info.chunks


def test_a_step_of_unknown_memory_and_a_progress_without_figures_count_nothing(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([bytes(2 * SMALL_CHUNK)], "zstd"))
    told = {"etag": image.etag, "chunks": 1, "compressed_offset": 0, "raw_offset": 0}
    result = step(s3, folder, image, told, clock=TickingClock())
    assert result["progress"]["gb_seconds"] == 0.0
    assert result["progress"]["requests"] == {"GetObject us-east-1": 1, "PutObject us-east-1": 1}


def test_a_step_takes_the_time_of_the_machine_unless_it_is_given_another(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([b"disk"], "zstd"))
    call = JobCall(aws=cast(Any, None), folder=folder, time_left=lambda: 600.0)
    result = unpack_image(call, image, s3, progress=None, max_bytes=4)
    assert result["done"]
    assert image_in(folder) == b"disk"


def test_the_policy_of_a_step_bounds_its_attempts(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([b"disk"], "zstd"))
    with pytest.raises(RetryLater, match="after 3 attempts"):
        step(Refusing(s3, 0), folder, image, policy=RetryPolicy(max_attempts=3))


def record(folder: JobFolder, image: Image, **other: Any) -> None:
    known = {"raw_bytes": 4, "chunks": 1, "etag": image.etag, "codec": image.codec}
    folder.write(MARKER, json.dumps(known | other).encode())


def test_a_record_without_figures_is_read_and_one_with_something_unknown_is_not(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([b"disk"], "zstd"))
    record(folder, image)
    info = unpacked(folder)
    assert info is not None
    assert (info.requests, info.gb_seconds) == ({}, 0.0)
    with pytest.raises(ValidationError):
        info.chunks = 2  # type: ignore[misc]
    record(folder, image, since="a later version")
    with pytest.raises(IncompleteTransfer, match="damaged"):
        unpacked(folder)


def test_a_record_stays_while_the_same_image_is_unpacked_again(s3: Any, folder: JobFolder) -> None:
    image = upload(s3, frames([bytes(9 * SMALL_CHUNK)] * 2, "zstd"))
    step(s3, folder, image)
    before = stored(folder)
    assert not step(s3, folder, image, work_seconds=20, clock=TickingClock())["done"]
    assert stored(folder) == before


@pytest.mark.parametrize("other", [{"codec": "gzip"}, {"etag": '"other"'}])
def test_the_record_of_another_image_goes_when_unpacking_begins_and_never_later(
    s3: Any, folder: JobFolder, other: dict[str, str]
) -> None:
    pieces = [bytes(4 * SMALL_CHUNK), b"end"] * 3
    image = upload(s3, frames(pieces, "zstd"))
    record(folder, image, **other)
    first = step(s3, folder, image, work_seconds=20, clock=TickingClock())
    assert not first["done"]
    assert first["progress"]["chunks"] > 0
    assert unpacked(folder) is None
    # An invocation that was thought to be gone writes its record after all: what is stored now stays.
    record(folder, image, **other)
    step(s3, folder, image, first["progress"])
    assert image_in(folder) == b"".join(pieces)


def test_damage_is_told_before_what_could_not_be_stored_and_nobody_writes_on(s3: Any, folder: JobFolder) -> None:
    stream = frames([bytes(2 * SMALL_CHUNK), b"damaged"], "zstd")[:-1]
    image = upload(s3, stream)
    s3.delete_bucket(Bucket="work")
    nowhere = JobFolder("work", s3, "fanout", "job")
    with pytest.raises(InvalidRequest, match="is damaged at byte") as told:
        # Unpacking went on behind the first chunk, so nothing is looked for before.
        step(s3, nowhere, image, {"etag": image.etag, "chunks": 1, "compressed_offset": 0, "raw_offset": 0})
    # Their pool is still there, as the error knows where it was raised.
    assert told.tb is not None
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("unpack")] == []


def test_a_stored_chunk_that_says_another_size_is_not_unpacked() -> None:
    """A damaged size could ask for any amount of memory."""
    good = zstandard.compress(b"x" * 300)
    header = zstandard.MAGIC_NUMBER.to_bytes(4, "little") + b"\xe0"
    with pytest.raises(IncompleteTransfer, match=rf"chunk is damaged: it holds {1 << 40} bytes instead of 300"):
        expand(header + (1 << 40).to_bytes(8, "little") + good[7:], 300, name="chunk")
    for blocks in (b"\x01\0\0", (299 << 3 | 1).to_bytes(3, "little") + b"x" * 299):
        with pytest.raises(IncompleteTransfer, match="chunk is damaged"):
            expand(header + (300).to_bytes(8, "little") + blocks, 300, name="chunk")
    assert expand(good, 300, name="chunk") == b"x" * 300
