"""Unpacking streams of zstd, gzip, xz, bzip2 and lz4 piece by piece, whatever their ratio, to a strict end.

Sparse disks compress to almost nothing: 64 KiB may hold 2 GiB of zeros. So every library is given little at a time, or
told how much to yield.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from blockferry.formats.errors import DamagedImage
from blockferry.formats.lz4 import lz4_frame
from blockferry.formats.members import bzip2_stream, gzip_member
from blockferry.formats.recognise import HEAD_BYTES, MAGIC_BYTES, PackedCodec, may_begin
from blockferry.formats.stream import Boundary, Input, Pieces, RestartPoint
from blockferry.formats.xz import unpack_xz
from blockferry.formats.zstd import zstd_frame

_FRAMES: Mapping[str, Callable[[Input], Iterator[bytes]]] = {
    "zstd": zstd_frame,
    "gzip": gzip_member,
    "bzip2": bzip2_stream,
    "lz4": lz4_frame,
}
"""Unpackers of the next frame, member or stream, by codec; xz has more than one boundary in a stream."""


class Unpacking:
    """The pieces of an image as they are unpacked, at most ``MAX_PIECE`` bytes each.

    ``parts`` are the compressed bytes from ``start.compressed_offset`` on, of any lengths; they are taken one by one.
    ``restart`` is the last restart point that was passed; iterate once. An empty piece only gives the caller a moment
    to look at the clock. Iterating raises ``DamagedImage`` with the compressed offset for anything but whole frames
    that end where the parts end, zeros behind them aside, and ``InvalidRequest`` for a stream that needs more memory
    or a dictionary.
    """

    def __init__(
        self, parts: Iterator[bytes], codec: PackedCodec, *, name: str, start: RestartPoint | None = None
    ) -> None:
        self.restart = start or RestartPoint()
        self.raw_offset = self.restart.raw_offset
        self._input = Input(parts, codec, name=name, offset=self.restart.compressed_offset)
        self._pieces = unpack_xz(self._input, self.restart) if codec == "xz" else _unpack(self._input, codec)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Boundary):
                self.restart = RestartPoint(self._input.offset, self.raw_offset, piece.stream)
            else:
                self.raw_offset += len(piece)
                yield piece


def first_unpacked(begin: bytes, codec: PackedCodec, *, name: str) -> bytes:
    """The first ``HEAD_BYTES`` that the beginning of a compressed image unpacks to; fewer, where that takes more of it
    or it is damaged. Raises ``InvalidRequest`` as ``Unpacking`` does."""
    unpacked = b""
    try:
        for piece in Unpacking(iter((begin,)), codec, name=name):
            unpacked += piece
            if len(unpacked) >= HEAD_BYTES:
                break
    except DamagedImage:
        # It may only be cut off here; unpacking all of it tells.
        pass
    return unpacked[:HEAD_BYTES]


def _unpack(source: Input, codec: PackedCodec) -> Pieces:
    frame = _FRAMES[codec]
    first = source.offset == 0
    while not source.at_end():
        if not first:
            end = source.offset
            yield from source.skip_zeros()
            if source.at_end():
                return
            begin = source.peek(MAGIC_BYTES)
            begins = may_begin(begin, codec)
            if source.offset > end or not begins:
                raise source.followed(begin, end=end, begins=begins)
        yield from frame(source)
        yield Boundary()
        first = False
