"""Bytes of an archive, on this machine: only the frames that hold them are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockferry.aws.archives import Chain, open_chain
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import ZERO_BLOCK
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleMeaning
from blockferry.sources.archive import ArchiveSource

WINDOW = 4_096
"""Blocks whose places are looked up at a time: those of a range, as archives are usually made."""


@dataclass(frozen=True)
class ByteRange:
    """The bytes ``first <= offset < stop`` of a disk."""

    first: int
    stop: int


@dataclass(frozen=True)
class ArchivedDisk:
    """The disk in an archive, or in the newest of a chain."""

    chain: Chain

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return self.chain.manifest.total_blocks * BLOCK_SIZE

    @property
    def holes_read_as_zeros(self) -> bool:
        """Whether what is not stored was zeros when the snapshot was made, as far as the manifest knows."""
        return self.chain.manifest.holes in (HoleMeaning.ZEROS, HoleMeaning.NONE)

    def pieces(self, wanted: ByteRange) -> Iterator[bytes]:
        """The bytes of a range, a block at most at a time; holes come as zeros.

        Raises ``ArchiveDamaged`` for whatever of it is not what was written, and what ``Bucket.get`` raises.
        """
        if not 0 <= wanted.first < wanted.stop <= self.size:
            raise InvalidRequest(
                f"bytes {wanted.first} to {wanted.stop - 1} are not all in the disk, which has {self.size} bytes"
            )
        blocks = BlockRange(wanted.first // BLOCK_SIZE, -(-wanted.stop // BLOCK_SIZE))
        for first in range(blocks.first, blocks.stop, WINDOW):
            window = BlockRange(first, min(first + WINDOW, blocks.stop))
            source = ArchiveSource(self.chain)
            refs = {ref.index: ref for ref in source.blocks(window)}
            for index in range(window.first, window.stop):
                data = source.read(refs[index]).data if index in refs else ZERO_BLOCK
                begin = index * BLOCK_SIZE
                yield data[max(wanted.first - begin, 0) : wanted.stop - begin]


def open_disk(call: Call, identity: Identity, manifest_uri: str) -> ArchivedDisk:
    """The disk in an archive. Raises what ``open_chain`` raises."""
    return ArchivedDisk(open_chain(call, identity, manifest_uri))
