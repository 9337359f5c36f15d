"""Blocks that a number decides, to fill volumes quickly and to know later what must be in them."""

from __future__ import annotations

import hashlib

from localcloud.ebs.blockmap import BlockMap
from localcloud.ebs.blockstore import BLOCK_SIZE, BlockStore


def pattern_block(seed: int, number: int) -> bytes:
    """The block ``number`` of the pattern ``seed``: one digest, repeated to 512 KiB."""
    digest = hashlib.sha256(f"{seed}|{number}".encode()).digest()
    return digest * (BLOCK_SIZE // len(digest))


def fill(
    blocks: BlockMap,
    store: BlockStore,
    *,
    seed: int,
    start: int,
    count: int,
    stride: int,
    distinct: int,
    zero_every: int,
) -> None:
    """Write ``count`` blocks at ``start``, ``start + stride``, ..: the k-th is ``pattern_block(seed, k %
    distinct)``, or zeros where ``zero_every`` divides ``k`` (0: nowhere). The caller holds the lock that
    guards ``blocks``."""
    slots: dict[int, int] = {}

    def slot_of(number: int) -> int:
        if number not in slots:
            data = bytes(BLOCK_SIZE) if number < 0 else pattern_block(seed, number)
            slots[number] = store.put(data, hashlib.sha256(data).digest())
        store.retain(slots[number])
        return slots[number]

    try:
        for step in range(count):
            zero = zero_every > 0 and step % zero_every == 0
            blocks.assign(start + step * stride, slot_of(-1 if zero else step % distinct))
    finally:
        for slot in slots.values():
            store.release(slot)
