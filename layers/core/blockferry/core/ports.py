"""The two sides of every transfer. One loop (``mover``) connects any source with any sinks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from blockferry.core.blocks import BlockRange


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block that a source holds: its index and what the source needs to read it (a block token, say).

    ``removed`` marks a block that only the base of a delta holds: it reads as zeros, and nothing is asked for it.
    """

    index: int
    handle: str = ""
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A block's content: always 524,288 bytes, and their raw SHA-256, already verified.

    ``unchanged`` says that what is written on top of holds the same content already: nothing is to be written.
    ``removed`` that only the base of a delta holds it: it reads as zeros.
    """

    index: int
    data: bytes
    digest: bytes
    unchanged: bool = False
    removed: bool = False


class BlockSource(Protocol):
    """Where blocks are read."""

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The blocks held in ``within``, ascending by index, listed lazily."""
        ...

    def read(self, ref: BlockRef) -> Block:
        """The content of one listed block, checked against the source's checksum."""
        ...


class BlockSink(Protocol):
    """Where blocks are written. Writing a block twice with the same content is harmless."""

    def write(self, block: Block) -> None:
        """Take the block. It need not be stored before ``finish``: a sink may pack several into one object."""
        ...

    def reached(self, index: int) -> None:
        """Every block below ``index`` was given, or there is none: threads give them in no order of their own."""
        ...

    def finish(self, next_index: int) -> int:
        """Store what was taken below ``next_index``, where the move ends or will go on. Returns the index below which
        everything is stored; what is above it is moved again."""
        ...
