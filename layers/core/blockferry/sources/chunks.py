"""Blocks of an image that is read in larger chunks, which threads share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.ports import Block, BlockRef

KEPT_CHUNKS = 8
"""Chunks kept at most besides those being fetched: 32 threads at consecutive blocks touch three of 16 blocks."""


@dataclass
class _Chunk:
    left: set[int]
    """Blocks that nobody has taken yet."""
    data: Future[bytes] = field(default_factory=Future)


class ChunkedImage:
    """A source of all blocks that an image of ``size_bytes`` touches; a short last block is filled up with zeros.

    Blocks are fetched in chunks of up to ``blocks_per_chunk``, cut at the ends of the range that is listed. The first
    thread that needs a chunk fetches it, the others wait for it, and it is dropped when each of its blocks was
    taken once. ``fetch(chunk)`` returns the image's bytes in these blocks; what it raises, every waiting thread
    raises, and the chunk is fetched again when it is needed again.
    """

    def __init__(
        self, size_bytes: int, *, blocks_per_chunk: int, fetch: Callable[[BlockRange], bytes], keep: int = KEPT_CHUNKS
    ) -> None:
        self.size = size_bytes
        self._blocks_per_chunk = blocks_per_chunk
        self._fetch = fetch
        self._keep = keep
        self._lock = threading.Lock()
        self._chunks: dict[BlockRange, _Chunk] = {}

    @property
    def total_blocks(self) -> int:
        """Blocks that the image touches, the unaligned tail included."""
        return -(-self.size // BLOCK_SIZE)

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """Every block of ``within`` that the image touches; the handle names the chunk that it is read with."""
        stop = min(within.stop, self.total_blocks)
        first = within.first
        while first < stop:
            chunk_stop = min((first // self._blocks_per_chunk + 1) * self._blocks_per_chunk, stop)
            for index in range(first, chunk_stop):
                yield BlockRef(index, f"{first}-{chunk_stop}")
            first = chunk_stop

    def read(self, ref: BlockRef) -> Block:
        """The content of a listed block. Raises what ``fetch`` raises."""
        first, stop = map(int, ref.handle.split("-"))
        chunk = BlockRange(first, stop)
        data = self._data(chunk, ref.index)
        start = (ref.index - chunk.first) * BLOCK_SIZE
        content = data[start : start + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")
        return Block(ref.index, content, digest_of(content))

    def _data(self, where: BlockRange, index: int) -> bytes:
        with self._lock:
            chunk = self._chunks.get(where)
            first = chunk is None
            if chunk is None:
                chunk = self._chunks[where] = _Chunk(set(range(where.first, where.stop)))
        if first:
            self._fill(where, chunk)
        data = chunk.data.result()
        with self._lock:
            chunk.left.discard(index)
            if not chunk.left:
                self._drop(where, chunk)
        return data

    def _fill(self, where: BlockRange, chunk: _Chunk) -> None:
        try:
            data = self._fetch(where)
        except BaseException as error:
            with self._lock:
                self._drop(where, chunk)
            chunk.data.set_exception(error)
            raise
        chunk.data.set_result(data)
        with self._lock:
            # A mover takes every block that was listed. For those that do not, memory is bounded all the same.
            complete = [(place, other) for place, other in self._chunks.items() if other.data.done()]
            for place, other in complete[: -self._keep]:
                self._drop(place, other)

    def _drop(self, where: BlockRange, chunk: _Chunk) -> None:
        if self._chunks.get(where) is chunk:
            del self._chunks[where]
