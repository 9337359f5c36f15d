"""The digest object: what one invocation proved about one stretch of blocks.

Layout: one line of JSON (UTF-8, ends with ``\\n``), then 36 bytes per block in ascending order: the block index as
an unsigned 32-bit big-endian number (64 TiB have 2^27 blocks) and the raw SHA-256 of the block. The line holds
``format``, ``first``, ``stop`` (the stretch), ``targets`` (positions of the targets that hold it), ``blocks`` (records
that follow), and what it took: ``requests`` by operation and region, ``retries``, ``parent_blocks`` and ``gb_seconds``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import DIGEST_SIZE
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.words import counted

FORMAT = "blockferry-digests-1"

_RECORD = struct.Struct(f">I{DIGEST_SIZE}s")


@dataclass(frozen=True)
class Stretch:
    """The blocks ``first <= index < stop`` as one invocation left them in the job's ``targets`` (by position).

    ``parent_blocks`` were compared with parents of targets; ``gb_seconds`` is the memory of the invocation (GB) times
    the seconds that it took, by which Lambda is billed.
    """

    first: int
    stop: int
    targets: tuple[int, ...]
    digests: tuple[tuple[int, bytes], ...]
    requests: Mapping[str, int]
    retries: Mapping[str, int]
    parent_blocks: int = 0
    gb_seconds: float = 0.0


def pack(stretch: Stretch) -> bytes:
    """The object of a stretch."""
    head = {
        "format": FORMAT,
        "first": stretch.first,
        "stop": stretch.stop,
        "targets": list(stretch.targets),
        "blocks": len(stretch.digests),
        "requests": dict(sorted(stretch.requests.items())),
        "retries": dict(sorted(stretch.retries.items())),
        "parent_blocks": stretch.parent_blocks,
        "gb_seconds": stretch.gb_seconds,
    }
    records = b"".join(_RECORD.pack(index, digest) for index, digest in stretch.digests)
    return json.dumps(head).encode() + b"\n" + records


def unpack(data: bytes, *, name: str) -> Stretch:
    """The stretch in an object. Raises ``IncompleteTransfer`` when the object is damaged, naming it."""
    line, separator, records = data.partition(b"\n")
    try:
        head = json.loads(line)
        if not separator or head["format"] != FORMAT:
            raise ValueError("not a digest object of this version")
        if len(records) != head["blocks"] * _RECORD.size:
            raise ValueError(f"{counted(len(records), 'byte')} of records for {counted(head['blocks'], 'block')}")
        digests = tuple(_RECORD.iter_unpack(records))
        stretch = Stretch(
            head["first"],
            head["stop"],
            tuple(head["targets"]),
            digests,
            head["requests"],
            head["retries"],
            head["parent_blocks"],
            head["gb_seconds"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IncompleteTransfer(f"digest object {name} is damaged: {error}") from error
    last = stretch.first - 1
    for index, _ in stretch.digests:
        if not last < index < stretch.stop:
            raise IncompleteTransfer(f"digest object {name} is damaged: block {index} is out of order or range")
        last = index
    return stretch


def joined(stretches: Iterable[Stretch], within: BlockRange) -> Iterator[Stretch]:
    """The stretches of a range in ascending order of ``first``, cut so that they cover it once.

    A task that was run twice leaves overlapping stretches; a snapshot does not change, so both say the same of a
    block. Raises ``IncompleteTransfer`` for a gap, for a missing end and for stretches that contradict each other.
    """
    done = within.first
    before: Stretch | None = None
    for stretch in stretches:
        if stretch.first > done:
            raise IncompleteTransfer(f"no digests for blocks {done} to {stretch.first - 1}: they were not moved")
        if before is not None:
            _agree(before, stretch)
        if stretch.stop > done:
            fresh = tuple(entry for entry in stretch.digests if entry[0] >= done)
            yield replace(stretch, first=done, digests=fresh)
            done = stretch.stop
            before = stretch
        else:
            # Nothing new in it, but its requests were made and are counted.
            yield replace(stretch, first=done, stop=done, digests=())
    if done < within.stop:
        raise IncompleteTransfer(f"no digests for blocks {done} to {within.stop - 1}: they were not moved")
    if done > within.stop:
        raise IncompleteTransfer(f"digests end at block {done} of a range that ends at {within.stop}")


def _agree(before: Stretch, stretch: Stretch) -> None:
    overlap = range(stretch.first, min(before.stop, stretch.stop))
    mine = {index: digest for index, digest in stretch.digests if index in overlap}
    theirs = {index: digest for index, digest in before.digests if index in overlap}
    if mine != theirs:
        odd = min(index for index in mine.keys() | theirs.keys() if mine.get(index) != theirs.get(index))
        raise IncompleteTransfer(
            f"two runs of the same range read different content for block {odd}; a completed snapshot does not "
            "change, so nothing read from it can be trusted"
        )


class Coverage:
    """Which blocks each target holds, from parts that come in ascending order of ``first``."""

    def __init__(self, *, targets: int, total_blocks: int) -> None:
        self._total = total_blocks
        self._done = [0] * targets
        self._gaps: list[list[BlockRange]] = [[] for _ in range(targets)]

    def add(self, first: int, stop: int, targets: Iterable[int]) -> None:
        """Take that the blocks ``first <= index < stop`` are in these targets."""
        for target in targets:
            if first > self._done[target]:
                self._gaps[target].append(BlockRange(self._done[target], first))
            self._done[target] = max(self._done[target], stop)

    def missing(self, target: int) -> list[BlockRange]:
        """The blocks that were not written to the target; empty when it holds all. Ask when all are added."""
        rest = [BlockRange(self._done[target], self._total)] if self._done[target] < self._total else []
        return [*self._gaps[target], *rest]

    def missing_by_range(self, length: int) -> list[tuple[BlockRange, tuple[int, ...]]]:
        """What is missing, one piece for each range of ``length`` in which anything is, ascending: from the first to
        the last block that a target misses there, and the targets that miss some.

        One piece and not one for each gap, so that no two workers are in a range at a time. What a target holds
        already is written once more, which changes nothing.
        """
        pieces: dict[int, tuple[BlockRange, set[int]]] = {}
        for target in range(len(self._done)):
            for gap in self.missing(target):
                for number in range(gap.first // length, -(-gap.stop // length)):
                    first, stop = max(gap.first, number * length), min(gap.stop, (number + 1) * length)
                    known, targets = pieces.get(number, (BlockRange(first, stop), set()))
                    pieces[number] = (BlockRange(min(known.first, first), max(known.stop, stop)), {*targets, target})
        return [(piece, tuple(sorted(targets))) for _, (piece, targets) in sorted(pieces.items())]
