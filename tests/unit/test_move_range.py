"""One invocation of a worker: what is written, stored and marked, whatever single targets and parents do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blockferry.aws.sessions import Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import OutOfTime, RequestRefused, RetryLater, SourceChanged
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Stretch
from blockferry.jobs.folder import Marks
from blockferry.jobs.record import Stopped
from blockferry.jobs.recounts import Held, Recounted
from blockferry.sources.delta import BaseSnapshot
from blockferry.sources.image import JobImage
from blockferry.targets.archive import ArchiveTarget
from blockferry.transfer.job import Job, started_job
from blockferry.transfer.move import move_range, stop_moving
from blockferry.transfer.recount import recount
from fakes import ManualClock, content
from job_records import (
    HOME,
    RECOVERY,
    THIRD,
    archive,
    delta,
    folder_of,
    image,
    job,
    job_call,
    on_parent,
    recorded,
    source,
    target,
)
from memory_ebs import MemoryEbs
from memory_s3 import MemoryS3

BASE = BaseSnapshot(snapshot_id="snap-b", size_gib=1, start_time="2025-12-31T00:00:00+00:00")
WITHIN = BlockRange(0, 10)
BLOCKS = {1: content(1), 4: content(4), 8: content(8)}


class Region(MemoryEbs):
    """A region with targets; ``refuses`` are errors of writing, by snapshot."""

    def __init__(self, snapshots: Any, *, region: str, clock: ManualClock, takes: float = 0.0) -> None:
        super().__init__(snapshots, region=region)
        self.clock, self.takes = clock, takes
        self.refuses: dict[str, Exception] = {}
        self.written: dict[str, dict[int, bytes]] = {}
        self.started: dict[str, float] = {}

    def was_started(self, snapshot_id: str, *, seconds_ago: float) -> None:
        self.started[snapshot_id] = seconds_ago

    def put_block(self, snapshot_id: str, index: int, data: bytes, _digest: bytes) -> None:
        self.clock.advance(self.takes)
        if snapshot_id in self.refuses:
            raise self.refuses[snapshot_id]
        self.written.setdefault(snapshot_id, {})[index] = data


class Cloud:
    """Targets snap-1 and snap-2 in two regions; parents snap-p and snap-q there, equal to the base."""

    def __init__(self, of: Job, *, takes: float = 0.0) -> None:
        self.clock = ManualClock()
        base = {1: content(9)}
        # Listed by the sync as changes since the base.
        home = {"snap-0": BLOCKS, "snap-b": base}
        self.home = Region(home, region=HOME, clock=self.clock)
        self.home.volumes = {}
        self.recovery = Region({"snap-p": base}, region=RECOVERY, clock=self.clock, takes=takes)
        self.third = Region({"snap-q": base}, region=THIRD, clock=self.clock)
        self.folder = folder_of(of, MemoryS3())
        self.record = recorded(self.folder, of)
        self.counts: list[RequestCounts] = []
        self.connections: set[int] = set()
        self.deadlines: list[float] = []

    def ebs(
        self,
        identity: Identity,
        *,
        counts: RequestCounts,
        clock: Any,
        deadline: Deadline,
        connections: int,
        policy: Any,
    ) -> Region:
        assert clock is self.clock
        self.counts.append(counts)
        self.connections.add(connections)
        self.deadlines.append(deadline.remaining())
        return {HOME: self.home, RECOVERY: self.recovery, THIRD: self.third}[identity.region]

    def move(self, within: BlockRange = WITHIN, **more: Any) -> dict[str, Any]:
        surrounds = {name: more.pop(name) for name in ("counts", "memory_gb", "seconds_left") if name in more}
        call = job_call(self, self.folder, clock=self.clock, **surrounds)
        return move_range(call, self.record, within=within, **{"next_index": None, **more})

    def stretches(self) -> list[Stretch]:
        return [self.folder.stretch(key) for key in self.folder.stretch_keys()]

    def written(self) -> dict[str, list[int]]:
        both = self.recovery.written | self.third.written
        return {name: sorted(blocks) for name, blocks in sorted(both.items())}

    def recounted(self, first: int = 0, stop: int = 512) -> tuple[Recounted, bytes] | None:
        found = self.folder.recount(BlockRange(first, stop))
        return None if found is None else (found[0], bytes(found[1]))


TWO = (target(snapshot_id="snap-1"), target(snapshot_id="snap-2", region=THIRD))


def copy(**more: Any) -> Cloud:
    return Cloud(job(source(), *TWO, **more))


def sync(**more: Any) -> Cloud:
    on_top = (on_parent("snap-p", snapshot_id="snap-1"), on_parent("snap-q", snapshot_id="snap-2", region=THIRD))
    return Cloud(job(delta(BASE), *on_top, operation="sync", verify_parents=True, **more))


NOTHING = {"next_index": 10, "done": True, "outcome": "left", "blocks_read": 0, "blocks_written": 0}
NOT_YET = {**NOTHING, "next_index": 0, "done": False, "outcome": None}
ALL = [1, 4, 8]
DENIED = RequestRefused("PutSnapshotBlock: no")


def test_a_range_is_written_to_every_target_and_put_on_record() -> None:
    cloud = copy(threads=3)
    counts = RequestCounts()
    counts.sent("PutSnapshotBlock", RECOVERY)
    counts.retried("PutSnapshotBlock", "ThrottlingException")
    cloud.clock.advance(5)
    answer = cloud.move(counts=counts, memory_gb=2.0)
    assert answer == {"next_index": 10, "done": True, "outcome": "moved", "blocks_read": 3, "blocks_written": 3}
    assert cloud.recovery.written == {"snap-1": BLOCKS}
    assert cloud.third.written == {"snap-2": BLOCKS}
    (stretch,) = cloud.stretches()
    assert (stretch.first, stretch.stop, stretch.targets) == (0, 10, (0, 1))
    assert [index for index, _ in stretch.digests] == ALL
    assert (stretch.requests, stretch.retries) == ({f"PutSnapshotBlock {RECOVERY}": 1}, counts.retries)
    assert stretch.parent_blocks == 0
    # One for each request that may be under way, all of which may go to one Region: those of three threads, and beside
    # them 64 of writers.
    assert cloud.connections == {67}
    assert all(each is counts for each in cloud.counts)
    # A minute of the invocation's time is kept back.
    assert set(cloud.deadlines) == {840.0}


def test_what_the_invocation_costs_is_put_on_record() -> None:
    cloud = Cloud(job(source(), target(snapshot_id="snap-1")), takes=1.23456)
    cloud.move(memory_gb=2.0)
    assert cloud.stretches()[0].gb_seconds == 7.407
    # On a machine of one's own it costs nothing.
    cloud.move(BlockRange(0, 9))
    assert [stretch.gb_seconds for stretch in cloud.stretches()] == [0.0, 7.407]


def test_a_sink_knows_how_old_its_snapshot_is() -> None:
    started_at = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    cloud = Cloud(job(source(), target(snapshot_id="snap-1", started_at=started_at)))
    cloud.move()
    assert cloud.recovery.started == {"snap-1": pytest.approx(100, abs=30)}


def test_blocks_are_written_at_the_pace_of_one_workers_share() -> None:
    blocks = {index: content(1) for index in range(10)}
    cloud = copy(blocks_per_second=2.0)
    cloud.home.snapshots["snap-0"] = blocks
    began = cloud.clock.now
    cloud.move()
    assert cloud.clock.now - began >= 4.5


def test_parents_are_read_at_the_pace_of_one_workers_share() -> None:
    cloud = sync(blocks_per_second=2.0)
    for region, name in ((cloud.home, "snap-b"), (cloud.recovery, "snap-p"), (cloud.third, "snap-q")):
        region.snapshots[name] = {index: content(9) for index in range(20, 30)}
    cloud.home.snapshots["snap-0"] = cloud.home.snapshots["snap-b"]
    began = cloud.clock.now
    assert cloud.move(BlockRange(20, 30))["blocks_written"] == 0
    assert cloud.clock.now - began >= 4.5


def out_of_time(*_: Any) -> Any:
    raise OutOfTime("the end is near")


def test_where_not_even_one_block_was_moved_nothing_is_on_record() -> None:
    cloud = copy()
    cloud.home.snapshots["snap-0"] = {0: content(1)}
    cloud.home.get_block = out_of_time  # type: ignore[method-assign]
    assert cloud.move() == NOT_YET
    assert cloud.stretches() == []


def test_where_not_even_one_block_was_compared_nothing_is_moved() -> None:
    cloud = sync()
    cloud.home.snapshots["snap-b"] = {0: content(9)}
    cloud.home.get_block = out_of_time  # type: ignore[method-assign]
    assert cloud.move() == NOT_YET
    assert (cloud.stretches(), cloud.written()) == ([], {})
    assert cloud.folder.marks() == Marks(frozenset(), frozenset())


def test_a_range_is_gone_on_with_where_it_was_left() -> None:
    cloud = copy()
    assert cloud.move(next_index=2)["blocks_read"] == 2
    assert [(stretch.first, stretch.stop) for stretch in cloud.stretches()] == [(2, 10)]
    assert cloud.move(next_index=10) == {**NOTHING, "outcome": "moved"}
    assert len(cloud.stretches()) == 1


def test_what_the_time_does_not_allow_is_left_and_what_was_done_is_on_record() -> None:
    cloud = Cloud(job(source(), target(snapshot_id="snap-1")), takes=6.0)
    answer = cloud.move(seconds_left=70.0)
    assert (answer["done"], answer["outcome"], 1 < answer["next_index"] <= 8) == (False, None, True)
    held = sum(index < answer["next_index"] for index in ALL)
    assert (answer["blocks_read"], answer["blocks_written"]) == (held, held)
    assert [(stretch.first, stretch.stop) for stretch in cloud.stretches()] == [(0, answer["next_index"])]
    assert cloud.move(next_index=answer["next_index"])["done"]
    assert cloud.written() == {"snap-1": ALL}


def test_an_invocation_that_is_nearly_over_has_a_second_all_the_same() -> None:
    cloud = copy()
    cloud.move(seconds_left=10.0)
    assert set(cloud.deadlines) == {1.0}


# -- the range is counted again ----------------------------------------------------------------------------------------


def counted(**more: Any) -> Cloud:
    """A copy whose plan has two ranges of ten blocks."""
    return copy(total_blocks=20, blocks_per_range=10, **more)


WHOLE = b"".join(digest_of(BLOCKS[index]) for index in ALL)


def test_a_range_that_is_moved_is_counted_again_from_what_is_stored() -> None:
    cloud = counted()
    counts = RequestCounts()
    counts.sent("PutSnapshotBlock", RECOVERY)
    cloud.move(counts=counts)
    assert cloud.home.asked.count(("ListSnapshotBlocks", "snap-0", 0, 10)) == 2
    found = cloud.recounted(0, 10)
    assert found is not None
    assert found[1] == WHOLE
    assert (found[0].blocks, found[0].allocated, found[0].read, found[0].zeros, found[0].removed) == (3, 3, 3, 0, 0)
    assert found[0].held == (Held(first=0, stop=10, targets=(0, 1)),)
    assert found[0].requests == {f"PutSnapshotBlock {RECOVERY}": 1}
    # The requests of the count are its own, and on nobody's bill twice.
    assert [each is counts for each in cloud.counts].count(False) == 1
    assert cloud.recounted(10, 20) is None


@pytest.mark.parametrize("ends", [None, RetryLater("throttled")])
def test_what_a_count_asked_is_in_the_metrics_of_its_call(ends: Exception | None) -> None:
    cloud = counted()
    cloud.move()
    counts = RequestCounts()

    def list_blocks(*args: Any, **more: Any) -> Any:
        cloud.counts[-1].sent("ListSnapshotBlocks", HOME)
        cloud.counts[-1].retried("ListSnapshotBlocks", "ThrottlingException")
        if ends is not None:
            raise ends
        return whole(*args, **more)

    whole = cloud.home.list_blocks
    cloud.home.list_blocks = list_blocks  # type: ignore[method-assign]
    with pytest.raises(RetryLater) if ends is not None else nullcontext():
        cloud.move(next_index=10, counts=counts)
    assert counts.requests == {"ListSnapshotBlocks": 1}
    assert counts.retries == {"ListSnapshotBlocks ThrottlingException": 1}


@pytest.mark.parametrize("error", [OutOfTime("the end is near"), RetryLater("throttled")])
def test_a_range_that_could_not_be_counted_any_more_is_counted_by_the_next_call(error: Exception) -> None:
    cloud = counted()
    whole = cloud.home.list_blocks
    lists = iter([whole])

    def list_blocks(*args: Any, **more: Any) -> Any:
        ask = next(lists, None)
        if ask is None:
            raise error
        return ask(*args, **more)

    cloud.home.list_blocks = list_blocks  # type: ignore[method-assign]
    answer = cloud.move()
    assert answer == {"next_index": 10, "done": False, "outcome": None, "blocks_read": 3, "blocks_written": 3}
    assert (cloud.recounted(0, 10), len(cloud.stretches())) == (None, 1)
    cloud.home.list_blocks = whole  # type: ignore[method-assign]
    written = dict(cloud.recovery.written)
    cloud.recovery.refuses["snap-1"] = DENIED
    assert cloud.move(next_index=10) == {**NOTHING, "outcome": "moved"}
    assert cloud.recounted(0, 10) is not None
    assert cloud.recovery.written == written


def test_a_count_that_keeps_failing_fails_its_own_call() -> None:
    cloud = counted()
    cloud.move()
    cloud.home.errors["ListSnapshotBlocks"] = RetryLater("throttled")
    with pytest.raises(RetryLater, match="throttled"):
        cloud.move(next_index=10)


def test_what_does_not_fit_is_left_to_complete_transfer() -> None:
    cloud = counted()
    cloud.move(next_index=2)
    # Nobody has moved block 1: the count is not stored, and Complete transfer names the block.
    assert cloud.recounted(0, 10) is None
    cloud.move()
    found = cloud.recounted(0, 10)
    assert found is not None
    assert found[1] == WHOLE


def test_a_piece_that_a_target_missed_has_its_whole_range_counted() -> None:
    cloud = counted()
    cloud.recovery.refuses["snap-1"] = DENIED
    cloud.move()
    cloud.recovery.refuses.clear()
    cloud.folder.forget_failures([0])
    cloud.move(BlockRange(3, 9), targets=(0,))
    found = cloud.recounted(0, 10)
    assert found is not None
    assert found[0].held == (Held(first=0, stop=10, targets=(1,)), Held(first=3, stop=9, targets=(0,)))
    assert found[1] == WHOLE


def test_what_lies_between_two_pieces_that_a_target_has_is_not_told_as_held() -> None:
    cloud = counted()
    cloud.recovery.refuses["snap-1"] = DENIED
    cloud.move()
    cloud.recovery.refuses.clear()
    cloud.folder.forget_failures([0])
    for piece in (BlockRange(1, 3), BlockRange(5, 8)):
        cloud.move(piece, targets=(0,))
    found = cloud.recounted(0, 10)
    assert found is not None
    pieces = [Held(first=0, stop=10, targets=(1,)), Held(first=1, stop=3, targets=(0,))]
    assert found[0].held == (*pieces, Held(first=5, stop=8, targets=(0,)))


def test_what_counting_costs_is_added_to_what_the_workers_cost() -> None:
    cloud = Cloud(job(source(), target(snapshot_id="snap-1"), total_blocks=20, blocks_per_range=10), takes=1.0)
    cloud.move(memory_gb=2.0)
    whole = cloud.home.list_blocks

    def slowly(*args: Any, **more: Any) -> Any:
        cloud.clock.advance(0.12345675)
        return whole(*args, **more)

    cloud.home.list_blocks = slowly  # type: ignore[method-assign]
    call = job_call(cloud, cloud.folder, clock=cloud.clock, memory_gb=2.0)
    found, _ = recount(started_job(call, cloud.record), call.until(call.reserving(1)), BlockRange(0, 10))
    assert found.gb_seconds == round(cloud.stretches()[0].gb_seconds + 2 * 0.12345675, 6)


def test_an_archive_is_counted_with_the_range() -> None:
    told: list[Any] = []

    class Counted(ArchiveTarget):
        def counted(self, call: JobCall, *what: Any) -> None:
            told.append(what)

    of = job(source(), *TWO, total_blocks=20, blocks_per_range=10)
    cloud = Cloud(of)
    cloud.move()
    archived = of.model_copy(update={"targets": (TWO[0], Counted(**archive().model_dump()))})
    call = job_call(cloud, cloud.folder, clock=cloud.clock)
    recount(archived, call.until(call.reserving(1)), BlockRange(0, 10))
    assert told == [(1, BlockRange(0, 10), [(index, digest_of(BLOCKS[index])) for index in ALL], 3)]


def test_stretches_that_continue_each_other_are_told_as_one() -> None:
    cloud = counted()
    cloud.move(BlockRange(0, 4))
    cloud.move(BlockRange(4, 7))
    cloud.move(next_index=7)
    found = cloud.recounted(0, 10)
    assert found is not None
    assert found[0].held == (Held(first=0, stop=10, targets=(0, 1)),)


# -- targets that cannot be written ------------------------------------------------------------------------------------


def test_a_target_that_fails_is_marked_and_left_out_and_the_others_are_on_record() -> None:
    cloud = copy()
    cloud.recovery.refuses["snap-1"] = DENIED
    assert cloud.move()["outcome"] == "moved"
    assert [stretch.targets for stretch in cloud.stretches()] == [(1,)]
    assert cloud.folder.marks() == Marks(frozenset({0}), frozenset())
    assert cloud.folder.failure(0) == "PutSnapshotBlock: no"
    cloud.recovery.refuses.clear()
    cloud.move(BlockRange(0, 5))
    assert "snap-1" not in cloud.recovery.written


def test_of_one_target_that_fails_and_no_other_the_range_fails() -> None:
    cloud = Cloud(job(source(), target(snapshot_id="snap-1")))
    cloud.recovery.refuses["snap-1"] = DENIED
    with pytest.raises(RequestRefused, match="PutSnapshotBlock: no"):
        cloud.move()
    assert cloud.stretches() == []


def test_of_all_targets_that_fail_the_range_fails_with_the_error_of_one() -> None:
    cloud = copy()
    cloud.recovery.refuses["snap-1"] = cloud.third.refuses["snap-2"] = DENIED
    with pytest.raises(RequestRefused, match="PutSnapshotBlock: no"):
        cloud.move()
    # One that was never started has no turn to come.
    cloud.record = recorded(cloud.folder, job(source(), *TWO, target(snapshot_id="")))
    with pytest.raises(RequestRefused):
        cloud.move()


def test_all_that_were_tried_are_named() -> None:
    cloud = Cloud(job(source(), *TWO, target(snapshot_id="snap-3")))
    cloud.folder.mark_failed(2, "before")
    cloud.recovery.refuses["snap-1"] = cloud.third.refuses["snap-2"] = DENIED
    with pytest.raises(RetryLater) as caught:
        cloud.move()
    told = str(caught.value).split(": ", 1)[1].split("; ")
    assert sorted(told) == sorted(
        f"{name} in {region}: PutSnapshotBlock: no" for name, region in (("snap-1", RECOVERY), ("snap-2", THIRD))
    )


def test_where_the_only_one_that_was_tried_fails_the_others_have_their_turn_later() -> None:
    cloud = copy()
    cloud.folder.mark_failed(0, "before")
    cloud.third.refuses["snap-2"] = DENIED
    with pytest.raises(RetryLater) as caught:
        cloud.move()
    assert str(caught.value) == (
        f"no target that was tried takes blocks 0 to 9: snap-2 in {THIRD}: PutSnapshotBlock: no"
    )
    # With all of them marked, all are tried again.
    cloud.third.refuses.clear()
    assert cloud.move()["done"]
    assert cloud.written() == {"snap-1": ALL, "snap-2": ALL}


def test_a_round_for_single_targets_writes_to_those_only() -> None:
    cloud = copy()
    assert cloud.move(targets=(1,))["done"]
    assert cloud.written() == {"snap-2": ALL}
    assert [stretch.targets for stretch in cloud.stretches()] == [(1,)]
    cloud.folder.mark_failed(0, "before")
    assert cloud.move(targets=(0,)) == NOTHING
    assert cloud.written() == {"snap-2": ALL}


def test_a_round_in_which_all_its_targets_fail_leaves_the_range_missing() -> None:
    cloud = copy()
    cloud.third.refuses["snap-2"] = DENIED
    assert cloud.move(targets=(1,)) == NOTHING
    assert cloud.stretches() == []
    assert cloud.folder.marks().failed == {1}


def test_a_target_that_was_given_up_or_never_started_is_not_written() -> None:
    cloud = Cloud(job(source(), *TWO, target(snapshot_id="")))
    cloud.folder.give_up(0, "for good")
    cloud.move()
    assert cloud.written() == {"snap-2": ALL}
    cloud.folder.give_up(1, "for good")
    cloud.home.asked.clear()
    assert cloud.move() == NOTHING
    assert cloud.move(targets=(0, 2)) == NOTHING
    assert cloud.home.asked == []


# -- parents -----------------------------------------------------------------------------------------------------------


def test_parents_are_compared_before_anything_is_written() -> None:
    cloud = sync()
    assert cloud.move()["done"]
    assert cloud.written() == {"snap-1": ALL, "snap-2": ALL}
    (stretch,) = cloud.stretches()
    assert (stretch.targets, stretch.parent_blocks) == ((0, 1), 1)
    # Half of the time is for the comparison.
    assert set(cloud.deadlines) == {840.0, 420.0}


def test_a_parent_that_differs_gives_its_target_up_and_one_that_cannot_be_read_fails_it() -> None:
    cloud = sync()
    cloud.recovery.snapshots["snap-p"] = {1: content(7)}
    assert cloud.move()["done"]
    assert cloud.written() == {"snap-2": ALL}
    assert cloud.folder.marks() == Marks(frozenset(), frozenset({0}))
    assert "snap-p" in (cloud.folder.given_up(0) or "")
    cloud = sync()
    cloud.third.errors["GetSnapshotBlock"] = DENIED
    assert cloud.move()["done"]
    assert cloud.written() == {"snap-1": ALL}
    assert cloud.folder.marks() == Marks(frozenset({1}), frozenset())
    assert [stretch.targets for stretch in cloud.stretches()] == [(0,)]


def test_parents_that_all_differ_leave_nothing_to_do() -> None:
    cloud = sync()
    cloud.recovery.snapshots["snap-p"] = cloud.third.snapshots["snap-q"] = {1: content(7)}
    assert cloud.move() == NOTHING
    assert (cloud.written(), cloud.stretches()) == ({}, [])
    assert cloud.folder.marks().given_up == {0, 1}
    assert "snap-0" not in {name for _, name, *_ in cloud.home.asked}


def test_parents_none_of_which_can_be_read_fail_the_range() -> None:
    cloud = sync()
    cloud.recovery.errors["GetSnapshotBlock"] = cloud.third.errors["GetSnapshotBlock"] = DENIED
    with pytest.raises(RequestRefused):
        cloud.move()
    cloud = sync()
    cloud.recovery.snapshots["snap-p"] = {1: content(7)}
    cloud.third.errors["GetSnapshotBlock"] = DENIED
    with pytest.raises(RequestRefused):
        cloud.move()
    assert cloud.written() == {}


def slow(cloud: Cloud, seconds: float) -> Callable[..., Any]:
    real = cloud.home.get_block

    def get_block(*given: Any) -> Any:
        cloud.clock.advance(seconds)
        return real(*given)

    return get_block


def test_nothing_is_written_where_the_time_was_not_enough_to_compare() -> None:
    cloud = sync()
    for region, name in ((cloud.home, "snap-b"), (cloud.recovery, "snap-p"), (cloud.third, "snap-q")):
        region.snapshots[name] = {index: content(9) for index in range(1, 9)}
    cloud.home.get_block = slow(cloud, 6.0)  # type: ignore[method-assign]
    answer = cloud.move(seconds_left=80.0)
    assert (answer["done"], 1 <= answer["next_index"] < 8) == (False, True)
    assert all(index < answer["next_index"] for blocks in cloud.written().values() for index in blocks)
    cloud.home.get_block = slow(cloud, 0.0)  # type: ignore[method-assign]
    assert cloud.move(next_index=answer["next_index"])["done"]


def test_a_job_that_a_worker_has_refused_is_not_gone_on_with() -> None:
    cloud = sync()
    cloud.folder.refuse("for all")
    assert cloud.move() == {**NOTHING, "outcome": "refused"}
    # A copy of a snapshot cannot be refused by a worker, and nobody asks.
    plain = copy()
    plain.folder.refuse("for all")
    assert plain.move()["blocks_written"] == 3


def test_where_a_range_has_stopped_the_job_no_other_is_begun() -> None:
    cloud = copy()
    call = job_call(None, cloud.folder, clock=ManualClock())
    told = json.dumps({"errorMessage": "denied", "stackTrace": []})
    stopped = stop_moving(call, BlockRange(0, 5), error="RequestRefused", cause=told)
    assert stopped == {**NOTHING, "next_index": 5, "outcome": "stopped"}
    assert cloud.folder.stopped() == Stopped(first=0, stop=5, error="RequestRefused", cause="denied")
    assert cloud.move() == {**NOTHING, "outcome": "left"}
    assert cloud.stretches() == []


def test_an_image_that_was_replaced_refuses_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*_: Any, **__: Any) -> Any:
        raise SourceChanged("another image")

    cloud = Cloud(job(image(), *TWO))
    monkeypatch.setattr(JobImage, "open", replaced)
    assert cloud.move() == {**NOTHING, "outcome": "refused"}
    assert cloud.folder.refusal() == "another image"
    monkeypatch.undo()
    assert cloud.move(BlockRange(0, 5)) == {**NOTHING, "next_index": 5, "outcome": "refused"}
    assert cloud.stretches() == []
