"""What jobs that run at the same time leave each other of the quotas of EBS."""

from __future__ import annotations

from collections import Counter

import pytest
from blockferry.core.rates import Demand, shares
from hypothesis import given
from hypothesis import strategies as st

ONE = {"get a": 1, "put b": 1}


def test_a_job_alone_gets_all_that_the_quota_that_it_asks_most_of_gives() -> None:
    assert shares({"one": Demand(ONE)}) == {"one": 1_000}
    assert shares({"one": Demand({"get a": 1, "put b": 3, "put c": 2})}) == {"one": pytest.approx(1_000 / 3)}


def test_nothing_runs() -> None:
    assert shares({}) == {}


def test_two_jobs_halve_what_they_share_and_nothing_else() -> None:
    assert shares({"one": Demand(ONE), "two": Demand({"get a": 1, "put c": 1})}) == {"one": 500, "two": 500}
    assert shares({"one": Demand(ONE), "two": Demand({"get c": 1, "put d": 1})}) == {"one": 1_000, "two": 1_000}


def test_what_a_job_cannot_use_the_others_get() -> None:
    found = shares({"slow": Demand(ONE, 100), "one": Demand(ONE), "two": Demand(ONE)})
    assert found == {"slow": pytest.approx(100), "one": pytest.approx(450), "two": pytest.approx(450)}


def test_a_job_held_up_at_another_quota_leaves_the_rest_of_this_one() -> None:
    # Both of the first two write to b, whose quota they halve; the third reads what is left where the second reads.
    found = shares({"one": Demand({"get x": 1, "put b": 1}), "two": Demand(ONE), "three": Demand({"get a": 1})})
    assert found == {"one": pytest.approx(500), "two": pytest.approx(500), "three": pytest.approx(500)}
    found = shares(
        {"one": Demand({"put b": 9}), "two": Demand({"get a": 1, "put b": 1}), "three": Demand({"get a": 1})}
    )
    assert found == {"one": pytest.approx(500 / 9), "two": pytest.approx(500), "three": pytest.approx(500)}


def test_a_job_of_many_targets_does_not_starve_one_of_a_single_target() -> None:
    found = shares({"many": Demand({"get a": 1, "put b": 100}), "one": Demand({"get c": 1, "put b": 1})})
    assert found == {"many": pytest.approx(5), "one": pytest.approx(500)}


DEMANDS = st.dictionaries(
    st.integers(0, 9),
    st.builds(
        Demand,
        st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 100), min_size=1),
        st.one_of(st.just(float("inf")), st.floats(0.01, 2_000)),
    ),
    max_size=8,
)


@given(DEMANDS)
def test_no_quota_is_exceeded_none_that_is_wanted_is_left_and_nobody_starves(jobs: dict[int, Demand]) -> None:
    found = shares(jobs)
    used: Counter[str] = Counter()
    users: Counter[str] = Counter()
    for each, job in jobs.items():
        assert found[each] <= job.most * 1.000001
        for name, requests in job.requests.items():
            used[name] += found[each] * requests  # type: ignore[assignment]
            users[name] += 1
    assert all(requests <= 1_000.001 for requests in used.values())
    for each, job in jobs.items():
        content = found[each] >= job.most * 0.999999
        assert content or any(used[name] >= 999.999 for name in job.requests)
        # As much of one quota as there is for everybody who asks for it.
        even = 1_000 / max(users[name] for name in job.requests)
        assert content or found[each] * job.heaviest >= even * 0.999999
