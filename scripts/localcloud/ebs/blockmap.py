"""Which blocks a snapshot or a volume has, small in memory and cheap to inherit.

A map is a table of buckets of 4,096 consecutive block indices. A bucket keeps its allocated indices
sorted in 2 bytes each and their slots in the block store in 4, so a million allocated blocks take about
6 MB wherever they lie in the volume. Buckets are shared between a map and its copies until one of them
writes there: a child of a snapshot with a million blocks costs a table of a few hundred pointers.

Slots are counted in the store once per bucket that names them, not once per map.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator

BUCKET_BITS = 12
BUCKET_BLOCKS = 1 << BUCKET_BITS
_IN_BUCKET = BUCKET_BLOCKS - 1

Retain = Callable[[int], None]
"""Counts one more holder of a slot; its opposite counts one less."""


class _Bucket:
    __slots__ = ("holders", "offsets", "slots")

    def __init__(self) -> None:
        self.offsets = array("H")
        self.slots = array("I")
        self.holders = 1

    def copy(self, retain: Retain) -> _Bucket:
        twin = _Bucket()
        twin.offsets = self.offsets[:]
        twin.slots = self.slots[:]
        for slot in self.slots:
            retain(slot)
        return twin


class BlockMap:
    """Block index -> slot of the block store.

    Not thread-safe: its owner's lock guards it. Maps that share buckets must be guarded by one lock.
    """

    __slots__ = ("_buckets", "_count", "_release", "_retain")

    def __init__(self, *, retain: Retain, release: Retain) -> None:
        self._buckets: dict[int, _Bucket] = {}
        self._count = 0
        self._retain = retain
        self._release = release

    def __len__(self) -> int:
        """Number of allocated blocks."""
        return self._count

    def get(self, index: int) -> int | None:
        bucket = self._buckets.get(index >> BUCKET_BITS)
        if bucket is None:
            return None
        offset = index & _IN_BUCKET
        place = bisect_left(bucket.offsets, offset)
        if place == len(bucket.offsets) or bucket.offsets[place] != offset:
            return None
        return bucket.slots[place]

    def assign(self, index: int, slot: int) -> None:
        """Allocate or overwrite a block. Takes over the caller's hold on ``slot``."""
        bucket = self._writable(index >> BUCKET_BITS)
        offset = index & _IN_BUCKET
        place = bisect_left(bucket.offsets, offset)
        if place < len(bucket.offsets) and bucket.offsets[place] == offset:
            before = bucket.slots[place]
            bucket.slots[place] = slot
            self._release(before)
            return
        bucket.offsets.insert(place, offset)
        bucket.slots.insert(place, slot)
        self._count += 1

    def discard(self, index: int) -> bool:
        """De-allocate a block; whether there was one."""
        if self.get(index) is None:
            return False
        bucket = self._writable(index >> BUCKET_BITS)
        place = bisect_left(bucket.offsets, index & _IN_BUCKET)
        bucket.offsets.pop(place)
        self._release(bucket.slots.pop(place))
        self._count -= 1
        return True

    def copy(self) -> BlockMap:
        twin = BlockMap(retain=self._retain, release=self._release)
        twin._buckets = dict(self._buckets)
        twin._count = self._count
        for bucket in self._buckets.values():
            bucket.holders += 1
        return twin

    def clear(self) -> None:
        """Give up every bucket; the store frees the blocks that nobody else holds."""
        buckets, self._buckets, self._count = self._buckets, {}, 0
        for bucket in buckets.values():
            bucket.holders -= 1
            if bucket.holders == 0:
                for slot in bucket.slots:
                    self._release(slot)

    def allocated(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """``(index, slot)`` in ascending order of index, from index ``start`` on."""
        for number in sorted(n for n in self._buckets if n >= start >> BUCKET_BITS):
            bucket = self._buckets[number]
            base = number << BUCKET_BITS
            first = bisect_left(bucket.offsets, start - base) if start > base else 0
            for place in range(first, len(bucket.offsets)):
                yield base + bucket.offsets[place], bucket.slots[place]

    def bucket_numbers(self) -> set[int]:
        return set(self._buckets)

    def bucket_items(self, number: int) -> dict[int, int]:
        """One bucket's blocks, index -> slot."""
        bucket = self._buckets.get(number)
        if bucket is None:
            return {}
        base = number << BUCKET_BITS
        return {base + offset: slot for offset, slot in zip(bucket.offsets, bucket.slots, strict=True)}

    def _writable(self, number: int) -> _Bucket:
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket()
        elif bucket.holders > 1:
            bucket.holders -= 1
            bucket = self._buckets[number] = bucket.copy(self._retain)
        return bucket
