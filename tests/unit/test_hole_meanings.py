"""What is claimed of holes when two things are known of them, never the better of both; and what a policy writes."""

from __future__ import annotations

import itertools

import pytest
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import ZERO_DIGEST, digest_of
from blockferry.core.holes import HoleMeaning, HolePolicy, with_holes, worst
from blockferry.core.ports import BlockRef
from fakes import content


def test_of_two_meanings_the_one_that_claims_less_holds() -> None:
    # By the words of records and tags, which stay as they are.
    ascending = [HoleMeaning(word) for word in ("none", "noise", "unknown", "zeros")]
    for (i, one), (j, other) in itertools.product(enumerate(ascending), repeat=2):
        assert worst(one, other) is ascending[max(i, j)]
    assert ascending == [HoleMeaning.NONE, HoleMeaning.NOISE, HoleMeaning.UNKNOWN, HoleMeaning.ZEROS]


@pytest.mark.parametrize(
    ("word", "name", "zeros"),
    [("preserve", "PRESERVE", True), ("zero_fill", "ZERO_FILL", True), ("skip_zero", "SKIP_ZERO", False)],
)
def test_only_skip_zero_leaves_out_blocks_of_zeros(word: str, name: str, zeros: bool) -> None:
    policy = HolePolicy[name]
    assert str(policy) == word
    assert policy.writes(ZERO_DIGEST) is zeros
    assert policy.writes(digest_of(content(1)))


def test_every_index_of_a_range_comes_with_its_block_or_as_a_hole() -> None:
    two, four = BlockRef(2, "a"), BlockRef(4, "b")
    for first, stop, expected in (
        (1, 7, [(1, None), (2, two), (3, None), (4, four), (5, None), (6, None)]),
        (2, 5, [(2, two), (3, None), (4, four)]),
    ):
        assert list(with_holes([two, four], BlockRange(first, stop))) == expected
    assert list(with_holes([], BlockRange(3, 5))) == [(3, None), (4, None)]
