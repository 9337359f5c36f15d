"""Complete transfer: what it proves, whom it seals, what it plans again, and whom it deletes."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
from blockferry.aws.ebs.client import StartedSnapshot
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import CHECKSUM_TAG
from blockferry.core.blocks import BLOCK_SIZE, BlockRange, split
from blockferry.core.checksums import ZERO_DIGEST, Linear, digest_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, RequestRefused, RetryLater, TargetFailed, TransferFailed
from blockferry.core.holes import HolePolicy
from blockferry.core.tuning import Throughput
from blockferry.jobs import folder as names
from blockferry.jobs.digests import Stretch
from blockferry.jobs.record import Proof, Sealing, Stopped
from blockferry.sources.delta import BaseSnapshot
from blockferry.transfer.complete import MOST_ROUNDS, complete_transfer
from blockferry.transfer.job import started_job
from blockferry.transfer.recount import recount
from botocore.exceptions import ClientError
from fakes import ManualClock, content
from job_records import HOME, RECOVERY, THIRD, delta, folder_of, image, job, job_call, recorded, source, target
from memory_ebs import MemoryEbs
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

ONE, TWO, ZEROS = content(1), content(2), content(0)
BASE = BaseSnapshot(snapshot_id="snap-b", size_gib=1, start_time="2025-12-31T00:00:00+00:00")
TARGETS = (target(snapshot_id="snap-1"), target(snapshot_id="snap-2", region=THIRD))
TOTAL = 100

Digests = tuple[tuple[int, bytes], ...]


class Cloud:
    """A job of 100 blocks with two targets that are pending."""

    def __init__(
        self, blocks: dict[int, bytes], *targets: Any, base: dict[int, bytes] | None = None, **more: Any
    ) -> None:
        known = more.pop("known", {})
        of = source(**known) if base is None else delta(BASE, **known)
        # One range, unless a test needs several.
        more.setdefault("blocks_per_range", TOTAL)
        self.job = job(of, *(targets or TARGETS), total_blocks=TOTAL, **more)
        self.home = MemoryEbs({"snap-0": blocks, "snap-b": base or {}})
        self.places = {RECOVERY: MemoryEc2(described("snap-1", state="pending"))}
        self.places[THIRD] = MemoryEc2(described("snap-2", state="pending"))
        self.s3 = MemoryS3()
        self.folder = folder_of(self.job, self.s3, "work")
        self.record = recorded(self.folder, self.job)
        self.proof: Proof | None = None
        self.clock = ManualClock()
        self.refuses: dict[str, Exception] = {}
        self.sealed: dict[str, Any] = {}
        self.turns: list[str] = []
        self.silent: set[str] = set()
        self.takes = 0.0

    def ec2(self, identity: Identity) -> MemoryEc2:
        return self.places[identity.region]

    def ebs(self, identity: Identity, *, counts: RequestCounts, clock: Any, **_: Any) -> Any:
        if identity.region == HOME:
            assert clock is self.clock
            self.clock.advance(self.takes)
            counts.sent("ListSnapshotBlocks", HOME)
            counts.retried("ListSnapshotBlocks", "Throttled")
            return self.home

        def start(_new: Any) -> StartedSnapshot:
            if identity.region in self.silent:
                raise RetryLater("no answer")
            return StartedSnapshot(f"snap-{identity.region}", None)

        def complete(snapshot_id: str, **asked: Any) -> None:
            self.turns.append(snapshot_id)
            if snapshot_id in self.refuses:
                raise self.refuses[snapshot_id]
            self.sealed[snapshot_id] = asked
            self.places[identity.region].snapshots[snapshot_id]["State"] = "completed"

        return SimpleNamespace(
            counts=counts,
            was_started=lambda *_, **__: None,
            complete_snapshot=complete,
            start_snapshot=start,
        )

    def moved(self, first: int, stop: int, digests: dict[int, bytes], *targets: int, **more: Any) -> None:
        """Put a stretch on record, cut into ranges; ``more`` is what the first of them took."""
        for within in split(TOTAL, self.job.blocks_per_range):
            begin, end = max(first, within.first), min(stop, within.stop)
            if begin < end:
                held = sorted((index, digest_of(data)) for index, data in digests.items() if begin <= index < end)
                stretch = Stretch(begin, end, targets or (0, 1), tuple(held), {}, {})
                self.folder.save_stretch(dataclasses.replace(stretch, **more))
                more = {}

    def complete(self, **more: Any) -> dict[str, Any]:
        call = job_call(self, self.folder, clock=self.clock, seconds_left=more.pop("seconds_left", 900.0))
        answer = complete_transfer(call, self.record, **more)
        self.record, self.proof = str(answer["record"]), self.folder.proof(str(answer["proof"]))
        return answer

    def states(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(self.folder.read(names.TARGETS) or b"null")
        return told

    def existing(self) -> set[str]:
        return {name for place in self.places.values() for name in place.snapshots}

    def fails(self, kind: type[Exception], **more: Any) -> str:
        with pytest.raises(kind) as caught:
            self.complete(**more)
        assert type(caught.value) is kind
        return str(caught.value)


def whole(blocks: dict[int, bytes] | None = None, **more: Any) -> Cloud:
    """All of it is moved."""
    held = {3: ONE, 50: ZEROS, 99: TWO} if blocks is None else blocks
    cloud = Cloud(held, **more)
    cloud.moved(0, 60, {index: data for index, data in held.items() if index < 60})
    cloud.moved(60, TOTAL, {index: data for index, data in held.items() if index >= 60})
    return cloud


def linear(blocks: dict[int, bytes]) -> str:
    made = Linear()
    for index, data in sorted(blocks.items()):
        made.add(index, digest_of(data))
    return made.value()


# -- the proof ---------------------------------------------------------------------------------------------------------


def test_a_transfer_that_is_whole_is_sealed_everywhere_and_proved() -> None:
    blocks = {3: ONE, 50: ZEROS, 99: TWO}
    cloud = Cloud(blocks)
    first: dict[str, Any] = {
        "requests": {"a": 1, "b": 2},
        "retries": {"r": 1},
        "parent_blocks": 4,
        "gb_seconds": 1.0001,
    }
    second: dict[str, Any] = {"requests": {"b": 3}, "retries": {"r": 2}, "parent_blocks": 5, "gb_seconds": 2.0001}
    cloud.moved(0, 60, {3: ONE, 50: ZEROS}, **first)
    cloud.moved(60, TOTAL, {99: TWO}, **second)
    answer = cloud.complete()
    checksum = linear(blocks)
    assert answer == {
        "missing_ranges": 0,
        "missing_key": "jobs/copy/job-1/proved/missing.jsonl",
        "blocks_written": 3,
        "linear_checksum": checksum,
        "record": cloud.record,
        "proof": answer["proof"],
    }
    asked = {"changed_blocks": 3, "linear_checksum": checksum}
    assert cloud.sealed == {"snap-1": asked, "snap-2": asked}
    proof = cloud.proof
    assert proof is not None
    assert proof.model_dump() == {
        "allocated_blocks": 3,
        "changed_blocks": 3,
        "removed_blocks": 0,
        "zero_blocks": 1,
        "blocks_read": 3,
        "blocks_written": 3,
        "parent_blocks": 9,
        "linear_checksum": checksum,
        "requests": {"a": 1, "b": 5, f"ListSnapshotBlocks {HOME}": 1},
        "retries": {"r": 3, "ListSnapshotBlocks Throttled": 1},
        "worker_gb_seconds": 3.0,
    }
    assert [state["completed"] for state in cloud.states()] == [True, True]
    assert cloud.folder.read(names.MISSING) is None


def test_zeros_that_were_left_out_are_in_no_count_that_ebs_gets() -> None:
    cloud = whole(holes=HolePolicy.SKIP_ZERO)
    cloud.complete()
    proof = cloud.proof
    assert proof is not None
    assert (proof.zero_blocks, proof.blocks_written, proof.changed_blocks, proof.blocks_read) == (1, 2, 2, 3)
    assert proof.linear_checksum == linear({3: ONE, 99: TWO})


def test_a_delta_is_proved_with_its_removed_blocks_as_zeros() -> None:
    cloud = Cloud({3: ONE, 4: ZEROS, 7: TWO}, base={3: TWO, 5: ONE, 7: TWO})
    cloud.moved(0, TOTAL, {3: ONE, 4: ZEROS, 5: ZEROS})
    cloud.complete()
    proof = cloud.proof
    assert proof is not None
    assert (proof.allocated_blocks, proof.changed_blocks, proof.removed_blocks) == (3, 2, 1)
    assert (proof.blocks_read, proof.blocks_written, proof.zero_blocks) == (2, 3, 1)
    assert proof.linear_checksum == linear({3: ONE, 4: ZEROS, 5: ZEROS})


@pytest.mark.parametrize(
    ("held", "base", "moved", "holes", "told"),
    [
        ({3: ONE, 5: ONE, 7: TWO}, None, {7: TWO}, "preserve",
         "block 3 of snap-0 is allocated but was not moved (2 such blocks between 0 and 100)"),
        ({3: ONE}, {}, {}, "preserve", "block 3 of snap-0 is changed but was not moved (1 such block between"),
        ({3: ONE}, None, {3: ONE, 8: ONE, 5: TWO}, "preserve", "block 5 was moved but is not allocated in snap-0"),
        ({3: ONE}, {}, {3: ONE, 5: TWO}, "skip_zero", "block 5 was moved but is not changed in snap-0"),
        ({3: ONE}, None, {3: ONE, 5: ZEROS}, "zero_fill", "only 2 blocks between 0 and 100 were moved"),
        ({3: ONE}, {3: ONE, 6: TWO}, {6: ONE}, "preserve",
         "block 6 is gone from snap-0, but something else than zeros was written there"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_the_source_seals_nothing(
    held: dict[int, bytes], base: dict[int, bytes] | None, moved: dict[int, bytes], holes: str, told: str
) -> None:
    cloud = Cloud(held, base=base, holes=HolePolicy(holes))
    cloud.moved(0, TOTAL, moved)
    assert told in cloud.fails(IncompleteTransfer)
    assert cloud.sealed == {}
    # Neither a proof nor the states of targets is on record.
    assert [key for key in cloud.s3.objects if "/proved/" in key] == []


def test_holes_that_were_filled_are_proved_as_zeros() -> None:
    cloud = Cloud({3: ONE}, holes=HolePolicy.ZERO_FILL)
    filled = dict.fromkeys(range(TOTAL), ZEROS) | {3: ONE}
    cloud.moved(0, 60, {index: data for index, data in filled.items() if index < 60})
    cloud.moved(60, TOTAL, {index: data for index, data in filled.items() if index >= 60})
    cloud.complete()
    proof = cloud.proof
    assert proof is not None
    assert (proof.blocks_written, proof.zero_blocks, proof.linear_checksum) == (TOTAL, 99, linear(filled))
    assert digest_of(ZEROS) == ZERO_DIGEST


@pytest.mark.parametrize(("held", "refused"), [(5, True), (0, False), (None, False)])
def test_an_empty_list_of_a_snapshot_that_holds_something_is_refused(held: int | None, refused: bool) -> None:
    cloud = whole({}, known={"full_size_bytes": held})
    if refused:
        assert "snap-0 lists no block, but EC2 says that it holds 5 bytes" in cloud.fails(IncompleteTransfer)
        assert cloud.sealed == {}
    else:
        assert cloud.complete()["blocks_written"] == 0


def test_a_list_that_is_not_empty_is_held_against_no_size() -> None:
    assert whole(known={"full_size_bytes": 5}).complete()["blocks_written"] == 3


def test_an_image_has_to_be_moved_whole() -> None:
    cloud = Cloud({})
    of = job(image(raw_bytes=TOTAL * BLOCK_SIZE), *TARGETS, total_blocks=TOTAL, blocks_per_range=TOTAL)
    cloud.record = recorded(cloud.folder, of)
    cloud.moved(0, TOTAL, dict.fromkeys(range(1, TOTAL), ONE))
    assert "block 0 of s3://b/k is allocated but was not moved (1 such" in cloud.fails(IncompleteTransfer)


MANY = {index: content(index + 1) for index in range(0, TOTAL, 2)}
"""A block in each of fifty ranges: more than are looked at ahead."""


def test_many_ranges_are_proved_in_the_order_of_their_blocks() -> None:
    assert 2 * Throughput().proving_ahead < len(MANY)
    cloud = whole(MANY, blocks_per_range=2)
    began = cloud.clock.now
    assert cloud.complete()["linear_checksum"] == linear(MANY)
    # They are listed at a share of the account's quota.
    assert cloud.clock.now - began >= 1


def test_ranges_that_were_counted_behind_their_workers_are_not_listed_again() -> None:
    cloud = whole(MANY, blocks_per_range=2)
    call = job_call(cloud, cloud.folder, clock=cloud.clock, memory_gb=2.0)
    for within in split(TOTAL, 2):
        cloud.folder.save_recount(*recount(started_job(call, cloud.record), call, within))
    cloud.s3.calls.clear()
    cloud.home = MemoryEbs({})
    assert cloud.complete()["linear_checksum"] == linear(MANY)
    assert cloud.proof is not None
    assert (cloud.proof.allocated_blocks, cloud.proof.blocks_read) == (50, 50)
    # Those of the recounts, and no other.
    assert cloud.proof.requests == {f"ListSnapshotBlocks {HOME}": 50}
    # What is asked for is one object a range, and the records of the job.
    assert cloud.s3.calls["GetObject"] < 50 + 20


def test_a_source_that_needs_no_list_is_counted_without_a_pause() -> None:
    cloud = Cloud({})
    cloud.job = job(image(raw_bytes=TOTAL * BLOCK_SIZE), *TARGETS, total_blocks=TOTAL, blocks_per_range=2)
    cloud.record = recorded(cloud.folder, cloud.job)
    blocks = dict.fromkeys(range(TOTAL), ONE)
    cloud.moved(0, TOTAL, blocks)
    began = cloud.clock.now
    assert cloud.complete()["linear_checksum"] == linear(blocks)
    assert cloud.clock.now == began


def test_the_count_of_another_range_under_the_name_of_one_is_damage() -> None:
    cloud = whole(MANY, blocks_per_range=50)
    call = job_call(cloud, cloud.folder, clock=cloud.clock)
    first, second = split(TOTAL, 50)
    cloud.folder.save_recount(*recount(started_job(call, cloud.record), call, first))
    name = f"moved/recounts/{first.first:010d}-{first.stop:010d}.bin"
    cloud.folder.write(f"moved/recounts/{second.first:010d}-{second.stop:010d}.bin", cloud.folder.read(name) or b"")
    told = cloud.fails(IncompleteTransfer)
    assert "moved/recounts/0000000050-0000000100.bin is damaged: it is that of blocks 0 to 49" in told
    assert cloud.sealed == {}


# -- targets that miss something ---------------------------------------------------------------------------------------


def behind() -> Cloud:
    """The second target misses 20 to 40."""
    cloud = Cloud({3: ONE, 30: TWO}, blocks_per_range=10)
    cloud.moved(0, 20, {3: ONE})
    cloud.moved(20, 40, {30: TWO}, 0)
    cloud.moved(40, TOTAL, {})
    return cloud


def test_what_a_target_misses_is_planned_and_the_others_are_sealed() -> None:
    cloud = behind()
    for number in (0, 1):
        cloud.folder.mark_failed(number, "before")
    assert cloud.complete()["missing_ranges"] == 2
    assert cloud.sealed.keys() == {"snap-1"}
    lines = (cloud.folder.read(names.MISSING) or b"").decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"first": 20, "stop": 30, "targets": [1]},
        {"first": 30, "stop": 40, "targets": [1]},
    ]
    assert cloud.folder.marks().failed == {0}
    assert cloud.folder.rounds() == 1
    assert [(s["completed"], s["missing_ranges"]) for s in cloud.states()] == [(True, 0), (False, 1)]


def test_nothing_is_planned_for_a_target_that_was_given_up() -> None:
    cloud = Cloud({30: TWO}, *TARGETS, target(snapshot_id="snap-3"))
    cloud.places[RECOVERY].snapshots["snap-3"] = described("snap-3", state="pending")
    cloud.moved(0, 90, {30: TWO}, 0, 1, 2)
    cloud.moved(90, TOTAL, {}, 0)
    cloud.folder.give_up(2, "differs")
    cloud.complete()
    line = json.loads(cloud.folder.read(names.MISSING) or b"")
    assert line == {"first": 90, "stop": 100, "targets": [1]}


def test_what_is_missing_is_planned_a_few_times_and_a_redrive_begins_again() -> None:
    cloud = behind()
    for planned in range(MOST_ROUNDS):
        assert cloud.complete(missing_moved=planned > 0)["missing_ranges"] == 2
        assert cloud.folder.rounds() == planned + 1
    told = cloud.fails(IncompleteTransfer, missing_moved=True)
    assert told.splitlines() == [
        f"targets that are not complete, tried {MOST_ROUNDS} times more:",
        f"- snap-2 in {THIRD}: misses blocks of 1 range",
    ]
    cloud.folder.mark_failed(1, "no permission")
    assert cloud.folder.rounds() == 0
    assert cloud.complete(missing_moved=True)["missing_ranges"] == 2
    cloud.folder.save_rounds(MOST_ROUNDS)
    assert cloud.complete()["missing_ranges"] == 2
    assert cloud.folder.rounds() == 1


def test_the_end_of_the_rounds_names_all_that_are_not_complete_with_their_reasons() -> None:
    cloud = behind()
    cloud.refuses["snap-1"] = RequestRefused("no")
    cloud.folder.mark_failed(1, "no permission")
    cloud.folder.save_rounds(MOST_ROUNDS)
    assert cloud.fails(IncompleteTransfer, missing_moved=True).splitlines()[1:] == [
        f"- snap-1 in {RECOVERY}: it was not completed: no (state pending)",
        f"- snap-2 in {THIRD}: misses blocks of 1 range: no permission",
    ]


# -- targets that fail -------------------------------------------------------------------------------------------------


def test_a_target_that_is_refused_fails_the_job_once_all_had_their_turn() -> None:
    cloud = whole()
    cloud.refuses["snap-1"] = RequestRefused("no")
    assert cloud.fails(TargetFailed).splitlines() == [
        "targets that were not completed:",
        f"- snap-1 in {RECOVERY}: it was not completed: no (state pending)",
        f"Completed, or being sealed by EBS: snap-2 in {THIRD}",
    ]
    assert CHECKSUM_TAG in {tag["Key"] for tag in cloud.places[THIRD].snapshots["snap-2"]["Tags"]}
    assert cloud.existing() == {"snap-1", "snap-2"}


def test_targets_that_may_be_sealed_later_ask_for_another_attempt_unless_one_cannot() -> None:
    cloud = whole()
    cloud.refuses = {"snap-1": RetryLater("later"), "snap-2": RetryLater("later")}
    assert "Completed, or being sealed by EBS: none" in cloud.fails(RetryLater)
    cloud.refuses["snap-2"] = RequestRefused("no")
    cloud.fails(TargetFailed)


def silent() -> Cloud:
    """The first of two targets in one region cannot be reached."""
    cloud = Cloud({3: ONE}, *TARGETS, target(snapshot_id="snap-3"))
    cloud.moved(0, TOTAL, {3: ONE}, 0, 1, 2)
    for number, (place, name) in enumerate([(RECOVERY, "snap-1"), (RECOVERY, "snap-3"), (THIRD, "snap-2")]):
        cloud.places[place].snapshots[name] = described(name, state="pending", VolumeSize=number + 1)
    cloud.refuses["snap-1"] = RetryLater("no answer")
    first, second, third = cloud.job.targets
    cloud.record = recorded(cloud.folder, cloud.job.model_copy(update={"targets": (first, third, second)}))
    return cloud


def test_others_of_a_region_that_cannot_be_reached_have_their_turn_last() -> None:
    cloud = silent()
    cloud.fails(RetryLater, seconds_left=300.9)
    assert cloud.turns == ["snap-1", "snap-2", "snap-3"]
    assert cloud.sealed.keys() == {"snap-2", "snap-3"}


def test_a_region_that_answers_needs_no_other_turn() -> None:
    cloud = silent()
    cloud.refuses.clear()
    cloud.complete(seconds_left=0.0)
    assert cloud.turns == ["snap-1", "snap-3", "snap-2"]


def test_the_time_that_the_proof_took_is_gone() -> None:
    cloud = silent()
    cloud.takes = 2.0
    cloud.fails(RetryLater, seconds_left=301.0)
    assert cloud.turns == ["snap-1", "snap-2"]


def test_one_that_had_no_turn_is_named_and_another_attempt_is_asked_for() -> None:
    cloud = silent()
    told = cloud.fails(RetryLater, seconds_left=300.0)
    assert cloud.turns == ["snap-1", "snap-2"]
    assert f"- snap-3 in {RECOVERY}: others in {RECOVERY} could not be reached, and no time was left" in told
    assert [state["completed"] for state in cloud.states()] == [False, False, True]


def test_a_target_that_was_never_started_is_started_recorded_and_planned() -> None:
    cloud = Cloud({3: ONE}, TARGETS[0], target(snapshot_id="", region=THIRD), blocks_per_range=10)
    cloud.moved(0, TOTAL, {3: ONE}, 0)
    before = cloud.record
    assert cloud.complete()["missing_ranges"] == 10
    assert cloud.record != before
    after = started_job(job_call(cloud, cloud.folder, clock=cloud.clock), cloud.record)
    assert [each.snapshot_id for each in after.targets] == ["snap-1", f"snap-{THIRD}"]
    # The state may not have heard of it, since the step died: it is started again, under the same token.
    assert started_job(job_call(cloud, cloud.folder, clock=cloud.clock), before).targets[1].started is None


def test_targets_that_are_started_one_after_the_other_are_found_from_every_earlier_record() -> None:
    unknown = (target(snapshot_id="", region=THIRD), target(snapshot_id="", region="silent"))
    cloud = Cloud({3: ONE}, TARGETS[0], *unknown, blocks_per_range=10)
    cloud.moved(0, TOTAL, {3: ONE}, 0)
    cloud.silent.add("silent")
    cloud.complete()
    known = cloud.record
    cloud.silent.clear()
    cloud.complete(missing_moved=True)
    assert cloud.record != known
    # The step died before the state knew of the second one: the next attempt goes by what the state knows.
    cloud.record = known
    assert cloud.complete(missing_moved=True)["missing_ranges"] == 10
    after = started_job(job_call(cloud, cloud.folder, clock=cloud.clock), cloud.record)
    assert [each.snapshot_id for each in after.targets] == ["snap-1", f"snap-{THIRD}", "snap-silent"]


def test_a_target_that_was_given_up_is_deleted_and_the_job_fails_for_good() -> None:
    cloud = whole()
    cloud.folder.give_up(0, "its parent differs")
    assert cloud.fails(TransferFailed).splitlines() == [
        "targets that were not completed:",
        f"- snap-1 in {RECOVERY}: its parent differs",
        f"Completed, or being sealed by EBS: snap-2 in {THIRD}",
    ]
    assert cloud.existing() == {"snap-2"}
    cloud = whole()
    cloud.folder.give_up(0, "its parent differs")
    cloud.refuses["snap-2"] = RetryLater("later")
    cloud.fails(RetryLater)
    assert cloud.existing() == {"snap-2"}


def test_a_target_that_was_given_up_and_may_be_good_is_kept_and_named() -> None:
    cloud = whole()
    cloud.places[RECOVERY].snapshots["snap-1"]["State"] = "completed"
    cloud.folder.give_up(0, "its parent differs")
    assert cloud.fails(TransferFailed).splitlines()[-1] == f"Kept: snap-1 in {RECOVERY} (EC2 calls it completed)"
    assert cloud.existing() == {"snap-1", "snap-2"}


@pytest.mark.parametrize("how", ["refused", "all given up"])
def test_a_job_that_cannot_be_done_leaves_nothing(how: str) -> None:
    cloud = whole()
    if how == "refused":
        cloud.folder.refuse("another image")
        told = "another image. Nothing is left of the job"
    else:
        for number in (1, 0):
            cloud.folder.give_up(number, f"parent {number} differs")
        told = "parent 0 differs\nparent 1 differs. Nothing is left of the job"
    assert cloud.fails(TransferFailed) == told
    assert (cloud.existing(), cloud.sealed) == (set(), {})


@pytest.mark.parametrize(
    ("code", "kind"), [("UnauthorizedOperation", TransferFailed), ("RequestLimitExceeded", RetryLater)]
)
def test_targets_that_cannot_be_deleted_now_are_named_behind_the_reason(code: str, kind: type[Exception]) -> None:
    cloud = whole()
    cloud.folder.refuse("another image")
    cloud.places[RECOVERY].errors["DeleteSnapshot"] = refusal(code, "DeleteSnapshot")
    told = cloud.fails(kind)
    assert told.startswith(
        f"another image. Not deleted yet: snap-1 in {RECOVERY} (DeleteSnapshot: {code}: refused). The "
    )
    assert cloud.existing() == {"snap-1"}


@pytest.mark.parametrize(
    ("code", "kind"), [("UnauthorizedOperation", TransferFailed), ("RequestLimitExceeded", RetryLater)]
)
def test_a_given_up_target_that_cannot_be_deleted_hides_no_other_that_failed(code: str, kind: type[Exception]) -> None:
    cloud = whole()
    cloud.folder.give_up(0, "its parent differs")
    cloud.places[RECOVERY].errors["DeleteSnapshot"] = refusal(code, "DeleteSnapshot")
    lines = cloud.fails(kind).splitlines()
    assert lines[1:3] == [
        f"- snap-1 in {RECOVERY}: its parent differs",
        f"Completed, or being sealed by EBS: snap-2 in {THIRD}",
    ]
    assert lines[3].startswith(f"Not deleted yet: snap-1 in {RECOVERY} (DeleteSnapshot: {code}: refused)")


def test_a_target_that_cannot_be_deleted_is_named_beside_one_that_failed() -> None:
    cloud = whole()
    cloud.folder.give_up(0, "its parent differs")
    cloud.places[RECOVERY].errors["DeleteSnapshot"] = refusal("RequestLimitExceeded", "DeleteSnapshot")
    cloud.refuses["snap-2"] = TargetFailed("it is gone")
    told = cloud.fails(TargetFailed)
    assert f"- snap-2 in {THIRD}: it is gone" in told
    assert f"Not deleted yet: snap-1 in {RECOVERY}" in told


def test_one_target_that_may_be_deleted_later_asks_for_another_attempt() -> None:
    cloud = whole()
    cloud.folder.refuse("another image")
    cloud.places[RECOVERY].errors["DeleteSnapshot"] = refusal("UnauthorizedOperation", "DeleteSnapshot")
    cloud.places[THIRD].errors["DeleteSnapshot"] = refusal("RequestLimitExceeded", "DeleteSnapshot")
    told = cloud.fails(RetryLater)
    assert "snap-1" in told
    assert "snap-2" in told


def test_a_refusal_of_the_job_is_told_even_if_all_targets_were_given_up() -> None:
    cloud = whole()
    cloud.folder.refuse("another image")
    for number in (0, 1):
        cloud.folder.give_up(number, "differs")
    assert cloud.fails(TransferFailed) == "another image. Nothing is left of the job"


def test_a_target_that_was_never_started_is_not_waited_for_to_give_up_the_job() -> None:
    cloud = Cloud({}, *TARGETS, target(snapshot_id=""))
    for number in (0, 1):
        cloud.folder.give_up(number, "differs")
    cloud.fails(TransferFailed)
    assert cloud.existing() == set()


def test_reasons_are_told_in_the_order_of_the_targets() -> None:
    never = target(snapshot_id="")
    cloud = Cloud({}, never, TARGETS[0], *[never] * 6, TARGETS[1])
    for number in (8, 1):
        cloud.folder.give_up(number, f"parent {number} differs")
    assert cloud.fails(TransferFailed).startswith("parent 1 differs\nparent 8 differs.")


def test_nothing_that_no_target_misses_is_planned() -> None:
    cloud = behind()
    cloud.folder.give_up(1, "differs")
    assert f"- snap-2 in {THIRD}: differs" in cloud.fails(TransferFailed)
    assert cloud.folder.read(names.MISSING) is None


# -- a range that could not be moved -----------------------------------------------------------------------------------

DENIED = Stopped(first=40, stop=80, error="RequestRefused", cause="GetSnapshotBlock block 50 of snap-0: denied")


def counted(cloud: Cloud, within: BlockRange) -> None:
    """The range is counted again behind its worker."""
    call = job_call(cloud, cloud.folder, clock=cloud.clock)
    cloud.folder.save_recount(*recount(started_job(call, cloud.record), call, within))


def halted(why: Stopped = DENIED, *, known: str = "snap-0", **more: Any) -> Cloud:
    """A job in three ranges, of which the first is moved and counted, and the second has stopped the rest."""
    cloud = Cloud({3: ONE, 50: ZEROS, 99: TWO}, *more.pop("targets", ()), blocks_per_range=40, **more)
    cloud.moved(0, 40, {3: ONE})
    counted(cloud, BlockRange(0, 40))
    cloud.folder.stop(why)
    # EC2 at the source.
    cloud.places[HOME] = MemoryEc2(described(known, state="completed"))
    return cloud


def resumed(cloud: Cloud) -> dict[str, Any]:
    call = job_call(cloud, cloud.folder, clock=cloud.clock)
    return complete_transfer(call, cloud.record)


def planned_rest(cloud: Cloud) -> dict[str, Any]:
    """The answer that the two ranges are planned which were not moved, and that nothing is proved yet."""
    return {"missing_ranges": 2, "missing_key": cloud.folder.key(names.MISSING), "record": cloud.record, "proof": ""}


def test_a_stopped_job_fails_with_the_cause_and_the_states_of_its_targets() -> None:
    cloud = halted()
    cloud.folder.mark_failed(1, "PutSnapshotBlock block 41 of snap-2: slow down")
    assert cloud.fails(RequestRefused).splitlines() == [
        "blocks 40 to 79 could not be moved: GetSnapshotBlock block 50 of snap-0: denied",
        "1 of 3 ranges are moved and stay so. Mend what is refused, as permissions or keys, and resume the job",
        f"- snap-2 in {THIRD}: PutSnapshotBlock block 41 of snap-2: slow down",
    ]
    assert [(state["snapshot_id"], state["completed"], state["error"]) for state in cloud.states()] == [
        ("snap-1", False, None),
        ("snap-2", False, "PutSnapshotBlock block 41 of snap-2: slow down"),
    ]
    assert (cloud.sealed, cloud.existing()) == ({}, {"snap-0", "snap-1", "snap-2"})


def test_a_target_that_was_given_up_before_is_told_with_it() -> None:
    cloud = halted()
    cloud.folder.give_up(0, "its parent differs")
    assert f"- snap-1 in {RECOVERY}: its parent differs" in cloud.fails(RequestRefused).splitlines()
    assert [state["given_up"] for state in cloud.states()] == [True, False]


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        ("RetryLater", IncompleteTransfer, "resume the job when it has passed"),
        ("ChecksumMismatch", IncompleteTransfer, "ask AWS about the snapshot"),
        ("IncompleteTransfer", IncompleteTransfer, "start a new job"),
        ("Runtime.ExitError", IncompleteTransfer, "The log of Move blocks says more: mend it, and resume the job"),
    ],
)
def test_the_advice_fits_the_error(error: str, kind: type[Exception], advice: str) -> None:
    cloud = halted(DENIED.model_copy(update={"error": error}))
    assert cloud.fails(kind).endswith(advice)


def test_an_error_without_a_cause_is_told_by_its_name() -> None:
    cloud = halted(DENIED.model_copy(update={"error": "States.Timeout", "cause": ""}))
    assert cloud.fails(IncompleteTransfer).startswith("blocks 40 to 79 could not be moved: States.Timeout\n")


def test_resumed_it_plans_for_all_targets_what_no_worker_has_moved() -> None:
    cloud = halted()
    cloud.folder.mark_failed(1, "slow down")
    cloud.folder.save_rounds(2)
    cloud.fails(RequestRefused)
    assert resumed(cloud) == planned_rest(cloud)
    planned = [json.loads(line) for line in (cloud.folder.read(names.MISSING) or b"").splitlines()]
    assert planned == [{"first": 40, "stop": 80}, {"first": 80, "stop": 100}]
    marks = cloud.folder.marks()
    assert (marks.stopped, marks.failed, cloud.folder.rounds()) == (False, frozenset(), 0)


def test_what_stops_it_again_is_told_again_though_it_is_the_same() -> None:
    cloud = halted()
    for _ in range(3):
        assert "denied" in cloud.fails(RequestRefused)
        assert resumed(cloud)["missing_ranges"] == 2
        cloud.folder.stop(DENIED)


def test_the_first_of_several_reasons_stands() -> None:
    cloud = halted()
    cloud.folder.stop(DENIED.model_copy(update={"first": 80, "stop": 100, "cause": "another"}))
    assert cloud.fails(RequestRefused).startswith("blocks 40 to 79 could not be moved: GetSnapshotBlock")


def test_a_stopped_job_that_lacks_no_range_is_proved_when_it_is_resumed() -> None:
    cloud = whole()
    counted(cloud, BlockRange(0, TOTAL))
    cloud.folder.stop(DENIED)
    cloud.places[HOME] = MemoryEc2(described("snap-0", state="completed"))
    # It is told, since targets may miss blocks all the same; the source may be gone, which is needed no more.
    cloud.places[HOME] = MemoryEc2()
    cloud.fails(RequestRefused)
    assert cloud.complete()["missing_ranges"] == 0
    assert cloud.sealed.keys() == {"snap-1", "snap-2"}
    assert not cloud.folder.marks().stopped
    # Nothing was planned, so that a proof that fails is no matter of what was not moved yet.
    assert (cloud.folder.resumed(), cloud.folder.read(names.MISSING)) == (False, None)


def test_a_source_that_is_gone_ends_it_with_nothing_left() -> None:
    cloud = halted(known="snap-else")
    told = cloud.fails(TransferFailed)
    assert told.startswith(f"snap-0 in {HOME} is there no more: EC2 does not know it")
    assert told.endswith("Nothing is left of the job")
    assert cloud.existing() == {"snap-else"}


def test_a_source_that_cannot_be_asked_about_is_not_taken_for_gone() -> None:
    cloud = halted(known="snap-else")
    cloud.places[HOME].errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
    cloud.fails(RequestRefused)
    assert cloud.existing() == {"snap-else", "snap-1", "snap-2"}


def test_a_delta_is_gone_with_its_base() -> None:
    cloud = halted(base={99: ONE})
    assert cloud.fails(TransferFailed).startswith(f"snap-b in {HOME} is there no more")


def test_a_target_that_was_sealed_before_the_stop_is_told_as_completed() -> None:
    cloud = halted()
    cloud.folder.save_sealing("snap-1", Sealing(state="refused", changed_blocks=3, linear_checksum="c"))
    cloud.folder.save_sealing("snap-2", Sealing(state="accepted", changed_blocks=3, linear_checksum="c"))
    cloud.fails(RequestRefused)
    assert [(state["snapshot_id"], state["completed"]) for state in cloud.states()] == [
        ("snap-1", False),
        ("snap-2", True),
    ]


def test_a_stopped_job_tells_what_each_target_misses_and_which_was_never_started() -> None:
    cloud = halted(targets=(TARGETS[0], target(snapshot_id="", region=THIRD)))
    cloud.folder.save_sealing("snap-1", Sealing(state="accepted", changed_blocks=3, linear_checksum="c"))
    cloud.fails(RequestRefused)
    told = [(state["snapshot_id"], state["completed"], state["missing_ranges"]) for state in cloud.states()]
    assert told == [("snap-1", True, 0), ("", False, 2)]


def test_a_call_that_fails_before_it_has_told_of_the_stop_tells_of_it_when_it_is_repeated() -> None:
    cloud = halted()
    cloud.s3.errors["ListObjectsV2"] = refusal("InternalError", "ListObjectsV2", status=500)
    listed = cloud.s3.paginate
    marks: list[Any] = []

    def once_more(**asked: Any) -> Any:
        # The marks are listed, and what was counted is not.
        if not marks:
            marks.append(asked)
            cloud.s3.errors.clear()
            found = list(listed(**asked))
            cloud.s3.errors["ListObjectsV2"] = refusal("InternalError", "ListObjectsV2", status=500)
            return iter(found)
        return listed(**asked)

    cloud.s3.paginate = once_more  # type: ignore[method-assign]
    cloud.fails(ClientError)
    cloud.s3.errors.clear()
    assert "denied" in cloud.fails(RequestRefused)
    assert resumed(cloud)["missing_ranges"] == 2


def test_a_lost_answer_of_the_call_that_planned_the_rest_is_made_up_for() -> None:
    cloud = halted()
    cloud.fails(RequestRefused)
    assert resumed(cloud) == planned_rest(cloud)
    # Step Functions calls it again, with the same input, and nothing was moved in between.
    assert resumed(cloud) == planned_rest(cloud)
    assert len((cloud.folder.read(names.MISSING) or b"").splitlines()) == 2
    # Of what was moved after all only the rest is planned, and these are the first rounds of a redrive.
    cloud.moved(40, 80, {50: ZEROS})
    counted(cloud, BlockRange(40, 80))
    cloud.folder.save_rounds(2)
    assert resumed(cloud) == planned_rest(cloud) | {"missing_ranges": 1}
    assert json.loads(cloud.folder.read(names.MISSING) or b"") == {"first": 80, "stop": 100}
    assert cloud.folder.rounds() == 1
    cloud.moved(80, 100, {99: TWO})
    assert cloud.complete(missing_moved=True)["missing_ranges"] == 0
    assert cloud.sealed.keys() == {"snap-1", "snap-2"}


def test_what_is_never_moved_after_a_stop_fails_in_the_end() -> None:
    cloud = halted()
    cloud.fails(RequestRefused)
    call = job_call(cloud, cloud.folder, clock=cloud.clock)
    assert resumed(cloud)["missing_ranges"] == 2
    for _ in range(MOST_ROUNDS):
        assert complete_transfer(call, cloud.record, missing_moved=True)["missing_ranges"] == 2
    assert "they were not moved" in cloud.fails(IncompleteTransfer, missing_moved=True)
    assert cloud.sealed == {}


def test_a_snapshot_of_another_account_may_be_shared_again() -> None:
    cloud = halted(known="snap-else")
    cloud.job = cloud.job.model_copy(
        update={"source": cloud.job.source.model_copy(update={"owner_id": "123456789012"})}
    )
    cloud.record = recorded(cloud.folder, cloud.job)
    cloud.fails(RequestRefused)
    assert cloud.existing() == {"snap-else", "snap-1", "snap-2"}
