"""Snapshots that must hold the same: every index that one of them holds is compared, and one clone never decides for
another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_BLOCK, ZERO_DIGEST, digest_of
from blockferry.core.errors import OutOfTime, ParentDiffers
from blockferry.core.ports import BlockRef
from blockferry.sources.equal import Clone, EqualSnapshots
from fakes import MemorySource, content

Blocks = dict[int, bytes]
ALL = BlockRange(0, 2048)
ONE, ZEROS = content(1), content(0)


def clone(blocks: Blocks, *, name: str = "clone", encrypted: bool = False, full_to: int = 0) -> Clone:
    return Clone(name, MemorySource(blocks), encrypted, full_to)


def raising(error: Exception, *, at: int) -> Callable[[int], None]:
    def before(index: int) -> None:
        if index == at:
            raise error

    return before


class ListsUpTo(MemorySource):
    """Lists the blocks below an index; behind them comes an error."""

    def __init__(self, blocks: Blocks, stop: int, error: Exception) -> None:
        super().__init__(blocks)
        self._stop, self._error = stop, error

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        yield from super().blocks(BlockRange(within.first, self._stop))
        raise self._error


def compared(base: Blocks, *clones: Clone, within: BlockRange = ALL) -> tuple[list[int], dict[int, str]]:
    """The indices that are looked at, and which clones differ, with the reason."""
    both = EqualSnapshots("base", MemorySource(base), clones)
    read = []
    for ref in both.blocks(within):
        block = both.read(ref)
        assert (block.data, block.digest, block.unchanged) == (ZERO_BLOCK, ZERO_DIGEST, True)
        assert block.index == ref.index
        read.append(ref.index)
    assert all(isinstance(error, ParentDiffers) for error in both.failed.values())
    return read, {number: str(error) for number, error in both.failed.items()}


@pytest.mark.parametrize(
    ("base", "theirs", "encrypted", "equal"),
    [
        ({3: ONE}, {3: ONE}, False, True),
        ({3: ONE}, {3: ONE}, True, True),
        ({3: ONE}, {3: content(2)}, False, False),
        ({3: ONE}, {3: ZEROS}, False, False),
        ({3: ONE}, {}, False, False),
        ({3: ONE}, {}, True, False),
        ({3: ZEROS}, {}, False, True),
        ({3: ZEROS}, {}, True, False),
        ({}, {3: ZEROS}, False, True),
        ({}, {3: ZEROS}, True, True),
        ({}, {3: ONE}, False, False),
        ({}, {3: ONE}, True, False),
        ({}, {}, True, True),
    ],
)
def test_a_hole_equals_zeros_unless_it_is_one_of_an_encrypted_clone(
    base: Blocks, theirs: Blocks, encrypted: bool, equal: bool
) -> None:
    _, failed = compared(base, clone(theirs, encrypted=encrypted))
    assert (failed == {}) is equal


def test_every_index_that_one_of_them_holds_is_looked_at_once_in_order() -> None:
    base = {0: ONE, 1: ONE, 9: ONE}
    clones = [clone({0: ONE, 1: ONE, 4: ZEROS, 9: ONE}), clone({0: ONE, 1: ONE, 7: ZEROS, 9: ONE, 2047: ZEROS})]
    assert compared(base, *clones) == ([0, 1, 4, 7, 9, 2047], {})


def test_only_what_lies_in_the_range_is_looked_at() -> None:
    base = dict.fromkeys((0, 5, 6, 10), ONE)
    assert compared(base, clone({5: ONE, 6: ONE}), within=BlockRange(5, 10)) == ([5, 6], {})


def test_a_difference_is_told_with_both_sides() -> None:
    (told,) = compared({3: ONE}, clone({3: content(2)}, name="snap-2"))[1].values()
    there, here = digest_of(content(2)).hex()[:16], digest_of(ONE).hex()[:16]
    assert told == (f"snap-2 is not equal to base: block 3 is SHA-256 {there}... there and SHA-256 {here}... in base")
    (told,) = compared({3: ONE}, clone({}))[1].values()
    assert "block 3 is not allocated there and SHA-256" in told
    (told,) = compared({}, clone({3: ONE}))[1].values()
    assert told.endswith("there and not allocated in base")


def test_a_clone_that_differs_is_left_out_from_there_on_and_the_others_are_compared_to_the_end() -> None:
    base = {index: content(index + 1) for index in range(5)}
    wrong = MemorySource({**base, 1: content(99), 4: content(98)})
    last = MemorySource({**base, 4: content(97)})
    both = EqualSnapshots("base", MemorySource(base), [Clone("a", wrong, False), Clone("b", last, False)])
    for ref in both.blocks(ALL):
        both.read(ref)
    assert wrong.reads == [0, 1]
    assert {number: str(error).split(": ")[1][:8] for number, error in both.failed.items()} == {
        0: "block 1 ",
        1: "block 4 ",
    }


def test_nothing_is_read_once_no_clone_is_left() -> None:
    base = MemorySource(dict.fromkeys(range(5), ONE))
    both = EqualSnapshots("base", base, [clone({1: content(2)}), clone({})])
    listed = []
    for ref in both.blocks(ALL):
        both.read(ref)
        listed.append(ref.index)
    assert listed == base.reads == [0]
    assert both.failed.keys() == {0, 1}


def test_what_was_listed_before_the_last_clone_failed_reads_nothing_more() -> None:
    base = MemorySource({0: ONE, 1: ONE})
    both = EqualSnapshots("base", base, [clone({0: content(2), 1: ONE})])
    refs = list(both.blocks(ALL))
    for ref in refs:
        both.read(ref)
    assert base.reads == [0]


def test_the_last_index_is_not_looked_at_once_no_clone_is_left() -> None:
    for theirs in ({0: content(2), 1: ONE}, {0: content(2)}):
        both = EqualSnapshots("base", MemorySource({0: ONE, 1: ONE}), [clone(theirs)])
        refs = both.blocks(ALL)
        both.read(next(refs))
        assert list(refs) == []


def test_a_clone_that_cannot_be_read_costs_only_itself() -> None:
    error = RuntimeError("planted")
    unreadable = Clone("a", MemorySource({0: ONE, 1: ONE}, before_read=raising(error, at=1)), False)
    good = MemorySource({0: ONE, 1: ONE, 2: ZEROS})
    both = EqualSnapshots("base", MemorySource({0: ONE, 1: ONE}), [unreadable, Clone("b", good, False)])
    for ref in both.blocks(ALL):
        both.read(ref)
    assert both.failed == {0: error}
    assert good.reads == [0, 1, 2]


def test_a_clone_that_cannot_be_listed_is_not_taken_for_one_with_holes() -> None:
    error = RuntimeError("planted")
    broken = Clone("a", ListsUpTo({0: ONE}, 1, error), False)
    both = EqualSnapshots("base", MemorySource({0: ONE, 700: ONE}), [broken, clone({0: ONE, 700: ONE})])
    for ref in both.blocks(ALL):
        both.read(ref)
    assert both.failed == {0: error}


def test_the_first_reason_of_a_clone_is_kept() -> None:
    both = EqualSnapshots("base", MemorySource({0: ONE, 1: ONE}), [clone({0: content(2)}), clone({0: ONE, 1: ONE})])
    refs = list(both.blocks(ALL))
    both.read(refs[1])
    reason = both.failed[0]
    both.read(refs[0])
    assert both.failed == {0: reason}
    assert "block 1 is not allocated there" in str(reason)


def test_what_the_base_raises_is_raised_and_decides_for_no_clone() -> None:
    base = MemorySource({0: ONE}, before_read=raising(RuntimeError("planted"), at=0))
    both = EqualSnapshots("base", base, [clone({0: ONE})])
    (ref,) = both.blocks(ALL)
    with pytest.raises(RuntimeError, match="planted"):
        both.read(ref)
    assert both.failed == {}


def test_the_end_of_the_time_is_nobodys_fault_and_the_block_is_compared_later() -> None:
    over = iter([OutOfTime("planted")])

    def before(_index: int) -> None:
        for error in over:
            raise error

    source = MemorySource({0: ONE}, before_read=before)
    both = EqualSnapshots("base", MemorySource({0: ONE}), [Clone("a", source, False)])
    (ref,) = both.blocks(ALL)
    with pytest.raises(OutOfTime):
        both.read(ref)
    assert both.failed == {}
    both.read(ref)
    assert source.reads == [0]
    with pytest.raises(OutOfTime):
        list(EqualSnapshots("b", MemorySource({}), [Clone("a", ListsUpTo({}, 1, OutOfTime("x")), False)]).blocks(ALL))


def test_a_block_that_was_compared_is_forgotten() -> None:
    both = EqualSnapshots("base", MemorySource({0: ONE}), [clone({0: ONE})])
    (ref,) = both.blocks(ALL)
    both.read(ref)
    with pytest.raises(KeyError):
        both.read(ref)


# -- clones that may not have a hole -----------------------------------------------------------------------------------


def test_a_clone_that_must_be_full_is_looked_at_at_every_index_below_its_end() -> None:
    zeros = dict.fromkeys(range(4), ZEROS)
    full = clone({**zeros, 6: ONE}, encrypted=True, full_to=4)
    assert compared({6: ONE}, full, clone({6: ONE})) == ([0, 1, 2, 3, 6], {})
    looked_at, failed = compared({}, clone({}), clone({}, encrypted=True, full_to=3))
    assert (looked_at, failed.keys()) == ([0, 1, 2], {1})


def test_a_clone_may_have_holes_unless_it_is_said_that_it_may_not() -> None:
    assert compared({}, Clone("clone", MemorySource({}), encrypted=True)) == ([], {})


def test_a_hole_below_the_end_of_a_clone_that_must_be_full_is_a_difference() -> None:
    blocks = {0: ZEROS, 1: ZEROS, 2: ZEROS}
    (told,) = compared({}, clone({0: ZEROS, 2: ZEROS}, encrypted=True, full_to=3))[1].values()
    assert told.startswith("clone does not read as base: block 1 is not allocated there")
    assert "sync on top of that one" in told
    assert compared({}, clone(blocks, encrypted=True, full_to=3))[1] == {}
    # At its end, and behind it, a hole of both is none.
    assert compared({}, clone(blocks, encrypted=True, full_to=3), within=BlockRange(2, 9)) == ([2], {})


def test_what_must_be_full_is_told_within_the_range_only() -> None:
    full = clone(dict.fromkeys(range(10), ZEROS), encrypted=True, full_to=10)
    assert compared({}, full, within=BlockRange(4, 7))[0] == [4, 5, 6]
    assert compared({}, full, within=BlockRange(10, 20))[0] == []
