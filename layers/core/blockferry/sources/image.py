"""A raw disk image on this machine (a file or a block device) as a source of blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from blockferry.blocks import BLOCK_SIZE, BlockRange
from blockferry.checksums import ZERO_BLOCK, digest_of
from blockferry.errors import IncompleteTransfer, InvalidRequest
from blockferry.ports import Block, BlockRef


class ImageSource:
    """The blocks of an image that are not all zeros; a short last block is filled up with zeros.

    Holes of a sparse file are skipped without being read (``SEEK_DATA``). Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InvalidRequest(f"image {path}: {error.strerror}; name a readable raw disk image") from error
        # A block device reports size 0 in stat, its end is where it can be seeked to.
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        if self.size == 0:
            os.close(self._fd)
            raise InvalidRequest(f"image {path} is empty: there is nothing to make a snapshot of")

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def total_blocks(self) -> int:
        """Blocks that the image touches, the unaligned tail included."""
        return -(-self.size // BLOCK_SIZE)

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        index = within.first
        while index < min(within.stop, self.total_blocks):
            data_at = self._next_data(index * BLOCK_SIZE)
            if data_at is None:
                return
            index = max(index, data_at // BLOCK_SIZE)
            if index >= within.stop:
                return
            if self._content(index) != ZERO_BLOCK:
                yield BlockRef(index)
            index += 1

    def read(self, ref: BlockRef) -> Block:
        data = self._content(ref.index)
        return Block(ref.index, data, digest_of(data))

    def _next_data(self, offset: int) -> int | None:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError:
            # ENXIO: only a hole follows. A block device or file system without SEEK_DATA calls all of it data,
            # so ENXIO there means the end.
            return None

    def _content(self, index: int) -> bytes:
        want = min(BLOCK_SIZE, self.size - index * BLOCK_SIZE)
        data = b""
        while len(data) < want:
            piece = os.pread(self._fd, want - len(data), index * BLOCK_SIZE + len(data))
            if not piece:
                raise IncompleteTransfer(f"image {self._path} became shorter while block {index} was read")
            data += piece
        return data.ljust(BLOCK_SIZE, b"\0")
