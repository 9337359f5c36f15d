"""Archives that flexible-snapshot-proxy has made: what their keys say, and what is in their objects. Pure.

Its command ``movetos3`` writes ``<snapshot>.<GiB>/<first block>.<SHA-256>.<blocks>.zstd``: one zstd frame of up to 64
consecutive blocks, whose SHA-256, over the uncompressed bytes, stands in the key as URL-safe base64. There is no
manifest, and the last segment that it had begun was never written.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from dataclasses import dataclass

import zstandard

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.checksums import digest_of
from blockferry.core.errors import ArchiveDamaged

SEGMENT_BLOCKS = 64
"""Blocks of an object at most: a run never crosses a multiple of it."""

_FOLDER = re.compile(r"(snap-[0-9a-f]{8,17})\.([1-9]\d{0,4})")
_SEGMENT = re.compile(r"(0|[1-9]\d{0,9})\.([A-Za-z0-9_-]{43}=)\.([1-9]\d?)\.zstd")


@dataclass(frozen=True, order=True)
class ForeignSegment:
    """An object of a foreign archive: its first block, how many it has, and the SHA-256 of all of them together."""

    first: int
    blocks: int
    sha256: bytes
    name: str

    @property
    def stop(self) -> int:
        return self.first + self.blocks


def parse_folder(name: str) -> tuple[str, int] | None:
    """The snapshot and the GiB of its volume in the name of an archive's folder; ``None`` for another name."""
    found = _FOLDER.fullmatch(name)
    return None if found is None else (found[1], int(found[2]))


def parse_segment(name: str) -> ForeignSegment | None:
    """What the name of an object says; ``None`` for the name of something else."""
    found = _SEGMENT.fullmatch(name)
    if found is None:
        return None
    return ForeignSegment(int(found[1]), int(found[3]), urlsafe_b64decode(found[2]), name)


def in_order(segments: Iterable[ForeignSegment], total_blocks: int, *, name: str) -> list[ForeignSegment]:
    """The segments ascending by block: keys are not padded, so that no listing has that order.

    Raises ``ArchiveDamaged`` for segments that overlap, are too long, or lie behind the end of the volume.
    """
    found = sorted(segments)
    last = 0
    for segment in found:
        refuse_impossible(segment.first, segment.blocks, last, total_blocks, name=name)
        last = segment.stop
    return found


def refuse_impossible(first: int, blocks: int, last: int, total_blocks: int, *, name: str) -> None:
    """Raise ``ArchiveDamaged`` for an object that cannot be, behind one whose blocks end at ``last``."""
    if first < last:
        raise ArchiveDamaged(f"archive {name} is damaged: block {first} is in two objects, {first}.*.zstd is one")
    stop = first + blocks
    if stop > total_blocks or first // SEGMENT_BLOCKS != (stop - 1) // SEGMENT_BLOCKS:
        raise ArchiveDamaged(f"archive {name} is damaged: {first}.*.{blocks}.zstd cannot hold {blocks} blocks there")


def expand(data: bytes, segment: ForeignSegment, *, name: str) -> bytes:
    """The blocks in an object, whose SHA-256 is checked. Never makes more than they have.

    Raises ``ArchiveDamaged``, naming the object and the blocks.
    """
    size = segment.blocks * BLOCK_SIZE
    lost = f"blocks {segment.first} to {segment.stop - 1} cannot be read"
    try:
        if zstandard.frame_content_size(data) not in (-1, size):
            raise zstandard.ZstdError(f"its frame does not hold {size} bytes")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise ArchiveDamaged(f"{name} is damaged: {error}; {lost}") from error
    if len(raw) != size or digest_of(raw) != segment.sha256:
        raise ArchiveDamaged(f"{name} is damaged: it does not have the SHA-256 of its name; {lost}")
    return raw
