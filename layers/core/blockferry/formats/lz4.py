"""Frames of LZ4 (LZ4 Frame format 1.6.4), one of its own blocks at a time, of which the largest has 4 MiB.

The library verifies every checksum: of the header, of each block and of the content, where the frame has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import lz4.frame

from blockferry.core.errors import InvalidRequest
from blockferry.formats.recognise import is_skippable
from blockferry.formats.stream import MAX_PIECE, Input

MAGIC = bytes.fromhex("04224d18")

LEGACY_MAGIC = bytes.fromhex("02214c18")
"""That of frames that ``lz4 -l`` makes for kernels: they have no checksums, and their end is where the file ends."""

MAX_BLOCK = 4 * 2**20
"""Bytes that a block holds at most, packed or not."""

MAX_HEADER = 19
"""Bytes of a header that has everything, its magic included."""

_VERSION = 0x40
_UNPACKED = 0x8000_0000


class _Header(NamedTuple):
    fields: bytes
    """The header as it is in the stream, its magic included."""
    block: int
    """Bytes that a block holds at most."""
    block_checksummed: bool
    content: int | None
    """Bytes that the frame unpacks to; ``None`` if it does not tell."""
    content_checksummed: bool


def lz4_frame(source: Input) -> Iterator[bytes]:
    """The next frame; one that is skippable gives empty pieces. Raises ``InvalidRequest`` for one of the legacy format
    and for one that needs a dictionary."""
    magic_at = source.offset
    magic = source.take(4)
    if magic == MAGIC:
        yield from _frame(source, magic_at)
    elif is_skippable(magic):
        yield from source.skip_frame()
    elif magic == LEGACY_MAGIC:
        raise InvalidRequest(
            f"image {source.name}: its frame at byte {magic_at} is of lz4's legacy format, which has no checksums "
            "and no end: compress the image with lz4 without -l"
        )
    else:
        raise source.damaged(f"no frame begins with {magic.hex()}", at=magic_at)


def _frame(source: Input, frame_at: int) -> Iterator[bytes]:
    header = _header(source, frame_at)
    decompressor = lz4.frame.LZ4FrameDecompressor()
    yield from _decompress(source, decompressor, header.fields, at=frame_at)
    held = 0
    while True:
        block_at = source.offset
        word = source.take(4)
        size = int.from_bytes(word, "little") & ~_UNPACKED
        if size > header.block:
            raise source.damaged(f"a block has {size} bytes", at=block_at)
        if word == bytes(4):
            break
        block = word + source.take(size + (4 if header.block_checksummed else 0))
        for piece in _decompress(source, decompressor, block, at=block_at):
            held += len(piece)
            yield piece
    if header.content not in (None, held):
        raise source.damaged(f"the frame holds {held} bytes and says {header.content}", at=frame_at)
    end = word + source.take(4 if header.content_checksummed else 0)
    yield from _decompress(source, decompressor, end, at=block_at)
    if not decompressor.eof:
        raise source.damaged("the frame does not end with its last block", at=block_at)


def _header(source: Input, frame_at: int) -> _Header:
    head = source.take(2)
    flags, block = head[0], head[1] >> 4
    if flags & 0xC2 != _VERSION or head[1] & 0x8F or not 4 <= block <= 7:
        raise source.damaged(f"no header has the flags {head.hex()}", at=frame_at)
    size_field = source.take(8 if flags & 0x08 else 0)
    dictionary = source.take(4 if flags & 0x01 else 0)
    if dictionary:
        raise InvalidRequest(
            f"image {source.name}: its frame at byte {frame_at} needs dictionary "
            f"{int.from_bytes(dictionary, 'little')}, which is not in it: compress the image without a dictionary"
        )
    content = int.from_bytes(size_field, "little") if size_field else None
    fields = MAGIC + head + size_field + source.take(1)
    return _Header(fields, 1 << (8 + 2 * block), bool(flags & 0x10), content, bool(flags & 0x04))


def _decompress(
    source: Input, decompressor: lz4.frame.LZ4FrameDecompressor, data: bytes, *, at: int
) -> Iterator[bytes]:
    """What the library yields for these bytes, in pieces."""
    while True:
        try:
            piece = decompressor.decompress(data, MAX_PIECE)
        except RuntimeError as error:
            raise source.damaged(str(error), at=at) from error
        if piece:
            yield piece
        # It may have used all of its input, and hold more of a block than one piece.
        if decompressor.eof or (decompressor.needs_input and len(piece) < MAX_PIECE):
            return
        data = b""
