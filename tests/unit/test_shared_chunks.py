"""Chunks of an image that several threads read at once, each step of which waits for the other."""

from __future__ import annotations

import threading
from collections import Counter

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.ports import BlockRef
from blockferry.sources.chunks import ChunkedImage
from fakes import content


def chunk_data(chunk: BlockRange) -> bytes:
    return b"".join(content(index + 1) for index in range(chunk.first, chunk.stop))


def refs(image: ChunkedImage) -> list[BlockRef]:
    return list(image.blocks(BlockRange(0, image.total_blocks)))


def test_a_chunk_that_is_being_fetched_is_not_dropped_for_others_that_are_complete() -> None:
    fetched: Counter[int] = Counter()
    fetching, go_on = threading.Event(), threading.Event()

    def fetch(chunk: BlockRange) -> bytes:
        fetched[chunk.first] += 1
        if chunk.first == 0 and fetched[0] == 1:
            fetching.set()
            assert go_on.wait(10)
        return chunk_data(chunk)

    image = ChunkedImage(8 * BLOCK_SIZE, blocks_per_chunk=2, fetch=fetch, keep=1)
    blocks = refs(image)
    read: dict[int, bytes] = {}

    def take(ref: BlockRef) -> None:
        read[ref.index] = image.read(ref).data

    threads = [threading.Thread(target=take, args=(ref,)) for ref in blocks[:2]]
    threads[0].start()
    assert fetching.wait(10)
    # One block each of three other chunks, of which one is kept.
    for ref in blocks[2::2]:
        take(ref)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert fetched == {0: 1, 2: 1, 4: 1, 6: 1}
    assert read == {index: content(index + 1) for index in (0, 1, 2, 4, 6)}


def test_who_takes_the_last_block_of_a_dropped_chunk_leaves_the_one_that_was_fetched_again() -> None:
    fetched: Counter[int] = Counter()

    def fetch(chunk: BlockRange) -> bytes:
        fetched[chunk.first] += 1
        return chunk_data(chunk)

    image = ChunkedImage(4 * BLOCK_SIZE, blocks_per_chunk=2, fetch=fetch, keep=1)
    first, last, other, _ = refs(image)
    image.read(first)
    old = image._chunks._chunks[BlockRange(0, 2)]
    has_data, go_on = threading.Event(), threading.Event()
    result = old.data.result

    def slowly(timeout: float | None = None) -> bytes:
        data = result(timeout)
        has_data.set()
        assert go_on.wait(10)
        return data

    old.data.result = slowly  # type: ignore[method-assign]
    read: list[bytes] = []
    late = threading.Thread(target=lambda: read.append(image.read(last).data))
    late.start()
    assert has_data.wait(10)
    # The first chunk makes room for the other one, and is fetched again.
    image.read(other)
    image.read(first)
    go_on.set()
    late.join(10)
    assert image.read(last).data == content(2)
    assert read == [content(2)]
    assert fetched == {0: 2, 2: 1}
    assert BlockRange(0, 2) not in image._chunks._chunks
