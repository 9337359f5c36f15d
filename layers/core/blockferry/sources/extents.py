"""What of an image on this machine counts as written: all of it, or what its file system has an extent for.

A hole in a file does not mean that nobody wrote there. ``SEEK_DATA`` reports unwritten extents as holes, which is what
writing zeros without data leaves (``fallocate`` with ZERO_RANGE, as mkfs does); FIEMAP tells them apart (Linux kernel,
Documentation/filesystems/fiemap). Converters make real holes of zeros (``qemu-img convert``, ``cp --sparse``).
"""

from __future__ import annotations

import heapq
import struct
import sys
from collections.abc import Iterator
from itertools import groupby

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.errors import UnreadableSource
from blockferry.core.ports import Block, BlockRef
from blockferry.sources.device import LOOK_AT, ImageSource

if sys.platform != "win32":
    import fcntl

_FS_IOC_FIEMAP = 0xC020660B
"""``_IOWR('f', 11, struct fiemap)``, the same on all architectures that Lambda and laptops have."""

_FIEMAP_FLAG_SYNC = 0x1
_FIEMAP_EXTENT_LAST = 0x1

_HEADER = struct.Struct("=QQLLLL")
_EXTENT = struct.Struct("=QQQQQLLLL")

EXTENTS_PER_CALL = 256
"""An answer of 14 KiB."""


class NoExtents(Exception):
    """The file system does not tell what of a file was written (tmpfs, NFS), or it is none (a block device)."""


def extents(descriptor: int, start: int, stop: int, *, per_call: int = EXTENTS_PER_CALL) -> Iterator[tuple[int, int]]:
    """The extents of a file that touch ``start <= offset < stop``, unwritten ones among them, as (offset, length).

    ``per_call`` of them are asked for at a time. What is still on its way to the disk is written first. Raises
    ``NoExtents``.
    """
    while start < stop:
        found = _ask(descriptor, start, stop - start, per_call)
        for offset, length, flags in found:
            yield offset, length
            if offset + length <= start:
                raise NoExtents(f"an extent of {length} bytes at {offset} ends before {start}, where it was asked for")
            start = offset + length
            if flags & _FIEMAP_EXTENT_LAST:
                return
        if len(found) < per_call:
            return


def tells_extents(descriptor: int) -> bool:
    """Whether the file system tells a hole from an unwritten extent."""
    try:
        _ask(descriptor, 0, 1, EXTENTS_PER_CALL)
    except NoExtents:
        return False
    return True


def _ask(descriptor: int, start: int, length: int, most: int) -> list[tuple[int, int, int]]:
    request = bytearray(_HEADER.size + most * _EXTENT.size)
    _HEADER.pack_into(request, 0, start, length, _FIEMAP_FLAG_SYNC, 0, most, 0)
    if sys.platform == "win32":
        raise NoExtents
    try:
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, request)
    except OSError as error:
        raise NoExtents from error
    mapped = _HEADER.unpack_from(request)[3]
    found = (_EXTENT.unpack_from(request, _HEADER.size + number * _EXTENT.size) for number in range(mapped))
    return [(extent[0], extent[2], extent[5]) for extent in found]


class WholeImage:
    """Every block of an image below ``stop``: holes of the file, and what lies behind its end, are read as zeros."""

    def __init__(self, image: ImageSource, stop: int) -> None:
        self._image = image
        self._stop = stop

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        for index in range(within.first, min(within.stop, self._stop)):
            yield BlockRef(index)

    def read(self, ref: BlockRef) -> Block:
        return self._image.read(ref)


class WrittenImage:
    """The blocks of an image that are not in a real hole: with data, or with zeros that were written without data.

    Only for images of which ``tells_extents``. Listing raises ``UnreadableSource`` when the file system stops to tell.
    """

    def __init__(self, image: ImageSource, *, extents_per_call: int = EXTENTS_PER_CALL) -> None:
        self._image = image
        self._per_call = extents_per_call

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        merged = heapq.merge((ref.index for ref in self._image.blocks(within)), self._of_extents(within))
        for index, _ in groupby(merged):
            yield BlockRef(index)

    def read(self, ref: BlockRef) -> Block:
        return self._image.read(ref)

    def _of_extents(self, within: BlockRange) -> Iterator[int]:
        stop = min(within.stop, self._image.total_blocks)
        due = within.first
        found = extents(self._image.fileno(), within.first * BLOCK_SIZE, stop * BLOCK_SIZE, per_call=self._per_call)
        for offset, length in self._told(found):
            first = max(due, offset // BLOCK_SIZE)
            due = max(first, min(stop, -(-(offset + length) // BLOCK_SIZE)))
            yield from range(first, due)

    def _told(self, found: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        try:
            yield from found
        except NoExtents as error:
            why = error.__cause__ or error
            raise UnreadableSource(f"image {self._image.path}: its extents are not told ({why}). {LOOK_AT}") from error
