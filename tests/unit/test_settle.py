"""One target at the end of a transfer: sealed once, with count and checksum on record before EBS is asked, or kept with
the reason why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blockferry.aws.ebs.client import StartedSnapshot
from blockferry.aws.sealing import NotAsked
from blockferry.aws.snapshots import CHECKSUM_TAG, EXECUTION_TAG, PROVED_TAG
from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import (
    BlockferryError,
    EncryptionDiffers,
    IncompleteTransfer,
    RequestRefused,
    RetryLater,
    TargetFailed,
)
from blockferry.jobs.record import Sealing
from blockferry.targets.full import FullSnapshot
from blockferry.transfer.settle import TargetState, settle
from botocore.exceptions import EndpointConnectionError
from fakes import ManualClock
from job_records import PROOF, RECOVERY, folder_of, job, job_call, source, target
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

PENDING = {"state": "pending"}
REFUSED = RequestRefused("CompleteSnapshot: no")


class Region:
    """EBS and EC2 of one region. CompleteSnapshot ends with ``answer``, and takes the snapshot if there is none; first
    come attempts that fail with ``codes``."""

    def __init__(self, *shown: Any) -> None:
        self.ec2_client = MemoryEc2(*shown)
        self.folder = folder_of(job(source(), target()), MemoryS3())
        self.answer: Exception | None = None
        self.codes: tuple[str, ...] = ()
        self.completed: list[dict[str, Any]] = []
        self.recorded: list[str | None] = []
        self.started: list[float] = []
        self.counts = RequestCounts()
        self.clocks: list[Any] = []

    def ec2(self, _identity: Any) -> MemoryEc2:
        return self.ec2_client

    def ebs(self, _identity: Any, *, counts: RequestCounts, clock: Any, **_: Any) -> Any:
        self.counts = counts
        self.clocks.append(clock)
        return self

    def was_started(self, snapshot_id: str, *, seconds_ago: float) -> None:
        assert snapshot_id == "snap-1"
        self.started.append(seconds_ago)

    def start_snapshot(self, _new: Any) -> StartedSnapshot:
        return StartedSnapshot("snap-new", None)

    def complete_snapshot(self, snapshot_id: str, **asked: Any) -> None:
        assert snapshot_id == "snap-1"
        # What was answered for other targets says nothing about this one.
        assert not self.counts.retries
        self.completed.append(asked)
        self.recorded.append(self.record())
        for code in self.codes:
            self.counts.retried("CompleteSnapshot", code)
        if self.answer is not None:
            raise self.answer
        self.ec2_client.snapshots["snap-1"]["State"] = "completed"

    def record(self) -> str | None:
        found = self.folder.sealing("snap-1")
        if found is None:
            return None
        assert (found.changed_blocks, found.linear_checksum) == (PROOF.blocks_written, PROOF.linear_checksum)
        return found.state

    def remember(self, state: Any) -> None:
        sealing = Sealing(state=state, changed_blocks=PROOF.blocks_written, linear_checksum=PROOF.linear_checksum)
        self.folder.save_sealing("snap-1", sealing)

    def settle(
        self, one: FullSnapshot | None = None, *, missing: tuple[BlockRange, ...] = (), given_up: str | None = None
    ) -> TargetState:
        other = target(snapshot_id="snap-0")
        return settle(
            job(source(), other, one or target()),
            1,
            list(missing),
            PROOF,
            given_up=given_up,
            call=job_call(self, self.folder, clock=CLOCK, counts=others()),
        )

    def tags(self) -> dict[str, str]:
        held = {tag["Key"]: tag["Value"] for tag in self.ec2_client.snapshots["snap-1"]["Tags"]}
        return {key: value for key, value in held.items() if key != EXECUTION_TAG}


def others() -> RequestCounts:
    """What a call has noted of other targets."""
    counts = RequestCounts()
    counts.retried("CompleteSnapshot", "ThrottlingException")
    return counts


CLOCK = ManualClock()
ASKED = {"changed_blocks": PROOF.blocks_written, "linear_checksum": PROOF.linear_checksum}
PROVED = {CHECKSUM_TAG: "c", PROVED_TAG: "snap-1"}


def pending() -> Region:
    return Region(described("snap-1", state="pending"))


def test_a_target_that_was_never_started_has_neither_an_id_nor_an_age() -> None:
    unknown = target(snapshot_id="", size_gib=None)
    for ask in (lambda: unknown.snapshot_id, lambda: unknown.seconds_old):
        with pytest.raises(IncompleteTransfer, match=f"the target in {RECOVERY} was never started"):
            ask()
    with pytest.raises(IncompleteTransfer, match=f"the size of the target in {RECOVERY} is not known yet"):
        _ = unknown.volume_gib
    assert TargetState(0, unknown).record()["snapshot_id"] == ""
    assert TargetState(0, target()).record()["snapshot_id"] == "snap-1"


def test_what_is_left_of_a_target_counts_as_failed_only_where_ec2_says_so() -> None:
    left = target().leftover()
    assert left is not None
    assert (left.snapshot_id, left.failed) == ("snap-1", False)


def test_a_target_is_sealed_with_count_and_checksum_and_tagged() -> None:
    region = pending()
    started_at = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    one = target(started_at=started_at, tags={"plain": "1"})
    state = region.settle(one)
    assert state == TargetState(1, one, completed=True)
    assert (region.completed, region.recorded, region.record()) == ([ASKED], ["asked"], "accepted")
    assert region.started == [pytest.approx(100, abs=30)]
    assert region.clocks == [CLOCK]
    assert region.tags() == PROVED


def test_tags_that_starting_does_not_take_are_set_at_the_end() -> None:
    region = pending()
    late = {"long": "v" * 256}
    region.settle(target(tags={"plain": "1", **late}))
    assert region.tags() == PROVED | late


def test_what_ebs_has_accepted_is_only_tagged() -> None:
    region = pending()
    region.remember("accepted")
    assert region.settle().completed
    assert region.completed == []
    assert region.tags() == PROVED
    assert region.ec2_client.calls == {"CreateTags": 1}


def test_a_target_that_ec2_does_not_know_yet_is_tagged_later() -> None:
    region = pending()
    region.ec2_client.errors["CreateTags"] = refusal("InvalidSnapshot.NotFound", "CreateTags")
    state = region.settle()
    assert isinstance(state.error, RetryLater)
    assert "could not be tagged as proved: EC2 does not know it yet" in str(state.error)


def test_what_is_completed_already_is_recorded_and_not_asked_for_again() -> None:
    region = Region(described("snap-1"))
    assert region.settle().completed
    assert (region.completed, region.record(), region.tags()) == ([], "accepted", PROVED)


@pytest.mark.parametrize(("message", "told"), [("no key", "no key"), ("", "EC2 gives no reason")])
def test_a_target_in_error_is_not_asked_for(message: str, told: str) -> None:
    region = Region(described("snap-1", state="error", StateMessage=message))
    state = region.settle()
    assert isinstance(state.error, TargetFailed)
    assert str(state.error) == f"it is in state error: {told}"
    assert (state.completed, state.given_up, region.completed, region.record()) == (False, False, [], None)
    assert region.tags() == {}


def test_a_refusal_is_recorded_and_fails_the_target() -> None:
    region = pending()
    region.answer = REFUSED
    state = region.settle()
    assert isinstance(state.error, TargetFailed)
    assert str(state.error) == "it was not completed: CompleteSnapshot: no (state pending)"
    assert (state.completed, region.record(), region.tags()) == (False, "refused", {})
    # The next attempt is one of a target that was never asked for.
    state = region.settle()
    assert (region.recorded, state.completed, region.record()) == (["asked", "asked"], False, "refused")


@pytest.mark.parametrize("codes", [(), ("InternalServerException",)])
def test_a_refusal_after_a_request_in_doubt_leaves_the_target_in_doubt(codes: tuple[str, ...]) -> None:
    region = pending()
    region.answer, region.codes = REFUSED, codes
    if not codes:
        region.remember("asked")
    state = region.settle()
    assert (state.completed, state.error, region.record(), region.tags()) == (True, None, "asked", PROVED)


def test_a_refusal_of_what_has_failed_after_a_request_in_doubt_fails_the_target_and_stays_in_doubt() -> None:
    region = pending()

    region.remember("asked")
    region.answer = RequestRefused("no")
    real = region.complete_snapshot

    def complete(snapshot_id: str, **asked: Any) -> None:
        region.ec2_client.snapshots["snap-1"]["State"] = "error"
        real(snapshot_id, **asked)

    region.complete_snapshot = complete  # type: ignore[method-assign]
    state = region.settle()
    assert (type(state.error), str(state.error)) == (TargetFailed, "it was not completed: no")
    assert region.record() == "asked"


def test_a_completion_that_surely_was_not_taken_may_be_asked_for_later() -> None:
    region = pending()
    region.answer, region.codes = RetryLater("slow down"), ("ThrottlingException",)
    state = region.settle()
    assert (type(state.error), str(state.error), state.completed) == (NotAsked, "slow down", False)
    assert region.record() == "refused"


def test_a_completion_that_may_have_been_taken_stays_in_doubt() -> None:
    region = pending()
    region.answer, region.codes = RetryLater("no answer"), ("connection",)
    state = region.settle()
    assert (type(state.error), state.completed, region.record()) == (RetryLater, False, "asked")


def test_a_target_with_another_encryption_is_given_up_and_not_asked_for() -> None:
    region = Region(described("snap-1", state="pending", Encrypted=True, KmsKeyId="k"))
    state = region.settle(target(encrypted=False))
    assert isinstance(state.error, EncryptionDiffers)
    assert (state.given_up, state.completed, region.completed, region.record()) == (True, False, [], None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("UnauthorizedOperation", "CreateTags"), RequestRefused),
        (refusal("RequestLimitExceeded", "CreateTags"), RetryLater),
        (EndpointConnectionError(endpoint_url="http://local"), RetryLater),
        (BlockferryError("planted"), BlockferryError),
    ],
)
def test_a_target_that_cannot_be_tagged_is_completed_with_an_error(error: Exception, kind: type[Exception]) -> None:
    region = pending()
    region.ec2_client.errors["CreateTags"] = error
    state = region.settle()
    assert (state.completed, state.given_up, type(state.error)) == (True, False, kind)
    assert region.record() == "accepted"


def test_a_target_that_misses_blocks_is_left_as_it_is() -> None:
    region = pending()
    missing = (BlockRange(0, 5), BlockRange(9, 10))
    state = region.settle(missing=missing)
    assert state == TargetState(1, target(), missing)
    assert state.behind
    assert (region.completed, region.ec2_client.calls) == ([], {})


def test_a_target_that_was_never_started_is_started() -> None:
    region = Region()
    state = region.settle(target(snapshot_id=""), missing=(BlockRange(0, 5),))
    assert (state.target.snapshot_id, state.completed, state.error, state.behind) == ("snap-new", False, None, True)


def test_a_target_that_was_given_up_stays_so() -> None:
    region = pending()
    state = region.settle(given_up="its parent differs")
    assert (type(state.error), str(state.error)) == (TargetFailed, "its parent differs")
    assert (state.given_up, state.completed, region.completed) == (True, False, [])


def test_a_target_is_behind_only_if_blocks_may_still_be_moved_to_it() -> None:
    missing = (BlockRange(0, 5),)
    assert TargetState(0, target(), missing).behind
    assert not TargetState(0, target()).behind
    assert not TargetState(0, target(), missing, error=TargetFailed("x")).behind


def test_a_target_is_named_by_its_snapshot_or_its_position() -> None:
    assert TargetState(3, target()).name == f"snap-1 in {RECOVERY}"
    assert TargetState(3, target(snapshot_id="")).name == f"targets[3] in {RECOVERY}"


def test_the_record_of_a_target_says_all_of_it() -> None:
    missing = (BlockRange(0, 5), BlockRange(6, 7))
    state = TargetState(0, target(), missing, completed=True, error=TargetFailed("why"), given_up=True)
    assert state.record() == {
        "region": RECOVERY,
        "snapshot_id": "snap-1",
        "completed": True,
        "missing_ranges": 2,
        "given_up": True,
        "error": "why",
    }
    plain = TargetState(0, target()).record()
    assert (plain["completed"], plain["missing_ranges"], plain["given_up"], plain["error"]) == (False, 0, False, None)
