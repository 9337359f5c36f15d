"""What is looked at of an image on this machine before anything is made of it."""

from __future__ import annotations

from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, blocks_of_volume
from blockferry.core.errors import InvalidRequest
from blockferry.formats.recognise import looks_like, refusal
from blockferry.sources.device import ImageSource


def refuse_other_format(source: ImageSource, *, unpacking: str) -> None:
    """Raise ``InvalidRequest`` for what looks like another kind of file than a raw disk; ``unpacking`` is the command
    that unpacks such images in S3."""
    found = looks_like(*source.ends())
    if found is not None:
        name = str(source.path)
        unpacked = f"put it into S3, where `blockferry {unpacking}` unpacks it"
        raise InvalidRequest(refusal(name, found, file=name, insist="--format raw", unpack=unpacked))


def volume_size(source: ImageSource, asked_gib: int | None) -> int:
    """GiB of the volume that was asked for, or the image's, rounded up. Raises ``InvalidRequest`` for one that is too
    small, or that no volume has."""
    size = -(-source.size // (BLOCK_SIZE * BLOCKS_PER_GIB)) if asked_gib is None else asked_gib
    try:
        total = blocks_of_volume(size)
    except ValueError as error:
        raise InvalidRequest(f"image {source.path}: {error}") from error
    if source.total_blocks > total:
        raise InvalidRequest(f"image {source.path} has {source.size} bytes, more than a volume of {size} GiB holds")
    return size
