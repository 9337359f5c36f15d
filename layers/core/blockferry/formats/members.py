"""Members of gzip (RFC 1952) and streams of bzip2, whose libraries are told how much to yield."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator

from blockferry.formats.errors import DamagedImage
from blockferry.formats.stream import MAX_PIECE, Input

_INPUT = 32 * 1024
"""Compressed bytes per call: zlib copies what it has not used yet, so a larger input is copied over and over."""


def _cut_off(source: Input, begin: int) -> DamagedImage:
    return source.damaged(f"the stream ends in the middle of what begins at byte {begin}", at=source.offset)


def gzip_member(source: Input) -> Iterator[bytes]:
    """The next member of gzip, in pieces."""
    begin = source.offset
    member = zlib.decompressobj(wbits=31)
    while not member.eof:
        data = member.unconsumed_tail or source.some(_INPUT)
        try:
            piece = member.decompress(data, MAX_PIECE)
        except zlib.error as error:
            raise source.damaged(str(error), at=source.offset - len(data)) from error
        if piece:
            yield piece
        elif not data:
            # Only now: zlib may hold many pieces more when it has used all of its input.
            raise _cut_off(source, begin)
    source.back(len(member.unused_data))


def bzip2_stream(source: Input) -> Iterator[bytes]:
    """The next stream of bzip2, in pieces; the library checks every block's checksum and that of the whole."""
    begin = source.offset
    stream = bz2.BZ2Decompressor()
    while not stream.eof:
        data = source.some(_INPUT) if stream.needs_input else b""
        if stream.needs_input and not data:
            raise _cut_off(source, begin)
        try:
            piece = stream.decompress(data, MAX_PIECE)
        except OSError as error:
            raise source.damaged(str(error), at=source.offset - len(data)) from error
        # Empty where a block is not complete yet, which may take several calls.
        yield piece
    source.back(len(stream.unused_data))
