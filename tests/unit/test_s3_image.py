from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
import zstandard
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import (
    IncompleteTransfer,
    InvalidRequest,
    OutOfTime,
    RequestRefused,
    RetryLater,
    SourceChanged,
)
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.ports import BlockRef
from blockferry.core.retry import Deadline, RetryPolicy
from blockferry.jobs.folder import JobFolder
from blockferry.sources.address import MAX_IMAGE_BYTES, Address, codec_by_name, examine, parse_address
from blockferry.sources.chunks import KEPT_CHUNKS, ChunkedImage
from blockferry.sources.image import BLOCKS_PER_READ, S3ImageSource, UnpackedImageSource
from blockferry.sources.unpack import chunk_name
from botocore.exceptions import ClientError, ConnectTimeoutError, IncompleteReadError
from fakes import ManualClock, MemorySink, content
from memory_s3 import MemoryS3
from moto import mock_aws

REGION = "us-east-1"
BUCKET = "images"
ETAG = '"one"'


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
    """A client of moto's S3 with one empty bucket."""
    moto_s3.create_bucket(Bucket=BUCKET)
    for item in moto_s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        moto_s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    return moto_s3


def refused(operation: str, status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        operation,
    )


class OneObject:
    """S3 with a single object and S3's answers to ranges and conditions.

    ``before(n)`` runs before the n-th GET (1, 2, ...) and may raise; ``cut(n)`` bytes are missing from its body.
    """

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(
        self,
        data: bytes,
        *,
        before: Callable[[int], None] = lambda _n: None,
        cut: Callable[[int], int] = lambda _n: 0,
    ) -> None:
        self.data = data
        self.etag = ETAG
        self.there = True
        self._before = before
        self._cut = cut
        self._lock = threading.Lock()
        self.ranges: list[tuple[int, int]] = []
        self.gets = 0

    def get_object(self, *, Bucket: str, Key: str, Range: str, IfMatch: str) -> dict[str, Any]:
        with self._lock:
            self.gets += 1
            number = self.gets
        self._before(number)
        if not self.there:
            raise refused("GetObject", 404, "NoSuchKey")
        if IfMatch != self.etag:
            raise refused("GetObject", 412, "PreconditionFailed")
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        if first >= len(self.data):
            raise refused("GetObject", 416, "InvalidRange")
        body = self.data[first : last + 1]
        cut = self._cut(number)
        if not cut:
            with self._lock:
                self.ranges.append((first, first + len(body)))
        return {"Body": io.BytesIO(body[: len(body) - cut]), "ContentLength": len(body)}


def disk(size: int) -> bytes:
    """An image of this size; every block differs, and every eighth is all zeros."""
    return b"".join(content(n % 8 and n + 1) for n in range(-(-size // BLOCK_SIZE)))[:size]


def source(s3: Any, data: bytes, **more: Any) -> S3ImageSource:
    return S3ImageSource(s3, BUCKET, "disk", etag=ETAG, size_bytes=len(data), **more)


def carry(reads: Any, within: BlockRange, *, threads: int = 8) -> dict[int, bytes]:
    sink = MemorySink()
    deadline = Deadline(None, clock=ManualClock())
    moved = move(within, reads, [sink], holes=HolePolicy.PRESERVE, threads=threads, deadline=deadline)
    assert moved.done
    assert sorted(sink.writes) == sorted(sink.blocks)
    return sink.blocks


def blocks_of(data: bytes, within: BlockRange) -> dict[int, bytes]:
    total = -(-len(data) // BLOCK_SIZE)
    return {
        index: data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")
        for index in range(within.first, min(within.stop, total))
    }


# Addresses and what examine says


@pytest.mark.parametrize("key", ["disk.img", "a/b c/ü?x=1#y.zst", "/leading", "s3://x/y", "new\nline"])
def test_a_key_may_hold_anything(key: str) -> None:
    address = parse_address(f"s3://{BUCKET}/{key}")
    assert address == Address(BUCKET, key)
    assert address.uri == f"s3://{BUCKET}/{key}"


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "https://bucket/key", "disk.img"])
def test_what_is_no_address_of_an_object_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest, match="s3://<bucket>/<key>"):
        parse_address(uri)


def test_the_codec_is_told_by_the_name() -> None:
    names = {"a.zst": "zstd", "a.ZSTD": "zstd", "a.img.gz": "gzip", "a.gzip": "gzip", "a.img": "raw", "gz": "raw"}
    assert {name: codec_by_name(name) for name in names} == names


@pytest.mark.parametrize(
    ("key", "data", "codec", "found"),
    [
        ("disk", b"x", None, "raw"),
        ("disk.img", bytes(600), None, "raw"),
        ("disk.gz", gzip.compress(b"disk", mtime=0), None, "gzip"),
        ("disk.zst", zstandard.compress(b"disk"), None, "zstd"),
        ("index.zst", b"\x5e\x2a\x4d\x18\0\0\0\0" + zstandard.compress(b"disk"), None, "zstd"),
        ("disk", gzip.compress(b"disk", mtime=0), "gzip", "gzip"),
        ("disk", gzip.compress(b"disk", mtime=0), "raw", "raw"),
        ("disk", zstandard.compress(b"disk"), "raw", "raw"),
        ("disk.zst", b"not packed", "raw", "raw"),
        ("disk", b"QFI\xfb", "raw", "raw"),
    ],
)
def test_an_image_is_taken_as_what_it_is(s3: Any, key: str, data: bytes, codec: Any, found: str) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key=key, Body=data)["ETag"]
    image = examine(s3, f"s3://{BUCKET}/{key}", codec, region=REGION)
    assert (image.bucket, image.key, image.etag) == (BUCKET, key, etag)
    assert (image.size_bytes, image.codec, image.storage_class) == (len(data), found, "STANDARD")


@pytest.mark.parametrize(
    ("key", "data", "codec", "reason"),
    [
        ("disk.zst", b"raw disk", None, "not compressed with zstd, as its name says"),
        ("disk.zst", b"\x28\xb5", None, "not compressed with zstd"),
        ("disk.gz", zstandard.compress(b"disk"), None, "not compressed with gzip"),
        ("disk", b"raw disk", "gzip", "not compressed with gzip, as image_codec says"),
        ("disk", zstandard.compress(b"disk"), None, 'image_codec: "zstd".*image_format: "raw"'),
        ("disk", gzip.compress(b"disk", mtime=0), None, 'image_codec: "gzip".*image_format: "raw"'),
        ("disk", b"QFI\xfb and more", None, "qemu-img convert"),
        ("disk", b"", None, "is empty"),
    ],
)
def test_an_image_that_is_not_what_it_is_called_is_refused(
    s3: Any, key: str, data: bytes, codec: Any, reason: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    with pytest.raises(InvalidRequest, match=f"(?s)image s3://{BUCKET}/{key}.*{reason}"):
        examine(s3, f"s3://{BUCKET}/{key}", codec, region=REGION)


def test_a_missing_object_and_a_missing_bucket_are_told_apart(s3: Any) -> None:
    with pytest.raises(InvalidRequest, match="image s3://images/no: the bucket images has no such object"):
        examine(s3, "s3://images/no", None, region=REGION)
    with pytest.raises(InvalidRequest, match="image s3://nowhere/no: there is no bucket nowhere"):
        examine(s3, "s3://nowhere/no", None, region=REGION)


def test_an_archived_image_is_refused_until_it_is_restored(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="disk", Body=b"disk", StorageClass="DEEP_ARCHIVE")
    with pytest.raises(InvalidRequest, match="aws s3api restore-object --bucket images --key 'disk'"):
        examine(s3, "s3://images/disk", None, region=REGION)
    s3.restore_object(Bucket=BUCKET, Key="disk", RestoreRequest={"Days": 1})
    assert examine(s3, "s3://images/disk", None, region=REGION).storage_class == "DEEP_ARCHIVE"


class Answers:
    """An S3 that answers as told."""

    def __init__(self, head: Any, get: Any = None) -> None:
        self._head, self._get = head, get

    def head_object(self, **_: Any) -> Any:
        return self._answer(self._head)

    def get_object(self, **_: Any) -> Any:
        return self._answer(self._get)

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


HEAD = {"ContentLength": 4, "ETag": ETAG}


@pytest.mark.parametrize(
    ("answers", "error", "reason"),
    [
        (Answers(refused("HeadObject", 403, "403")), InvalidRequest, "s3:GetObject.*kms:Decrypt"),
        (Answers(HEAD, refused("GetObject", 403, "AccessDenied")), InvalidRequest, "not permitted"),
        (Answers(refused("HeadObject", 403, "403")), InvalidRequest, "Requester Pays.*aws s3 cp --request-payer requ"),
        (
            Answers(refused("HeadObject", 404, "404"), refused("GetObject", 404, "NoSuchBucket")),
            InvalidRequest,
            "no bucket",
        ),
        (Answers(refused("HeadObject", 301, "301")), InvalidRequest, "not in us-east-1"),
        (Answers(refused("HeadObject", 400, "400")), InvalidRequest, "cannot be read"),
        (Answers(refused("HeadObject", 503, "503")), RetryLater, "503"),
        (Answers(ConnectTimeoutError(endpoint_url="x")), RetryLater, "ConnectTimeoutError"),
        (Answers(HEAD, refused("GetObject", 412, "PreconditionFailed")), InvalidRequest, "replaced"),
        (Answers(HEAD, refused("GetObject", 403, "InvalidObjectState")), InvalidRequest, "restore-object"),
        (
            Answers(HEAD | {"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "DEEP_ARCHIVE_ACCESS"}),
            InvalidRequest,
            "restore-object",
        ),
        (
            Answers(HEAD | {"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'}),
            InvalidRequest,
            "being restored",
        ),
        (Answers(HEAD | {"ContentLength": MAX_IMAGE_BYTES + 1}), InvalidRequest, "64 TiB"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused_with_its_name_and_the_reason(
    answers: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=f"image s3://images/disk.*{reason}"):
        examine(answers, "s3://images/disk", None, region=REGION)


# A raw image as a source


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    "size",
    [
        1,
        BLOCK_SIZE - 1,
        BLOCK_SIZE,
        BLOCK_SIZE + 1,
        BLOCKS_PER_READ * BLOCK_SIZE,
        BLOCKS_PER_READ * BLOCK_SIZE + 1,
        (5 * BLOCKS_PER_READ + 3) * BLOCK_SIZE + 77,
    ],
)
def test_every_byte_is_fetched_once_and_every_block_arrives(size: int, threads: int) -> None:
    data = disk(size)
    s3, counts = OneObject(data), RequestCounts()
    whole = BlockRange(0, 2048)
    reads = source(s3, data, counts=counts)
    assert carry(reads, whole, threads=threads) == blocks_of(data, whole)
    assert [end for _, end in sorted(s3.ranges)][:-1] == [start for start, _ in sorted(s3.ranges)][1:]
    assert (min(s3.ranges)[0], max(s3.ranges)[1]) == (0, size)
    assert counts.requests == {"GetObject": -(-size // (BLOCKS_PER_READ * BLOCK_SIZE))}
    assert reads._chunks._chunks == {}


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (15, 17), (16, 32), (3, 40), (39, 2048), (40, 2048), (100, 200)])
def test_a_range_reads_no_byte_outside_of_it(first: int, stop: int) -> None:
    data = disk(40 * BLOCK_SIZE - 5)
    s3 = OneObject(data)
    within = BlockRange(first, stop)
    assert carry(source(s3, data), within) == blocks_of(data, within)
    asked = sum(end - start for start, end in s3.ranges)
    assert asked == max(0, min(stop * BLOCK_SIZE, len(data)) - first * BLOCK_SIZE)


def test_an_image_is_read_from_s3_as_it_is_from_memory(s3: Any) -> None:
    data = disk(20 * BLOCK_SIZE + 9)
    s3.put_object(Bucket=BUCKET, Key="disk", Body=data)
    image = examine(s3, "s3://images/disk", None, region=REGION)
    reads = S3ImageSource(s3, image.bucket, image.key, etag=image.etag, size_bytes=image.size_bytes)
    whole = BlockRange(0, 2048)
    assert carry(reads, whole) == blocks_of(data, whole)
    s3.put_object(Bucket=BUCKET, Key="disk", Body=bytes(len(data)))
    with pytest.raises(SourceChanged, match=r"s3://images/disk.*replaced"):
        carry(reads, whole)
    s3.delete_object(Bucket=BUCKET, Key="disk")
    with pytest.raises(SourceChanged, match=r"s3://images/disk.*deleted"):
        carry(reads, whole)


@pytest.mark.parametrize("how", ["replaced", "deleted", "shortened"])
def test_an_image_that_changes_while_it_is_read_stops_the_move(how: str) -> None:
    data = disk(64 * BLOCK_SIZE)

    def change(number: int) -> None:
        if number == 3:
            if how == "replaced":
                s3.etag = '"two"'
            elif how == "deleted":
                s3.there = False
            else:
                s3.data = b"x"

    s3 = OneObject(data, before=change)
    with pytest.raises(SourceChanged, match="s3://images/disk"):
        carry(source(s3, data), BlockRange(0, 64))


def failing_first(times: int, error: Exception) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number <= times:
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refused("GetObject", 500, "InternalError"), "InternalError"),
        (refused("GetObject", 503, "SlowDown"), "SlowDown"),
        (refused("GetObject", 400, "RequestTimeout"), "RequestTimeout"),
        (ConnectTimeoutError(endpoint_url="x"), "ConnectTimeoutError"),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), "IncompleteReadError"),
        (ConnectionResetError("gone"), "ConnectionResetError"),
    ],
)
def test_errors_that_pass_are_retried(error: Exception, code: str) -> None:
    data = disk(2 * BLOCK_SIZE)
    clock, counts = ManualClock(), RequestCounts()
    s3 = OneObject(data, before=failing_first(3, error))
    within = BlockRange(0, 2)
    assert carry(source(s3, data, clock=clock, counts=counts), within) == blocks_of(data, within)
    assert counts.requests == {"GetObject": 4}
    assert counts.retries == {f"GetObject {code}": 3}
    assert len(clock.slept) == 3


def test_a_short_body_is_read_again() -> None:
    data = disk(20 * BLOCK_SIZE)
    counts = RequestCounts()
    s3 = OneObject(data, cut=lambda number: 1 if number == 1 else 0)
    within = BlockRange(0, 20)
    assert carry(source(s3, data, clock=ManualClock(), counts=counts), within) == blocks_of(data, within)
    assert counts.retries == {"GetObject ShortBody": 1}


def test_a_body_of_another_length_is_not_read() -> None:
    class IgnoresRanges(OneObject):
        def get_object(self, **arguments: Any) -> dict[str, Any]:
            return super().get_object(**arguments | {"Range": f"bytes=0-{len(self.data) - 1}"})

    data = disk(32 * BLOCK_SIZE)
    policy = RetryPolicy(budget_seconds=1)
    with pytest.raises(RetryLater, match=f"{len(data)} bytes were announced"):
        carry(source(IgnoresRanges(data), data, clock=ManualClock(), policy=policy), BlockRange(0, 32))


def test_a_used_up_budget_leaves_the_range_to_a_later_attempt() -> None:
    data = disk(BLOCK_SIZE)
    s3 = OneObject(data, before=failing_first(1_000, refused("GetObject", 503, "SlowDown")))
    with pytest.raises(RetryLater, match=r"s3://images/disk.*SlowDown.*after \d+ attempts"):
        carry(source(s3, data, clock=ManualClock()), BlockRange(0, 1))


def test_a_near_deadline_leaves_the_blocks_to_the_next_invocation() -> None:
    data = disk(40 * BLOCK_SIZE)

    def before(number: int) -> None:
        if number > 1:
            raise refused("GetObject", 503, "SlowDown")

    clock = ManualClock()
    deadline = Deadline(5.0, clock=clock)
    reads = source(OneObject(data, before=before), data, clock=clock, deadline=deadline)
    sink = MemorySink()
    moved = move(BlockRange(0, 40), reads, [sink], holes=HolePolicy.PRESERVE, threads=1, deadline=deadline)
    assert (moved.done, moved.next_index) == (False, 16)
    with pytest.raises(OutOfTime):
        reads.read(next(reads.blocks(BlockRange(20, 40))))


def test_a_refusal_is_not_repeated() -> None:
    data = disk(BLOCK_SIZE)
    s3 = OneObject(data, before=failing_first(9, refused("GetObject", 403, "AccessDenied")))
    with pytest.raises(RequestRefused, match=r"s3://images/disk.*AccessDenied"):
        carry(source(s3, data, clock=ManualClock()), BlockRange(0, 1))
    assert s3.gets == 1


# Chunks that threads share


def test_threads_wait_for_the_one_that_fetches_and_share_its_error() -> None:
    everyone_waits = threading.Barrier(9)
    fetching = threading.Event()
    fetched: list[BlockRange] = []

    def fetch(chunk: BlockRange) -> bytes:
        fetched.append(chunk)
        fetching.set()
        everyone_waits.wait(10)
        raise RetryLater("no")

    image = ChunkedImage(16 * BLOCK_SIZE, blocks_per_chunk=16, fetch=fetch)
    refs = list(image.blocks(BlockRange(0, 16)))
    errors: list[str] = []

    def read(ref: BlockRef) -> None:
        try:
            image.read(ref)
        except RetryLater as error:
            errors.append(str(error))

    first = threading.Thread(target=read, args=(refs[0],))
    first.start()
    assert fetching.wait(10)
    chunk = image._chunks._chunks[BlockRange(0, 16)]
    result = chunk.data.result

    def wait_with_the_others(timeout: float | None = None) -> bytes:
        everyone_waits.wait(10)
        return result(timeout)

    chunk.data.result = wait_with_the_others
    others = [threading.Thread(target=read, args=(ref,)) for ref in refs[1:9]]
    for thread in others:
        thread.start()
    for thread in [first, *others]:
        thread.join(10)
    assert errors == ["no"] * 9
    assert fetched == [BlockRange(0, 16)]
    assert image._chunks._chunks == {}


def test_memory_is_bounded_for_blocks_that_nobody_takes() -> None:
    image = ChunkedImage(
        100 * BLOCK_SIZE, blocks_per_chunk=2, fetch=lambda chunk: bytes(len(chunk) * BLOCK_SIZE), keep=KEPT_CHUNKS
    )
    for ref in list(image.blocks(BlockRange(0, 100)))[::2]:
        image.read(ref)
    assert len(image._chunks._chunks) == KEPT_CHUNKS


# An unpacked image as a source

CHUNK_BLOCKS = 64
CHUNK_BYTES = CHUNK_BLOCKS * BLOCK_SIZE


def stored_image(folder: JobFolder, size_bytes: int, **more: Any) -> UnpackedImageSource:
    return UnpackedImageSource(folder, size_bytes, chunk_blocks=CHUNK_BLOCKS, **more)


def store(s3: Any, data: bytes) -> JobFolder:
    folder = JobFolder(BUCKET, s3, "fanout", "job")
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    for number in range(-(-len(data) // CHUNK_BYTES)):
        raw = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        folder.write(chunk_name(number), compressor.compress(raw))
    return folder


@pytest.mark.parametrize("threads", [1, 8])
def test_an_unpacked_image_is_read_chunk_by_chunk(s3: Any, threads: int) -> None:
    data = disk(2 * CHUNK_BYTES + 3 * BLOCK_SIZE + 11)
    folder, counts = store(s3, data), RequestCounts()
    whole = BlockRange(0, 2048)
    reads = stored_image(folder, len(data), counts=counts)
    assert carry(reads, whole, threads=threads) == blocks_of(data, whole)
    assert counts.requests == {"GetObject": 3}
    assert reads._chunks._chunks == {}


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (63, 65), (64, 67), (66, 2048)])
def test_a_range_of_an_unpacked_image_takes_parts_of_chunks(s3: Any, first: int, stop: int) -> None:
    data = disk(CHUNK_BYTES + 3 * BLOCK_SIZE + 11)
    within = BlockRange(first, stop)
    reads = stored_image(store(s3, data), len(data))
    assert carry(reads, within) == blocks_of(data, within)


def test_a_missing_chunk_is_named(s3: Any) -> None:
    data = disk(CHUNK_BYTES + 1)
    folder = store(s3, data)
    s3.delete_object(Bucket=BUCKET, Key="jobs/fanout/job/image/00000001.zst")
    with pytest.raises(IncompleteTransfer, match=r"s3://images/jobs/fanout/job/image/00000001\.zst.* is gone"):
        carry(stored_image(folder, len(data)), BlockRange(0, CHUNK_BLOCKS + 1))


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "other size", "no zstd", "empty"])
def test_a_damaged_chunk_is_named(s3: Any, damage: str) -> None:
    data = disk(3 * BLOCK_SIZE)
    folder = store(s3, data)
    good = folder.read(chunk_name(0))
    assert good is not None
    bad = {
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-1],
        "longer": good + b"x",
        "other size": zstandard.compress(data[:-1]),
        "no zstd": b"not packed",
        "empty": b"",
    }
    folder.write(chunk_name(0), bad[damage])
    with pytest.raises(IncompleteTransfer, match=r"s3://images/jobs/fanout/job/image/00000000\.zst is damaged"):
        carry(stored_image(folder, len(data)), BlockRange(0, 3))


def test_of_chunks_that_nobody_takes_whole_the_last_four_are_kept() -> None:
    data = bytes(7 * CHUNK_BYTES)
    memory, counts = MemoryS3(), RequestCounts()
    reads = stored_image(store(memory, data), len(data), counts=counts)
    begins = [next(reads.blocks(BlockRange(n * CHUNK_BLOCKS, 7 * CHUNK_BLOCKS))) for n in range(7)]
    for ref in begins[:6]:
        reads.read(ref)
    reads.read(begins[2])
    assert counts.requests == {"GetObject": 6}
    reads.read(begins[1])
    assert counts.requests == {"GetObject": 7}


@pytest.mark.parametrize("kind", ["raw", "unpacked"])
@pytest.mark.parametrize("hurried", [False, True])
def test_a_policy_and_a_deadline_of_ones_own_bound_the_attempts(kind: str, hurried: bool) -> None:
    memory, clock = MemoryS3(), ManualClock()
    memory.errors["GetObject"] = refused("GetObject", 503, "SlowDown")
    more: Any = {
        "clock": clock,
        "policy": RetryPolicy(max_attempts=3),
        "deadline": Deadline(0.01 if hurried else 1_000.0, clock=clock),
    }
    reads = (
        source(memory, bytes(BLOCK_SIZE), **more)
        if kind == "raw"
        else stored_image(JobFolder(BUCKET, cast(Any, memory), "fanout", "job"), 1, **more)
    )
    with pytest.raises(OutOfTime if hurried else RetryLater, match=f"after {'1 attempt' if hurried else '3 attempts'}"):
        reads.read(next(reads.blocks(BlockRange(0, 1))))
    assert len(clock.slept) == (0 if hurried else 2)
