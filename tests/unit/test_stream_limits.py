"""Where the streams that images are unpacked from begin, end and may not go on, byte by byte."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard
from blockferry.core.errors import InvalidRequest
from blockferry.formats.codecs import Unpacking, first_unpacked
from blockferry.formats.errors import DamagedImage
from blockferry.formats.stream import RestartPoint
from image_files import xz_of_blocks

NAME = "s3://images/disk"
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


def parts(stream: bytes, length: int = 1 << 20) -> Iterator[bytes]:
    for at in range(0, len(stream), length):
        yield stream[at : at + length]


def pieces(stream: bytes, codec: str, *, length: int = 1 << 20) -> list[bytes]:
    return list(Unpacking(parts(stream, length), codec, name=NAME))  # type: ignore[arg-type]


def unpacked(stream: bytes, codec: str, *, length: int = 1 << 20) -> bytes:
    return b"".join(pieces(stream, codec, length=length))


def block(kind: int, size: int, content: bytes, *, last: bool = True) -> bytes:
    return (int(last) | kind << 1 | size << 3).to_bytes(3, "little") + content


def raw_block(data: bytes) -> bytes:
    return block(0, len(data), data)


def skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def framed(
    size: int | None,
    blocks: bytes,
    *,
    single_segment: bool = False,
    window: int = 0,
    field_bytes: int | None = None,
    dictionary: bytes = b"",
) -> bytes:
    """A frame of zstd without checksum that tells its ``size`` in so many bytes; ``window`` is the descriptor."""
    lengths = (int(single_segment), 2, 4, 8)
    bytes_of_size = lengths[0] if field_bytes is None else field_bytes
    descriptor = lengths.index(bytes_of_size) << 6 | single_segment << 5 | (0, 1, 2, 4).index(len(dictionary))
    told = b"" if size is None else (size - 256 * (bytes_of_size == 2)).to_bytes(bytes_of_size, "little")
    window_field = b"" if single_segment else bytes([window])
    return ZSTD_MAGIC + bytes([descriptor]) + window_field + dictionary + told + blocks


DATA = random.Random(11).randbytes(250) + b"disk " * 10
"""300 bytes: a size that takes two bytes."""


# -- frames of zstd ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single_segment", [False, True])
@pytest.mark.parametrize("field_bytes", [2, 4, 8])
@pytest.mark.parametrize("dictionary", [b"", b"\0", b"\0\0", b"\0\0\0\0"])
def test_a_frame_tells_its_size_and_that_it_needs_no_dictionary_in_fields_of_any_length(
    single_segment: bool, field_bytes: int, dictionary: bytes
) -> None:
    stream = framed(300, raw_block(DATA), single_segment=single_segment, field_bytes=field_bytes, dictionary=dictionary)
    assert zstandard.ZstdDecompressor().decompress(stream) == DATA
    assert unpacked(stream + stream, "zstd", length=7) == DATA + DATA


@pytest.mark.parametrize("size", [0, 1, 255])
def test_a_size_of_one_byte_is_that_of_the_whole_frame(size: int) -> None:
    assert unpacked(framed(size, raw_block(DATA[:size]), single_segment=True), "zstd") == DATA[:size]


@pytest.mark.parametrize(("size", "field_bytes"), [(9, 1), (256, 2), (300, 2), (300, 4), (300, 8)])
def test_no_block_is_larger_than_a_frame_that_is_its_own_window(size: int, field_bytes: int) -> None:
    stream = framed(size, block(1, size + 1, b"x"), single_segment=True, field_bytes=field_bytes)
    with pytest.raises(DamagedImage, match=f"a block has type 1 and {size + 1} bytes"):
        unpacked(stream, "zstd")


@pytest.mark.parametrize("exponent", [0, 1, 3, 6])
@pytest.mark.parametrize("eighths", range(8))
def test_a_block_is_at_most_as_large_as_the_window_of_its_frame(exponent: int, eighths: int) -> None:
    window = (1024 << exponent) // 8 * (8 + eighths)
    descriptor = exponent << 3 | eighths
    assert unpacked(framed(None, block(1, window, b"x"), window=descriptor), "zstd") == b"x" * window
    with pytest.raises(DamagedImage, match=f"a block has type 1 and {window + 1} bytes"):
        unpacked(framed(None, block(1, window + 1, b"x"), window=descriptor), "zstd")


def test_a_block_has_128_kib_at_most_whatever_the_window() -> None:
    largest = 128 * 1024
    assert unpacked(framed(None, block(1, largest, b"x"), window=10 << 3), "zstd") == b"x" * largest
    with pytest.raises(DamagedImage, match=f"a block has type 1 and {largest + 1} bytes"):
        unpacked(framed(None, block(1, largest + 1, b"x"), window=10 << 3), "zstd")


def test_a_frame_that_is_its_own_window_has_128_mib_at_most() -> None:
    most = 128 * 1024 * 1024
    before = zstandard.compress(b"before")
    larger = framed(most + 1, raw_block(b""), single_segment=True, field_bytes=4)
    with pytest.raises(InvalidRequest, match=rf"{NAME}: .* frame at byte {len(before)} takes a window of {most + 1} "):
        unpacked(before + larger, "zstd")
    # As far as the window goes: it holds nothing of what it says.
    with pytest.raises(DamagedImage, match=f"at byte 0 of its zstd stream: the frame holds 0 bytes and says {most};"):
        unpacked(framed(most, raw_block(b""), single_segment=True, field_bytes=4), "zstd")


@pytest.mark.parametrize("number", [b"\x07", b"\0\x01", b"\x01\0", b"\0\0\0\x80"])
def test_a_dictionary_is_named_whatever_the_length_of_its_number(number: bytes) -> None:
    before = zstandard.compress(b"before")
    stream = before + framed(300, raw_block(DATA), field_bytes=2, dictionary=number)
    named = int.from_bytes(number, "little")
    with pytest.raises(InvalidRequest, match=rf"{NAME}: its frame at byte {len(before)} needs dictionary {named}, "):
        unpacked(stream, "zstd")


def test_a_damaged_header_is_told_by_where_its_frame_begins() -> None:
    before = zstandard.compress(b"before")
    reserved_bit = ZSTD_MAGIC + bytes([0x08, 0]) + raw_block(b"disk")
    with pytest.raises(DamagedImage, match=f"{NAME} is damaged at byte {len(before)} of its zstd stream"):
        unpacked(before + reserved_bit, "zstd")


def test_a_damaged_block_and_a_wrong_checksum_are_told_by_where_they_begin() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"disk " * 900)
    head = len(frame) - 4
    with pytest.raises(DamagedImage, match=f"at byte {head} of its zstd stream"):
        unpacked(frame[:-1] + bytes([frame[-1] ^ 1]), "zstd")
    begin = framed(None, b"")
    with pytest.raises(DamagedImage, match=f"at byte {len(begin)} of its zstd stream"):
        unpacked(begin + block(2, 5, b"\xff" * 5), "zstd")


@pytest.mark.parametrize("size", [299, 301])
@pytest.mark.parametrize("end", [b"", block(0, 0, b"")])
def test_a_frame_that_does_not_hold_what_it_says_is_found_damaged(size: int, end: bytes) -> None:
    """Also behind an empty last block, as compressors end what they are given piece by piece."""
    before = zstandard.compress(b"before")
    blocks = block(0, 300, DATA, last=not end) + end
    assert unpacked(framed(300, blocks, field_bytes=2), "zstd") == DATA
    with pytest.raises(DamagedImage, match=r"at byte \d+ of its zstd stream"):
        unpacked(before + framed(size, blocks, field_bytes=2), "zstd")
    if end and size > 300:
        with pytest.raises(DamagedImage, match=f"at byte {len(before)} .*holds 300 bytes and says {size}"):
            unpacked(before + framed(size, blocks, field_bytes=2), "zstd")


@pytest.mark.parametrize("magic", [b"\x27\xb5\x2f\xfd", b"\x60\x2a\x4d\x18", bytes.fromhex("25b52ffd")])
def test_what_begins_like_no_frame_is_never_skipped(magic: bytes) -> None:
    before = zstandard.compress(b"before")
    with pytest.raises(DamagedImage, match=f"something else follows from byte {len(before)} on"):
        unpacked(before + magic + (4).to_bytes(4, "little") + b"disk", "zstd")


def test_a_long_index_and_long_padding_give_moments_to_look_at_the_clock() -> None:
    index = skippable(bytes(300_000))
    assert pieces(index + framed(5, raw_block(b"12345"), single_segment=True), "zstd") == [b""] * 3 + [b"12345"]
    for codec, packed in PACKED.items():
        there = len(pieces(packed, codec))
        assert pieces(packed + bytes(300_000), codec)[there:] == [b""] * 3


# -- members of gzip, streams of bzip2 ---------------------------------------------------------------------------------

PACKED: dict[str, bytes] = {
    "gzip": gzip.compress(DATA),
    "bzip2": bz2.compress(DATA),
    "zstd": zstandard.compress(DATA),
}


def test_a_stream_of_zlib_is_no_member_of_gzip() -> None:
    with pytest.raises(DamagedImage, match="at byte 0 of its gzip stream"):
        unpacked(zlib.compress(DATA), "gzip")


@pytest.mark.parametrize("codec", PACKED)
def test_what_begins_wrongly_is_told_by_where_it_begins(codec: str) -> None:
    packed = PACKED[codec]
    broken = packed[:3] + b"\xff\xff\xff" + packed[6:] if codec == "bzip2" else b"\x1f\x8b\x09" + packed[3:]
    told = (
        f"{NAME} is damaged at byte {len(packed)} of its" if codec == "bzip2" else f"follows from byte {len(packed)} on"
    )
    with pytest.raises(DamagedImage, match=told):
        unpacked(packed + broken, codec)
    if codec != "bzip2":
        with pytest.raises(DamagedImage, match=f"{NAME} is damaged at byte 0 of its {codec} stream"):
            unpacked(broken, codec)


@pytest.mark.parametrize("codec", ["gzip", "bzip2"])
def test_what_is_cut_off_is_told_by_where_it_ends(codec: str) -> None:
    packed = PACKED[codec]
    for left in (1, 20, len(packed) - 1):
        with pytest.raises(DamagedImage, match=f"at byte {len(packed) + left} of its {codec} stream"):
            unpacked(packed + packed[:left], codec, length=16)


@pytest.mark.parametrize("codec", ["gzip", "bzip2"])
@pytest.mark.parametrize("length", [1, 40, 1 << 20])
def test_streams_that_unpack_to_far_more_than_they_have_follow_each_other(codec: str, length: int) -> None:
    """What a library has not yielded yet must not make it take bytes of the next stream, nor end too early."""
    pack: Callable[[bytes], bytes] = gzip.compress if codec == "gzip" else bz2.compress
    disks = [bytes(900_000), bytes(400_000) + b"end", b"", bytes(700_000)]
    assert unpacked(b"".join(map(pack, disks)), codec, length=length) == b"".join(disks)


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("garbage", [b"X", b"\0X", b"\0\0\0X\0\0"])
def test_only_zeros_are_padding(codec: str, garbage: bytes) -> None:
    with pytest.raises(DamagedImage):
        unpacked(PACKED[codec] + garbage, codec)


# -- the first bytes ---------------------------------------------------------------------------------------------------


def test_the_first_bytes_may_come_from_several_frames() -> None:
    for pack in (gzip.compress, bz2.compress):
        codec = "gzip" if pack is gzip.compress else "bzip2"
        assert first_unpacked(pack(b"one ") + pack(b"two"), codec, name=NAME) == b"one two"  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [512, 513])
def test_behind_the_first_bytes_nothing_is_unpacked(length: int) -> None:
    disk = random.Random(12).randbytes(length)
    behind = framed(300, raw_block(DATA), field_bytes=2, dictionary=b"\x07")
    assert first_unpacked(zstandard.compress(disk) + behind, "zstd", name=NAME) == disk[:512]
    with pytest.raises(InvalidRequest, match="needs dictionary 7"):
        first_unpacked(zstandard.compress(disk[:511]) + behind, "zstd", name=NAME)


# -- streams of xz -----------------------------------------------------------------------------------------------------


def index_of(stream: bytes) -> int:
    """Where the index of the last stream of xz begins."""
    return len(stream) - 12 - (int.from_bytes(stream[-8:-4], "little") + 1) * 4


def with_index(stream: bytes, index: bytes) -> bytes:
    """The stream with another index, without its checksum, and the footer that goes with it."""
    index += zlib.crc32(index).to_bytes(4, "little")
    fields = (len(index) // 4 - 1).to_bytes(4, "little") + stream[6:8]
    return stream[: index_of(stream)] + index + zlib.crc32(fields).to_bytes(4, "little") + fields + b"YZ"


def controls(stream: bytes) -> list[int]:
    """The first bytes of the chunks of a stream of one block."""
    found, at = [], 12 + (stream[12] + 1) * 4
    while stream[at]:
        control = stream[at]
        found.append(control)
        sizes = at + (3 if control >= 0x80 else 1)
        at = sizes + 2 + (control >= 0xC0) + int.from_bytes(stream[sizes : sizes + 2], "big") + 1
    return found


@pytest.mark.parametrize("length", [1_000, 1 << 20])
def test_chunks_of_every_kind_come_back(length: int) -> None:
    dice = random.Random(13)
    letters = bytes(dice.choices(range(64), k=120_000))
    noise = dice.randbytes(200_000)
    kinds = set()
    for disk in (letters, noise + letters, letters + noise + letters, noise + b"disk " * 5_000):
        stream = lzma.compress(disk, preset=1)
        kinds.update(controls(stream))
        assert unpacked(stream, "xz", length=length) == disk
    # Stored with and without a new dictionary; packed without, and with new properties, both of 64 KiB at most.
    assert kinds >= {0x01, 0x02, 0x80, 0xC0}


@pytest.mark.parametrize("control", [0x03, 0x7F])
def test_a_chunk_of_no_kind_is_told_by_where_it_begins(control: int) -> None:
    stream = lzma.compress(DATA)
    at = 12 + (stream[12] + 1) * 4
    with pytest.raises(DamagedImage, match=f"at byte {at} of its xz stream: a chunk begins with {control};"):
        unpacked(stream[:at] + bytes([control]) + stream[at + 1 :], "xz")


def test_what_is_no_stream_of_xz_is_told_by_where_it_begins() -> None:
    stream = lzma.compress(DATA)
    for other in (b"\xfd7zXZ\1" + stream[6:], gzip.compress(DATA), b"X" * 12):
        with pytest.raises(DamagedImage, match=f"something else follows from byte {len(stream)} on"):
            unpacked(stream + other, "xz")
        with pytest.raises(DamagedImage, match="at byte 0 of its xz stream: no stream begins with"):
            unpacked(other, "xz")


@pytest.mark.parametrize("zeros", [1, 2, 3, 5, 7])
def test_padding_between_streams_of_xz_is_whole_words(zeros: int) -> None:
    first, second = lzma.compress(DATA), lzma.compress(b"more")
    assert unpacked(first + bytes(8) + second, "xz") == DATA + b"more"
    with pytest.raises(DamagedImage, match=f"another xz stream begins at byte {len(first) + zeros}, behind"):
        unpacked(first + bytes(zeros) + second, "xz")


def test_zeros_in_front_are_no_padding() -> None:
    for codec, packed in (*PACKED.items(), ("xz", lzma.compress(DATA))):
        with pytest.raises(DamagedImage, match=f"at byte 0 of its {codec} stream"):
            unpacked(bytes(8) + packed, codec)


@pytest.mark.parametrize("size", [127, 128, 129, 16_383, 16_384, 16_512])
def test_lengths_in_an_index_take_as_many_bytes_as_they_need(size: int) -> None:
    disk = random.Random(size).randbytes(size)
    for pieces_of_it in ([disk], [disk, disk[:128]]):
        assert unpacked(xz_of_blocks(pieces_of_it), "xz") == b"".join(pieces_of_it)


def test_a_number_of_an_index_has_nine_bytes_at_most() -> None:
    stream = lzma.compress(DATA)
    for endless in (b"\x81" + b"\x80" * 8 + b"\0", b"\x81" + b"\x80" * 20):
        index = b"\0" + endless
        with pytest.raises(DamagedImage, match=rf"at byte {index_of(stream)} .* a number of the index has no end"):
            unpacked(with_index(stream, index + bytes(-len(index) % 4)), "xz")
    records = stream[index_of(stream) + 2 : -16].rstrip(b"\0")
    nine = b"\0\x81" + b"\x80" * 7 + b"\0" + records
    assert unpacked(with_index(stream, nine + bytes(-len(nine) % 4)), "xz") == DATA


def test_padding_of_an_index_is_zeros() -> None:
    lengths = set()
    for size in (10, 200, 20_000, 3_000_000):
        stream = lzma.compress(bytes(size))
        index = stream[index_of(stream) : -16]
        padding = len(index) - len(index.rstrip(b"\0"))
        lengths.add(padding)
        assert unpacked(with_index(stream, index), "xz") == bytes(size)
        for place in range(1, padding + 1):
            altered = index[: len(index) - place] + b"\x01" + index[len(index) - place + 1 :]
            with pytest.raises(DamagedImage, match=rf"at byte {index_of(stream)} .*does not fit its checksum"):
                unpacked(with_index(stream, altered), "xz")
    assert max(lengths) > 1


def test_a_long_index_gives_moments_to_look_at_the_clock() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    alone = lzma.compress(b"x", check=lzma.CHECK_NONE, filters=filters)
    record = alone[index_of(alone) + 2 : -16].rstrip(b"\0")
    count = 4_097
    index = b"\0" + bytes([count & 0x7F | 0x80, count >> 7]) + record * count
    blocks = alone[12 : index_of(alone)] * count
    stream = with_index(alone[:12] + blocks + alone[index_of(alone) :], index + bytes(-len(index) % 4))
    assert pieces(stream, "xz") == [b"x"] * count + [b""] * 2


def test_at_the_end_of_a_stream_unpacking_can_begin_with_what_follows_it() -> None:
    for codec, packed in (*PACKED.items(), ("xz", lzma.compress(DATA))):
        run = Unpacking(parts(packed), codec, name=NAME)  # type: ignore[arg-type]
        assert b"".join(run) == DATA
        assert run.restart == RestartPoint(len(packed), len(DATA))
