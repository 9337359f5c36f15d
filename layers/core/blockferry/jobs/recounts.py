"""The recount object: what a range of a job was found to hold when its source was listed again.

Layout: one line of JSON (UTF-8, ends with ``\\n``), then the raw SHA-256 of each block that was written, 32 bytes each,
in ascending order of their indices, as the LINEAR checksum of CompleteSnapshot takes them. The line holds ``format``,
``blocks`` (digests that follow) and the other members of ``Recounted``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import DIGEST_SIZE
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.words import counted
from blockferry.jobs.record import Record


class Held(Record):
    """The blocks ``first <= index < stop``, which are in the ``targets`` at these positions."""

    first: int
    stop: int
    targets: tuple[int, ...]


class Recounted(Record):
    """What a recount found beside the digests.

    ``allocated`` blocks are those that the source holds in the range, ``removed`` those written as zeros because only
    the base holds them, ``read`` were asked for, ``zeros`` of them hold nothing else. ``held`` is ascending.
    ``requests``, ``retries``, ``parent_blocks`` and ``gb_seconds`` are what moving the range and counting it took.
    """

    format: Literal["blockferry-recount-1"] = "blockferry-recount-1"
    first: int
    stop: int
    blocks: int
    allocated: int
    removed: int
    read: int
    zeros: int
    held: tuple[Held, ...]
    requests: dict[str, int]
    retries: dict[str, int]
    parent_blocks: int
    gb_seconds: float


def pack(found: Recounted, digests: bytes) -> bytes:
    """The object of a recount."""
    return found.model_dump_json().encode() + b"\n" + digests


def unpack(data: bytes, within: BlockRange, *, name: str) -> tuple[Recounted, memoryview]:
    """The recount of ``within`` and its digests, from an object. Raises ``IncompleteTransfer`` when the object is
    damaged or that of another range, naming it."""
    end = data.find(b"\n")
    try:
        found = Recounted.model_validate_json(data[:end] if end >= 0 else b"")
    except ValidationError as error:
        raise IncompleteTransfer(f"recount object {name} is damaged: {error}") from error
    digests = memoryview(data)[end + 1 :]
    if len(digests) != found.blocks * DIGEST_SIZE:
        raise IncompleteTransfer(
            f"recount object {name} is damaged: {counted(len(digests), 'byte')} of digests for "
            f"{counted(found.blocks, 'block')}"
        )
    if (found.first, found.stop) != (within.first, within.stop):
        raise IncompleteTransfer(
            f"recount object {name} is damaged: it is that of blocks {found.first} to {found.stop - 1}"
        )
    return found, digests
