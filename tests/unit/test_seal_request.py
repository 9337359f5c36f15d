"""Asking EBS to seal a snapshot: taken, surely not taken, or not known; and what a job may delete after that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from blockferry.aws.sealing import NotAsked, NotSealed, ask, may_have_taken
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import EXECUTION_TAG, PROVED_TAG, delete
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, RequestRefused, RetryLater
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Sealing
from blockferry.targets.snapshot import LeftSnapshot
from blockferry.transfer.discard import Discarded, discard, discard_all
from botocore.exceptions import EndpointConnectionError
from job_records import AT_ONCE, EXECUTION, folder_of, job, source, target
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

SNAPSHOT = "snap-1"
NOT_TAKEN = (
    "ThrottlingException",
    "RequestThrottledException",
    "RequestThrottleException",
    "ConcurrentLimitExceededException",
    "ResourceNotFoundException",
    "AccessDeniedException",
    "InvalidSignatureException",
)


class Ebs:
    """CompleteSnapshot after some attempts that failed with ``codes``; ends with ``error``, if there is one."""

    def __init__(self, *codes: str, error: Exception | None = None) -> None:
        self.counts = RequestCounts()
        self._codes = codes
        self._error = error
        self.asked: list[Any] = []

    def complete_snapshot(self, snapshot_id: str, **more: Any) -> None:
        self.asked.append((snapshot_id, more))
        for code in self._codes:
            self.counts.retried("CompleteSnapshot", code)
        if self._error is not None:
            raise self._error


def answered(ebs: Ebs, *shown: Any, asked_before: bool | None = None) -> str:
    more = {} if asked_before is None else {"asked_before": asked_before}
    return ask(cast(Any, ebs), cast(Any, MemoryEc2(*shown)), SNAPSHOT, changed_blocks=3, linear_checksum="c", **more)


REFUSED = RequestRefused("CompleteSnapshot: refused")
LATER = RetryLater("CompleteSnapshot: no answer")


def test_ebs_is_given_count_and_checksum() -> None:
    ebs = Ebs("ThrottlingException")
    assert answered(ebs) == "accepted"
    assert ebs.asked == [(SNAPSHOT, {"changed_blocks": 3, "linear_checksum": "c"})]


@pytest.mark.parametrize("state", ["pending", "error", "gone"])
def test_a_refusal_of_what_was_never_taken_is_certain(state: str) -> None:
    shown = [] if state == "gone" else [described(SNAPSHOT, state=state)]
    with pytest.raises(NotSealed, match=rf"refused \(state {state}\)"):
        answered(Ebs(error=REFUSED), *shown)
    with pytest.raises(NotSealed):
        answered(Ebs("ThrottlingException", error=REFUSED), *shown, asked_before=False)


def test_a_refusal_of_what_is_completed_is_the_second_answer_to_a_completion() -> None:
    assert answered(Ebs(error=REFUSED), described(SNAPSHOT)) == "accepted"


@pytest.mark.parametrize(("codes", "before"), [((), True), (("InternalServerException",), False)])
def test_a_refusal_of_what_may_have_been_taken_leaves_it_in_doubt(codes: tuple[str, ...], before: bool) -> None:
    pending = described(SNAPSHOT, state="pending")
    assert answered(Ebs(*codes, error=REFUSED), pending, asked_before=before) == "in doubt"
    for shown in ([], [described(SNAPSHOT, state="error")]):
        with pytest.raises(RequestRefused) as caught:
            answered(Ebs(*codes, error=REFUSED), *shown, asked_before=before)
        assert not isinstance(caught.value, NotSealed)


@pytest.mark.parametrize(
    ("code", "before", "kind"),
    [
        ("RequestLimitExceeded", False, NotSealed),
        ("RequestLimitExceeded", True, RetryLater),
        ("UnauthorizedOperation", True, RequestRefused),
    ],
)
def test_a_look_that_fails_does_not_take_the_place_of_what_ebs_said(
    code: str, before: bool, kind: type[Exception]
) -> None:
    ec2 = MemoryEc2(described(SNAPSHOT, state="pending"))
    ec2.errors["DescribeSnapshots"] = refusal(code, "DescribeSnapshots", message="why")
    with pytest.raises(kind) as caught:
        ask(
            cast(Any, Ebs(error=REFUSED)),
            cast(Any, ec2),
            SNAPSHOT,
            changed_blocks=3,
            linear_checksum="c",
            asked_before=before,
        )
    assert type(caught.value) is kind
    assert str(caught.value) == f"{REFUSED} (its state cannot be looked at: DescribeSnapshots: {code}: why)"


def test_attempts_that_ebs_surely_did_not_take_may_be_made_later() -> None:
    with pytest.raises(NotAsked, match="no answer"):
        answered(Ebs("ThrottlingException", error=LATER))


@pytest.mark.parametrize(("codes", "before"), [(("connection",), False), (("ThrottlingException",), True)])
def test_attempts_that_ebs_may_have_taken_are_not_called_untaken(codes: tuple[str, ...], before: bool) -> None:
    with pytest.raises(RetryLater) as caught:
        answered(Ebs(*codes, error=LATER), asked_before=before)
    assert not isinstance(caught.value, NotAsked)


@pytest.mark.parametrize("code", NOT_TAKEN)
def test_only_a_refusal_that_does_nothing_is_surely_not_taken(code: str) -> None:
    counts = RequestCounts()
    assert not may_have_taken(counts)
    counts.retried("CompleteSnapshot", code)
    counts.retried("PutSnapshotBlock", "InternalServerException")
    assert not may_have_taken(counts)
    counts.retried("CompleteSnapshot", "a name with spaces")
    assert may_have_taken(counts)


# -- what a job may delete ---------------------------------------------------------------------------------------------

HERE, THERE = Identity("us-east-1"), Identity("eu-west-1", "arn:aws:iam::444455556666:role/reader")


def discarded(ec2: dict[Identity, MemoryEc2], sealed: dict[str, str], *found: tuple[Identity, str]) -> Discarded:
    of = job(source(), target())
    folder = folder_of(of, MemoryS3())
    for snapshot_id, state in sealed.items():
        folder.save_sealing(snapshot_id, Sealing(state=cast(Any, state), changed_blocks=1, linear_checksum="c"))
    call = JobCall(aws=cast(Any, SimpleNamespace(ec2=ec2.__getitem__)), folder=folder)
    return discard_all((LeftSnapshot(identity, snapshot_id) for identity, snapshot_id in found), call, of)


def test_what_ebs_was_asked_for_is_kept_and_what_it_refused_is_deleted() -> None:
    names = ("snap-asked", "snap-accepted", "snap-refused", "snap-never")
    ec2 = MemoryEc2(*(described(name, state="pending") for name in names), described("snap-whole"))
    states = {"snap-asked": "asked", "snap-accepted": "accepted", "snap-refused": "refused"}
    found = discarded({HERE: ec2}, states, *((HERE, name) for name in (*names, "snap-whole")))
    assert found.gone == ("snap-refused", "snap-never")
    assert found.kept == (
        "snap-asked in us-east-1 (EBS was asked to seal it)",
        "snap-accepted in us-east-1 (EBS was asked to seal it)",
        "snap-whole in us-east-1 (EC2 calls it completed)",
    )
    assert found.failed == found.errors == ()
    assert ec2.snapshots.keys() == {"snap-asked", "snap-accepted", "snap-whole"}
    assert found.told() == f"Completed or being sealed before that, and kept: {', '.join(found.kept)}"


SWEEPER = (
    "The sweeper tries again when the resume window is over; until then snapshots take up places among the pending "
    "ones of their Region"
)


def discarded_behind(error: Exception) -> tuple[Discarded, MemoryEc2]:
    """What becomes of two snapshots, the first of which cannot be deleted; and EC2 as the second one's region."""
    broken, other = MemoryEc2(described("snap-1", state="pending")), MemoryEc2(described("snap-2", state="pending"))
    broken.errors["DeleteSnapshot"] = error
    return discarded({THERE: broken, HERE: other}, {}, (THERE, "snap-1"), (HERE, "snap-2")), other


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (refusal("UnauthorizedOperation", "DeleteSnapshot"), RequestRefused, "DeleteSnapshot: UnauthorizedOperation"),
        (EndpointConnectionError(endpoint_url="http://local"), RetryLater, "EndpointConnectionError"),
        (BlockferryError("no role"), BlockferryError, "no role"),
    ],
)
def test_what_cannot_be_deleted_is_named_and_stops_nothing(error: Exception, kind: type[Exception], told: str) -> None:
    found, other = discarded_behind(error)
    assert not other.snapshots
    assert (found.gone, found.kept) == (("snap-2",), ())
    (failed,), (reason,) = found.failed, found.errors
    assert failed.startswith(f"snap-1 in eu-west-1 ({told}")
    assert type(reason) is kind
    assert failed == f"snap-1 in eu-west-1 ({reason})"
    assert found.told() == f"Not deleted yet: {failed}. {SWEEPER}"


def test_kept_and_undeleted_ones_are_told_in_two_sentences() -> None:
    assert Discarded((), ("a",), ("b", "c"), ()).told() == (
        "Completed or being sealed before that, and kept: a. Not deleted yet: b, c. " + SWEEPER
    )
    assert Discarded(("a",), (), (), ()).told() == "Nothing is left of the job"


class Late(MemoryEc2):
    """EC2, to which a snapshot is unknown for some looks."""

    def __init__(self, *snapshots: Any, looks: int) -> None:
        super().__init__(*snapshots)
        self.unknown_for = looks

    def paginate(self, **members: Any) -> Any:
        self.unknown_for -= 1
        return super().paginate(**members) if self.unknown_for < 0 else iter(({"Snapshots": []},))


def left(ec2: MemoryEc2, *, new: bool, mark: str = EXECUTION.mark) -> str | None:
    call = JobCall(aws=cast(Any, SimpleNamespace(ec2=lambda _: ec2)), folder=cast(Any, None), waits=AT_ONCE)
    return LeftSnapshot(HERE, SNAPSHOT, new=new).discard(call, None, mark=mark)


def test_a_new_snapshot_is_waited_for_before_it_is_deleted_and_an_older_one_is_gone_when_it_is_unknown() -> None:
    late = Late(described(SNAPSHOT, state="pending"), looks=2)
    assert left(late, new=True) is None
    assert late.snapshots == {}
    gone = MemoryEc2()
    assert left(gone, new=False) is None
    assert gone.calls["DescribeSnapshots"] == 1
    with pytest.raises(RetryLater, match=f"EC2 does not know {SNAPSHOT} in us-east-1, which was started a moment ago"):
        left(MemoryEc2(), new=True)
    # One that is known in the end, and kept, is not waited for any more.
    late = Late(described(SNAPSHOT, state="pending"), looks=AT_ONCE.looks)
    assert left(late, new=True, mark="another") == f"its tag {EXECUTION_TAG} is not that of this job"


def test_only_what_was_started_a_moment_ago_is_waited_for_when_a_job_is_given_up() -> None:
    of, ec2 = job(source(), target()), MemoryEc2()
    call = JobCall(aws=cast(Any, SimpleNamespace(ec2=lambda _: ec2)), folder=folder_of(of, MemoryS3()), waits=AT_ONCE)
    assert discard(of, of.targets, call).gone == ("snap-1",)
    assert discard(of, of.targets, call, new=True).failed != ()


def test_a_target_that_was_never_started_leaves_nothing_to_delete() -> None:
    made = [target(snapshot_id=name, role_arn=THERE.role_arn) for name in ("", "snap-1")]
    assert [each.leftover() for each in made] == [None, LeftSnapshot(THERE, "snap-1")]


@pytest.mark.parametrize(
    ("tags", "state", "why"),
    [
        ({}, "pending", "its tag blockferry:execution is not that of this job"),
        ({EXECUTION_TAG: "0" * 64}, "error", "its tag blockferry:execution is not that of this job"),
        (
            {EXECUTION_TAG: EXECUTION.mark, PROVED_TAG: "snap-1"},
            "error",
            "EBS took its checksum, as its tag blockferry:proved-snapshot-id says; it is in state error",
        ),
        ({EXECUTION_TAG: EXECUTION.mark, PROVED_TAG: "snap-1"}, "completed", "EC2 calls it completed"),
        ({EXECUTION_TAG: EXECUTION.mark}, "error", None),
    ],
)
def test_only_what_the_execution_has_started_and_not_proved_is_deleted(
    tags: dict[str, str], state: str, why: str | None
) -> None:
    ec2 = MemoryEc2(described("snap-1", state=state, tags=tags))
    assert delete(cast(Any, ec2), "snap-1", mark=EXECUTION.mark, asked_to_seal=False) == why
    assert list(ec2.snapshots) == ([] if why is None else ["snap-1"])
