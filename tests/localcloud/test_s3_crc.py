"""Checksums that Python has no function for, against their published values and against zlib."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from localcloud.s3.crc import CRC32, CRC32C, CRC64NVME, Crc

from .s3_clients import noise

CHECK = b"123456789"


@pytest.mark.parametrize(("crc", "value"), [(CRC32, 0xCBF43926), (CRC32C, 0xE3069283), (CRC64NVME, 0xAE8B14860A799888)])
def test_the_check_value_of_the_catalogue(crc: Crc, value: int) -> None:
    assert crc.of(CHECK) == value


@pytest.mark.parametrize("size", [0, 1, 63, 127, 128, 129, 255, 1000, 65_537, 300_007])
def test_long_data_in_lanes_has_the_checksum_of_zlib(size: int) -> None:
    assert CRC32.of(noise(size)) == zlib.crc32(noise(size))


@pytest.mark.parametrize("crc", [CRC32, CRC32C, CRC64NVME])
def test_lanes_do_not_change_a_checksum(crc: Crc) -> None:
    data, total = noise(5000), crc.of(b"")
    for at in range(0, len(data), 100):  # too short for lanes
        total = crc.combined(total, crc.of(data[at : at + 100]), 100)
    assert crc.of(data) == total


@given(first=st.binary(), second=st.binary())
def test_two_checksums_become_that_of_both(first: bytes, second: bytes) -> None:
    for crc in (CRC32, CRC32C, CRC64NVME):
        assert crc.combined(crc.of(first), crc.of(second), len(second)) == crc.of(first + second)
