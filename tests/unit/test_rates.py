"""Workers, shares and requests under way: what holds of every volume, set of targets, and account."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.core.blocks import BLOCK_SIZE, MAX_RANGES, blocks_of_volume, blocks_per_range
from blockferry.core.quotas import BLOCKS_PER_SECOND
from blockferry.core.rates import blocks_in_flight, rate_of
from blockferry.core.reserves import JOB_SECONDS, MOVE_SECONDS
from blockferry.core.tuning import Throughput
from blockferry.requests.parts import TransferOptions
from blockferry.transfer.workers import SHARE_OF_A_JOB, plan_workers, slow_warning

SIZES_GIB = (1, 100, 1_024, 16_384, 65_536)
TARGETS = (1, 3, 10, 25, 100)
REGIONS = (1, 2, 10)
LIMITS = (10, 50, 1_000, 10_000)
ASKED = (None, 1, 500)

NETWORK_BITS = 600e6
WEEK = 7 * 24 * 3_600
ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 1_769 * 2**20
"""Of a worker's function (terraform/modules/region/functions.tf)."""


def account(limit: int) -> Any:
    settings = {"AccountLimit": {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": limit}}
    return lambda: cast(Any, SimpleNamespace(get_account_settings=lambda: settings))


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_plan_keeps_to_every_limit_and_ends(limit: int, asked: int | None) -> None:
    within = Throughput()
    for gib, targets, regions in itertools.product(SIZES_GIB, TARGETS, REGIONS):
        case = f"{gib} GiB, {targets} targets, {regions} regions"
        places = [number % regions for number in range(targets)]
        rate = rate_of(places)
        total = blocks_of_volume(gib)
        length = blocks_per_range(total, TransferOptions().blocks_per_range)
        ranges = math.ceil(total / length)
        workers = plan_workers(asked, useful=rate.workers, ranges=ranges, client=account(limit), region="r").count
        share = rate.share(workers)

        # Never more than a quota gives: of the source, and of any place with all its targets.
        fullest = max(places.count(place) for place in set(places))
        assert workers * share <= BLOCKS_PER_SECOND * 1.000001, case
        assert workers * share * fullest <= BLOCKS_PER_SECOND * 1.000001, case
        # And all that the binding one gives, as far as workers may ask for it.
        assert workers * share * fullest == pytest.approx(BLOCKS_PER_SECOND), case

        # Room: a job that nobody limits leaves some for another one, and no worker is without a range.
        assert 1 <= workers <= min(ranges, 1_000), case
        assert workers <= (limit if asked else max(1, int(limit * SHARE_OF_A_JOB))), case

        # Where nothing else binds, what a worker receives and sends fits its network, and with one less it would not.
        bits = BLOCK_SIZE * 8 * (1 + targets)
        if asked is None and workers == rate.workers:
            assert share * bits <= NETWORK_BITS * 1.000001, case
            assert rate.share(workers - 1) * bits > NETWORK_BITS if workers > 1 else True, case

        # Memory: a block for each thread, whatever the number of targets.
        threads = max(within.min_threads, min(within.max_threads, math.ceil(blocks_in_flight(share, far=True))))
        assert threads * BLOCK_SIZE < MEMORY_BYTES / 20, case

        # A worker's threads keep up with its share, at the answer times of another Region, if its network does.
        reached = min(share, NETWORK_BITS / bits)
        assert threads / 0.13 >= reached, case
        assert (threads + within.max_writers) / 0.1 >= min(reached * targets, NETWORK_BITS / 8 / BLOCK_SIZE), case

        # The list of ranges is one that the map takes, and each call of a worker gets on with its own.
        assert ranges <= MAX_RANGES, case
        assert share * (900 - MOVE_SECONDS) >= 1, case

        # The job ends in its time, or its operator hears before that it may not.
        seconds = rate.seconds(total, workers)
        assert seconds >= total / (workers * min(share, NETWORK_BITS / bits)) * 0.999999, case
        assert (slow_warning(seconds) is None) == (seconds <= WEEK), case
        if limit >= 1_000 and asked is None and fullest == 1:
            assert seconds < WEEK / 4, case


def test_targets_of_one_place_share_its_requests_and_those_of_several_do_not() -> None:
    assert [rate_of(places).blocks_per_second for places in ("a", "ab", "aa", "aab", "a" * 100)] == [
        1_000,
        1_000,
        500,
        500,
        10,
    ]


def test_a_rate_is_what_is_left_of_the_quotas() -> None:
    assert rate_of("ab", read=300).blocks_per_second == 300
    assert rate_of("aab", read=300, written=400).blocks_per_second == 200


def test_the_workers_of_a_rate_are_as_many_as_carry_it() -> None:
    assert [rate_of(range(targets)).workers for targets in (1, 3, 10)] == [14, 28, 77]


def test_a_job_takes_as_long_as_its_quotas_or_the_networks_of_its_workers() -> None:
    # 71.5 blocks a second through one network, in and out.
    assert rate_of("a").seconds(1_000_000, 14) == pytest.approx(1_000)
    assert rate_of("a").seconds(1_000_000, 100) == pytest.approx(1_000)
    assert rate_of("a").seconds(1_000_000, 4) == pytest.approx(1_000_000 / (4 * 600e6 / 8 / 2**19 / 2))
    assert rate_of("aa").seconds(1_000_000, 14) == pytest.approx(2_000)


@pytest.mark.parametrize("machine", ["copy", "sync", "fanout"])
def test_a_job_has_the_time_that_its_machine_has(machine: str) -> None:
    definition = json.loads((ROOT / f"statemachines/{machine}.asl.json").read_text())
    assert definition["TimeoutSeconds"] == JOB_SECONDS == WEEK


def test_an_operator_hears_of_a_job_that_may_take_longer_than_it_has() -> None:
    assert slow_warning(WEEK) is None
    warning = slow_warning(WEEK * 10.5 / 7)
    assert warning is not None
    assert warning.code == "longer_than_a_job_has"
    assert "10.5 days" in warning.message
    assert "7 days" in warning.message


def test_blocks_under_way_follow_littles_law() -> None:
    # Twice what 100 blocks a second need at 60 and at 130 milliseconds.
    assert blocks_in_flight(100, far=False) == pytest.approx(12)
    assert blocks_in_flight(100, far=True) == pytest.approx(26)
