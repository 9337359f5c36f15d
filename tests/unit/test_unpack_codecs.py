from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from blockferry.errors import InvalidRequest
from blockferry.images.codecs import MAX_PIECE, RestartPoint, Unpacking
from blockferry.images.errors import DamagedImage
from hypothesis import given
from hypothesis import strategies as st

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


CONTENT = random.Random(4).randbytes(300) + bytes(2_000) + b"a disk " * 90


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=4), st.sampled_from(BITES), st.integers(1, 9))
def test_gzip_of_one_or_many_members_comes_back(members: list[bytes], bite: int, level: int) -> None:
    stream = b"".join(gzip.compress(member, level) for member in members)
    assert unpacked(stream, "gzip", bite=bite) == b"".join(members)


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
    assert unpacked(gzip.compress(data, max(level, 1) % 10), "gzip", bite=50_000) == data


@pytest.mark.parametrize(
    ("codec", "stream"),
    [
        ("gzip", gzip.compress(CONTENT)),
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
    [("gzip", gzip.compress(CONTENT)), ("zstd", zstd(CONTENT)), ("zstd", zstd(CONTENT, size=False))],
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
    assert found > 3 * len(stream)


@pytest.mark.parametrize("garbage", [b"x", b"\0x", bytes(100_000) + gzip.compress(b"more", mtime=0), b"\x1f\x8b"])
def test_what_follows_the_last_member_is_refused(garbage: bytes) -> None:
    with pytest.raises(DamagedImage):
        unpacked(gzip.compress(CONTENT) + garbage, "gzip")


def test_zeros_behind_the_last_member_are_padding() -> None:
    assert unpacked(gzip.compress(CONTENT) + bytes(70_000), "gzip", bite=512) == CONTENT


@pytest.mark.parametrize("garbage", [b"x", bytes(8), b"\x28\xb5\x2f", skippable(b"abc")[:-1], b"\x28\xb5\x2f\xfc\0\0"])
def test_what_follows_the_last_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(DamagedImage):
        unpacked(zstd(CONTENT) + garbage, "zstd")


def test_damage_is_told_by_its_place_in_the_whole_stream() -> None:
    first = zstd(b"one")
    with pytest.raises(DamagedImage, match=f"at byte {len(first)} "):
        unpacked(first + b"\x27\xb5\x2f\xfd", "zstd")


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


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_gibibyte_of_zeros_comes_in_small_pieces(codec: str) -> None:
    size = 1 << 30
    zeros = (bytes(1 << 20) for _ in range(size >> 20))
    stream = zero_gzip(size) if codec == "gzip" else streamed_zstd(zeros, window_log=23)
    lengths = [len(piece) for piece in unpacking(stream, codec)]
    assert sum(lengths) == size
    assert max(lengths) <= MAX_PIECE


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_unpacking_goes_on_from_every_restart_point(codec: str) -> None:
    pieces = [random.Random(seed).randbytes(seed * 50_000) + bytes(seed) for seed in range(1, 6)]
    if codec == "gzip":
        stream = b"".join(gzip.compress(piece) for piece in pieces) + bytes(10)
    else:
        stream = b"".join(zstd(piece) + skippable(b"x") for piece in pieces)
    whole = b"".join(pieces)
    run = unpacking(stream, codec)
    points = {run.restart} | {run.restart for _ in run} | {run.restart}
    assert {point.raw_offset for point in points} == {len(b"".join(pieces[:n])) for n in range(6)}
    for point in points:
        assert b"".join(unpacking(stream, codec, bite=999, start=point)) == whole[point.raw_offset :]
