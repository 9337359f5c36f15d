"""What compressed images tell of their size before they are unpacked, as real compressors write them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os

import lz4.frame
import pytest
import zstandard
from blockferry.formats.recognise import PackedCodec
from blockferry.formats.told import END_BYTES, ToldSize, told_size

RAW = b"".join(os.urandom(200) + bytes(3_000) for _ in range(40))
SKIPPABLE = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"abcd"


def told(codec: PackedCodec, packed: bytes) -> ToldSize | None:
    return told_size(codec, packed[:65_536], packed[-END_BYTES:], len(packed))


@pytest.mark.parametrize("before", [b"", SKIPPABLE, 2 * SKIPPABLE], ids=["at once", "behind one", "behind two"])
def test_a_frame_of_zstd_tells_its_size(before: bytes) -> None:
    found = told("zstd", before + zstandard.compress(RAW))
    by = f"the header of its first zstd frame ({len(RAW):,} bytes; more if others follow)"
    assert found == ToldSize(len(RAW), by, least=True)


def test_a_frame_of_zstd_that_was_written_as_a_stream_tells_none() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    assert told("zstd", stream.compress(RAW) + stream.flush()) is None
    assert told("zstd", SKIPPABLE) is None


def test_a_frame_of_lz4_tells_its_size_if_it_was_packed_with_it() -> None:
    by = f"the header of its first lz4 frame ({len(RAW):,} bytes; more if others follow)"
    assert told("lz4", lz4.frame.compress(RAW)) == ToldSize(len(RAW), by, least=True)
    assert told("lz4", lz4.frame.compress(RAW, store_size=False)) is None
    assert told("lz4", SKIPPABLE) is None
    assert told("lz4", lz4.frame.compress(RAW)[:13]) is None


def test_a_member_of_gzip_tells_its_size_and_that_it_may_be_some_times_four_gibibytes_more() -> None:
    found = told("gzip", gzip.compress(RAW))
    by = f"the end of its gzip stream ({len(RAW):,} bytes, or a multiple of 4 GiB more)"
    assert found == ToldSize(len(RAW), by, least=False)


@pytest.mark.parametrize(
    ("size_bytes", "raw"),
    [(1_000, 7), (3 * 2**30, 2**32 + 7), (2**32, 2**32 + 7), (9 * 2**30, 3 * 2**32 + 7)],
)
def test_a_gzip_stream_holds_no_less_than_it_was_packed_to(size_bytes: int, raw: int) -> None:
    found = told_size("gzip", b"", (7).to_bytes(4, "little"), size_bytes)
    assert found is not None
    assert found.raw_bytes == raw


def test_random_data_which_gzip_makes_larger_is_told_as_it_is() -> None:
    data = os.urandom(300_000)
    packed = gzip.compress(data)
    assert len(packed) > len(data)
    found = told("gzip", packed)
    assert found is not None
    assert found.raw_bytes == len(data)


@pytest.mark.parametrize("padding", [0, 8])
def test_the_index_of_xz_tells_the_size_of_its_only_stream(padding: int) -> None:
    found = told("xz", lzma.compress(RAW) + bytes(padding))
    assert found == ToldSize(len(RAW), f"its xz index ({len(RAW):,} bytes)", least=True)


def test_of_several_streams_of_xz_the_last_one_tells() -> None:
    found = told("xz", lzma.compress(RAW) + lzma.compress(RAW[:1000]))
    by = "the index of the last of its xz streams (1,000 bytes; more with the others)"
    assert found == ToldSize(1000, by, least=True)


def test_an_index_of_xz_that_is_damaged_or_not_all_there_tells_none() -> None:
    packed = lzma.compress(RAW)
    for at in (-13, -20, -8, -12, -1):
        damaged = bytearray(packed)
        damaged[at] ^= 1
        assert told("xz", bytes(damaged)) is None, at
    assert told_size("xz", b"", packed[-16:], len(packed)) is None
    assert told_size("xz", b"", b"YZ", len(packed)) is None


def test_bzip2_tells_none() -> None:
    assert told("bzip2", bz2.compress(RAW)) is None
