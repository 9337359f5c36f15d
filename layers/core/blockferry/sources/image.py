"""A disk image in S3 as a source of blocks: a raw one where it is, a compressed one as it was unpacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockferry.aws.objects import ObjectReader
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.retry import Clock, Deadline, RetryPolicy
from blockferry.jobs.workspace import Workspace
from blockferry.sources.chunks import ChunkedImage
from blockferry.sources.unpack import CHUNK_BLOCKS, chunk_name, expand

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCKS_PER_READ = 16
"""8 MiB per request: S3 gives a single request no more than some 80 MB/s, and fewer bytes than this not even that."""

KEPT_UNPACKED = 4
"""Unpacked chunks kept at most besides those being fetched: 32 threads at consecutive blocks touch two."""


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
    """The blocks of an image of ``size_bytes`` that ``unpack_image`` has stored for a job, zeros included.

    Reading raises ``IncompleteTransfer`` when a stored chunk is missing or damaged, and else what ``ObjectReader``
    raises.
    """

    def __init__(
        self,
        workspace: Workspace,
        job_id: str,
        size_bytes: int,
        *,
        counts: RequestCounts | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(size_bytes, blocks_per_chunk=CHUNK_BLOCKS, fetch=self._part, keep=KEPT_UNPACKED)
        self._reader = ObjectReader(workspace.s3, counts=counts, clock=clock, deadline=deadline, policy=policy)
        self._workspace = workspace
        self._job_id = job_id

    def _part(self, chunk: BlockRange) -> bytes:
        number = chunk.first // CHUNK_BLOCKS
        name = chunk_name(number)
        uri = self._workspace.uri(self._job_id, name)
        stored = self._reader.whole(self._workspace.bucket, self._workspace.key(self._job_id, name))
        if stored is None:
            raise IncompleteTransfer(f"{uri}, a part of the unpacked image, is gone; start a new job")
        start = number * CHUNK_BLOCKS * BLOCK_SIZE
        raw = expand(stored, min(CHUNK_BLOCKS * BLOCK_SIZE, self.size - start), name=uri)
        return raw[chunk.first * BLOCK_SIZE - start : chunk.stop * BLOCK_SIZE - start]
