"""Workers that run twice, and workers that are still there when the job is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from blockferry.core.errors import BlockferryError
from fakes import content
from moto.core.botocore_stubber import BotocoreStubber
from rig import RECOVERY, THIRD, Rig, hashes, put, running_rig

BLOCKS = {index: content(index % 5) for index in (*range(60), 700, 701, 2047)}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    # moto's S3 breaks when one key is written twice at the same time, which the real S3 does not.
    one_at_a_time, process = threading.Lock(), BotocoreStubber.process_request

    def in_turn(stubber: BotocoreStubber, request: Any) -> Any:
        with one_at_a_time:
            return process(stubber, request)

    monkeypatch.setattr(BotocoreStubber, "process_request", in_turn)
    with running_rig(monkeypatch) as made:
        yield made


def planned(rig: Rig) -> str:
    request = {
        "snapshot_id": rig.snapshot(BLOCKS),
        "targets": [{"region": RECOVERY}, {"region": THIRD}],
        "options": {"blocks_per_range": 700},
    }
    job_id: str = rig.plan(request)["job_id"]
    return job_id


def target_ids(rig: Rig, job_id: str) -> list[str]:
    job = rig.job(job_id)
    assert job is not None
    return [target.snapshot_id for target in job.targets]


def test_two_workers_on_the_same_range_at_the_same_time_give_one_exact_copy(rig: Rig) -> None:
    job_id = planned(rig)
    together = threading.Barrier(2)

    def worker(part: Any) -> dict[str, Any]:
        together.wait(timeout=30)
        return rig.move(job_id, part)

    for part in rig.ranges(job_id):
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(worker, [part, part]))
        assert [answer["done"] for answer in answers] == [True, True]
    receipt = rig.finish(job_id)
    assert [rig.held(t["snapshot_id"]) for t in receipt["targets"]] == [hashes(BLOCKS)] * 2
    assert receipt["changed_blocks"] == len(BLOCKS)
    assert len([s for s in rig.snapshots() if s["state"] == "completed"]) == 3


def test_two_plans_of_one_job_at_the_same_time_start_its_targets_once(rig: Rig) -> None:
    source = rig.snapshot(BLOCKS)
    request = {"snapshot_id": source, "targets": [{"region": RECOVERY}, {"region": THIRD}]}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: rig.plan(request, job_id="twice"), range(2)))
    started = {s["snapshot_id"] for s in rig.snapshots()} - {source}
    assert started == set(target_ids(rig, "twice"))
    assert len(started) == 2


def test_two_completions_at_the_same_time_leave_completed_targets(rig: Rig) -> None:
    job_id = planned(rig)
    rig.move_all(job_id)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: rig.complete(job_id), range(2)))
    assert answers[0] == answers[1]
    receipt = rig.finish(job_id)
    assert [rig.held(t["snapshot_id"]) for t in receipt["targets"]] == [hashes(BLOCKS)] * 2


def test_a_worker_that_comes_back_after_completion_changes_nothing(rig: Rig) -> None:
    job_id = planned(rig)
    rig.move_all(job_id)
    receipt = rig.finish(job_id)
    with pytest.raises(BlockferryError):
        rig.move(job_id, rig.ranges(job_id)[0])
    assert [rig.held(t["snapshot_id"]) for t in receipt["targets"]] == [hashes(BLOCKS)] * 2
    assert [rig.state(t["snapshot_id"]) for t in receipt["targets"]] == ["completed"] * 2


def test_a_late_write_of_other_data_before_completion_is_found_by_ebs_and_no_target_is_completed(rig: Rig) -> None:
    job_id = planned(rig)
    rig.move_all(job_id)
    first, second = target_ids(rig, job_id)
    put(rig.client("ebs", RECOVERY), first, {0: content(99)})
    with pytest.raises(BlockferryError, match=first):
        rig.finish(job_id)
    assert rig.state(first) == "error"
    assert rig.held(second) == hashes(BLOCKS)


def test_a_late_write_of_a_block_that_the_source_does_not_hold_is_found_by_its_count(rig: Rig) -> None:
    job_id = planned(rig)
    rig.move_all(job_id)
    first = target_ids(rig, job_id)[0]
    put(rig.client("ebs", RECOVERY), first, {1000: content(0)})
    with pytest.raises(BlockferryError, match=first):
        rig.finish(job_id)
    assert rig.state(first) == "error"
