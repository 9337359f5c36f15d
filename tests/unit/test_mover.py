from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST, digest_of
from blockferry.core.errors import OutOfTime, RetryLater
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import Moved, move
from blockferry.core.pacing import Pace
from blockferry.core.ports import Block, BlockRef
from blockferry.core.retry import Deadline
from fakes import ManualClock, MemorySink, MemorySource, content
from hypothesis import given, settings
from hypothesis import strategies as st


def run(
    within: BlockRange,
    source: MemorySource,
    *sinks: MemorySink,
    holes: HolePolicy = HolePolicy.PRESERVE,
    threads: int = 4,
    deadline: Deadline | None = None,
    **more: Any,
) -> Moved:
    deadline = deadline or Deadline(None, clock=ManualClock())
    return move(within, source, sinks, holes=holes, threads=threads, deadline=deadline, **more)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=40),
    st.integers(0, 50),
    st.integers(1, 20),
    st.sampled_from([1, 2, 5]),
    st.sampled_from(list(HolePolicy)),
)
def test_a_range_is_moved_exactly_whatever_its_holes_zeros_and_threads(
    seeds: dict[int, int], first: int, length: int, threads: int, holes: HolePolicy
) -> None:
    within = BlockRange(first, first + length)
    held = {index: content(seed) for index, seed in seeds.items()}
    inside = {index: data for index, data in held.items() if index in within}
    sink = MemorySink()

    moved = run(within, MemorySource(held), sink, holes=holes, threads=threads)

    zeros = {index: content(0) for index in range(within.first, within.stop)}
    expected = {
        HolePolicy.PRESERVE: inside,
        HolePolicy.ZERO_FILL: zeros | inside,
        HolePolicy.SKIP_ZERO: {index: data for index, data in inside.items() if data != content(0)},
    }[holes]
    recorded = zeros | inside if holes is HolePolicy.ZERO_FILL else inside
    assert sink.blocks == expected
    assert sorted(sink.writes) == sorted(expected)
    assert moved.digests == tuple((index, digest_of(data)) for index, data in sorted(recorded.items()))
    assert moved.done
    assert moved.blocks_read == len(inside)
    assert moved.blocks_written == len(expected)


def test_each_block_is_read_once_for_three_targets() -> None:
    held = {index: content(index + 1) for index in range(100)}
    source = MemorySource(held)
    sinks = [MemorySink(), MemorySink(), MemorySink()]
    run(BlockRange(0, 100), source, *sinks)
    assert sorted(source.reads) == list(range(100))
    assert [sink.blocks for sink in sinks] == [held, held, held]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_failing_sink_stops_the_loop_and_nothing_is_reported_as_moved(threads: int) -> None:
    def refuse(index: int) -> None:
        if index == 7:
            raise RetryLater("PutSnapshotBlock block 7")

    source = MemorySource(dict.fromkeys(range(10_000), content(1)))
    with pytest.raises(RetryLater, match="block 7"):
        run(BlockRange(0, 10_000), source, MemorySink(before_write=refuse), threads=threads)
    assert len(source.reads) < 10_000


def test_a_loop_of_which_a_thread_cannot_be_started_ends_when_the_others_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writing, over = threading.Event(), threading.Event()
    over_meanwhile: list[bool] = []
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if thread.name == "mover-1":
            assert writing.wait(10)
            raise RuntimeError("can't start new thread")
        start(thread)

    def before_write(_index: int) -> None:
        writing.set()
        over_meanwhile.append(over.wait(0.2))

    monkeypatch.setattr(threading.Thread, "start", started)
    source = MemorySource({index: content(index) for index in range(100)})
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(BlockRange(0, 100), source, MemorySink(before_write=before_write), threads=2)
    over.set()
    assert over_meanwhile == [False]


def test_an_interrupted_loop_hands_out_no_more_blocks() -> None:
    interrupted = threading.Event()

    def interrupt(_index: int) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    source = MemorySource(dict.fromkeys(range(1_000), content(1)))
    with pytest.raises(KeyboardInterrupt):
        run(BlockRange(0, 1_000), source, MemorySink(before_write=once(interrupt, interrupted)), threads=4)
    interrupted.set()
    for thread in threading.enumerate():
        if thread.name.startswith("mover-"):
            thread.join(60)
    assert 1 <= len(source.reads) <= 4


def once(first: Callable[[int], None], then: threading.Event) -> Callable[[int], None]:
    """The first caller does this, the others wait for the event."""
    turn = threading.Lock()

    def call(index: int) -> None:
        if turn.acquire(blocking=False):
            first(index)
        assert then.wait(60)

    return call


def test_a_source_that_fails_while_listing_fails_the_range() -> None:
    class Broken(MemorySource):
        def blocks(self, within):  # type: ignore[no-untyped-def]
            yield from list(super().blocks(within))[:3]
            raise RetryLater("ListSnapshotBlocks")

    with pytest.raises(RetryLater, match="ListSnapshotBlocks"):
        run(BlockRange(0, 10), Broken({index: content(1) for index in range(10)}), MemorySink())


def test_when_time_is_up_the_range_goes_on_exactly_where_it_stopped() -> None:
    clock = ManualClock()
    held = {index: content(index) for index in range(0, 200, 2)}
    source = MemorySource(held, before_read=lambda _index: clock.advance(1))
    sink = MemorySink()
    rest: BlockRange | None = BlockRange(0, 200)
    rounds = []
    while rest is not None:
        moved = run(rest, source, sink, threads=1, deadline=Deadline(10, clock=clock))
        rounds.append(moved)
        rest = rest.after(moved.next_index)
    assert len(rounds) == 11  # ten blocks a round; the last one finds only the hole at the end
    assert sink.blocks == held
    assert sorted(sink.writes) == sorted(held)
    joined = [entry for moved in rounds for entry in moved.digests]
    assert joined == [(index, digest_of(data)) for index, data in sorted(held.items())]


def test_a_block_that_ran_out_of_time_is_left_to_the_next_round_and_so_is_what_lies_behind_it() -> None:
    def slow(index: int) -> None:
        if index == 5:
            raise OutOfTime("block 5")

    moved = run(BlockRange(0, 20), MemorySource({i: content(i) for i in range(20)}, before_read=slow), MemorySink())
    assert moved.next_index == 5
    assert [index for index, _ in moved.digests] == [0, 1, 2, 3, 4]
    assert not moved.done


def test_an_empty_range_is_done_at_once() -> None:
    moved = run(BlockRange(0, 4096), MemorySource({}), MemorySink())
    assert moved.done
    assert moved.digests == ()


def test_allocated_zero_blocks_are_data() -> None:
    sink = MemorySink()
    moved = run(BlockRange(0, 3), MemorySource({1: content(0)}), sink)
    assert sink.blocks == {1: content(0)}
    assert moved.digests == ((1, ZERO_DIGEST),)


def refuse_from(index: int) -> Callable[[int], None]:
    def check(asked: int) -> None:
        if asked >= index:
            raise RetryLater(f"PutSnapshotBlock block {asked}")

    return check


@pytest.mark.parametrize("threads", [1, 4])
def test_a_sink_that_fails_is_reported_and_does_not_spoil_the_others(threads: int) -> None:
    held = {index: content(index + 1) for index in range(50)}
    source, good, bad, last = MemorySource(held), MemorySink(), MemorySink(before_write=refuse_from(20)), MemorySink()
    moved = run(BlockRange(0, 50), source, good, bad, last, threads=threads, spare_others=True)
    assert moved.done
    assert good.blocks == last.blocks == held
    assert list(moved.failed_sinks) == [1]
    assert "PutSnapshotBlock" in str(moved.failed_sinks[1])
    assert len(source.reads) == 50
    assert len(bad.writes) < 50


@pytest.mark.parametrize("number", [1, 2])
def test_when_every_sink_has_failed_the_loop_ends_and_all_are_reported(number: int) -> None:
    source = MemorySource(dict.fromkeys(range(10_000), content(1)))
    sinks = [MemorySink(before_write=refuse_from(5 * n)) for n in range(1, number + 1)]
    moved = run(BlockRange(0, 10_000), source, *sinks, spare_others=True)
    assert sorted(moved.failed_sinks) == list(range(number))
    assert not moved.done
    assert len(source.reads) < 10_000


def test_a_failing_source_spares_nobody() -> None:
    source = MemorySource({1: content(1)}, before_read=refuse_from(0))
    with pytest.raises(RetryLater):
        run(BlockRange(0, 9), source, MemorySink(), MemorySink(), spare_others=True)


def test_one_of_two_sinks_that_fails_fails_the_range_when_nobody_asked_to_spare_the_other() -> None:
    with pytest.raises(RetryLater, match="block 1"):
        run(BlockRange(0, 9), MemorySource({1: content(1)}), MemorySink(), MemorySink(before_write=refuse_from(0)))


def test_a_sink_that_failed_is_not_tried_again() -> None:
    tried: list[int] = []

    def refuse(index: int) -> None:
        tried.append(index)
        raise RetryLater(f"PutSnapshotBlock block {index}")

    held = {index: content(1) for index in range(5)}
    sinks = MemorySink(), MemorySink(before_write=refuse)
    moved = run(BlockRange(0, 5), MemorySource(held), *sinks, threads=1, spare_others=True)
    assert tried == [0]
    assert "block 0" in str(moved.failed_sinks[1])


def test_a_sink_without_time_left_leaves_the_block_to_the_next_round_and_has_not_failed() -> None:
    def slow(index: int) -> None:
        if index == 3:
            raise OutOfTime("block 3")

    held = {index: content(1) for index in range(9)}
    moved = run(BlockRange(0, 9), MemorySource(held), MemorySink(), MemorySink(before_write=slow), spare_others=True)
    assert moved.next_index == 3
    assert moved.failed_sinks == {}


def test_a_block_that_is_removed_is_written_as_zeros_without_being_read() -> None:
    class Delta(MemorySource):
        def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
            yield from (BlockRef(0), BlockRef(1, removed=True))

    source, sink = Delta({0: content(5)}), MemorySink()
    moved = run(BlockRange(0, 2), source, sink)
    assert sink.blocks == {0: content(5), 1: content(0)}
    assert (source.reads, moved.blocks_read, moved.blocks_written) == ([0], 1, 2)
    assert moved.digests == ((0, digest_of(content(5))), (1, ZERO_DIGEST))


def test_a_block_that_is_unchanged_is_counted_as_read_and_neither_written_nor_recorded() -> None:
    class Same(MemorySource):
        def read(self, ref: BlockRef) -> Block:
            block = super().read(ref)
            return Block(block.index, block.data, block.digest, unchanged=ref.index == 1)

    sink = MemorySink()
    moved = run(BlockRange(0, 3), Same({index: content(index + 1) for index in range(3)}), sink, threads=1)
    assert sorted(sink.blocks) == [index for index, _ in moved.digests] == [0, 2]
    assert (moved.blocks_read, moved.blocks_written, moved.next_index) == (3, 2, 3)


def test_zeros_that_are_left_out_are_recorded_but_not_written() -> None:
    sink = MemorySink()
    moved = run(BlockRange(0, 2), MemorySource({0: content(0), 1: content(1)}), sink, holes=HolePolicy.SKIP_ZERO)
    assert sink.blocks == {1: content(1)}
    assert moved.digests == ((0, ZERO_DIGEST), (1, digest_of(content(1))))
    assert moved.blocks_written == 1


def test_every_block_takes_its_turn_in_a_share_of_the_quota() -> None:
    clock = ManualClock()
    held = {index: content(1) for index in range(21)}
    run(BlockRange(0, 21), MemorySource(held), MemorySink(), pace=Pace(10, clock=clock))
    assert clock.now - 1_000 == pytest.approx(2.0)


def test_as_many_blocks_are_under_way_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(2, timeout=10)  # only passes when two blocks are read at once
    source = MemorySource({0: content(1), 1: content(2)}, before_read=lambda _index: together.wait() and None)
    assert run(BlockRange(0, 2), source, MemorySink(), threads=2).done


def test_a_range_that_begins_without_time_left_is_left_whole() -> None:
    clock = ManualClock()
    source = MemorySource({7: content(1)})
    moved = run(BlockRange(5, 9), source, MemorySink(), deadline=Deadline(0, clock=clock))
    assert (moved.next_index, moved.done, moved.digests, source.reads) == (5, False, (), [])


def test_a_list_that_ran_out_of_time_ends_the_round_behind_the_last_block_it_gave() -> None:
    class Slow(MemorySource):
        def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
            yield from (BlockRef(2), BlockRef(4))
            raise OutOfTime("ListSnapshotBlocks")

    for threads in (1, 4):
        moved = run(BlockRange(0, 9), Slow({2: content(1), 4: content(2)}), MemorySink(), threads=threads)
        assert moved.next_index == 5
        assert [index for index, _ in moved.digests] == [2, 4]
        assert not moved.done


def test_nothing_more_is_read_once_a_block_has_run_out_of_time() -> None:
    def slow(index: int) -> None:
        if index == 3:
            raise OutOfTime("block 3")

    source = MemorySource({index: content(1) for index in range(9)}, before_read=slow)
    assert run(BlockRange(0, 9), source, MemorySink(), threads=1).next_index == 3
    assert source.reads == [0, 1, 2]


def test_after_an_error_nothing_more_is_read_and_it_is_the_one_that_is_told() -> None:
    asked: list[int] = []

    def refuse(index: int) -> None:
        asked.append(index)
        raise RetryLater(f"block {index}")

    source = MemorySource({1: content(1), 2: content(2)}, before_read=refuse)
    with pytest.raises(RetryLater, match="block 1"):
        run(BlockRange(0, 9), source, MemorySink(), threads=1)
    assert asked == [1]


def first_fails_then(rest: Callable[[], None]) -> Callable[[int], None]:
    """Both blocks are under way; reading block 0 fails; block 1 goes on when the thread that read block 0 has ended."""
    both = threading.Barrier(2, timeout=10)
    readers: dict[int, threading.Thread] = {}

    def read(index: int) -> None:
        readers[index] = threading.current_thread()
        both.wait()
        if index == 0:
            raise RetryLater("the cause")
        readers[0].join(10)
        rest()

    return read


def test_the_first_error_is_told_and_not_what_follows_from_it_in_other_threads() -> None:
    def fail() -> None:
        raise RetryLater("an echo")

    source = MemorySource({0: content(1), 1: content(1)}, before_read=first_fails_then(fail))
    with pytest.raises(RetryLater, match="the cause"):
        run(BlockRange(0, 2), source, MemorySink(), threads=2)


def test_an_error_of_the_source_is_told_even_when_every_sink_fails_after_it() -> None:
    source = MemorySource({0: content(1), 1: content(1)}, before_read=first_fails_then(lambda: None))
    sinks = [MemorySink(before_write=refuse_from(0)), MemorySink(before_write=refuse_from(0))]
    with pytest.raises(RetryLater, match="the cause"):
        run(BlockRange(0, 2), source, *sinks, threads=2, spare_others=True)


def test_what_lies_behind_a_block_without_time_is_moved_again_and_not_recorded_now() -> None:
    second_written = threading.Event()

    def read(index: int) -> None:
        if index == 0:
            assert second_written.wait(10)
            raise OutOfTime("block 0")

    source = MemorySource({0: content(1), 1: content(2)}, before_read=read)
    sink = MemorySink(before_write=lambda _index: second_written.set())
    moved = run(BlockRange(0, 2), source, sink, threads=2)
    assert sink.writes == [1]
    assert (moved.next_index, moved.digests) == (0, ())


def test_a_block_goes_to_all_sinks_at_once_and_the_slowest_holds_up_nobody_but_its_block() -> None:
    everywhere = threading.Barrier(3, timeout=20)

    def meet(_index: int) -> None:
        # Passes only when the writes to all three are under way at the same time.
        everywhere.wait()

    sinks = [MemorySink(before_write=meet) for _ in range(3)]
    blocks = {index: content(index + 1) for index in range(4)}
    moved = run(BlockRange(0, 10), MemorySource(blocks), *sinks, threads=1, writers=2)
    assert moved.done
    assert [sink.blocks for sink in sinks] == [blocks] * 3


def test_no_more_blocks_are_in_memory_than_there_are_threads_however_slow_a_sink_is() -> None:
    held: set[int] = set()
    most = 0
    lock = threading.Lock()
    source = MemorySource({index: content(index + 1) for index in range(40)})
    read = source.read

    def reading(ref: BlockRef) -> Block:
        nonlocal most
        with lock:
            held.add(ref.index)
            most = max(most, len(held))
        return read(ref)

    source.read = reading  # type: ignore[method-assign]
    writes: Counter[int] = Counter()

    def written(index: int) -> None:
        with lock:
            writes[index] += 1
            if writes[index] == 5:
                held.discard(index)

    sinks = [MemorySink(before_write=written) for _ in range(5)]
    moved = run(BlockRange(0, 40), source, *sinks, threads=3, writers=7)
    assert (moved.done, len(source.reads)) == (True, 40)
    assert 1 <= most <= 3
    assert [len(sink.blocks) for sink in sinks] == [40] * 5


def test_nothing_is_written_any_more_when_the_loop_has_ended_with_an_error() -> None:
    failed = threading.Event()
    late: list[int] = []

    def wait_for_the_error(index: int) -> None:
        assert failed.wait(20)
        late.append(index)

    def fail(_index: int) -> None:
        failed.set()
        raise RuntimeError("refused")

    sinks = [MemorySink(before_write=fail), MemorySink(before_write=wait_for_the_error)]
    with pytest.raises(RuntimeError, match="refused"):
        run(BlockRange(0, 10), MemorySource({3: content(1)}), *sinks, threads=1, writers=1)
    # The write that was under way has ended before the loop did.
    assert (late, sinks[1].writes) == ([3], [3])


@pytest.mark.parametrize("writers", [0, 4])
def test_of_sinks_that_are_written_at_once_one_may_fail_alone(writers: int) -> None:
    sinks = [MemorySink(), MemorySink(before_write=refuse_from(2)), MemorySink()]
    blocks = {index: content(index + 1) for index in range(6)}
    moved = run(BlockRange(0, 10), MemorySource(blocks), *sinks, threads=2, writers=writers, spare_others=True)
    assert list(moved.failed_sinks) == [1]
    assert (sinks[0].blocks, sinks[2].blocks) == (blocks, blocks)


class PackingSink:
    """Stores groups of four blocks, as one object each, and what is left of the last one at the end of all blocks."""

    def __init__(self, end: int, *, fails: Exception | None = None) -> None:
        self.end, self.fails = end, fails
        self.taken: dict[int, bytes] = {}
        self.stored: dict[int, bytes] = {}

    def write(self, block: Block) -> None:
        self.taken[block.index] = block.data

    def reached(self, index: int) -> None:
        pass

    def finish(self, next_index: int) -> int:
        if self.fails is not None:
            raise self.fails
        whole = next_index if next_index == self.end else next_index // 4 * 4
        self.stored |= {index: data for index, data in self.taken.items() if index < whole}
        return whole


def test_what_a_sink_has_not_stored_is_moved_again() -> None:
    held = {index: content(index + 1) for index in range(10)}
    clock = ManualClock()
    packing, plain = PackingSink(10), MemorySink()
    source = MemorySource(held)

    # Time is up behind six blocks: four are in an object, and two only in memory.
    class Slow(MemorySource):
        def read(self, ref: BlockRef) -> Block:
            clock.advance(1.0)
            return super().read(ref)

    first = move(
        BlockRange(0, 10),
        Slow(held),
        [plain, packing],
        holes=HolePolicy.PRESERVE,
        threads=1,
        deadline=Deadline(6.0, clock=clock),
    )
    assert (first.next_index, first.done) == (4, False)
    assert [index for index, _ in first.digests] == [0, 1, 2, 3]
    assert packing.stored == {index: held[index] for index in range(4)}
    again = run(BlockRange(4, 10), source, plain, packing, threads=1)  # type: ignore[arg-type]
    assert (again.next_index, again.done) == (10, True)
    assert [index for index, _ in again.digests] == [4, 5, 6, 7, 8, 9]
    assert packing.stored == plain.blocks == held


def test_a_sink_that_cannot_store_what_it_took_has_failed() -> None:
    held = {index: content(index + 1) for index in range(8)}
    packing, plain = PackingSink(8, fails=RetryLater("no")), MemorySink()
    with pytest.raises(RetryLater, match="no"):
        run(BlockRange(0, 8), MemorySource(held), plain, packing)  # type: ignore[arg-type]
    moved = run(BlockRange(0, 8), MemorySource(held), plain, packing, spare_others=True)  # type: ignore[arg-type]
    assert (moved.next_index, list(moved.failed_sinks)) == (8, [1])


def test_a_sink_whose_time_is_up_when_it_stores_has_stored_nothing_for_certain() -> None:
    held = {index: content(index + 1) for index in range(8)}
    packing = PackingSink(8, fails=OutOfTime("late"))
    moved = run(BlockRange(0, 8), MemorySource(held), packing)  # type: ignore[arg-type]
    assert (moved.next_index, moved.done, moved.digests) == (0, False, ())


@pytest.mark.parametrize("threads", [1, 8])
def test_a_sink_learns_how_far_every_block_was_given(threads: int) -> None:
    """What is told is never ahead of what was given, whatever the threads do, and in the end it is all."""
    blocks = {index: content(index + 1) for index in range(3, 60, 2)}
    ahead: list[int] = []

    class Watching(MemorySink):
        def reached(self, index: int) -> None:
            ahead.extend(block for block in blocks if block < index and block not in self.blocks)
            super().reached(index)

    sink = Watching()
    run(BlockRange(0, 64), MemorySource(blocks), sink, threads=threads)
    assert ahead == []
    assert max(sink.reaches) == 64 or max(sink.reaches) == max(blocks) + 1


def test_blocks_behind_one_that_was_left_are_not_told() -> None:
    def out_of_time_at_five(index: int) -> None:
        if index == 5:
            raise OutOfTime("the deadline is near")

    sink = MemorySink(before_write=out_of_time_at_five)
    moved = run(BlockRange(0, 10), MemorySource({i: content(i + 1) for i in range(10)}), sink, threads=1)
    assert moved.next_index == 5
    assert sink.reaches == [1, 2, 3, 4, 5]


def test_a_removed_block_is_given_as_one() -> None:
    class Removing(MemorySource):
        def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
            yield BlockRef(1, removed=True)
            yield from super().blocks(within)

    given: list[Block] = []

    class Keeping(MemorySink):
        def write(self, block: Block) -> None:
            given.append(block)

    run(BlockRange(0, 10), Removing({2: bytes(524_288)}), Keeping(), threads=1)
    assert [(block.index, block.removed) for block in given] == [(1, True), (2, False)]


def test_a_sink_that_fails_when_it_is_told_has_failed() -> None:
    class Failing(MemorySink):
        def reached(self, index: int) -> None:
            raise RetryLater("no")

    source = {index: content(index + 1) for index in range(4)}
    with pytest.raises(RetryLater, match="no"):
        run(BlockRange(0, 4), MemorySource(source), Failing())
    moved = run(BlockRange(0, 4), MemorySource(source), Failing(), MemorySink(), spare_others=True)
    assert list(moved.failed_sinks) == [0]
