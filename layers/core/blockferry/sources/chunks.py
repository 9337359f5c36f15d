"""Blocks that are read in larger chunks, which threads share, as those of an image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.ports import Block, BlockRef

KEPT_CHUNKS = 8
"""Chunks kept at most besides those being fetched: 32 threads at consecutive blocks touch three of 16 blocks."""


K = TypeVar("K", bound=Hashable)
D = TypeVar("D")


@dataclass
class _Chunk(Generic[D]):
    left: set[int]
    """Blocks that nobody has taken yet."""
    data: Future[D] = field(default_factory=Future)


class SharedChunks(Generic[K, D]):
    """Chunks of several blocks that threads share: the first thread that needs one fetches it, the others wait for it,
    and it is dropped when each of its blocks was taken once.

    What ``fetch`` raises, every waiting thread raises, and the chunk is fetched again when it is needed again.
    """

    def __init__(self, fetch: Callable[[K], D], *, keep: int = KEPT_CHUNKS) -> None:
        self._fetch = fetch
        self._keep = keep
        self._lock = threading.Lock()
        self._chunks: dict[K, _Chunk[D]] = {}

    def take(self, key: K, blocks: Iterable[int], index: int) -> D:
        """The chunk of this key, which holds these ``blocks``, for one of them."""
        with self._lock:
            chunk = self._chunks.get(key)
            first = chunk is None
            if chunk is None:
                chunk = self._chunks[key] = _Chunk(set(blocks))
        if first:
            self._fill(key, chunk)
        data = chunk.data.result()
        with self._lock:
            chunk.left.discard(index)
            if not chunk.left:
                self._drop(key, chunk)
        return data

    def _fill(self, key: K, chunk: _Chunk[D]) -> None:
        try:
            data = self._fetch(key)
        except BaseException as error:
            with self._lock:
                self._drop(key, chunk)
            chunk.data.set_exception(error)
            raise
        chunk.data.set_result(data)
        with self._lock:
            # A mover takes every block that was listed. For those that do not, memory is bounded all the same.
            complete = [(place, other) for place, other in self._chunks.items() if other.data.done()]
            for place, other in complete[: -self._keep]:
                self._drop(place, other)

    def _drop(self, key: K, chunk: _Chunk[D]) -> None:
        if self._chunks.get(key) is chunk:
            del self._chunks[key]


class ChunkedImage:
    """A source of all blocks that an image of ``size_bytes`` touches; a short last block is filled up with zeros.

    Blocks are fetched in chunks of up to ``blocks_per_chunk``, cut at the ends of the range that is listed, which
    threads share (``SharedChunks``). ``fetch(chunk)`` returns the image's bytes in these blocks.
    """

    def __init__(
        self, size_bytes: int, *, blocks_per_chunk: int, fetch: Callable[[BlockRange], bytes], keep: int = KEPT_CHUNKS
    ) -> None:
        self.size = size_bytes
        self._blocks_per_chunk = blocks_per_chunk
        self._chunks = SharedChunks(fetch, keep=keep)

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
        data = self._chunks.take(chunk, range(chunk.first, chunk.stop), ref.index)
        start = (ref.index - chunk.first) * BLOCK_SIZE
        content = data[start : start + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")
        return Block(ref.index, content, digest_of(content))
