"""What a compressed image tells of its own size before it is unpacked, by its first and last bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import zstandard

from blockferry.formats.lz4 import MAGIC as LZ4_MAGIC
from blockferry.formats.recognise import PackedCodec, is_skippable

BEGIN_BYTES = 64 * 1024
"""Bytes of an image's beginning that are looked at: the header of a frame behind what is skipped."""

END_BYTES = 256 * 1024
"""Bytes of an image's end that are looked at: the index of some 30,000 blocks of xz."""

_GZIP_MODULO = 2**32
"""gzip keeps the size of a member in four bytes (RFC 1952, ISIZE)."""

_GZIP_HEADER = 128 * 1024

_XZ_FOOTER = 12


@dataclass(frozen=True)
class ToldSize:
    """Bytes that an image says it unpacks to; ``by`` is what says so, in words. ``least``: it cannot be fewer."""

    raw_bytes: int
    by: str
    least: bool


def told_size(codec: PackedCodec, begin: bytes, end: bytes, size_bytes: int) -> ToldSize | None:
    """The size that an object of ``size_bytes`` tells; ``None`` where it tells none.

    ``begin`` and ``end`` are its first and last bytes, as many as the caller has; they may be the same.
    """
    if codec == "zstd":
        return _zstd(begin)
    if codec == "lz4":
        return _lz4(begin)
    if codec == "gzip":
        return _gzip(end, size_bytes)
    return _xz(end, size_bytes) if codec == "xz" else None


def _zstd(begin: bytes) -> ToldSize | None:
    at = 0
    while is_skippable(begin[at : at + 4]):
        at += 8 + int.from_bytes(begin[at + 4 : at + 8], "little")
    try:
        found = zstandard.get_frame_parameters(begin[at:]).content_size
    except zstandard.ZstdError:
        return None
    if found == zstandard.CONTENTSIZE_UNKNOWN:
        return None
    return ToldSize(found, f"the header of its first zstd frame ({found:,} bytes; more if others follow)", True)


def _lz4(begin: bytes) -> ToldSize | None:
    """The content size of a frame, which follows its flags where they say so (LZ4 Frame format, frame descriptor)."""
    if begin[:4] != LZ4_MAGIC or len(begin) < 14 or not begin[4] & 0x08:
        return None
    found = int.from_bytes(begin[6:14], "little")
    return ToldSize(found, f"the header of its first lz4 frame ({found:,} bytes; more if others follow)", True)


def _gzip(end: bytes, size_bytes: int) -> ToldSize | None:
    if len(end) < 4:
        return None
    told = int.from_bytes(end[-4:], "little")
    # What does not compress grows by five bytes in every 16 KiB (zlib, deflateBound), and a header has 64 KiB of extra
    # fields and a name.
    least = size_bytes - size_bytes // 3_000 - _GZIP_HEADER
    told += max(0, -(-(least - told) // _GZIP_MODULO)) * _GZIP_MODULO
    return ToldSize(told, f"the end of its gzip stream ({told:,} bytes, or a multiple of 4 GiB more)", False)


def _xz(end: bytes, size_bytes: int) -> ToldSize | None:
    stripped = end.rstrip(b"\0")
    # Streams are padded with whole words of zeros; the footer itself ends with letters.
    footer = stripped[-_XZ_FOOTER:]
    if len(footer) < _XZ_FOOTER or footer[-2:] != b"YZ" or zlib.crc32(footer[4:10]).to_bytes(4, "little") != footer[:4]:
        return None
    length = (int.from_bytes(footer[4:8], "little") + 1) * 4
    index = stripped[-_XZ_FOOTER - length : -_XZ_FOOTER]
    if len(index) < length or zlib.crc32(index[:-4]).to_bytes(4, "little") != index[-4:]:
        return None
    count, at = _number(index, 1)
    raw = packed = 0
    for _ in range(count):
        unpadded, at = _number(index, at)
        unpacked, at = _number(index, at)
        packed += unpadded + -unpadded % 4
        raw += unpacked
    if 2 * _XZ_FOOTER + packed + length == size_bytes - (len(end) - len(stripped)):
        return ToldSize(raw, f"its xz index ({raw:,} bytes)", True)
    return ToldSize(raw, f"the index of the last of its xz streams ({raw:,} bytes; more with the others)", True)


def _number(index: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where the next one begins. The index fits its checksum."""
    value = shift = 0
    while True:
        byte = index[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
