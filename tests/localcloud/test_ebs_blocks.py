"""The block store and the block maps of the EBS part."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest
from localcloud.ebs.blockmap import BlockMap
from localcloud.ebs.blockstore import BLOCK_SIZE, ZERO_BLOCK_DIGEST, BlockStore

from .ebs_clients import ZEROS, block, checksum


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "blocks")


def put(store: BlockStore, data: bytes) -> int:
    return store.put(data, hashlib.sha256(data).digest())


def test_the_zero_block_has_the_checksum_that_the_predecessors_sources_name() -> None:
    # Constant in awslabs/flexible-snapshot-proxy and in the facts of the EBS direct APIs.
    assert checksum(ZEROS) == "B4VNL+8pega6gWheZgwzLeNtXRjVRpJ9MNqtbX/aFUE="
    assert hashlib.sha256(ZEROS).digest() == ZERO_BLOCK_DIGEST


def test_equal_blocks_share_one_slot_until_the_last_holder_is_gone(store: BlockStore) -> None:
    first, second, other = put(store, block("a")), put(store, block("a")), put(store, block("b"))
    assert first == second != other
    store.release(first)
    assert store.read(second) == block("a")
    store.release(second)
    assert len(store) == 1
    assert store.read(other) == block("b")


def test_space_of_freed_blocks_is_given_back_and_used_again(store: BlockStore) -> None:
    slots = [put(store, block(str(number))) for number in range(8)]
    full = store.disk_bytes()
    for slot in slots:
        store.release(slot)
    assert store.disk_bytes() <= full // 8  # holes are punched
    again = [put(store, block(f"again {number}")) for number in range(8)]
    assert sorted(again) == sorted(slots)
    assert [store.read(slot) for slot in again] == [block(f"again {number}") for number in range(8)]


def test_blocks_survive_many_changes_of_the_hash_table(store: BlockStore) -> None:
    chooser = random.Random(5)
    held: dict[int, int] = {}
    small = [block(str(number)) for number in range(40)]
    for _step in range(1500):
        number = chooser.randrange(40)
        if number in held and chooser.random() < 0.5:
            store.release(held.pop(number))
        elif number not in held:
            held[number] = put(store, small[number])
    assert len(store) == len(held)
    assert all(store.read(slot) == small[number] for number, slot in held.items())


def test_a_block_of_another_size_is_refused(store: BlockStore) -> None:
    with pytest.raises(ValueError, match="524288"):
        store.put(b"short", hashlib.sha256(b"short").digest())


def test_a_new_store_clears_what_an_earlier_process_left(tmp_path: Path) -> None:
    put(BlockStore(tmp_path), block("left over"))
    assert len(list(tmp_path.glob("*.blocks"))) == 1
    store = BlockStore(tmp_path)
    assert (len(store), list(tmp_path.glob("*.blocks"))) == (0, [])


class _Counts:
    """Stands for a store: who holds how many of which slot."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def retain(self, slot: int) -> None:
        self.held[slot] = self.held.get(slot, 0) + 1

    def release(self, slot: int) -> None:
        self.held[slot] -= 1
        if not self.held[slot]:
            del self.held[slot]

    def map(self) -> BlockMap:
        return BlockMap(retain=self.retain, release=self.release)


def test_maps_and_their_copies_agree_with_plain_dictionaries_and_lose_no_slot() -> None:
    chooser, counts = random.Random(11), _Counts()
    maps: list[tuple[BlockMap, dict[int, int]]] = [(counts.map(), {})]
    for _step in range(4000):
        tested, model = chooser.choice(maps)
        index = chooser.choice((chooser.randrange(30), 4090 + chooser.randrange(12), 134_217_727))
        match chooser.randrange(6):
            case 0 | 1 | 2:
                slot = chooser.randrange(50)
                counts.retain(slot)
                tested.assign(index, slot)
                model[index] = slot
            case 3:
                assert tested.discard(index) == (model.pop(index, None) is not None)
            case 4 if len(maps) < 6:
                maps.append((tested.copy(), dict(model)))
            case 5 if len(maps) > 1:
                tested.clear()
                maps.remove((tested, model))
        assert tested.get(index) == model.get(index) or (tested, model) not in maps
    for tested, model in maps:
        assert list(tested.allocated()) == sorted(model.items())
        assert len(tested) == len(model)
        assert list(tested.allocated(4094)) == [(i, s) for i, s in sorted(model.items()) if i >= 4094]
    for tested, _model in maps:
        tested.clear()
    assert counts.held == {}


@pytest.mark.parametrize("stride", [1, 134], ids=["contiguous", "scattered over 64 TiB"])
def test_a_million_allocated_blocks_take_far_less_than_100_mb(stride: int) -> None:
    counts = _Counts()
    blocks = counts.map()
    tracemalloc.start()
    try:
        for number in range(1_000_000 // 50):  # every 50th bucket's worth: the rest is alike
            blocks.assign(number * stride, number)
        used, _peak = tracemalloc.get_traced_memory()
        child = blocks.copy()
        with_child, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(child) == 20_000
    assert used * 50 < 60_000_000
    assert (with_child - used) * 50 < 10_000_000


def test_the_tables_of_a_million_distinct_blocks_would_fit_too(store: BlockStore) -> None:
    for number in range(800):
        store.put(ZEROS, hashlib.sha256(number.to_bytes(8, "big")).digest())
    assert store.memory_bytes() / 800 * 1_000_000 < 60_000_000
    assert BLOCK_SIZE == 524288
