"""Counting the blocks of snapshots and of the differences between them, window by window.

A window is a stretch of block indices. Of each list a window becomes a few bitmaps (Python integers, bit 0 is the
window's first index), so that "allocated here, but differing from both neighbours" is one line of bit arithmetic, and
memory is the same for every size of volume. Counts only grow, and where to go on is one number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from blockferry.aws.ebs.client import Change, ChangedPage, EbsDirect, Page
from blockferry.core.blocks import BlockRange
from blockferry.core.delta import Delta
from blockferry.core.errors import IncompleteTransfer, OutOfTime
from blockferry.core.pacing import Pace
from blockferry.core.retry import Clock, Deadline
from blockferry.inspection.tuning import Tuning
from blockferry.sources.listing import walk

Pair = tuple[str, str]
"""The ids of two snapshots, of which the first is the one that changes are counted from."""


@dataclass(frozen=True)
class DeltaBits:
    """Blocks of one window that are only in the second of two snapshots, differ, are only in the first, as bitmaps."""

    added: int = 0
    overwritten: int = 0
    removed: int = 0

    @property
    def any(self) -> int:
        """The blocks that differ in any of the three ways."""
        return self.added | self.overwritten | self.removed

    def added_to(self, delta: Delta) -> Delta:
        """The delta with this window's blocks counted in."""
        return Delta(
            delta.added + self.added.bit_count(),
            delta.overwritten + self.overwritten.bit_count(),
            delta.removed + self.removed.bit_count(),
        )


@dataclass(frozen=True)
class Lists:
    """The lists that are counted together. ``blocks`` is the number of block indices of each snapshot's volume.

    ``chain`` is in order of time; its neighbours are among ``pairs``, its members among ``snapshots``.
    """

    snapshots: tuple[str, ...]
    pairs: tuple[Pair, ...]
    chain: tuple[str, ...]
    blocks: Mapping[str, int]
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def total_blocks(self) -> int:
        """Block indices of the largest volume."""
        return max(self.blocks.values())

    @property
    def lists(self) -> int:
        """How many lists are asked for over each window."""
        return len(self.snapshots) + len(self.pairs)

    @property
    def window(self) -> int:
        """Indices of a window where every block is allocated."""
        return self.tuning.page * max(1, self.tuning.pages_per_window // self.lists)

    @property
    def ahead(self) -> int:
        """Windows under way besides the one that is waited for: enough to keep every thread busy."""
        return -(-self.tuning.list_threads // self.lists)

    def next_window(self, length: int, fullest: int) -> int:
        """The length of the next window after one of ``length`` in whose fullest list there were so many blocks.

        A page holds so many blocks however far they lie apart: where few are allocated, a short window would ask for
        the same ones again and again.
        """
        if 2 * fullest < self.window:
            longest = self.tuning.bitmap_bytes * 8 // (3 * self.lists * (self.ahead + 1))
            return max(self.window, min(2 * length, longest))
        return max(self.window, length // 2) if fullest > self.window else length


@dataclass
class Counts:
    """The counts of all blocks below ``next_index``: allocated ones by snapshot, changed ones by pair, and how many are
    freed when a member of the chain is deleted."""

    next_index: int = 0
    allocated: dict[str, int] = field(default_factory=dict)
    changed: dict[Pair, Delta] = field(default_factory=dict)
    frees: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The counts as a function returns them; pairs are joined with two dots."""
        return {
            "next_index": self.next_index,
            "allocated": self.allocated,
            "changed": {"..".join(pair): [c.added, c.overwritten, c.removed] for pair, c in self.changed.items()},
            "frees": self.frees,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Counts:
        """The counts that ``to_json`` gave."""
        changed: dict[Pair, Delta] = {}
        for name, numbers in data["changed"].items():
            first, _, second = name.partition("..")
            changed[first, second] = Delta(*numbers)
        return cls(int(data["next_index"]), dict(data["allocated"]), changed, dict(data["frees"]))

    def add(self, lists: Lists, within: BlockRange, window: Window) -> None:
        """Count the blocks of a window. Raises ``IncompleteTransfer`` when its lists contradict each other."""
        window.refuse_contradictions(within)
        for name, bits in window.allocated.items():
            self.allocated[name] = self.allocated.get(name, 0) + bits.bit_count()
        for pair, delta in window.changed.items():
            self.changed[pair] = delta.added_to(self.changed.get(pair, Delta()))
        for name, bits in freed(lists.chain, window).items():
            self.frees[name] = self.frees.get(name, 0) + bits.bit_count()
        self.next_index = within.stop


@dataclass(frozen=True)
class Window:
    """The bitmaps of all lists over one stretch of indices."""

    allocated: Mapping[str, int]
    changed: Mapping[Pair, DeltaBits]

    @property
    def fullest(self) -> int:
        """Blocks in the list that has most of them."""
        bits = (*self.allocated.values(), *(delta.any for delta in self.changed.values()))
        return max((each.bit_count() for each in bits), default=0)

    def refuse_contradictions(self, within: BlockRange) -> None:
        """Raise ``IncompleteTransfer``, naming the first block, where a list of changes does not fit the lists of
        blocks."""
        for (first, second), bits in self.changed.items():
            in_first, in_second = self.allocated.get(first), self.allocated.get(second)
            wrong = 0
            if in_second is not None:
                wrong |= (bits.added | bits.overwritten) & ~in_second | bits.removed & in_second
            if in_first is not None:
                wrong |= (bits.removed | bits.overwritten) & ~in_first | bits.added & in_first
            if in_first is not None and in_second is not None:
                # What only one of the two holds differs, whatever is in it.
                wrong |= (in_first ^ in_second) & ~bits.any
            if wrong:
                index = within.first + (wrong & -wrong).bit_length() - 1
                raise IncompleteTransfer(
                    f"EBS contradicts itself about block {index}: the list of changes from {first} to {second} does "
                    "not fit the lists of their blocks; completed snapshots do not change, so no count can be trusted"
                )


def freed(chain: tuple[str, ...], window: Window) -> dict[str, int]:
    """For each snapshot of a chain the blocks that nothing needs any more when it alone is deleted.

    These are the allocated ones whose content differs from both neighbours: EBS keeps a block as long as any snapshot
    of the volume refers to it, and what is unchanged to a neighbour is referred to by that one, too.
    """
    found: dict[str, int] = {}
    for position, name in enumerate(chain):
        bits = window.allocated[name]
        if position > 0:
            bits &= window.changed[chain[position - 1], name].any
        if position + 1 < len(chain):
            bits &= window.changed[name, chain[position + 1]].any
        found[name] = bits
    return found


class ListReader:
    """Lists of one region and identity as bitmaps, each operation at its share of its quota; any thread may ask."""

    def __init__(self, ebs: EbsDirect, lists: Lists, *, clock: Clock) -> None:
        self._ebs = ebs
        self._blocks = lists.blocks
        self._of_snapshots = Pace(lists.tuning.lists_per_second, clock=clock)
        self._of_changes = Pace(lists.tuning.lists_per_second, clock=clock)

    def allocated(self, snapshot_id: str, within: BlockRange) -> int:
        """The allocated blocks of a snapshot."""

        def ask(start: int, window: int, page_token: str | None) -> Page:
            self._of_snapshots.take()
            return self._ebs.list_blocks(snapshot_id, start=start, window=window, page_token=page_token)

        own = within.before(self._blocks[snapshot_id])
        if own is None:
            return 0
        indices = (index for index, _ in walk(own, ask, lambda entry: entry[0], what=snapshot_id))
        return _bits(indices, within)

    def changed(self, pair: Pair, within: BlockRange) -> DeltaBits:
        """The changed blocks from the first snapshot of a pair to the second."""
        first, second = pair

        def ask(start: int, window: int, page_token: str | None) -> ChangedPage:
            self._of_changes.take()
            return self._ebs.list_changed_blocks(first, second, start=start, window=window, page_token=page_token)

        own = within.before(max(self._blocks[first], self._blocks[second]))
        if own is None:
            return DeltaBits()
        kinds: tuple[list[int], list[int], list[int]] = ([], [], [])
        for change in walk(own, ask, lambda each: each.index, what=f"changes from {first} to {second}"):
            kinds[_kind(change)].append(change.index)
        return DeltaBits(*(_bits(indices, within) for indices in kinds))


def count_lists(lists: Lists, counts: Counts, reader: ListReader, *, deadline: Deadline) -> None:
    """Count on from ``counts.next_index`` to the end of the volume, or as far as the deadline allows.

    Raises what a list raises, and ``IncompleteTransfer`` when lists contradict each other.
    """
    pool = ThreadPoolExecutor(max_workers=lists.tuning.list_threads, thread_name_prefix="list")
    under_way: deque[_Listed] = deque()
    first, length = counts.next_index, lists.window
    try:
        while True:
            while first < lists.total_blocks and len(under_way) <= lists.ahead and not deadline.passed():
                within = BlockRange(first, min(first + length, lists.total_blocks))
                under_way.append(_Listed.start(lists, within, reader, pool))
                first = within.stop
            if not under_way:
                return
            listed = under_way.popleft()
            window = listed.result()
            counts.add(lists, listed.within, window)
            length = lists.next_window(length, window.fullest)
    except OutOfTime:
        # Nothing of an unfinished window has been counted.
        pass
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Listed:
    """The lists of a window, some of them still under way."""

    within: BlockRange
    allocated: Mapping[str, Future[int]]
    changed: Mapping[Pair, Future[DeltaBits]]

    @classmethod
    def start(cls, lists: Lists, within: BlockRange, reader: ListReader, pool: ThreadPoolExecutor) -> _Listed:
        """Ask for every list of the window at once."""
        return cls(
            within,
            {name: pool.submit(reader.allocated, name, within) for name in lists.snapshots},
            {pair: pool.submit(reader.changed, pair, within) for pair in lists.pairs},
        )

    def result(self) -> Window:
        """The bitmaps of all lists, waited for. Raises what any of them raises."""
        return Window(
            {name: future.result() for name, future in self.allocated.items()},
            {pair: future.result() for pair, future in self.changed.items()},
        )


def _kind(change: Change) -> int:
    """The position of the change's bitmap in ``DeltaBits``."""
    if change.first_token is None:
        return 0
    return 2 if change.second_token is None else 1


def _bits(indices: Iterable[int], within: BlockRange) -> int:
    """The bitmap of indices; bit 0 is the first of ``within``."""
    bits = bytearray(-(-len(within) // 8))
    for index in indices:
        place = index - within.first
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")
