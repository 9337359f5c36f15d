from __future__ import annotations

from collections.abc import Callable

import pytest
from blockferry.blocks import BlockRange
from blockferry.checksums import ZERO_DIGEST, digest_of
from blockferry.errors import OutOfTime, RetryLater
from blockferry.holes import HolePolicy
from blockferry.mover import Moved, move
from blockferry.retry import Deadline
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
    spare_others: bool = False,
) -> Moved:
    deadline = deadline or Deadline(None, clock=ManualClock())
    return move(within, source, sinks, holes=holes, threads=threads, deadline=deadline, spare_others=spare_others)


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


def test_when_every_sink_has_failed_the_range_fails() -> None:
    sinks = [MemorySink(before_write=refuse_from(5)), MemorySink(before_write=refuse_from(10))]
    with pytest.raises(RetryLater):
        run(BlockRange(0, 50), MemorySource(dict.fromkeys(range(50), content(1))), *sinks, spare_others=True)


def test_a_single_sink_has_no_others_to_spare() -> None:
    with pytest.raises(RetryLater):
        run(
            BlockRange(0, 9),
            MemorySource({1: content(1)}),
            MemorySink(before_write=refuse_from(0)),
            spare_others=True,
        )


def test_a_failing_source_spares_nobody() -> None:
    source = MemorySource({1: content(1)}, before_read=refuse_from(0))
    with pytest.raises(RetryLater):
        run(BlockRange(0, 9), source, MemorySink(), MemorySink(), spare_others=True)
