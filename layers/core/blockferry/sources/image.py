"""A disk image in S3 as a source: what a job records of it, and its blocks.

A raw one is read where it is, a compressed one as it was unpacked into the work bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from blockferry.aws import snapshots
from blockferry.aws.objects import ObjectReader
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, BlockRange
from blockferry.core.counts import RequestCounts, at
from blockferry.core.errors import IncompleteTransfer, InvalidRequest
from blockferry.core.holes import HoleDecision, HolePolicy
from blockferry.core.ports import BlockSource
from blockferry.core.quotas import MAX_TAG_VALUE, MAX_VOLUME_GIB
from blockferry.core.retry import Clock, Deadline, RetryPolicy
from blockferry.formats.recognise import ImageCodec
from blockferry.formats.told import BEGIN_BYTES, END_BYTES, ToldSize, told_size
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Record
from blockferry.requests.named import ImageNamed
from blockferry.sources.address import MAX_IMAGE_BYTES, Address, Image, examine, parse_address
from blockferry.sources.chunks import ChunkedImage
from blockferry.sources.declared import Declared, declared_by
from blockferry.sources.kind import Examined, Expected, Extent, JobSource, Listed, Tally
from blockferry.sources.meaning import for_image
from blockferry.sources.reading import Reading, reading_objects
from blockferry.sources.unpack import chunk_name, drop_unpacked, expand, unpack_image, unpacked

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCKS_PER_READ = 16
"""8 MiB per request: S3 gives a single request no more than some 80 MB/s, and fewer bytes than this not even that."""

KEPT_UNPACKED = 4
"""Unpacked chunks kept at most besides those being fetched: 32 threads at consecutive blocks touch two."""


class Unpacked(Record):
    """The size of the disk that a compressed image holds, and what unpacking it took: requests by operation and Region,
    and GB-seconds."""

    raw_bytes: int
    requests: dict[str, int] = Field(default_factory=dict)
    gb_seconds: float = 0.0


class JobImage(JobSource):
    """The disk image that is read. ``size_bytes`` is the object's; ``unpacked`` is ``None`` for a raw one, and until a
    compressed one is; ``believed_raw`` says that the operator takes it for a raw disk whatever it looks like;
    ``asked_gib`` is the size of the volume that was asked for, if any; ``declared`` what another tool said of it."""

    kind: Literal["image"] = "image"
    uri: str
    etag: str
    size_bytes: int
    codec: ImageCodec
    believed_raw: bool = False
    asked_gib: int | None = None
    unpacked: Unpacked | None = None
    declared: Declared | None = None

    @property
    def name(self) -> str:
        return self.uri

    @property
    def address(self) -> Address:
        return parse_address(self.uri)

    @property
    def prepared(self) -> bool:
        return self.codec == "raw" or self.unpacked is not None

    @property
    def raw_bytes(self) -> int:
        """Bytes of the disk. Raises ``IncompleteTransfer`` as long as a compressed image is not unpacked."""
        if self.codec == "raw":
            return self.size_bytes
        if self.unpacked is None:
            raise IncompleteTransfer(f"image {self.uri} is not unpacked yet: its size is not known")
        return self.unpacked.raw_bytes

    @property
    def blocks(self) -> int:
        """Blocks that the disk touches, the unaligned tail included."""
        return -(-self.raw_bytes // BLOCK_SIZE)

    def expected(self, call: JobCall) -> Expected | None:
        """Its size by what the image tells, or at most that of the volume that was asked for.

        Raises ``InvalidRequest`` when it tells that this volume is too small, and else what ``ObjectReader`` raises.
        """
        told = self._told(call)
        asked = None if self.asked_gib is None else self.asked_gib * BLOCK_SIZE * BLOCKS_PER_GIB
        if told is not None and (told.least or asked is None or told.raw_bytes <= asked):
            raw_bytes, basis = told.raw_bytes, told.by
        elif asked is not None:
            raw_bytes, basis = asked, f"the volume of {self.asked_gib} GiB that was asked for: at most"
        else:
            return None
        unpacking = Counter({at("GetObject", self.region): -(-self.size_bytes // call.unpacking.part_bytes)})
        unpacking[at("PutObject", call.aws.own_region)] += -(-raw_bytes // call.unpacking.chunk_bytes)
        source = self.model_copy(update={"unpacked": Unpacked(raw_bytes=raw_bytes, requests=dict(unpacking))})
        return Expected(source, volume_size(source, self.asked_gib), basis)

    def _told(self, call: JobCall) -> ToldSize | None:
        if self.codec == "raw" or self.codec == "bzip2":
            return None
        address = self.address
        reader = ObjectReader(call.aws.image_s3(self.identity), clock=call.clock, deadline=call.deadline)

        def read(first: int, stop: int) -> bytes:
            return reader.part(address.bucket, address.key, etag=self.etag, first=first, length=stop - first)

        if self.codec in ("zstd", "lz4"):
            return told_size(self.codec, read(0, min(BEGIN_BYTES, self.size_bytes)), b"", self.size_bytes)
        return told_size(self.codec, b"", read(max(0, self.size_bytes - END_BYTES), self.size_bytes), self.size_bytes)

    def prepare(self, call: JobCall, progress: Mapping[str, Any] | None) -> dict[str, Any]:
        """Unpack on. Raises what ``unpack_image`` raises."""
        if self.codec == "raw":
            return super().prepare(call, progress)
        address = self.address
        image = Image(address.bucket, address.key, self.etag, self.size_bytes, self.codec, "", self.believed_raw)
        s3 = call.aws.image_s3(self.identity)
        return unpack_image(call, image, s3, progress=progress, max_bytes=MAX_IMAGE_BYTES)

    def open(self, call: JobCall) -> BlockSource:
        if self.codec != "raw":
            return UnpackedImageSource(
                call.folder,
                self.raw_bytes,
                chunk_blocks=call.unpacking.chunk_blocks,
                counts=call.counts,
                clock=call.clock,
                deadline=call.deadline,
            )
        return S3ImageSource(
            call.aws.image_s3(self.identity),
            self.address.bucket,
            self.address.key,
            etag=self.etag,
            size_bytes=self.raw_bytes,
            counts=call.counts,
            clock=call.clock,
            deadline=call.deadline,
        )

    def relist(self, call: JobCall, first: int, stop: int) -> Listed:
        indices = frozenset(range(first, min(stop, self.blocks)))
        return Listed(indices, frozenset(), len(indices))

    def pages(self, blocks: int) -> int:
        return 0

    @property
    def read_from_ebs(self) -> bool:
        return False

    @property
    def may_change(self) -> bool:
        return True

    def reading(self, call: JobCall, extent: Extent, tally: Tally) -> Reading:
        raw = self.codec == "raw"
        requests = reading_objects(
            self.region if raw else extent.home,
            read=self.blocks,
            blocks_per_request=BLOCKS_PER_READ if raw else call.unpacking.chunk_blocks,
        )
        return Reading(
            allocated=self.blocks,
            read=self.blocks,
            basis="size of the image",
            requests=requests,
            object_bytes=self.object_bytes(self.blocks * BLOCK_SIZE),
        )

    @property
    def spent(self) -> tuple[Mapping[str, int], float]:
        return ({}, 0.0) if self.unpacked is None else (self.unpacked.requests, self.unpacked.gb_seconds)

    def object_bytes(self, raw_bytes: int) -> Mapping[str, int]:
        return {self.region: raw_bytes if self.codec == "raw" else self.size_bytes}

    def facts(self) -> dict[str, Any]:
        return {
            "image_uri": self.uri,
            "region": self.region,
            "etag": self.etag,
            "codec": self.codec,
            "object_bytes": self.size_bytes,
            "image_bytes": self.raw_bytes if self.prepared else 0,
            **({} if self.declared is None else {"declared": self.declared.model_dump(exclude_none=True)}),
        }

    def discard(self, call: JobCall) -> None:
        if self.codec != "raw":
            drop_unpacked(call.folder, late=None if call.deadline is None else call.deadline.passed)


@dataclass(frozen=True, kw_only=True)
class ExaminedImage(Examined[JobImage]):
    """A disk image that was looked at for a job."""

    def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
        fills = self.source.prepared and self.source.blocks == self.total_blocks
        return for_image(asked, may_be_encrypted=may_be_encrypted, fills_volume=fills)


def examine_image(
    request: ImageNamed, uri: str, identity: Identity, call: JobCall, *, declares: bool = False
) -> ExaminedImage:
    """Look at the image of a request, which may be unpacked already. Raises ``InvalidRequest`` when that is no use.

    ``declares``: its metadata tells what it is, and it has to be that.
    """
    image = examine(
        call.aws.image_s3(identity), uri, request.image_codec, region=identity.region, image_format=request.image_format
    )
    info = None if image.codec == "raw" else unpacked(call.folder)
    if info is not None and info.etag != image.etag:
        raise InvalidRequest(f"image {uri} was replaced after it was unpacked; start a new job")
    declared = declared_by(image.metadata) if declares else None
    asked_gib = request.volume_size_gib or (None if declared is None else declared.volume_gib)
    source = JobImage(
        region=identity.region,
        role_arn=identity.role_arn,
        external_id=identity.external_id,
        uri=uri,
        etag=image.etag,
        size_bytes=image.size_bytes,
        codec=image.codec,
        believed_raw=image.believed_raw,
        asked_gib=asked_gib,
        declared=declared,
        unpacked=info and Unpacked(raw_bytes=info.raw_bytes, requests=info.requests, gb_seconds=info.gb_seconds),
    )
    if declared is not None and source.prepared:
        declared.refuse_other_size(uri, source.raw_bytes)
    return ExaminedImage(
        source=source,
        size_gib=volume_size(source, asked_gib) if source.prepared else None,
        description=((declared and declared.description) or uri)[:MAX_TAG_VALUE],
        own_tags={snapshots.IMAGE_TAG: uri[:MAX_TAG_VALUE]},
    )


def volume_size(image: JobImage, asked_gib: int | None) -> int:
    """GiB of a volume that holds the image. Raises ``InvalidRequest`` when the size that was asked for is too small."""
    needed = -(-image.raw_bytes // (BLOCK_SIZE * BLOCKS_PER_GIB))
    if needed > MAX_VOLUME_GIB:
        raise InvalidRequest(f"image {image.uri} has {image.raw_bytes} bytes, more than the largest volume (64 TiB)")
    if asked_gib is not None and asked_gib < needed:
        raise InvalidRequest(
            f"volume_size_gib: {asked_gib} GiB is too small for image {image.uri} of {image.raw_bytes} bytes; "
            f"{needed} GiB are needed"
        )
    return asked_gib or needed


class S3ImageSource(ChunkedImage):
    """The blocks of a raw image, zeros included, each byte of it read once.

    Reading raises ``SourceChanged`` when the object is not ``etag`` any more, and else what ``ObjectReader`` raises.
    """

    def __init__(
        self,
        s3: S3Client,
        bucket: str,
        key: str,
        *,
        etag: str,
        size_bytes: int,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(size_bytes, blocks_per_chunk=BLOCKS_PER_READ, fetch=self._part)
        self._reader = ObjectReader(s3, counts=counts, clock=clock, deadline=deadline, policy=policy)
        self._bucket = bucket
        self._key = key
        self._etag = etag

    def _part(self, chunk: BlockRange) -> bytes:
        first = chunk.first * BLOCK_SIZE
        length = min(chunk.stop * BLOCK_SIZE, self.size) - first
        return self._reader.part(self._bucket, self._key, etag=self._etag, first=first, length=length)


class UnpackedImageSource(ChunkedImage):
    """The blocks of an image of ``size_bytes`` that ``unpack_image`` has stored for a job, ``chunk_blocks`` to an
    object, zeros included.

    Reading raises ``IncompleteTransfer`` when a stored chunk is missing or damaged, and else what ``ObjectReader``
    raises.
    """

    def __init__(
        self,
        folder: JobFolder,
        size_bytes: int,
        *,
        chunk_blocks: int,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(size_bytes, blocks_per_chunk=chunk_blocks, fetch=self._part, keep=KEPT_UNPACKED)
        self._chunk_blocks = chunk_blocks
        self._reader = ObjectReader(folder.s3, counts=counts, clock=clock, deadline=deadline, policy=policy)
        self._folder = folder

    def _part(self, chunk: BlockRange) -> bytes:
        number = chunk.first // self._chunk_blocks
        name = chunk_name(number)
        uri = self._folder.uri(name)
        stored = self._reader.whole(self._folder.bucket, self._folder.key(name))
        if stored is None:
            raise IncompleteTransfer(f"{uri}, a part of the unpacked image, is gone; start a new job")
        start = number * self._chunk_blocks * BLOCK_SIZE
        raw = expand(stored, min(self._chunk_blocks * BLOCK_SIZE, self.size - start), name=uri)
        return raw[chunk.first * BLOCK_SIZE - start : chunk.stop * BLOCK_SIZE - start]
