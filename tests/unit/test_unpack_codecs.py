from __future__ import annotations

import bz2
import gzip
import lzma
import random
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator

import lz4.frame
import pytest
import zstandard
from blockferry.core.errors import InvalidRequest
from blockferry.formats.codecs import Unpacking, first_unpacked
from blockferry.formats.errors import DamagedImage
from blockferry.formats.stream import MAX_PIECE, RestartPoint
from hypothesis import given
from hypothesis import strategies as st
from image_files import xz_of_blocks

NAME = "s3://images/disk"

BITES = (1, 3, 7, 1 << 20)
"""Lengths of the parts in which a stream arrives."""


def bitten(stream: bytes, bite: int, start: int = 0) -> Iterator[bytes]:
    for at in range(start, len(stream), bite):
        yield stream[at : at + bite]


def unpacking(stream: bytes, codec: str, *, bite: int = 1 << 20, start: RestartPoint | None = None) -> Unpacking:
    begin = start or RestartPoint()
    return Unpacking(bitten(stream, bite, begin.compressed_offset), codec, name=NAME, start=start)


def unpacked(stream: bytes, codec: str, *, bite: int = 1 << 20) -> bytes:
    return b"".join(unpacking(stream, codec, bite=bite))


def zstd(data: bytes, *, level: int = 3, size: bool = True, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_content_size=size, write_checksum=checksum).compress(data)


def streamed_zstd(pieces: Iterator[bytes], *, window_log: int = 17) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_checksum=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return b"".join(compressor.compress(piece) for piece in pieces) + compressor.flush()


def skippable(content: bytes, kind: int = 0) -> bytes:
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def block(kind: int, size: int, content: bytes, *, last: bool) -> bytes:
    return (int(last) | kind << 1 | size << 3).to_bytes(3, "little") + content


def raw_and_rle(data: bytes, zeros: int) -> bytes:
    """A frame of a raw block and an RLE block, with a window of 128 KiB, neither size nor checksum."""
    header = zstandard.MAGIC_NUMBER.to_bytes(4, "little") + bytes([0, 7 << 3])
    return header + block(0, len(data), data, last=False) + block(1, zeros, b"\0", last=True)


def lz4_of(data: bytes) -> bytes:
    """A frame with every checksum there is."""
    return lz4.frame.compress(data, block_checksum=True, content_checksum=True)


CONTENT = random.Random(4).randbytes(300) + bytes(2_000) + b"a disk " * 90


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=4), st.sampled_from(BITES), st.integers(1, 9))
def test_gzip_of_one_or_many_members_comes_back(members: list[bytes], bite: int, level: int) -> None:
    stream = b"".join(gzip.compress(member, level) for member in members)
    assert unpacked(stream, "gzip", bite=bite) == b"".join(members)


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=4), st.sampled_from(BITES), st.integers(1, 9))
def test_bzip2_of_one_or_many_streams_comes_back(streams: list[bytes], bite: int, level: int) -> None:
    stream = b"".join(bz2.compress(data, level) for data in streams)
    assert unpacked(stream, "bzip2", bite=bite) == b"".join(streams)


CHECKS = (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256)


@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=2_000), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(BITES),
    st.sampled_from(CHECKS),
    st.integers(0, 3),
)
def test_xz_of_many_streams_of_many_blocks_comes_back(
    streams: list[list[bytes]], bite: int, check: int, padding: int
) -> None:
    packed = [xz_of_blocks(blocks, check=check) for blocks in streams]
    whole = b"".join(b"".join(blocks) for blocks in streams)
    assert lzma.decompress(b"".join(packed)) == whole
    assert unpacked(b"".join(stream + bytes(4 * padding) for stream in packed), "xz", bite=bite) == whole


@given(
    st.lists(
        st.tuples(st.binary(max_size=3_000), st.booleans(), st.booleans(), st.binary(max_size=20)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(BITES),
    st.integers(-5, 19),
)
def test_zstd_of_one_or_many_frames_comes_back(
    frames: list[tuple[bytes, bool, bool, bytes]], bite: int, level: int
) -> None:
    stream = b"".join(
        zstd(data, level=level, size=size, checksum=checksum) + (skippable(extra) if extra else b"")
        for data, size, checksum, extra in frames
    )
    assert unpacked(stream, "zstd", bite=bite) == b"".join(frame[0] for frame in frames)


@given(st.binary(max_size=2_000), st.integers(0, MAX_PIECE), st.sampled_from(BITES))
def test_raw_and_rle_blocks_come_back(data: bytes, zeros: int, bite: int) -> None:
    assert unpacked(raw_and_rle(data, zeros), "zstd", bite=bite) == data + bytes(zeros)


@pytest.mark.parametrize("level", [-3, 1, 3, 12, 19])
def test_frames_of_many_blocks_come_back_at_every_level(level: int) -> None:
    data = random.Random(1).randbytes(400_000) + bytes(700_000) + random.Random(2).randbytes(1_000) * 500
    assert unpacked(zstd(data, level=level), "zstd", bite=50_000) == data
    tenth = max(level, 1) % 10
    assert unpacked(gzip.compress(data, tenth), "gzip", bite=50_000) == data
    assert unpacked(bz2.compress(data, tenth), "bzip2", bite=50_000) == data
    assert unpacked(lzma.compress(data, preset=tenth), "xz", bite=50_000) == data


def filtered_xz(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 3}]
    return lzma.compress(data, check=lzma.CHECK_SHA256, filters=filters)


def test_xz_with_another_filter_in_front_comes_back() -> None:
    code = random.Random(3).randbytes(5_000) + b"\xe8\x01\x02\x03\x00" * 40_000
    assert unpacked(filtered_xz(code), "xz", bite=777) == code


@pytest.mark.skipif(shutil.which("xz") is None, reason="xz is not installed")
def test_what_xz_makes_with_threads_comes_back_and_can_be_entered_at_every_block() -> None:
    data = random.Random(8).randbytes(300_000) + bytes(900_000)
    command = ["xz", "--threads=2", "--block-size=100000", "-1", "-c"]
    stream = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    run = unpacking(stream, "xz")
    points = {run.restart for _ in run}
    assert {point.raw_offset for point in points} == set(range(0, 1_200_001, 100_000))
    for point in points:
        assert b"".join(unpacking(stream, "xz", start=point)) == data[point.raw_offset :]


@pytest.mark.parametrize(
    ("codec", "stream"),
    [
        ("gzip", gzip.compress(CONTENT)),
        ("bzip2", bz2.compress(CONTENT)),
        ("lz4", lz4_of(CONTENT)),
        ("lz4", lz4.frame.compress(CONTENT, store_size=False)),
        ("xz", xz_of_blocks([CONTENT[:900], CONTENT[900:]])),
        ("xz", filtered_xz(CONTENT)),
        ("zstd", zstd(CONTENT)),
        ("zstd", zstd(CONTENT, size=False, checksum=False)),
        ("zstd", skippable(b"index") + zstd(CONTENT)),
        ("zstd", raw_and_rle(CONTENT, 5_000)),
    ],
)
def test_a_stream_cut_off_at_any_byte_is_found_damaged(codec: str, stream: bytes) -> None:
    boundary = len(skippable(b"index")) if stream.startswith(b"\x50") else 0
    for length in set(range(1, len(stream))) - {boundary}:
        with pytest.raises(DamagedImage, match=rf"{NAME} is damaged at byte \d+ of its {codec} stream"):
            unpacked(stream[:length], codec)


@pytest.mark.parametrize(
    ("codec", "stream"),
    [
        ("gzip", gzip.compress(CONTENT)),
        ("bzip2", bz2.compress(CONTENT)),
        ("lz4", lz4_of(CONTENT)),
        ("xz", xz_of_blocks([CONTENT[:900], CONTENT[900:]])),
        ("zstd", zstd(CONTENT)),
        ("zstd", zstd(CONTENT, size=False)),
    ],
)
def test_an_altered_byte_is_found_or_changes_nothing(codec: str, stream: bytes) -> None:
    found = 0
    for at in range(len(stream)):
        for flip in (0x01, 0x10, 0x80, 0xFF):
            altered = stream[:at] + bytes([stream[at] ^ flip]) + stream[at + 1 :]
            try:
                assert unpacked(altered, codec) == CONTENT
            except (DamagedImage, InvalidRequest):
                found += 1
    # Every byte of xz is under a checksum; of the others some are not, such as the name of the system.
    assert found == 4 * len(stream) if codec == "xz" else found > 3 * len(stream)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "lz4": lz4_of,
}


@pytest.mark.parametrize("garbage", [b"x", b"\0x", bytes(8) + b"x", bytes(100_000) + b"x", "one more", "a cut one"])
@pytest.mark.parametrize("codec", PACK)
def test_what_follows_the_end_is_refused(codec: str, garbage: str | bytes) -> None:
    more = {"one more": bytes(3) + PACK[codec](b"more"), "a cut one": PACK[codec](b"more")[:2]}
    follows = garbage if isinstance(garbage, bytes) else more[garbage]
    with pytest.raises(DamagedImage):
        unpacked(PACK[codec](CONTENT) + follows, codec)


@pytest.mark.parametrize("zeros", [1, 3, 8, 70_000, 300_000])
@pytest.mark.parametrize("codec", PACK)
def test_zeros_behind_the_end_are_padding(codec: str, zeros: int) -> None:
    assert unpacked(PACK[codec](CONTENT) + bytes(zeros), codec, bite=512) == CONTENT


@pytest.mark.parametrize("codec", PACK)
def test_zeros_alone_are_damage(codec: str) -> None:
    with pytest.raises(DamagedImage):
        unpacked(bytes(1_000), codec)


@pytest.mark.parametrize(
    "garbage", [b"x", bytes(8) + b"x", b"\x28\xb5\x2f", skippable(b"abc")[:-1], b"\x28\xb5\x2f\xfc\0\0"]
)
def test_what_follows_the_last_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(DamagedImage):
        unpacked(zstd(CONTENT) + garbage, "zstd")


def test_damage_is_told_by_its_place_in_the_whole_stream() -> None:
    first, second = zstd(b"one"), zstd(CONTENT)
    damaged = first + second[:-8] + bytes([second[-8] ^ 0x10]) + second[-7:]
    with pytest.raises(DamagedImage) as found:
        unpacked(damaged, "zstd")
    told = re.search(r"at byte (\d+) of its zstd stream", str(found.value))
    assert told is not None
    assert len(first) <= int(told[1]) < len(damaged)


@pytest.mark.parametrize("bite", BITES)
@pytest.mark.parametrize("zeros", [0, 1, 4, 700])
@pytest.mark.parametrize("codec", PACK)
def test_what_is_behind_a_stream_is_told_by_its_first_byte_and_how_to_cut_it_off(
    codec: str, zeros: int, bite: int
) -> None:
    stream = PACK[codec](CONTENT)
    end, first = len(stream), len(stream) + zeros
    run = Unpacking(bitten(stream + bytes(zeros) + b"a note" * 999, bite), codec, name="s3://images/my disk.img")
    with pytest.raises(DamagedImage) as found:
        list(run)
    behind = f", behind {zeros} zeros" if zeros else ""
    assert str(found.value) == (
        f"image s3://images/my disk.img: its {codec} stream ends at byte {end}, and something else follows from byte "
        f"{first} on{behind} (it begins with {b'a note'.hex()}). If that is not part of the disk, cut it off with "
        f"`head -c {end} 'my disk.img' > 'cut-my disk.img'` and upload the image again; if it is, the stream is "
        "damaged there: compress the image again"
    )


@pytest.mark.parametrize("codec", PACK)
def test_another_stream_behind_zeros_is_told_as_one(codec: str) -> None:
    stream = PACK[codec](CONTENT)
    with pytest.raises(DamagedImage) as found:
        unpacked(stream + bytes(3) + stream, codec)
    told = f"another {codec} stream begins at byte {len(stream) + 3}, behind 3 zeros"
    assert told in str(found.value)
    assert str(found.value).endswith("if it is, join the two without the zeros")


@pytest.mark.parametrize("codec", ["gzip", "bzip2"])
def test_a_second_stream_that_is_cut_off_is_told_by_where_it_begins(codec: str) -> None:
    stream = PACK[codec](CONTENT)
    for length in (1, 2, 3, 40):
        with pytest.raises(DamagedImage, match=f"in the middle of what begins at byte {len(stream)};"):
            unpacked(stream + stream[:length], codec)


# -- what only lz4 has -------------------------------------------------------------------------------------------------

LZ4_MADE = {
    "lz4 -1": "04224d186440a71f0000007f61206469736b200700ffff5e1f000100ffffffffffffffbe500000000000000000000c8b9df5",
    "lz4 -9 -BD -BX -B4 --content-size": "04224d187c40460a000000000000581f0000007f61206469736b20"
    "0700ffff5e1f000100ffffffffffffffbe500000000000667888e7000000000c8b9df5",
}
"""What the program lz4 (1.9.4) makes of ``LZ4_CONTENT``, in hexadecimal."""

LZ4_CONTENT = b"a disk " * 90 + bytes(2_000)


@pytest.mark.parametrize("bite", BITES)
@pytest.mark.parametrize("how", LZ4_MADE)
def test_what_lz4_makes_comes_back(how: str, bite: int) -> None:
    assert unpacked(bytes.fromhex(LZ4_MADE[how]), "lz4", bite=bite) == LZ4_CONTENT


@given(
    st.lists(st.binary(max_size=3_000), min_size=1, max_size=4),
    st.sampled_from(BITES),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from((4, 5, 6, 7)),
)
def test_lz4_of_one_or_many_frames_comes_back(
    frames: list[bytes], bite: int, linked: bool, checked: bool, sized: bool, block_size: int
) -> None:
    stream = b"".join(
        lz4.frame.compress(
            frame,
            block_linked=linked,
            block_checksum=checked,
            content_checksum=not checked,
            store_size=sized,
            block_size=block_size,
        )
        for frame in frames
    )
    assert unpacked(stream, "lz4", bite=bite) == b"".join(frames)


def test_blocks_of_four_mebibytes_come_in_small_pieces() -> None:
    data = random.Random(6).randbytes(4 << 20) + bytes(5 << 20)
    lengths = [len(piece) for piece in unpacking(lz4.frame.compress(data, block_size=7), "lz4")]
    assert (sum(lengths), max(lengths)) == (len(data), MAX_PIECE)


def lz4_header(flags: int, block: int, more: bytes = b"") -> bytes:
    return bytes.fromhex("04224d18") + bytes([flags, block]) + more + b"\0"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (lz4_header(0x20, 0x40), "no header has the flags 2040"),
        (lz4_header(0x42, 0x40), "no header has the flags 4240"),
        (lz4_header(0x40, 0x30), "no header has the flags 4030"),
        (lz4_header(0x40, 0x41), "no header has the flags 4041"),
        (lz4_header(0x40, 0xC0), "no header has the flags 40c0"),
        (lz4_header(0x40, 0x40), "headerChecksum"),
    ],
)
def test_a_header_of_lz4_that_cannot_be_is_damage(header: bytes, told: str) -> None:
    with pytest.raises(DamagedImage, match=rf"damaged at byte 0 of its lz4 stream: .*{told}"):
        unpacked(header + bytes(100), "lz4")


def test_a_block_of_lz4_that_is_larger_than_its_frame_allows_asks_for_no_memory() -> None:
    header = lz4.frame.compress(b"", store_size=False)[:7]
    for size in (0x7FFF_FFFF, 0xFFFF_FFFF, 65_537):
        with pytest.raises(DamagedImage, match=f"at byte 7 .* a block has {size & 0x7FFF_FFFF} bytes"):
            unpacked(header + size.to_bytes(4, "little") + b"x", "lz4")


def test_a_frame_of_lz4_that_says_another_size_is_damage() -> None:
    stream = lz4.frame.compress(CONTENT)
    other = lz4.frame.compress(CONTENT + b"x")[:15] + stream[15:]
    with pytest.raises(DamagedImage, match=f"the frame holds {len(CONTENT)} bytes and says {len(CONTENT) + 1}"):
        unpacked(other, "lz4")


def test_frames_of_lz4_that_cannot_be_read_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=f"{NAME}: its frame at byte 0 needs dictionary 7"):
        unpacked(lz4_header(0x41, 0x40, (7).to_bytes(4, "little")), "lz4")
    with pytest.raises(InvalidRequest, match=f"{NAME}: its frame at byte 0 is of lz4's legacy format.* without -l"):
        unpacked(bytes.fromhex("02214c18") + bytes(20), "lz4")


# ----------------------------------------------------------------------------------------------------------------------


def test_reserved_and_oversized_blocks_are_refused() -> None:
    header = zstandard.MAGIC_NUMBER.to_bytes(4, "little") + bytes([0, 0])
    for damaged in (
        block(3, 1, b"x", last=True),
        block(1, 1_025, b"x", last=True),
        block(0, 2_000, bytes(2_000), last=True),
    ):
        with pytest.raises(DamagedImage, match="a block has type"):
            unpacked(header + damaged, "zstd")


def test_a_window_of_128_mib_is_taken_and_a_larger_one_is_refused_by_name() -> None:
    assert unpacked(streamed_zstd(iter([CONTENT]), window_log=27), "zstd") == CONTENT
    with pytest.raises(InvalidRequest, match=rf"{NAME}.* window of {1 << 28} bytes.*--long=27"):
        unpacked(streamed_zstd(iter([CONTENT]), window_log=28), "zstd")


def test_a_frame_that_needs_a_dictionary_is_refused_by_name() -> None:
    samples = [f"sample {n} of a disk, {n * n}".encode() * 3 for n in range(500)]
    dictionary = zstandard.train_dictionary(1_000, samples)
    stream = zstandard.ZstdCompressor(dict_data=dictionary).compress(CONTENT)
    with pytest.raises(InvalidRequest, match=f"{NAME}.*needs dictionary {dictionary.dict_id()}"):
        unpacked(stream, "zstd")


def zero_gzip(size: int) -> bytes:
    """A member of ``size`` zeros whose deflate stream repeats that of its first 2 MiB: made in no time."""
    deflate = zlib.compressobj(9, wbits=-15)
    piece = deflate.compress(bytes(2 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(size >> 21):
        crc = zlib.crc32(bytes(2 << 20), crc)
    header = gzip.compress(b"")[:10]
    trailer = crc.to_bytes(4, "little") + (size % (1 << 32)).to_bytes(4, "little")
    return header + piece * (size >> 21) + deflate.flush() + trailer


@pytest.mark.parametrize("codec", PACK)
def test_a_gibibyte_of_zeros_comes_in_small_pieces(codec: str) -> None:
    size = 1 << 30
    zeros = (bytes(1 << 20) for _ in range(size >> 20))
    if codec == "gzip":
        stream = zero_gzip(size)
    elif codec == "lz4":
        stream = PACK[codec](bytes(size))
    elif codec == "zstd":
        stream = streamed_zstd(zeros, window_log=23)
    else:
        # Slower to make, and as many of them are the same.
        stream = PACK[codec](bytes(size >> 4)) * 16
    lengths = [len(piece) for piece in unpacking(stream, codec)]
    assert sum(lengths) == size
    assert max(lengths) <= MAX_PIECE


MANY: dict[str, Callable[[list[bytes]], bytes]] = {
    "gzip": lambda pieces: b"".join(map(gzip.compress, pieces)),
    "bzip2": lambda pieces: b"".join(map(bz2.compress, pieces)),
    "xz": lambda pieces: b"".join(map(lzma.compress, pieces)),
    "xz of blocks": xz_of_blocks,
    "xz of both": lambda pieces: xz_of_blocks(pieces[:3]) + bytes(8) + xz_of_blocks(pieces[3:], check=lzma.CHECK_CRC32),
    "zstd": lambda pieces: b"".join(zstd(piece) + skippable(b"x") for piece in pieces),
    "lz4": lambda pieces: b"".join(lz4_of(piece) + skippable(b"x") for piece in pieces),
}


@pytest.mark.parametrize("how", MANY)
def test_unpacking_goes_on_from_every_restart_point(how: str) -> None:
    pieces = [random.Random(seed).randbytes(seed * 50_000) + bytes(seed) for seed in range(1, 6)]
    codec = how.split()[0]
    stream = MANY[how](pieces) + bytes(10)
    whole = b"".join(pieces)
    run = unpacking(stream, codec)
    points = {run.restart} | {run.restart for _ in run} | {run.restart}
    assert {point.raw_offset for point in points} == {len(b"".join(pieces[:n])) for n in range(6)}
    for point in points:
        assert b"".join(unpacking(stream, codec, bite=999, start=point)) == whole[point.raw_offset :]


# -- what only xz has --------------------------------------------------------------------------------------------------

TWO = xz_of_blocks([b"one block " * 90, b"another block " * 70])


def index_of(stream: bytes) -> int:
    """Where the index of the last stream begins."""
    return len(stream) - 12 - (int.from_bytes(stream[-8:-4], "little") + 1) * 4


def test_an_index_that_lists_other_blocks_is_found_damaged_from_every_restart_point() -> None:
    blocks = [b"a" * 500, b"b" * 600, b"c" * 700]
    stream = xz_of_blocks(blocks)
    other = xz_of_blocks([b"a" * 500, b"b" * 601, b"c" * 700])
    mixed = stream[: index_of(stream)] + other[index_of(other) :]
    run = unpacking(stream, "xz")
    points = sorted({run.restart for _ in run}, key=lambda point: point.raw_offset)
    assert [point.raw_offset for point in points] == [0, 500, 1_100, 1_800]
    for point in points:
        with pytest.raises(DamagedImage, match=rf"at byte {index_of(stream)} .*index does not list the blocks"):
            list(unpacking(mixed, "xz", start=point))


def test_a_block_that_is_missing_or_there_twice_is_found_damaged() -> None:
    first = len(xz_of_blocks([b"one block " * 90])[12 : index_of(xz_of_blocks([b"one block " * 90]))])
    start, stop = 12, 12 + first
    for damaged in (TWO[:start] + TWO[stop:], TWO[:stop] + TWO[start:stop] + TWO[stop:]):
        with pytest.raises(DamagedImage, match="index does not list the blocks"):
            unpacked(damaged, "xz")


def test_a_block_that_does_not_fit_its_check_is_found_damaged() -> None:
    stream = lzma.compress(CONTENT, check=lzma.CHECK_SHA256)
    at = index_of(stream) - 1
    altered = stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]
    with pytest.raises(DamagedImage, match="Corrupt input data"):
        unpacked(altered, "xz")


def test_a_check_that_nobody_knows_is_refused() -> None:
    flags = bytes([0, 2])
    header = b"\xfd7zXZ\0" + flags + zlib.crc32(flags).to_bytes(4, "little")
    with pytest.raises(InvalidRequest, match=rf"{NAME}.*checked in a way that is not known \(2\)"):
        unpacked(header + TWO[12:], "xz")


def test_xz_at_its_highest_level_is_taken_and_a_larger_dictionary_is_refused_by_name() -> None:
    def packed(dictionary: int) -> bytes:
        return lzma.compress(CONTENT, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": dictionary}])

    # The size of the dictionary is written, not what the content needs of it.
    for dictionary in (64 << 20, 128 << 20):
        assert unpacked(packed(dictionary), "xz") == CONTENT
    with pytest.raises(InvalidRequest, match=rf"{NAME}: unpacking its block at byte 12 takes more than .*xz -9"):
        unpacked(packed(192 << 20), "xz")


@pytest.mark.parametrize("codec", PACK)
def test_the_first_bytes_are_unpacked_from_the_beginning_alone(codec: str) -> None:
    packed = PACK[codec](CONTENT)
    assert first_unpacked(packed, codec, name=NAME) == CONTENT[:512]  # type: ignore[arg-type]
    assert first_unpacked(packed[:10], codec, name=NAME) == b""  # type: ignore[arg-type]
    assert first_unpacked(PACK[codec](b"short"), codec, name=NAME) == b"short"  # type: ignore[arg-type]
