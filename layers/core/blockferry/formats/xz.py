"""Streams of xz (the .xz file format, 1.2.1), block by block, so that unpacking can begin at every block.

The library verifies each block: it gets the block as the only one of a stream that is made up around it. The index,
which lists all blocks of the real stream, is held against them here, as are the header and the footer.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from blockferry.core.errors import InvalidRequest
from blockferry.formats.recognise import MAGIC_BYTES, may_begin
from blockferry.formats.stream import MAX_PIECE, MAX_WINDOW, Boundary, Input, Pieces, RestartPoint

_MAGIC = b"\xfd7zXZ\0"
_FOOTER_MAGIC = b"YZ"

_CHECK_BYTES = {lzma.CHECK_NONE: 0, lzma.CHECK_CRC32: 4, lzma.CHECK_CRC64: 8, lzma.CHECK_SHA256: 32}

_MEMORY = MAX_WINDOW + 2 * 1024 * 1024
"""Bytes of memory that the library may use: a little more than the largest dictionary."""

_MOMENT = 4096
"""Records of an index between two looks at the clock."""


def unpack_xz(source: Input, start: RestartPoint) -> Pieces:
    """All streams from ``start`` on, with a boundary behind each block and each stream."""
    raw_offset = start.raw_offset
    stream = _Stream.at(source, start) if start.stream else None
    first = source.offset == 0
    while stream is not None or not source.at_end():
        if stream is None:
            if not first:
                end = source.offset
                yield from source.skip_zeros()
                if source.at_end():
                    return
                begin = source.peek(MAGIC_BYTES)
                begins = may_begin(begin, "xz")
                # Streams and what is between them are whole words.
                if source.offset % 4 or not begins:
                    raise source.followed(begin, end=end, begins=begins)
            first = False
            stream = _Stream.begun(source, raw_offset)
        size = source.take(1)[0]
        if size:
            for piece in stream.block((size + 1) * 4):
                raw_offset += len(piece)
                yield piece
            yield Boundary((stream.check, stream.compressed_offset, stream.raw_offset))
        else:
            yield from stream.end()
            stream = None
            yield Boundary()


@dataclass
class _Stream:
    """A stream that is being unpacked: its check, where it begins, and from where on its blocks were unpacked here."""

    source: Input
    check: int
    compressed_offset: int
    raw_offset: int
    walked_from: tuple[int, int]
    """The compressed and the raw offset from which on blocks were unpacked here."""
    walked: int = 0
    """The number of blocks that were unpacked here."""
    records: hashlib._Hash = field(default_factory=hashlib.sha256)
    """The hash over the records of the blocks that were unpacked here, as the index has to list them."""

    @classmethod
    def at(cls, source: Input, point: RestartPoint) -> _Stream:
        check, compressed_offset, raw_offset = point.stream
        return cls(source, check, compressed_offset, raw_offset, (point.compressed_offset, point.raw_offset))

    @classmethod
    def begun(cls, source: Input, raw_offset: int) -> _Stream:
        at = source.offset
        header = source.take(12)
        if header[:6] != _MAGIC:
            raise source.damaged(f"no stream begins with {header[:6].hex()}", at=at)
        check = header[7]
        if header != _header(check):
            raise source.damaged("the header of the stream does not fit its checksum", at=at)
        if not lzma.is_check_supported(check):
            raise InvalidRequest(
                f"image {source.name}: its stream at byte {at} is checked in a way that is not known ({check}): "
                "compress the image with xz --check=crc64"
            )
        return cls(source, check, at, raw_offset, (source.offset, raw_offset))

    def block(self, header_size: int) -> Iterator[bytes]:
        """The block whose header has this size, of which the first byte is taken."""
        source = self.source
        block_at = source.offset - 1
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
        raw = 0
        header = bytes([header_size // 4 - 1]) + source.take(header_size - 1)
        yield from self._unpacked(decoder, _header(self.check) + header, at=block_at)
        data_at = source.offset
        while True:
            chunk_at = source.offset
            chunk = source.take(1)
            control = chunk[0]
            if 3 <= control < 0x80:
                raise source.damaged(f"a chunk begins with {control}", at=chunk_at)
            if control:
                if control >= 0x80:
                    # What a compressed chunk unpacks to.
                    chunk += source.take(2)
                size_field = source.take(2)
                chunk += size_field
                if control >= 0xC0:
                    # Properties.
                    chunk += source.take(1)
                # Sizes are stored less one.
                chunk += source.take(int.from_bytes(size_field, "big") + 1)
            for piece in self._unpacked(decoder, chunk, at=chunk_at):
                raw += len(piece)
                yield piece
            if not control:
                break
        size = source.offset - data_at
        end_at = source.offset
        end = source.take(-size % 4 + _CHECK_BYTES[self.check])
        unpadded = header_size + size + _CHECK_BYTES[self.check]
        # It yields nothing more, or the index, which is made from what came before, does not fit.
        yield from self._unpacked(decoder, end + _end(self.check, unpadded, raw), at=end_at)
        if not decoder.eof:
            raise source.damaged("the block does not end with its last chunk", at=end_at)
        self.walked += 1
        self.records.update(_record(unpadded, raw))

    def end(self) -> Iterator[bytes]:
        """Empty pieces, while the index, whose first byte is taken, and the footer are held against the blocks."""
        source = self.source
        index_at = source.offset - 1
        index = _Index(source)
        count = index.number()
        before = count - self.walked
        compressed, raw = 0, 0
        records = hashlib.sha256()
        for number in range(count):
            unpadded, length = index.number(), index.number()
            if number < before:
                compressed += unpadded + -unpadded % 4
                raw += length
            else:
                records.update(_record(unpadded, length))
            if number % _MOMENT == 0:
                yield b""
        index.finish()
        reached = (self.compressed_offset + 12 + compressed, self.raw_offset + raw)
        if reached != self.walked_from or records.digest() != self.records.digest():
            raise source.damaged("its index does not list the blocks that are there", at=index_at)
        footer_at = source.offset
        if source.take(12) != _footer(self.check, footer_at - index_at):
            raise source.damaged("the footer does not fit the stream", at=footer_at)

    def _unpacked(self, decoder: lzma.LZMADecompressor, data: bytes, *, at: int) -> Iterator[bytes]:
        while True:
            try:
                piece = decoder.decompress(data, MAX_PIECE)
            except lzma.LZMAError as error:
                if "memory usage limit" in str(error).lower():
                    raise InvalidRequest(
                        f"image {self.source.name}: unpacking its block at byte {at} takes more than {_MEMORY} bytes "
                        "of memory: compress the image with a smaller dictionary (xz -9 asks for half of that)"
                    ) from error
                raise self.source.damaged(str(error), at=at) from error
            if piece:
                yield piece
            if decoder.needs_input or decoder.eof:
                return
            data = b""


class _Index:
    """Numbers of an index as they are read; its first byte was taken."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._at = source.offset - 1
        self._checksum = zlib.crc32(b"\0")

    def number(self) -> int:
        """The next number: seven bits a byte, the lowest first, nine bytes at most."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self._source.damaged("a number of the index has no end", at=self._at)

    def finish(self) -> None:
        """Read the padding and the checksum. Raises ``DamagedImage`` when either is wrong."""
        # An index begins at a whole word, as all blocks do.
        padding = self._take(-self._source.offset % 4)
        expected = self._checksum.to_bytes(4, "little")
        if any(padding) or self._source.take(4) != expected:
            raise self._source.damaged("the index does not fit its checksum", at=self._at)

    def _take(self, count: int) -> bytes:
        data = self._source.take(count)
        self._checksum = zlib.crc32(data, self._checksum)
        return data


def _header(check: int) -> bytes:
    flags = bytes([0, check])
    return _MAGIC + flags + zlib.crc32(flags).to_bytes(4, "little")


def _footer(check: int, index_size: int) -> bytes:
    fields = (index_size // 4 - 1).to_bytes(4, "little") + bytes([0, check])
    return zlib.crc32(fields).to_bytes(4, "little") + fields + _FOOTER_MAGIC


def _end(check: int, unpadded: int, raw: int) -> bytes:
    """Index and footer of a stream with one block."""
    index = b"\0\x01" + _number(unpadded) + _number(raw)
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    return index + _footer(check, len(index))


def _number(value: int) -> bytes:
    coded = b""
    while value >= 0x80:
        coded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return coded + bytes([value])


def _record(unpadded: int, raw: int) -> bytes:
    return struct.pack(">QQ", unpadded, raw)
