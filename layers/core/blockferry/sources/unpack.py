"""Unpacking a compressed image into chunks that workers can read in any order, over as many invocations as it takes.

In the job's folder: ``image/<number>.zst`` holds 64 blocks (32 MiB, the last chunk less) as one zstd frame with content
size and checksum; ``image/image.json`` is written last and says that all of them are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import zstandard
from pydantic import BaseModel, ConfigDict

from blockferry.aws.objects import ObjectReader, parts
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, OutOfTime, RetryLater, SourceChanged
from blockferry.core.reserves import UNPACK_SECONDS
from blockferry.core.retry import RetryPolicy
from blockferry.core.tuning import UnpackTuning
from blockferry.formats.codecs import Unpacking
from blockferry.formats.errors import DamagedImage
from blockferry.formats.recognise import HEAD_BYTES, TAIL_BYTES, PackedCodec
from blockferry.formats.stream import RestartPoint
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.sources.address import Image, refuse_other_format

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONCATENATED = "pieces of the disk compressed one by one and concatenated"

_IN_PIECES: Mapping[PackedCodec, str] = {
    "zstd": f"pzstd, or {_CONCATENATED}",
    "gzip": _CONCATENATED,
    "xz": "xz --threads=0 --block-size=64MiB, pixz",
    "bzip2": f"pbzip2, or {_CONCATENATED}",
    "lz4": _CONCATENATED,
}
"""How to get a stream that can be unpacked over several invocations."""

PREFIX = "image/"
MARKER = f"{PREFIX}image.json"


class UnpackedInfo(BaseModel):
    """An image that is unpacked in full. ``etag`` and ``codec`` are those of the compressed object; ``requests`` and
    ``gb_seconds`` (Lambda's memory times its seconds) are what unpacking took, in all invocations that ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    raw_bytes: int
    chunks: int
    etag: str
    codec: PackedCodec
    requests: dict[str, int] = {}
    gb_seconds: float = 0.0


@dataclass(frozen=True)
class _Progress:
    """How far unpacking has come: chunks stored without a gap, and the last restart point at or before their end."""

    etag: str
    chunks: int = 0
    compressed_offset: int = 0
    raw_offset: int = 0
    stream: tuple[int, ...] = ()

    @property
    def restart(self) -> RestartPoint:
        return RestartPoint(self.compressed_offset, self.raw_offset, self.stream)


def chunk_name(number: int) -> str:
    return f"{PREFIX}{number:08d}.zst"


def unpack_image(
    call: JobCall,
    image: Image,
    s3: S3Client,
    *,
    progress: Mapping[str, Any] | None,
    max_bytes: int,
    policy: RetryPolicy | None = None,
) -> dict[str, Any]:
    """Unpack ``image``, which ``s3`` reads, as far as the time allows, and store its chunks in the job's folder.

    ``progress`` is what the last call returned, ``None`` at first; ``max_bytes`` what the volume holds. Returns
    ``{"done", "progress", "raw_bytes"}``, the last ``None`` until done; when not ``done``, call again with
    ``progress``. Repeating a call stores the same chunks again.

    Raises ``InvalidRequest`` for an image that is damaged, replaced meanwhile, empty, larger than ``max_bytes``, or
    that cannot be unpacked over several invocations; ``RetryLater`` and ``RequestRefused`` as ``ObjectReader`` does.
    """
    codec = image.codec
    if codec == "raw":
        raise ValueError(f"image {image.uri} is raw: there is nothing to unpack")
    clock, folder = call.clock, call.folder
    began = clock.monotonic()
    counts = RequestCounts()
    deadline = call.reserving(UNPACK_SECONDS)
    last = dict(progress or {"etag": image.etag})
    counts.placed.update(last.pop("requests", {}))
    gb_seconds = float(last.pop("gb_seconds", 0.0))
    before = _Progress(**last | {"stream": tuple(last.get("stream", ()))})
    if before.etag != image.etag:
        before = _Progress(image.etag)
    if before.chunks == 0:
        _forget_other_image(folder, image)
    reader = ObjectReader(s3, counts=counts, clock=clock, deadline=deadline, policy=policy)
    unpacking = Unpacking(
        parts(
            reader,
            image.bucket,
            image.key,
            etag=image.etag,
            size_bytes=image.size_bytes,
            start=before.compressed_offset,
            length=call.unpacking.part_bytes,
        ),
        codec,
        name=image.uri,
        start=before.restart,
    )
    ends = _Ends(before.raw_offset)
    late: OutOfTime | None = None
    done = False
    with _Chunks(folder, before, counts, call.unpacking) as chunks:
        try:
            for piece in unpacking:
                if unpacking.raw_offset > max_bytes:
                    raise InvalidRequest(
                        f"image {image.uri} unpacks to more than {max_bytes} bytes, which is what its volume holds: "
                        "ask for a larger volume_size_gib (64 TiB at most), or name a smaller image"
                    )
                if ends.add(piece):
                    refuse_other_format(image, ends.head)
                chunks.add(piece)
                chunks.passed(unpacking.restart)
                if deadline.passed():
                    break
            else:
                refuse_other_format(image, ends.head, ends.tail)
                chunks.finish()
                done = True
        except OutOfTime as error:
            late = error
        except (DamagedImage, SourceChanged) as error:
            raise InvalidRequest(f"{error}; no snapshot was started") from error
    after = chunks.progress()
    requests = dict(counts.placed)
    gb_seconds = round(gb_seconds + (clock.monotonic() - began) * call.memory_gb, 3)
    if done:
        if unpacking.raw_offset == 0:
            raise InvalidRequest(f"image {image.uri} unpacks to 0 bytes: compress the image again")
        info = UnpackedInfo(
            raw_bytes=unpacking.raw_offset,
            chunks=after.chunks,
            etag=image.etag,
            codec=codec,
            requests=requests,
            gb_seconds=gb_seconds,
        )
        folder.write(MARKER, info.model_dump_json(indent=1).encode())
    elif after == before:
        if late is not None:
            raise RetryLater(f"nothing of image {image.uri} could be read in time: {late}") from late
        stored = before.chunks * call.unpacking.chunk_bytes
        raise InvalidRequest(
            f"image {image.uri} cannot be unpacked in several steps: its {codec} stream goes on in one piece from byte "
            f"{before.compressed_offset}, and unpacking again what is stored already ({stored} bytes "
            f"of the disk) took all the time of an invocation. Compress it in many pieces ({_IN_PIECES[codec]}), "
            "or upload it raw"
        )
    now = asdict(after) | {"requests": requests, "gb_seconds": gb_seconds}
    return {"done": done, "progress": now, "raw_bytes": unpacking.raw_offset if done else None}


def unpacked(folder: JobFolder) -> UnpackedInfo | None:
    """The job's image if it is unpacked in full. Raises ``IncompleteTransfer`` when the record is damaged."""
    return folder.record(MARKER, UnpackedInfo)


def drop_unpacked(folder: JobFolder, *, late: Callable[[], bool] | None = None) -> None:
    """Delete what ``unpack_image`` has stored; harmless when nothing is there. Raises ``OutOfTime`` when it is ``late``
    and there is more."""
    # First what says that the chunks are there.
    folder.s3.delete_object(Bucket=folder.bucket, Key=folder.key(MARKER))
    folder.delete_below(PREFIX, late=late)


def expand(stored: bytes, length: int, *, name: str) -> bytes:
    """The ``length`` raw bytes of a stored chunk. Raises ``IncompleteTransfer`` naming it when it is damaged."""
    try:
        # Looked at first: a damaged size could ask for any amount of memory.
        size = zstandard.frame_content_size(stored)
        if size != length:
            raise IncompleteTransfer(f"{name} is damaged: it holds {size} bytes instead of {length}; start a new job")
        raw = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise IncompleteTransfer(f"{name} is damaged: {error}; start a new job") from error
    return raw


def _forget_other_image(folder: JobFolder, image: Image) -> None:
    """The record of another image must not vouch for the chunks of this one."""
    info = unpacked(folder)
    if info is not None and (info.etag, info.codec) != (image.etag, image.codec):
        drop_unpacked(folder)


class _Chunks:
    """Cuts the image into chunks and stores those that are not stored yet, a few at a time."""

    def __init__(self, folder: JobFolder, before: _Progress, counts: RequestCounts, tuning: UnpackTuning) -> None:
        self._folder = folder
        self._counts = counts
        self._chunk_bytes = tuning.chunk_bytes
        self._writers = tuning.writers
        self._etag = before.etag
        self._stored = before.chunks
        self._restart = before.restart
        self._ahead: deque[RestartPoint] = deque()
        # Bytes that are unpacked again only to get to the first chunk that is not stored.
        self._skip = before.chunks * self._chunk_bytes - before.raw_offset
        self._buffer = bytearray()
        self._pool = ThreadPoolExecutor(max_workers=self._writers, thread_name_prefix="unpack")
        self._storing: deque[Future[None]] = deque()

    def __enter__(self) -> _Chunks:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                while self._storing:
                    self._await_oldest()
        finally:
            self._pool.shutdown()

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the image."""
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        self._buffer += piece[skipped:]
        while len(self._buffer) >= self._chunk_bytes:
            self._store(self._buffer[: self._chunk_bytes])
            del self._buffer[: self._chunk_bytes]

    def passed(self, point: RestartPoint) -> None:
        """Note where unpacking could go on; of the points within a chunk only the last one matters."""
        if self._ahead and self._serves_from(self._ahead[-1]) == self._serves_from(point):
            self._ahead.pop()
        self._ahead.append(point)

    def finish(self) -> None:
        """Store what is left as the last chunk."""
        if self._buffer:
            self._store(self._buffer)

    def progress(self) -> _Progress:
        point = self._restart
        return _Progress(self._etag, self._stored, point.compressed_offset, point.raw_offset, point.stream)

    def _store(self, raw: bytearray) -> None:
        while len(self._storing) >= self._writers:
            self._await_oldest()
        number = self._stored + len(self._storing)
        self._storing.append(self._pool.submit(self._write, number, raw))

    def _write(self, number: int, raw: bytearray) -> None:
        packed = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(raw)
        self._counts.sent("PutObject", self._folder.s3.meta.region_name)
        self._folder.write(chunk_name(number), packed, content_type="application/zstd")

    def _await_oldest(self) -> None:
        self._storing[0].result()
        self._storing.popleft()
        self._stored += 1
        while self._ahead and self._serves_from(self._ahead[0]) <= self._stored:
            self._restart = self._ahead.popleft()

    def _serves_from(self, point: RestartPoint) -> int:
        """How many chunks must be stored for the point to serve. They hold the image up to it and a little more, so
        that what is unpacked from there on has at least the image's last bytes, by which some formats are told."""
        return -(-(point.raw_offset + TAIL_BYTES) // self._chunk_bytes)


class _Ends:
    """The first and the last bytes of an image as its pieces pass by, from an offset on."""

    def __init__(self, raw_offset: int) -> None:
        self.head = b""
        """Empty if the first bytes passed by before."""
        self.tail = b""
        self._missing = 0 if raw_offset else HEAD_BYTES

    def add(self, piece: bytes) -> bool:
        """Take the next bytes; true once, when the first ones are complete."""
        self.tail = (self.tail + piece[-TAIL_BYTES:])[-TAIL_BYTES:]
        if not self._missing:
            return False
        taken = piece[: self._missing]
        self.head += taken
        self._missing -= len(taken)
        return not self._missing
