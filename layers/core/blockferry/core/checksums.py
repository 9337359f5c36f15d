"""SHA-256 of blocks and the LINEAR aggregate of a snapshot."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode

from blockferry.core.blocks import BLOCK_SIZE

DIGEST_SIZE = 32

ZERO_BLOCK = bytes(BLOCK_SIZE)

ZERO_DIGEST = hashlib.sha256(ZERO_BLOCK).digest()
"""Digest of a block of zeros: known blocks of zeros are recognised by it, never by comparing bytes."""


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """The raw 32-byte SHA-256 of ``data``."""
    return hashlib.sha256(data).digest()


def encode(digest: bytes) -> str:
    """A digest as the EBS direct APIs carry it: base64."""
    return b64encode(digest).decode("ascii")


def decode(text: str) -> bytes:
    """The raw digest of its base64 form. Raises ``ValueError`` when it is not 32 bytes."""
    digest = b64decode(text, validate=True)
    if len(digest) != DIGEST_SIZE:
        raise ValueError(f"a SHA-256 has 32 bytes, {text!r} has {len(digest)}")
    return digest


class Linear:
    """The LINEAR checksum of CompleteSnapshot, built block by block in ascending order of index.

    It is the SHA-256 over the concatenated *raw* digests of the written blocks. The user guide does not say raw
    or base64; AWS's own client (coldsnap) hashes the raw ones.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = -1
        self.blocks = 0

    def add(self, index: int, digest: bytes) -> None:
        """Take the next block. Raises ``ValueError`` when its index does not ascend."""
        if index <= self._last:
            raise ValueError(f"block {index} after block {self._last}: LINEAR needs ascending indices")
        self._last = index
        self.blocks += 1
        self._hash.update(digest)

    def extend(self, last: int, digests: bytes | memoryview) -> None:
        """Take further blocks up to index ``last`` at once: their raw digests one after another, 32 bytes each, in
        ascending order. Raises ``ValueError`` when they cannot come after those before, or are no digests."""
        blocks, rest = divmod(len(digests), DIGEST_SIZE)
        if rest or last - blocks < self._last:
            raise ValueError(f"{len(digests)} bytes of digests up to block {last} after block {self._last}")
        self._last = last
        self.blocks += blocks
        self._hash.update(digests)

    def value(self) -> str:
        """The checksum so far, base64."""
        return encode(self._hash.digest())
