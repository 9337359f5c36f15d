"""Snapshots that must hold the same, read side by side. A clone that differs, or cannot be read, is left out from there
on: it says nothing about the others."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST
from blockferry.core.errors import OutOfTime, ParentDiffers
from blockferry.core.holes import FULL_COPY
from blockferry.core.ports import Block, BlockRef, BlockSource

NO_SIDE = -1
"""Of an index that is looked at whoever holds it."""


@dataclass(frozen=True)
class Clone:
    """What is held against the base. A hole of an encrypted snapshot does not read as zeros: below ``full_to`` the
    clone may not even have one where the base has one, too, and reads as zeros."""

    name: str
    source: BlockSource
    encrypted: bool
    full_to: int = 0


class EqualSnapshots:
    """The union of the blocks of a base and its clones; reading one compares it.

    A hole equals an allocated block of zeros, but where the hole is in an encrypted clone: volumes of it read there
    what decrypting nothing gives (coldsnap, issue 395). Every block comes as ``unchanged``, so nothing is kept of it.
    ``failed`` are the clones, by position, that differ (``ParentDiffers``) or cannot be read; when none is left,
    neither is there anything to read. There is one at first.
    """

    def __init__(self, base_name: str, base: BlockSource, clones: Sequence[Clone]) -> None:
        self._base_name = base_name
        self._base = base
        self._clones = clones
        self._lock = threading.Lock()
        self._refs: dict[int, dict[int, BlockRef]] = {}
        self.failed: dict[int, Exception] = {}

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """Every index that one of them holds, or should hold, in ``within``, ascending."""
        listed: list[Iterator[tuple[BlockRef, int]]] = [((ref, 0) for ref in self._base.blocks(within))]
        listed += [self._listed(number, within) for number in range(len(self._clones))]
        due = within.before(max(clone.full_to for clone in self._clones))
        if due is not None:
            listed.append((BlockRef(index), NO_SIDE) for index in range(due.first, due.stop))
        held: dict[int, BlockRef] = {}
        index = -1
        for ref, side in heapq.merge(*listed, key=lambda r: r[0].index):
            if not self._left():
                return
            if held and ref.index != index:
                yield self._take_down(index, held)
                held = {}
            index = ref.index
            held[side] = ref
        if held and self._left():
            yield self._take_down(index, held)

    def read(self, ref: BlockRef) -> Block:
        """Compare one block of all sides. Raises what the base raises, and ``OutOfTime``."""
        with self._lock:
            refs = self._refs[ref.index]
        base = self._base.read(refs[0]).digest if 0 in refs and self._left() else None
        for number, clone in enumerate(self._clones):
            if number in self.failed:
                continue
            try:
                theirs = clone.source.read(refs[number + 1]).digest if number + 1 in refs else None
            except OutOfTime:
                raise
            except Exception as error:
                self._fail(number, error)
                continue
            difference = self._difference(clone, ref.index, base, theirs)
            if difference is not None:
                self._fail(number, ParentDiffers(difference))
        with self._lock:
            # Not before: a block that ran out of time is read again.
            del self._refs[ref.index]
        return Block(ref.index, ZERO_BLOCK, ZERO_DIGEST, unchanged=True)

    def _difference(self, clone: Clone, index: int, base: bytes | None, theirs: bytes | None) -> str | None:
        if theirs is None and index < clone.full_to:
            return (
                f"{clone.name} does not read as {self._base_name}: block {index} is not allocated there, and does not "
                f"read as zeros in an encrypted snapshot. Zeros may be relied on there: {FULL_COPY}"
            )
        if _equal(base, theirs, encrypted=clone.encrypted):
            return None
        return (
            f"{clone.name} is not equal to {self._base_name}: block {index} is {_told(theirs)} there and {_told(base)} "
            f"in {self._base_name}"
        )

    def _listed(self, number: int, within: BlockRange) -> Iterator[tuple[BlockRef, int]]:
        try:
            for ref in self._clones[number].source.blocks(within):
                yield ref, number + 1
        except OutOfTime:
            raise
        except Exception as error:
            # Whatever it would have listed from here on is not compared: it is not taken for a hole.
            self._fail(number, error)

    def _fail(self, number: int, error: Exception) -> None:
        with self._lock:
            self.failed.setdefault(number, error)

    def _left(self) -> bool:
        return len(self.failed) < len(self._clones)

    def _take_down(self, index: int, held: dict[int, BlockRef]) -> BlockRef:
        with self._lock:
            self._refs[index] = held
        return BlockRef(index)


def _equal(base: bytes | None, clone: bytes | None, *, encrypted: bool) -> bool:
    if base is None:
        # With several clones the block may be one that only another clone has.
        return clone is None or clone == ZERO_DIGEST
    if clone is None:
        return base == ZERO_DIGEST and not encrypted
    return base == clone


def _told(digest: bytes | None) -> str:
    return "not allocated" if digest is None else f"SHA-256 {digest.hex()[:16]}..."
