"""Leases of workers, and the pace of a worker beside those of other jobs: what is asked for, second by second."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from blockferry.core.errors import OutOfTime
from blockferry.core.rates import rate_of
from blockferry.core.retry import Deadline
from blockferry.jobs.running import LEASE_SECONDS, Asked, Running
from blockferry.sources.delta import BaseSnapshot
from blockferry.transfer.job import Job
from blockferry.transfer.pace import LATER_SECONDS, WorkerPace
from fakes import ManualClock
from job_records import HOME, RECOVERY, THIRD, delta, folder_of, image, job, job_call, on_parent, source, target
from memory_ec2 import refusal
from memory_s3 import MemoryS3

BUCKET = "blockferry-work-111122223333-us-east-1"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = Asked(requests={"get 1/a": 1, "put 1/b": 1}, blocks_per_worker=70)
MINE, OTHER = ("copy", "mine"), ("sync", "other")


class Registry:
    """A bucket at a moment that is moved by hand."""

    def __init__(self) -> None:
        self.s3 = MemoryS3()
        self.seconds = 0.0
        self.s3.now = self._now

    def _now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds)

    def running(self) -> Running:
        return Running(BUCKET, cast(Any, self.s3), now=self._now)


# -- leases ------------------------------------------------------------------------------------------------------------


def test_workers_are_counted_by_their_jobs_as_long_as_their_leases_hold() -> None:
    at = Registry()
    running = at.running()
    for first in (0, 512, 1_024):
        running.renew(MINE, first, ASKED)
    running.renew(OTHER, 0, Asked(requests={"put 1/b": 2}, blocks_per_worker=40))
    at.seconds = LEASE_SECONDS - 1
    running.renew(MINE, 512, ASKED)
    running.end(MINE, 1_024)
    seen = at.running().look()
    assert seen.workers == {MINE: 2, OTHER: 1}
    assert seen.asked == {MINE: ASKED, OTHER: Asked(requests={"put 1/b": 2}, blocks_per_worker=40)}
    assert (seen.others(MINE), seen.others(OTHER), seen.others(("copy", "new"))) == (1, 2, 3)
    at.seconds = LEASE_SECONDS + 1
    assert at.running().look().workers == {MINE: 1}


def test_what_others_may_have_put_there_is_not_counted() -> None:
    at = Registry()
    running = at.running()
    running.renew(MINE, 0, ASKED)
    for key in ("leases/copy", "leases/copy/x", "leases/copy/x/1/2", "speeds/copy", "speeds/copy/x/1", "other/copy/x"):
        at.s3.objects[f"running/{key}"] = b"{}"
    for body in (
        b"",
        b"null",
        b'{"blocks_per_second": 0}',
        b'{"blocks_per_second": -1}',
        b'{"blocks_per_second": "a"}',
    ):
        at.s3.objects["running/speeds/copy/mine"] = body
        assert at.running().look().speeds == {}
    # Of a version that says more, or other things: its workers are there, but nobody knows what they ask for.
    at.s3.objects["running/leases/copy/newer/0000000000"] = b'{"requests": {}, "pace": 1}'
    seen = at.running().look()
    assert (seen.workers, seen.asked) == ({MINE: 1, ("copy", "newer"): 1}, {MINE: ASKED})


def test_what_is_gone_between_the_listing_and_the_reading_is_not_there() -> None:
    at = Registry()
    at.running().renew(MINE, 0, ASKED)
    at.running().set_speed(MINE, 5)
    at.s3.errors["GetObject"] = refusal("NoSuchKey", "GetObject", status=404)
    seen = at.running().look()
    assert (seen.workers, seen.asked, seen.speeds) == ({MINE: 1}, {}, {})


def test_only_what_is_new_is_read() -> None:
    at = Registry()
    running = at.running()
    running.renew(MINE, 0, ASKED)
    running.set_speed(MINE, 5)
    for _ in range(3):
        running.renew(MINE, 512, ASKED)
        assert running.look().speeds == {MINE: 5}
    assert at.s3.calls["GetObject"] == 2
    running.set_speed(MINE, 6)
    assert running.look().speeds == {MINE: 6}
    running.set_speed(MINE, None)
    assert running.look().speeds == {}


# -- what a job asks for -----------------------------------------------------------------------------------------------


def test_a_job_asks_for_a_read_and_for_a_write_to_each_target_by_account() -> None:
    there = "arn:aws:iam::123456789012:role/{}"
    of = job(
        source(),
        target(),
        target(snapshot_id="snap-2", kms_key_arn="k"),
        target(snapshot_id="snap-3", region=THIRD),
        # Two roles of one account share its quotas.
        target(snapshot_id="snap-4", role_arn=there.format("one")),
        target(snapshot_id="snap-5", role_arn=there.format("two")),
    )
    assert of.asks.requests == {
        f"get 111122223333/{HOME}": 1,
        f"put 111122223333/{RECOVERY}": 2,
        f"put 111122223333/{THIRD}": 1,
        f"put 123456789012/{RECOVERY}": 2,
    }
    assert of.asks.blocks_per_worker == rate_of("abcde").per_worker


def test_an_image_asks_ebs_for_no_read_and_a_comparison_for_one_of_each_parent() -> None:
    assert job(image(), target()).asks.requests == {f"put 111122223333/{RECOVERY}": 1}
    base = BaseSnapshot(snapshot_id="snap-b", size_gib=1, start_time="2025-12-31T00:00:00+00:00")
    compared = job(delta(base), on_parent("snap-p"), operation="sync", verify_parents=True)
    assert compared.asks.requests == {
        f"get 111122223333/{HOME}": 1,
        f"get 111122223333/{RECOVERY}": 1,
        f"put 111122223333/{RECOVERY}": 1,
    }


# -- the pace of a worker ----------------------------------------------------------------------------------------------


class Worker:
    """A worker of a job, whose clock is its own."""

    def __init__(self, at: Registry, of: Job, *, first: int = 0, blocks: int = 100_000, seconds: float = 840.0) -> None:
        self.at = at
        self.clock = ManualClock()
        self.clock.now = at.seconds
        call = job_call(None, folder_of(of, at.s3, BUCKET), clock=self.clock)
        deadline = Deadline(seconds, clock=self.clock)
        self.pace = WorkerPace(of, call, first=first, blocks=blocks, deadline=deadline)
        self.pace._running.now = at._now

    def blocks_in(self, seconds: float) -> int:
        """Blocks that it lets through in so many seconds."""
        ends = self.clock.now + seconds
        count = 0
        while True:
            self.at.seconds = self.clock.now
            self.pace.take()
            if self.clock.now >= ends:
                return count
            count += 1


def planned(*, workers: int, job_id: str = "mine", targets: int = 1, region: str = RECOVERY) -> Job:
    """A copy whose plan had all quotas for itself."""
    to = [target(snapshot_id=f"snap-{number}", region=region) for number in range(targets)]
    share = rate_of([region] * targets).share(workers)
    return job(source(), *to, job_id=job_id, max_concurrency=workers, blocks_per_second=share)


def leases(at: Registry) -> list[str]:
    return sorted(at.s3.objects)


def test_a_worker_counts_as_running_while_it_moves_blocks() -> None:
    at = Registry()
    of = planned(workers=10)
    with Worker(at, of, first=512).pace:
        assert leases(at) == ["running/leases/copy/mine/0000000512"]
        assert json.loads(at.s3.objects[leases(at)[0]]) == json.loads(of.asks.model_dump_json())
    assert leases(at) == []


def test_its_lease_ends_also_when_it_fails_and_what_it_says_is_the_failure() -> None:
    at = Registry()
    at.s3.errors["ListObjectsV2"] = refusal("InternalError", "ListObjectsV2", status=500)
    pace = Worker(at, planned(workers=10)).pace.__enter__()
    assert len(leases(at)) == 1
    error = ZeroDivisionError("what was moved")
    assert pace.__exit__(ZeroDivisionError, error, None) is None  # type: ignore[func-returns-value]
    assert leases(at) == []


def test_a_short_range_is_neither_announced_nor_looked_up() -> None:
    at = Registry()
    worker = Worker(at, planned(workers=10), blocks=500)
    with worker.pace:
        assert worker.blocks_in(4.5) == pytest.approx(450, abs=1)
    assert not at.s3.calls
    with Worker(at, planned(workers=10), blocks=501).pace:
        assert at.s3.calls["PutObject"] == 1


def test_a_lease_is_renewed_before_it_ends() -> None:
    at = Registry()
    worker = Worker(at, planned(workers=10, targets=100))
    with worker.pace:
        for _ in range(10):
            worker.blocks_in(LEASE_SECONDS / 2)
            assert at.running().look().workers == {MINE: 1}
    assert at.s3.calls["PutObject"] <= 2 + 5 * LEASE_SECONDS / LATER_SECONDS


def test_a_worker_keeps_to_its_part_of_the_plan_until_it_has_seen_twice_who_runs() -> None:
    at = Registry()
    worker = Worker(at, planned(workers=10))
    with worker.pace:
        # Nine others are on their way: it does not take what is theirs.
        assert worker.blocks_in(4) == pytest.approx(400, abs=2)
        for first in range(1, 10):
            at.running().renew(MINE, first, planned(workers=10).asks)
        assert worker.blocks_in(20) == pytest.approx(2_000, abs=2)


def test_the_last_workers_of_a_job_take_what_those_that_are_done_have_left() -> None:
    at = Registry()
    worker = Worker(at, planned(workers=10))
    with worker.pace:
        worker.blocks_in(6)
        assert worker.blocks_in(10) == pytest.approx(10_000, rel=0.01)


def test_a_worker_between_two_ranges_is_not_taken_for_gone() -> None:
    at = Registry()
    of = planned(workers=2)
    worker = Worker(at, of)
    at.running().renew(MINE, 1, of.asks)
    with worker.pace:
        worker.blocks_in(10)
        at.running().end(MINE, 1)
        assert worker.blocks_in(30) == pytest.approx(15_000, rel=0.01)
        at.running().renew(MINE, 2, of.asks)
        worker.blocks_in(10)
        assert worker.blocks_in(10) == pytest.approx(5_000, rel=0.01)


def test_two_jobs_that_share_a_quota_have_half_of_it_each_until_one_ends() -> None:
    at = Registry()
    mine, other = planned(workers=1), planned(workers=14, job_id="other")
    for first in range(14):
        at.running().renew(("copy", "other"), first, other.asks)
    worker = Worker(at, mine)
    with worker.pace:
        assert worker.blocks_in(4) == pytest.approx(2_000, rel=0.01)
        at.seconds = worker.clock.now = LEASE_SECONDS + 1
        worker.blocks_in(1)
        assert worker.blocks_in(10) == pytest.approx(10_000, rel=0.01)


def test_a_job_gets_all_that_the_few_workers_of_another_one_cannot_move() -> None:
    at = Registry()
    other = planned(workers=1, job_id="other")
    at.running().renew(("copy", "other"), 0, other.asks)
    worker = Worker(at, planned(workers=1))
    with worker.pace:
        assert worker.blocks_in(4) == pytest.approx(4 * (1_000 - other.asks.blocks_per_worker), rel=0.01)


def test_a_running_job_keeps_to_the_speed_that_it_is_given_and_leaves_the_rest_to_others() -> None:
    at = Registry()
    mine, other = planned(workers=1), planned(workers=14, job_id="other")
    for first in range(14):
        at.running().renew(("copy", "other"), first, other.asks)
    at.running().set_speed(MINE, 80)
    worker = Worker(at, mine)
    with worker.pace:
        assert worker.blocks_in(4) == pytest.approx(320, abs=2)
        at.running().set_speed(MINE, 20)
        worker.blocks_in(LATER_SECONDS)
        assert worker.blocks_in(5) == pytest.approx(100, abs=2)
        at.running().set_speed(MINE, None)
        worker.blocks_in(LATER_SECONDS)
        assert worker.blocks_in(4) == pytest.approx(2_000, rel=0.01)
    at.running().set_speed(MINE, 80)
    beside = Worker(at, planned(workers=1, job_id="third"))
    at.running().renew(MINE, 0, mine.asks)
    with beside.pace:
        # The other has 14 workers and half of what the first one, held to 80 or to its network, leaves.
        least = min(80.0, mine.asks.blocks_per_worker)
        assert beside.blocks_in(4) == pytest.approx(4 * (1_000 - least) / 2, rel=0.01)


@pytest.mark.parametrize("operation", ["PutObject", "ListObjectsV2", "GetObject", "DeleteObject"])
def test_a_bucket_that_does_not_answer_leaves_the_pace_as_it_was(operation: str, monkeypatch: Any) -> None:
    at = Registry()
    other = planned(workers=14, job_id="other")
    for first in range(14):
        at.running().renew(("copy", "other"), first, other.asks)

    def fail(**_: Any) -> Any:
        raise refusal("AccessDenied", operation, status=403)

    methods = {"PutObject": "put_object", "ListObjectsV2": "paginate", "GetObject": "get_object"}
    monkeypatch.setattr(at.s3, methods.get(operation, "delete_object"), fail)
    worker = Worker(at, planned(workers=4))
    with worker.pace:
        expected = 500 if operation == "DeleteObject" else 1_000
        assert worker.blocks_in(4) == pytest.approx(4 * expected / 4, rel=0.01)


def test_nothing_is_looked_at_when_the_time_is_nearly_up() -> None:
    at = Registry()
    worker = Worker(at, planned(workers=10), seconds=36.0)
    with worker.pace:
        worker.blocks_in(5.5)
        looked = at.s3.calls["PutObject"]
        assert looked == 2
        worker.blocks_in(30)
        assert at.s3.calls["PutObject"] == looked


def test_a_range_that_one_worker_takes_a_minute_for_is_announced_though_the_quota_would_take_less() -> None:
    at = Registry()
    at.running().set_speed(MINE, 10)
    worker = Worker(at, planned(workers=1), blocks=4_096)
    with worker.pace:
        assert worker.blocks_in(5) == pytest.approx(50, abs=2)
    with Worker(at, planned(workers=1), blocks=2_048).pace:
        assert leases(at) == ["running/speeds/copy/mine"]


def test_a_worker_whose_next_block_is_due_after_its_time_stops_cleanly() -> None:
    at = Registry()
    at.running().set_speed(MINE, 0.1)
    worker = Worker(at, planned(workers=4), seconds=60.0)
    with worker.pace, pytest.raises(OutOfTime):
        list(iter(worker.pace.take, "never"))
    assert worker.clock.now < 60


def test_a_slow_worker_is_counted_between_two_blocks() -> None:
    at = Registry()
    at.running().set_speed(MINE, 0.1)
    worker = Worker(at, planned(workers=20), seconds=840.0)
    with worker.pace:
        worker.pace.take()
        renewed = at.s3.calls["PutObject"]
        worker.pace.take()
        # Two hundred seconds lie between the two, more than a lease holds.
        assert at.s3.calls["PutObject"] >= renewed + 2


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
def test_what_cannot_be_read_switches_nothing_off(code: str) -> None:
    at = Registry()
    at.running().renew(MINE, 0, ASKED)
    at.running().set_speed(MINE, 5)
    at.s3.errors["GetObject"] = refusal(code, "GetObject", status=403)
    seen = at.running().look()
    assert (seen.workers, seen.speeds) == ({MINE: 1}, {})


def test_what_is_too_large_for_a_lease_or_speed_is_not_read() -> None:
    at = Registry()
    for key in ("running/leases/copy/mine/0000000000", "running/speeds/copy/mine"):
        at.s3.objects[key] = bytes(70_000)
    seen = at.running().look(MINE)
    assert (seen.workers, seen.speeds, at.s3.calls["GetObject"]) == ({}, {}, 0)


def test_speeds_of_jobs_that_have_ended_are_not_read() -> None:
    at = Registry()
    for number in range(5):
        at.running().set_speed(("copy", f"old-{number}"), 5)
    at.running().set_speed(MINE, 7)
    assert at.running().look(MINE).speeds == {MINE: 7}
    assert at.s3.calls["GetObject"] == 1


# -- a model of several jobs -------------------------------------------------------------------------------------------


@dataclass
class Model:
    """Jobs whose workers move range after range, each worker as fast as its pace and its network allow.

    ``asked`` counts the requests of each quota and second, by job.
    """

    at: Registry = field(default_factory=Registry)
    asked: dict[tuple[str, int], Counter[str]] = field(default_factory=dict)
    _due: list[tuple[float, int, Any]] = field(default_factory=list)
    _order: int = 0

    def add(self, of: Job, *, begins: float, ends: float, blocks_a_range: int) -> None:
        workers = of.max_concurrency
        for number in range(workers):
            # Spread over the time that one takes for a block: EBS lets through what comes together for a moment.
            at = begins + number / workers / of.blocks_per_second
            self._order += 1
            heapq.heappush(self._due, (at, self._order, self._moving(of, number, at, ends, blocks_a_range)))

    def _moving(self, of: Job, number: int, begins: float, ends: float, blocks: int) -> Any:
        now, turn = begins, 0
        while now < ends:
            yield now
            self.at.seconds = now
            worker = Worker(self.at, of, first=number + 1_000 * turn, blocks=blocks)
            with worker.pace:
                for _ in range(blocks):
                    worker.pace.take()
                    # A block takes its part of the network; what waits for it is not asked for yet.
                    now = max(now + 1 / of.asks.blocks_per_worker, worker.clock.now)
                    yield now
                    self.at.seconds = worker.clock.now = now
                    for name, requests in of.asks.requests.items():
                        self.asked.setdefault((name, int(now)), Counter())[of.job_id] += requests
                    if now >= ends:
                        break
            turn += 1
            # Step Functions begins the next range.
            now += 0.5

    def run(self, seconds: float) -> None:
        while self._due:
            at, order, moving = heapq.heappop(self._due)
            if at < seconds and (due := next(moving, None)) is not None:
                heapq.heappush(self._due, (due, order, moving))

    def between(self, name: str, first: int, stop: int) -> dict[str, float]:
        """Requests a second of a quota, by job."""
        total: Counter[str] = Counter()
        for second in range(first, stop):
            total.update(self.asked.get((name, second), {}))
        return {job_id: requests / (stop - first) for job_id, requests in total.items()}


PUT = f"put 111122223333/{RECOVERY}"
QUOTA = 1_000


def copy_of(job_id: str, targets: int, *, workers: int | None = None) -> Job:
    """A copy to so many targets of one Region, as planned when it has the quotas for itself."""
    rate = rate_of([RECOVERY] * targets)
    workers = workers or rate.workers
    to = [target(snapshot_id=f"snap-{number}") for number in range(targets)]
    return job(source(), *to, job_id=job_id, max_concurrency=workers, blocks_per_second=rate.share(workers))


def test_jobs_together_use_what_a_quota_gives_and_none_starves() -> None:
    model = Model()
    for job_id, targets, begins, ends in (("long", 20, 0, 260), ("second", 25, 60, 160), ("third", 40, 90, 160)):
        model.add(copy_of(job_id, targets), begins=begins, ends=ends, blocks_a_range=200)
    model.run(260)
    # Alone, with one other, with two, and alone again. A change is seen within half a minute.
    for first, stop, there in ((10, 60, 1), (125, 160, 3), (195, 260, 1)):
        found = model.between(PUT, first, stop)
        assert len(found) == there
        assert 0.97 * QUOTA <= sum(found.values()) <= 1.01 * QUOTA
        assert min(found.values()) >= 0.97 * QUOTA / there * 0.97


def test_a_job_of_few_workers_has_its_half_beside_one_of_many() -> None:
    model = Model()
    many, few = copy_of("many", 20, workers=100), copy_of("few", 20, workers=9)
    model.add(many, begins=0, ends=200, blocks_a_range=50)
    model.add(few, begins=60, ends=200, blocks_a_range=200)
    model.run(200)
    found = model.between(PUT, 100, 200)
    assert 0.97 * QUOTA <= sum(found.values()) <= 1.03 * QUOTA
    assert min(found.values()) >= 0.97 * QUOTA / 2
