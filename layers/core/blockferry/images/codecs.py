"""Unpacking streams of zstd (RFC 8878) and gzip (RFC 1952) piece by piece, whatever their ratio, to a strict end.

Sparse disks compress to almost nothing: 64 KiB may hold 2 GiB of zeros. So zstd gets one of its own blocks at a time,
which yields 128 KiB at most, and zlib is told how much to yield. Knowing the blocks also makes a cut-off stream exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import zstandard

from blockferry.errors import InvalidRequest
from blockferry.images.errors import DamagedImage

MAX_PIECE = 128 * 1024
"""Bytes that a piece has at most: the largest block of zstd."""

MAX_WINDOW = 128 * 1024 * 1024
"""Bytes of history that unpacking zstd may need in memory: what ``zstd --long=27`` asks for."""

ZSTD_MAGIC = bytes.fromhex("28b52ffd")
GZIP_MAGIC = bytes.fromhex("1f8b")

_GZIP_INPUT = 32 * 1024
"""Compressed bytes per call: zlib copies what it has not used yet, so a larger input is copied over and over."""

_RAW, _RLE, _RESERVED = 0, 1, 3
"""Block types of zstd that are not compressed blocks."""


@dataclass(frozen=True)
class RestartPoint:
    """A place where a frame or member begins: unpacking from this offset on gives the image from that offset on."""

    compressed_offset: int = 0
    raw_offset: int = 0


class Unpacking:
    """The pieces of an image as they are unpacked, at most ``MAX_PIECE`` bytes each.

    ``parts`` are the compressed bytes from ``start.compressed_offset`` on, of any lengths; they are taken one by one.
    ``restart`` is the last restart point that was passed; iterate once. An empty piece only gives the caller a moment
    to look at the clock. Iterating raises ``DamagedImage`` with the compressed offset for anything but whole frames
    that end where the parts end, and ``InvalidRequest`` for a stream that needs more memory or a dictionary.
    """

    def __init__(
        self,
        parts: Iterator[bytes],
        codec: Literal["gzip", "zstd"],
        *,
        name: str,
        start: RestartPoint | None = None,
    ) -> None:
        self.restart = start or RestartPoint()
        self.raw_offset = self.restart.raw_offset
        self._input = _Input(parts, codec, name=name, offset=self.restart.compressed_offset)
        self._name = name
        self._pieces = self._zstd_frames() if codec == "zstd" else self._gzip_members()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.raw_offset += len(piece)
            yield piece

    def _passed(self) -> None:
        self.restart = RestartPoint(self._input.offset, self.raw_offset)

    def _zstd_frames(self) -> Iterator[bytes]:
        source = self._input
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        while not source.at_end():
            magic_at = source.offset
            magic = source.take(4)
            if magic == ZSTD_MAGIC:
                yield from self._zstd_frame(decompressor.decompressobj())
            elif is_skippable(magic):
                left = int.from_bytes(source.take(4), "little")
                while left:
                    left -= len(source.take(min(left, MAX_PIECE)))
                    yield b""
            else:
                raise source.damaged(f"no frame begins with {magic.hex()}", at=magic_at)
            self._passed()

    def _zstd_frame(self, decompressor: zstandard.ZstdDecompressionObj) -> Iterator[bytes]:
        source = self._input
        frame_at = source.offset - len(ZSTD_MAGIC)
        header, window, checksummed = self._zstd_header(frame_at)
        self._decompress(decompressor, ZSTD_MAGIC + header, at=frame_at)
        largest = min(window, MAX_PIECE)
        last = False
        while not last:
            block_at = source.offset
            head = source.take(3)
            bits = int.from_bytes(head, "little")
            last, kind, size = bool(bits & 1), bits >> 1 & 3, bits >> 3
            if kind == _RESERVED or size > largest:
                raise source.damaged(f"a block has type {kind} and {size} bytes", at=block_at)
            block = head + source.take(1 if kind == _RLE else size)
            yield self._decompress(decompressor, block, at=block_at)
        end_at = source.offset
        if checksummed:
            # Checked by the library as soon as it has it.
            yield self._decompress(decompressor, source.take(4), at=end_at)
        if not decompressor.eof or decompressor.unused_data:
            raise source.damaged("the frame does not end with its last block", at=end_at)

    def _zstd_header(self, frame_at: int) -> tuple[bytes, int, bool]:
        """Bytes of the frame header, the window's size in bytes, and whether a checksum follows the blocks."""
        source = self._input
        head = source.take(1)
        descriptor = head[0]
        single_segment = bool(descriptor & 0x20)
        window = 0
        if not single_segment:
            field = source.take(1)
            head += field
            base = 1 << (10 + (field[0] >> 3))
            window = base + (base >> 3) * (field[0] & 7)
        dictionary = source.take((0, 1, 2, 4)[descriptor & 3])
        if any(dictionary):
            raise InvalidRequest(
                f"image {self._name}: its frame at byte {frame_at} needs dictionary "
                f"{int.from_bytes(dictionary, 'little')}, which is not in it: compress the image without a dictionary"
            )
        size_field = source.take((int(single_segment), 2, 4, 8)[descriptor >> 6])
        if single_segment:
            # The window is the content; only the two-byte form counts from 256 on.
            window = int.from_bytes(size_field, "little") + (256 if len(size_field) == 2 else 0)
        if window > MAX_WINDOW:
            raise InvalidRequest(
                f"image {self._name}: unpacking its frame at byte {frame_at} takes a window of {window} bytes, more "
                f"than {MAX_WINDOW}: compress the image with zstd --long=27, or without --long and --ultra"
            )
        return head + dictionary + size_field, window, bool(descriptor & 0x04)

    def _decompress(self, decompressor: zstandard.ZstdDecompressionObj, data: bytes, *, at: int) -> bytes:
        try:
            return decompressor.decompress(data)
        except zstandard.ZstdError as error:
            raise self._input.damaged(str(error), at=at) from error

    def _gzip_members(self) -> Iterator[bytes]:
        source = self._input
        first = source.offset == 0
        while not source.at_end():
            if not first and source.peek() == 0:
                yield from self._zeros_to_the_end()
                return
            yield from self._gzip_member()
            self._passed()
            first = False

    def _gzip_member(self) -> Iterator[bytes]:
        source = self._input
        member = zlib.decompressobj(wbits=31)
        data, piece = b"", b""
        while not member.eof:
            # A full piece may leave more behind in zlib itself, also when it has used all of its input.
            if not data and len(piece) < MAX_PIECE:
                data = source.some(_GZIP_INPUT)
                if not data:
                    raise source.damaged("the stream ends in the middle of a member", at=source.offset)
            try:
                piece = member.decompress(data, MAX_PIECE)
            except zlib.error as error:
                raise source.damaged(str(error), at=source.offset - len(data)) from error
            data = member.unconsumed_tail
            if piece:
                yield piece
        source.back(len(member.unused_data))

    def _zeros_to_the_end(self) -> Iterator[bytes]:
        """Padding to whole tape blocks, which gzip itself ignores, too."""
        source = self._input
        while padding := source.some(MAX_PIECE):
            if padding.strip(b"\0"):
                raise source.damaged("something follows the zeros behind the last member", at=source.offset)
            yield b""


class _Input:
    """The compressed bytes, read in the amounts that the formats ask for."""

    def __init__(self, parts: Iterator[bytes], codec: str, *, name: str, offset: int) -> None:
        self._parts = parts
        self._codec = codec
        self._name = name
        self._part = b""
        self._used = 0
        self.offset = offset
        """Of the next byte, in the whole stream."""

    def at_end(self) -> bool:
        while self._used == len(self._part):
            part = next(self._parts, None)
            if part is None:
                return True
            self._part, self._used = part, 0
        return False

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises ``DamagedImage`` when the stream ends before."""
        at = self.offset
        taken = b""
        while len(taken) < count:
            some = self.some(count - len(taken))
            if not some:
                raise self.damaged(f"the stream ends {count - len(taken)} bytes too early for what begins", at=at)
            taken += some
        return taken

    def some(self, limit: int) -> bytes:
        """The next bytes, at most ``limit``; none only at the end."""
        if self.at_end():
            return b""
        taken = self._part[self._used : self._used + limit]
        self._used += len(taken)
        self.offset += len(taken)
        return taken

    def peek(self) -> int:
        """The next byte; not at the end."""
        return self._part[self._used]

    def back(self, count: int) -> None:
        """Give back bytes that the last ``some`` returned."""
        self._used -= count
        self.offset -= count

    def damaged(self, what: str, *, at: int) -> DamagedImage:
        return DamagedImage(
            f"image {self._name} is damaged at byte {at} of its {self._codec} stream: {what}; compress it again, check "
            f"it ({self._codec} -t) and upload it again"
        )


def is_skippable(magic: bytes) -> bool:
    """Whether four bytes begin a skippable frame of zstd (RFC 8878, 3.1.2)."""
    return len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50
