"""What is claimed of holes when two things are known of them: never the better of both."""

from __future__ import annotations

import itertools

from blockferry.holes import HoleMeaning, HolePolicy, worst


def test_of_two_meanings_the_one_that_claims_less_holds() -> None:
    ascending = [HoleMeaning.NONE, HoleMeaning.NOISE, HoleMeaning.UNKNOWN, HoleMeaning.ZEROS]
    for (i, one), (j, other) in itertools.product(enumerate(ascending), repeat=2):
        assert worst(one, other) is ascending[max(i, j)]


def test_the_words_of_records_and_tags_stay_as_they_are() -> None:
    assert [str(meaning) for meaning in HoleMeaning] == ["none", "noise", "unknown", "zeros"]
    assert [str(policy) for policy in HolePolicy] == ["preserve", "zero_fill", "skip_zero"]
