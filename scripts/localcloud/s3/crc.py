"""Cyclic checksums that Python has no function for, and how those of two neighbours become the one of both.

Arithmetic of polynomials over GF(2) in reflected bit order, as in zlib: the highest bit of a number is the coefficient
of 1. All of S3's begin with ones and end inverted. Source of the parameters: the catalogue of parametrised CRC
algorithms (CRC-32/ISO-HDLC, CRC-32/ISCSI, CRC-64/NVME); their check values are in the tests.
"""

from __future__ import annotations

import functools

_LANES = 4096
_LEAST_OF_LANE = 64
"""Bytes: in shorter ones joining the lanes would take longer than going through them."""


class Crc:
    """A checksum of ``width`` bits. ``reflected``: its polynomial in reflected bit order."""

    def __init__(self, *, width: int, reflected: int) -> None:
        self.size = width // 8
        self._width = width
        self._polynomial = reflected
        self._ones = (1 << width) - 1
        self._table = [self._advanced(byte) for byte in range(256)]
        self._planes = [bytes((entry >> 8 * plane) & 0xFF for entry in self._table) for plane in range(self.size)]

    def of(self, data: bytes) -> int:
        """The checksum of ``data``.

        Python goes through bytes one by one too slowly. So long data is cut into lanes of equal length, and one step is
        done for all of them together: ``translate`` is the look-up in the table, ``^`` of long numbers the addition.
        """
        lanes = min(_LANES, len(data) // _LEAST_OF_LANE)
        length = len(data) // lanes if lanes > 1 else 0
        head = len(data) - lanes * length if length else len(data)
        state = self._ones
        for byte in data[:head]:
            state = self._table[(state ^ byte) & 0xFF] ^ (state >> 8)
        if length:
            state = self._of_lanes(memoryview(data)[head:], state, lanes, length)
        return state ^ self._ones

    def combined(self, first: int, second: int, length: int) -> int:
        """The checksum of data whose first part has ``first``, and whose last ``length`` bytes have ``second``."""
        return self._product(self._shift(length), first) ^ second

    def _of_lanes(self, data: memoryview, state: int, lanes: int, length: int) -> int:
        planes = [(state >> 8 * plane) & 0xFF for plane in range(self.size)]  # of the first lane; others begin with 0
        for step in range(length):
            column = int.from_bytes(bytes(data[step::length]), "little")
            index = (planes[0] ^ column).to_bytes(lanes, "little")
            looked_up = [int.from_bytes(index.translate(table), "little") for table in self._planes]
            planes = [before ^ now for before, now in zip([*planes[1:], 0], looked_up, strict=True)]
        columns = [plane.to_bytes(lanes, "little") for plane in planes]
        tables = self._shift_tables(length)
        total = 0
        for lane in range(lanes):
            shifted = 0
            for place, table in enumerate(tables):
                shifted ^= table[(total >> 8 * place) & 0xFF]
            total = shifted
            for place, column_bytes in enumerate(columns):
                total ^= column_bytes[lane] << 8 * place
        return total

    def _advanced(self, byte: int) -> int:
        for _ in range(8):
            byte = (byte >> 1) ^ self._polynomial if byte & 1 else byte >> 1
        return byte

    def _product(self, first: int, second: int) -> int:
        total, bit = 0, 1 << (self._width - 1)
        while bit:
            if first & bit:
                total ^= second
            second = (second >> 1) ^ self._polynomial if second & 1 else second >> 1
            bit >>= 1
        return total

    @functools.lru_cache(maxsize=64)  # noqa: B019 - there are three of these, as long as the process lives
    def _shift(self, length: int) -> int:
        """The polynomial that moves a remainder ``length`` bytes on."""
        power, square, exponent = 1 << (self._width - 1), 1 << (self._width - 2), 8 * length
        while exponent:
            if exponent & 1:
                power = self._product(power, square)
            square = self._product(square, square)
            exponent >>= 1
        return power

    @functools.lru_cache(maxsize=64)  # noqa: B019 - as above
    def _shift_tables(self, length: int) -> list[list[int]]:
        """For each byte of a remainder and each of its values: where moving it ``length`` bytes on takes it."""
        shift = self._shift(length)
        bits = [self._product(shift, 1 << bit) for bit in range(self._width)]
        tables = []
        for place in range(self.size):
            table = [0] * 256
            for value in range(1, 256):
                lowest = value & -value
                table[value] = table[value ^ lowest] ^ bits[8 * place + lowest.bit_length() - 1]
            tables.append(table)
        return tables


CRC32 = Crc(width=32, reflected=0xEDB88320)
CRC32C = Crc(width=32, reflected=0x82F63B78)
CRC64NVME = Crc(width=64, reflected=0x9A6C9329AC4BC9B5)
