"""Sources, sinks and clocks in memory, with the semantics of the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Clock


def content(seed: int) -> bytes:
    """A block whose bytes differ from those of every other seed; seed 0 is all zeros."""
    return seed.to_bytes(8, "big") * (BLOCK_SIZE // 8)


class MemorySource:
    """Blocks by index. ``before_read(index)`` may raise what a real source would."""

    def __init__(
        self, blocks: Mapping[int, bytes], *, before_read: Callable[[int], None] = lambda _index: None
    ) -> None:
        self._blocks = dict(blocks)
        self._before_read = before_read
        self._lock = threading.Lock()
        self.reads: list[int] = []

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        for index in sorted(self._blocks):
            if index in within:
                yield BlockRef(index)

    def read(self, ref: BlockRef) -> Block:
        self._before_read(ref.index)
        with self._lock:
            self.reads.append(ref.index)
        data = self._blocks[ref.index]
        return Block(ref.index, data, digest_of(data))


class MemorySink:
    """Keeps what was written, and how often."""

    def __init__(self, *, before_write: Callable[[int], None] = lambda _index: None) -> None:
        self._before_write = before_write
        self._lock = threading.Lock()
        self.blocks: dict[int, bytes] = {}
        self.writes: list[int] = []
        self.reaches: list[int] = []

    def write(self, block: Block) -> None:
        self._before_write(block.index)
        assert digest_of(block.data) == block.digest
        with self._lock:
            self.blocks[block.index] = block.data
            self.writes.append(block.index)

    def reached(self, index: int) -> None:
        with self._lock:
            assert self.blocks.keys() >= set(self.writes)
            self.reaches.append(index)

    def finish(self, next_index: int) -> int:
        return next_index


class ManualClock(Clock):
    """Time that passes only when somebody sleeps or ``advance`` is called; jitter always takes its upper bound."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        super().__init__(monotonic=lambda: self.now, sleep=self._sleep, uniform=lambda _low, high: high)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class TickingClock(ManualClock):
    """Of which a second passes whenever somebody looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.monotonic = self._look

    def _look(self) -> float:
        self.advance(1.0)
        return self.now
