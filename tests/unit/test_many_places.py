"""A job with a hundred places, each a Region and a role: they are asked side by side, with one request each."""

from __future__ import annotations

import threading
from typing import Any, cast

import boto3
import pytest
from blockferry.aws.sessions import Aws, Identity, new_session
from blockferry.aws.snapshots import EXECUTION_TAG
from blockferry.core.together import together
from blockferry.core.tuning import Throughput
from blockferry.jobs.call import JobCall
from blockferry.transfer.check import check_targets
from blockferry.transfer.discard import discard
from blockferry.transfer.receipt import write_receipt
from job_records import AT_ONCE, EXECUTION, PROOF, RECOVERY, THIRD, folder_of, job, recorded, source, target
from memory_ec2 import MemoryEc2, described
from memory_s3 import MemoryS3

PLACES, AT_A_TIME = 100, 5
ROLE = "arn:aws:iam::123456789012:role/writer-"
PATIENCE_SECONDS = 5.0
"""Until a request that waits for others at its side gives up, and its test with it."""


class Crowd:
    """EC2 of many places, which answers DescribeSnapshots only to ``AT_A_TIME`` requests at once."""

    def __init__(self) -> None:
        self.gate = threading.Barrier(AT_A_TIME, timeout=PATIENCE_SECONDS)
        self.lock = threading.Lock()
        self.places: dict[Identity, MemoryEc2] = {}
        self.targets = [
            target(snapshot_id=f"snap-{number}", region=RECOVERY if number % 2 else THIRD, role_arn=f"{ROLE}{number}")
            for number in range(PLACES)
        ]
        for number, each in enumerate(self.targets):
            shown = described(f"snap-{number}", tags={EXECUTION_TAG: EXECUTION.mark})
            self.places[each.identity] = MemoryEc2(shown)
        self.job = job(source(), *self.targets)
        self.folder = folder_of(self.job, MemoryS3(), "work")
        self.record = recorded(self.folder, self.job)

    def ec2(self, identity: Identity) -> Any:
        return Gated(self, self.places[identity])

    @property
    def call(self) -> JobCall:
        tuning = Throughput(places_at_a_time=AT_A_TIME)
        return JobCall(aws=cast(Any, self), folder=self.folder, throughput=tuning, waits=AT_ONCE)

    @property
    def asked(self) -> list[int]:
        """DescribeSnapshots that each place got."""
        return [place.calls["DescribeSnapshots"] for place in self.places.values()]


class Gated:
    def __init__(self, crowd: Crowd, place: MemoryEc2) -> None:
        self._crowd = crowd
        self._place = place

    def get_paginator(self, name: str) -> Any:
        self._crowd.gate.wait()
        return self._place.get_paginator(name)

    def delete_snapshot(self, **asked: Any) -> None:
        self._place.delete_snapshot(**asked)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def test_targets_are_checked_side_by_side_with_one_request_for_a_place(crowd: Crowd) -> None:
    asked = check_targets(crowd.call, crowd.record, None)
    assert asked["completed"] is True
    assert asked["states"] == {f"snap-{number}": "completed" for number in range(PLACES)}
    assert crowd.asked == [1] * PLACES


def test_targets_are_confirmed_side_by_side_with_one_request_for_a_place(crowd: Crowd) -> None:
    proof = crowd.folder.save_proof(PROOF)
    receipt = write_receipt(crowd.call, crowd.record, proof)
    assert [each["snapshot_id"] for each in receipt["targets"]] == [f"snap-{number}" for number in range(PLACES)]
    assert crowd.asked == [1] * PLACES


def test_targets_are_deleted_side_by_side(crowd: Crowd) -> None:
    for place in crowd.places.values():
        for shown in place.snapshots.values():
            shown["State"] = "pending"
    gone = discard(crowd.job, crowd.targets, crowd.call)
    assert gone.gone == tuple(f"snap-{number}" for number in range(PLACES))
    assert all(place.snapshots == {} for place in crowd.places.values())


def test_one_place_that_fails_says_nothing_of_the_others(crowd: Crowd) -> None:
    silent = crowd.places[crowd.targets[7].identity]
    silent.snapshots = {}
    looked = crowd.job.look(range(PLACES), crowd.call)
    assert sorted(looked.errors) == [7]
    assert sorted(looked.facts) == [number for number in range(PLACES) if number != 7]


def test_no_more_are_under_way_than_may_be_and_all_are_tried_before_one_fails() -> None:
    lock, under_way, most, tried = threading.Lock(), 0, 0, []
    gate = threading.Barrier(3, timeout=PATIENCE_SECONDS)

    def work(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            tried.append(number)
        gate.wait()
        with lock:
            under_way -= 1
        gate.wait()
        if number in (2, 5):
            raise ValueError(str(number))
        return number * 10

    with pytest.raises(ValueError, match=r"^2$"):
        together(work, range(9), most=3)
    assert sorted(tried) == list(range(9))
    assert most == 3


def test_the_second_of_two_is_tried_though_the_first_fails() -> None:
    tried = []

    def work(number: int) -> None:
        tried.append(number)
        if number == 0:
            raise ValueError("the first")

    with pytest.raises(ValueError, match=r"^the first$"):
        together(work, range(2), most=1)
    assert tried == [0, 1]


def test_answers_come_in_the_order_of_what_was_asked() -> None:
    first = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first.wait(PATIENCE_SECONDS)
        else:
            first.set()
        return number * 10

    assert together(work, range(4), most=2) == [0, 10, 20, 30]
    assert together(work, [1], most=2) == [10]
    assert together(work, [], most=2) == []


def test_threads_that_ask_for_the_same_client_get_the_same_one() -> None:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    aws = Aws(base=boto3.Session(botocore_session=new_session(), region_name=RECOVERY, **keys))
    gate = threading.Barrier(8, timeout=PATIENCE_SECONDS)

    def client(number: int) -> Any:
        gate.wait()
        return aws.ec2(Identity((RECOVERY, THIRD)[number % 2]))

    made = together(client, range(8), most=8)
    assert len({id(each) for each in made}) == 2
