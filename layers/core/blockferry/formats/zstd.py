"""Frames of zstd (RFC 8878), one of its own blocks at a time, which yields 128 KiB at most whatever the ratio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from blockferry.core.errors import InvalidRequest
from blockferry.formats.recognise import is_skippable
from blockferry.formats.stream import MAX_PIECE, MAX_WINDOW, Input

MAGIC = bytes.fromhex("28b52ffd")

_RLE, _RESERVED = 1, 3
"""Types of blocks: one byte that is repeated, and none that there is."""


def zstd_frame(source: Input) -> Iterator[bytes]:
    """The next frame; one that is skippable gives empty pieces."""
    magic_at = source.offset
    magic = source.take(4)
    if magic == MAGIC:
        yield from _frame(source, zstandard.ZstdDecompressor().decompressobj())
    elif is_skippable(magic):
        yield from source.skip_frame()
    else:
        raise source.damaged(f"no frame begins with {magic.hex()}", at=magic_at)


def _frame(source: Input, decompressor: zstandard.ZstdDecompressionObj) -> Iterator[bytes]:
    frame_at = source.offset - len(MAGIC)
    header = _header(source, frame_at)
    _decompress(source, decompressor, MAGIC + header.fields, at=frame_at)
    largest = min(header.window, MAX_PIECE)
    held = 0
    last = False
    while not last:
        block_at = source.offset
        head = source.take(3)
        bits = int.from_bytes(head, "little")
        last, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
        if kind == _RESERVED or size > largest:
            raise source.damaged(f"a block has type {kind} and {size} bytes", at=block_at)
        block = head + source.take(1 if kind == _RLE else size)
        piece = _decompress(source, decompressor, block, at=block_at)
        held += len(piece)
        yield piece
    end_at = source.offset
    if header.checksummed:
        # Checked by the library as soon as it has it.
        yield _decompress(source, decompressor, source.take(4), at=end_at)
    if not decompressor.eof:
        raise source.damaged("the frame does not end with its last block", at=end_at)
    # The library does not look at it where the last block is empty.
    if header.content not in (None, held):
        raise source.damaged(f"the frame holds {held} bytes and says {header.content}", at=frame_at)


class _Header(NamedTuple):
    fields: bytes
    """The fields of the header as they are in the stream."""
    window: int
    """Bytes of history that unpacking needs."""
    content: int | None
    """Bytes that the frame unpacks to; ``None`` if it does not tell."""
    checksummed: bool


def _header(source: Input, frame_at: int) -> _Header:
    head = source.take(1)
    descriptor = head[0]
    single_segment = bool(descriptor & 0x20)
    if not single_segment:
        head += source.take(1)
    dictionary = source.take((0, 1, 2, 4)[descriptor & 3])
    if any(dictionary):
        raise InvalidRequest(
            f"image {source.name}: its frame at byte {frame_at} needs dictionary "
            f"{int.from_bytes(dictionary, 'little')}, which is not in it: compress the image without a dictionary"
        )
    size_field = source.take((int(single_segment), 2, 4, 8)[descriptor >> 6])
    # Only the two-byte form counts from 256 on.
    size = int.from_bytes(size_field, "little") + (256 if len(size_field) == 2 else 0)
    if single_segment:
        window = size
    else:
        base = 1 << (10 + (head[1] >> 3))
        window = base + (base >> 3) * (head[1] & 7)
    if window > MAX_WINDOW:
        raise InvalidRequest(
            f"image {source.name}: unpacking its frame at byte {frame_at} takes a window of {window} bytes, more "
            f"than {MAX_WINDOW}: compress the image with zstd --long=27, or without --long and --ultra"
        )
    content = size if size_field else None
    return _Header(head + dictionary + size_field, window, content, bool(descriptor & 0x04))


def _decompress(source: Input, decompressor: zstandard.ZstdDecompressionObj, data: bytes, *, at: int) -> bytes:
    try:
        return decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise source.damaged(str(error), at=at) from error
