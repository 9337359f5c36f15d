"""What EBS was asked to seal is never completed twice for nothing, never called failed for a doubt, never deleted; and
no target decides for another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from blockferry.aws.snapshots import CHECKSUM_TAG
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RetryLater, TargetFailed, TransferFailed
from blockferry.core.retry import RetryPolicy
from blockferry.jobs.folder import MISSING, RECEIPT, SEALING, TARGETS
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, hashes, running_rig

BLOCKS = {0: content(1), 1: content(0), 600: content(3)}
SMALL = {"blocks_per_range": 512, "holes": "preserve"}
LOST = {"operation": "CompleteSnapshot", "action": "close_after"}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    # The same completion is refused once more, and sealing takes until the clock is moved.
    with running_rig(monkeypatch, {"complete_again": "refuse", "seal_seconds": 5.0}) as made:
        yield made


@pytest.fixture
def impatient(rig: Rig) -> None:
    """One attempt of every request."""
    rig.waits = replace(rig.waits, requests=RetryPolicy(max_attempts=1))


def snapshot(rig: Rig, blocks: Mapping[int, bytes], *, region: str = HOME, **more: Any) -> str:
    with_seal = rig.control("config")["seal_seconds"]
    rig.control("config", {"seal_seconds": 0.0})
    made = rig.snapshot(blocks, region=region, **more)
    rig.control("config", {"seal_seconds": with_seal})
    return made


def moved(rig: Rig, *regions: str, **target: Any) -> tuple[str, list[str]]:
    """A job whose blocks are in every target; its id and its targets."""
    source = snapshot(rig, BLOCKS)
    targets = [{"region": region, **target} for region in regions]
    job_id = rig.plan({"snapshot_id": source, "targets": targets, "options": SMALL})["job_id"]
    rig.move_all(job_id)
    return job_id, target_ids(rig, job_id)


def target_ids(rig: Rig, job_id: str) -> list[str]:
    return [target.snapshot_id for target in rig.job(job_id).targets]


def states(rig: Rig) -> dict[str, str]:
    return {found["snapshot_id"]: found["state"] for found in rig.snapshots()}


def fault(rig: Rig, operation: str, snapshot_id: str | None = None, **more: Any) -> None:
    rule = {"action": "error", "status": 400, "code": "ValidationException", **more}
    rig.control("faults", {"operation": operation, "snapshot_id": snapshot_id, **rule})


def healed(rig: Rig) -> None:
    rig.control("faults", method="DELETE")


# -- sealed, refused, in doubt -----------------------------------------------------------------------------------------


def test_a_target_that_is_being_sealed_is_not_completed_again(rig: Rig) -> None:
    job_id, (target,) = moved(rig, RECOVERY)
    once = rig.complete(job_id)
    assert rig.state(target) == "pending"
    rig.control("stats/reset", {})
    assert rig.complete(job_id) == once
    assert "CompleteSnapshot" not in rig.calls()
    assert rig.finish(job_id)["status"] == "SUCCEEDED"
    assert rig.held(target) == hashes(BLOCKS)


def test_a_lost_answer_to_the_completion_leaves_a_target_to_be_waited_for(rig: Rig) -> None:
    job_id, (target,) = moved(rig, RECOVERY)
    rig.control("faults", {**LOST, "times": 1})
    rig.complete(job_id)
    assert rig.finish(job_id)["linear_checksum"] == rig.facts(target)["tags"][CHECKSUM_TAG]


@pytest.mark.usefixtures("impatient")
def test_a_completion_in_doubt_is_asked_again_and_a_refusal_is_no_failure_then(rig: Rig) -> None:
    job_id, (target, other) = moved(rig, RECOVERY, THIRD)
    rig.control("faults", {**LOST, "snapshot_id": target})
    with pytest.raises(RetryLater, match=target):
        rig.complete(job_id)
    healed(rig)
    rig.complete(job_id)
    assert {target: rig.state(target), other: rig.state(other)} == {target: "pending", other: "pending"}
    assert rig.finish(job_id)["status"] == "SUCCEEDED"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["sealed", "in doubt"])
def test_what_ebs_was_asked_to_seal_is_kept_when_the_job_is_refused_later(rig: Rig, how: str) -> None:
    job_id, (sealed, other) = moved(rig, RECOVERY, THIRD)
    if how == "in doubt":
        rig.control("faults", {**LOST, "snapshot_id": sealed})
    fault(rig, "CompleteSnapshot", other)
    with pytest.raises(TargetFailed):
        rig.complete(job_id)
    rig.folder(job_id).refuse("the image was replaced")
    for _ in range(2):
        with pytest.raises(TransferFailed, match=f"and kept: {sealed}"):
            rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    assert {i: s for i, s in states(rig).items() if i in (sealed, other)} == {sealed: "completed"}


def test_a_completion_that_ebs_refuses_for_certain_may_be_deleted(rig: Rig) -> None:
    job_id, (target,) = moved(rig, RECOVERY)
    fault(rig, "CompleteSnapshot", target)
    with pytest.raises(TargetFailed, match="ValidationException"):
        rig.complete(job_id)
    rig.folder(job_id).refuse("the image was replaced")
    with pytest.raises(TransferFailed, match="Nothing is left of the job"):
        rig.complete(job_id)
    assert target not in states(rig)


def test_what_ec2_calls_completed_is_never_deleted_even_without_a_record(rig: Rig) -> None:
    job_id, (target,) = moved(rig, RECOVERY)
    rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    assert rig.folder(job_id).delete_below(SEALING) == 1
    rig.folder(job_id).refuse("the image was replaced")
    with pytest.raises(TransferFailed, match=f"and kept: {target}"):
        rig.complete(job_id)
    assert rig.state(target) == "completed"


def test_tags_that_cannot_be_set_fail_their_target_only_and_are_set_by_the_next_attempt(rig: Rig) -> None:
    job_id, (target, other) = moved(rig, RECOVERY, THIRD)
    fault(rig, "CreateTags", region=RECOVERY, code="UnauthorizedOperation")
    with pytest.raises(TargetFailed, match=f"(?s){target}.*CreateTags") as caught:
        rig.complete(job_id)
    assert f"- {other}" not in str(caught.value)
    assert CHECKSUM_TAG in rig.facts(other)["tags"]
    healed(rig)
    rig.complete(job_id)
    assert CHECKSUM_TAG in rig.facts(target)["tags"]


# -- pending means wait ------------------------------------------------------------------------------------------------


def test_a_target_that_shows_as_pending_again_is_waited_for(rig: Rig) -> None:
    rig.control("config", {"describe_stale_seconds": 60.0})
    job_id, made = moved(rig, RECOVERY, THIRD)
    rig.complete(job_id)
    # One look of somebody else, so that the receipt's own look is the one that is old.
    rig.control("clock", {"advance": 6})
    for target, region in zip(made, (RECOVERY, THIRD), strict=True):
        rig.client("ec2", region).describe_snapshots(SnapshotIds=[target])
    rig.client("ec2", THIRD).describe_snapshots(SnapshotIds=[made[1]])
    receipt = rig.finish(job_id)
    assert [target["state"] for target in receipt["targets"]] == ["completed"] * 2


def test_a_receipt_is_not_written_for_a_target_that_stays_pending_and_says_that_it_may_be_tried_again(
    rig: Rig,
) -> None:
    job_id, (target,) = moved(rig, RECOVERY)
    rig.complete(job_id)
    with pytest.raises(RetryLater, match=f"{target} in {RECOVERY}.*pending"):
        rig.call("write_receipt", {**rig.event(job_id), "proof": rig.proofs[job_id]})
    assert rig.folder(job_id).read(RECEIPT) is None


def test_a_source_that_shows_as_pending_again_can_be_copied(rig: Rig) -> None:
    source = snapshot(rig, BLOCKS)
    rig.control("config", {"describe_stale_seconds": 60.0})
    rig.client("ec2").describe_snapshots(SnapshotIds=[source])
    assert rig.plan({"snapshot_id": source, "targets": [{"region": RECOVERY}]})["job_id"]


# -- one target never decides for another ------------------------------------------------------------------------------


def test_a_target_that_cannot_be_completed_does_not_hide_what_another_misses(rig: Rig) -> None:
    source = snapshot(rig, BLOCKS)
    request = {"snapshot_id": source, "targets": [{"region": r} for r in (HOME, RECOVERY, THIRD)], "options": SMALL}
    job_id = rig.plan(request)["job_id"]
    good, stuck, behind = target_ids(rig, job_id)
    fault(rig, "PutSnapshotBlock", behind)
    fault(rig, "CompleteSnapshot", stuck)
    rig.move_all(job_id)
    assert rig.complete(job_id)["missing_ranges"] > 0
    healed(rig)
    fault(rig, "CompleteSnapshot", stuck)
    rig.move_missing(job_id)
    with pytest.raises(TargetFailed, match=stuck) as caught:
        rig.complete(job_id, missing_moved=True)
    assert f"- {behind}" not in str(caught.value)
    rig.control("clock", {"advance": 10})
    assert [rig.state(each) for each in (good, stuck, behind)] == ["completed", "pending", "completed"]
    assert rig.held(behind) == hashes(BLOCKS)


def test_a_target_that_can_never_be_written_does_not_keep_another_from_being_completed_later(rig: Rig) -> None:
    source = snapshot(rig, BLOCKS)
    request = {"snapshot_id": source, "targets": [{"region": r} for r in (HOME, RECOVERY, THIRD)], "options": SMALL}
    job_id = rig.plan(request)["job_id"]
    good, never, later = target_ids(rig, job_id)
    fault(rig, "PutSnapshotBlock", never)
    fault(rig, "PutSnapshotBlock", later)
    rig.move_all(job_id)

    def rounds() -> None:
        """What the state machine does from Complete transfer on."""
        while rig.complete(job_id, missing_moved=rig.folder(job_id).read(MISSING) is not None)["missing_ranges"]:
            rig.move_missing(job_id)

    with pytest.raises(IncompleteTransfer, match=f"(?s){never}.*ValidationException.*{later}"):
        rounds()
    healed(rig)
    fault(rig, "PutSnapshotBlock", never)
    # The redrive.
    with pytest.raises(IncompleteTransfer, match=never) as caught:
        rounds()
    assert later not in str(caught.value)
    rig.control("clock", {"advance": 10})
    assert [rig.state(each) for each in (good, never, later)] == ["completed", "pending", "completed"]
    assert rig.held(later) == hashes(BLOCKS)
    healed(rig)
    rounds()
    assert len(rig.finish(job_id)["targets"]) == 3


def test_the_only_target_left_to_a_worker_does_not_keep_the_others_out_when_it_fails(rig: Rig) -> None:
    source = snapshot(rig, BLOCKS)
    request = {"snapshot_id": source, "targets": [{"region": r} for r in (RECOVERY, THIRD)], "options": SMALL}
    job_id = rig.plan(request)["job_id"]
    first, second = target_ids(rig, job_id)
    ranges = rig.ranges(job_id)
    rig.control("faults", {"operation": "PutSnapshotBlock", "snapshot_id": first, "action": "error", "status": 400,
                           "code": "ValidationException", "times": 1})  # fmt: skip
    rig.move(job_id, ranges[0])
    fault(rig, "PutSnapshotBlock", second)
    with pytest.raises(RetryLater, match=second):
        rig.move(job_id, ranges[1])
    for within in ranges[1:]:
        assert rig.move(job_id, within)["done"]
    assert rig.held(first)[600] == hashes(BLOCKS)[600]


def sync_of_two(rig: Rig, parents: list[dict[int, bytes]]) -> tuple[str, list[str], list[str]]:
    """A sync that compares its two parents; its id, the parents and the targets."""
    volume = "vol-0123456789abcdef0"
    rig.control("volumes", {"volume_id": volume, "owner": "111122223333", "region": HOME, "size": 1})
    taken = []
    for blocks in ({0: content(1), 700: content(2)}, {0: content(1), 700: content(7)}):
        for index, data in blocks.items():
            rig.post(f"volumes/{volume}/blocks/{index}", data)
        taken.append(rig.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"])
        rig.control("clock", {"advance": 2})
    made = [snapshot(rig, blocks, region=region) for blocks, region in zip(parents, (RECOVERY, THIRD), strict=True)]
    request = {
        "base_snapshot_id": taken[0],
        "snapshot_id": taken[1],
        "targets": [
            {"region": region, "parent_snapshot_id": parent}
            for region, parent in zip((RECOVERY, THIRD), made, strict=True)
        ],
        "options": {"blocks_per_range": 512, "verify_parent": True},
    }
    job_id = rig.plan(request, operation="sync")["job_id"]
    return job_id, made, target_ids(rig, job_id)


SAME = {0: content(1), 700: content(2)}
AFTER = {0: content(1), 700: content(7)}


def test_a_parent_that_cannot_be_read_costs_only_its_own_target(rig: Rig) -> None:
    job_id, (unreadable, _), (behind, good) = sync_of_two(rig, [SAME, SAME])
    fault(rig, "GetSnapshotBlock", unreadable)
    rig.move_all(job_id)
    assert rig.complete(job_id)["missing_ranges"] > 0
    rig.control("clock", {"advance": 10})
    assert [rig.state(each) for each in (behind, good)] == ["pending", "completed"]
    assert rig.held(good) == hashes(AFTER)
    healed(rig)
    rig.move_missing(job_id)
    rig.complete(job_id, missing_moved=True)
    rig.finish(job_id)
    assert rig.held(behind) == hashes(AFTER)


def test_a_parent_that_cannot_be_listed_costs_only_its_own_target(rig: Rig) -> None:
    job_id, (unreadable, _), (behind, good) = sync_of_two(rig, [SAME, SAME])
    fault(rig, "ListSnapshotBlocks", unreadable)
    rig.move_all(job_id)
    rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    assert [rig.state(each) for each in (behind, good)] == ["pending", "completed"]


def test_a_parent_that_differs_costs_only_its_own_target_which_is_deleted_and_named(rig: Rig) -> None:
    job_id, (wrong, _), (gone, good) = sync_of_two(rig, [{**SAME, 700: content(33)}, SAME])
    rig.move_all(job_id)
    for _ in range(2):
        with pytest.raises(TransferFailed, match=f"(?s){wrong}.* is not equal to base .*block 700"):
            rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    assert gone not in states(rig)
    assert rig.state(good) == "completed"
    assert rig.held(good) == hashes(AFTER)
    assert CHECKSUM_TAG in rig.facts(good)["tags"]
    told = json.loads(rig.folder(job_id).read(TARGETS) or b"")
    assert [state["completed"] for state in told] == [False, True]


def test_parents_that_all_differ_refuse_the_job_with_nothing_left(rig: Rig) -> None:
    job_id, parents, made = sync_of_two(rig, [{**SAME, 0: content(33)}, {**SAME, 700: content(34)}])
    rig.move_all(job_id)
    with pytest.raises(TransferFailed, match="Nothing is left of the job") as caught:
        rig.complete(job_id)
    assert all(parent in str(caught.value) for parent in parents)
    assert not states(rig).keys() & set(made)


def test_a_target_whose_state_cannot_be_asked_for_does_not_hide_another_that_failed(rig: Rig) -> None:
    job_id, (silent, broken) = moved(rig, RECOVERY, THIRD)
    rig.complete(job_id)
    rig.client("ec2", THIRD).delete_snapshot(SnapshotId=broken)
    fault(rig, "DescribeSnapshots", region=RECOVERY, code="InternalError", status=500)
    with pytest.raises(TargetFailed, match=f"(?s){broken}.*{silent}"):
        rig.call("check_targets", {**rig.event(job_id), "progress": None})


@pytest.mark.parametrize("in_error", [0, 1])
def test_deleting_goes_on_behind_a_target_that_cannot_be_deleted(rig: Rig, in_error: int) -> None:
    job_id, made = moved(rig, RECOVERY, THIRD)
    region = (RECOVERY, THIRD)[in_error]
    fault(rig, "DeleteSnapshot", region=region, code="UnauthorizedOperation")
    rig.folder(job_id).refuse("the image was replaced")
    with pytest.raises(Exception, match=made[in_error]):
        rig.complete(job_id)
    assert [target in states(rig) for target in made] == [in_error == 0, in_error == 1]


# -- the encryption that was asked for ---------------------------------------------------------------------------------

KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"encrypted": True}, "unencrypted"),
        ({"kms_key_arn": KEY}, "unencrypted"),
        ({"kms_key_arn": KEY}, "other_key"),
        ({"encrypted": False}, "other_key"),
    ],
)
def test_a_target_with_another_encryption_than_was_asked_for_is_refused_before_anything_is_moved(
    rig: Rig, asked: dict[str, Any], wrong: str
) -> None:
    source = snapshot(rig, BLOCKS)
    rig.control("faults", {"operation": "StartSnapshot", "action": wrong, "region": RECOVERY})
    with pytest.raises(InvalidRequest, match=r"targets\[1\] in eu-west-1.*asked for.*came out") as caught:
        rig.plan(
            {"snapshot_id": source, "targets": [{"region": THIRD}, {"region": RECOVERY, **asked}], "options": SMALL}
        )
    assert "nothing is left" in str(caught.value).lower()
    assert states(rig) == {source: "completed"}


def test_a_target_that_was_started_late_with_another_encryption_is_given_up_and_the_others_are_kept(
    rig: Rig,
) -> None:
    rig.waits = replace(rig.waits, starts=RetryPolicy(max_attempts=1))
    source = snapshot(rig, BLOCKS)
    rig.control(
        "faults", {"operation": "StartSnapshot", "region": RECOVERY, "action": "error", "status": 503, "times": 1}
    )
    targets = [{"region": THIRD}, {"region": RECOVERY, "encrypted": True}]
    job_id = rig.plan({"snapshot_id": source, "targets": targets, "options": SMALL})["job_id"]
    rig.move_all(job_id)
    healed(rig)
    rig.control("faults", {"operation": "StartSnapshot", "action": "unencrypted", "region": RECOVERY})
    with pytest.raises(TransferFailed, match=r"asked for.*came out"):
        rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    good = rig.job(job_id).targets[0].snapshot_id
    assert states(rig) == {source: "completed", good: "completed"}


def test_a_target_that_ec2_shows_with_another_key_than_ebs_answered_is_not_sealed(rig: Rig) -> None:
    job_id, (wrong, good) = moved(rig, RECOVERY, THIRD, encrypted=True)
    with rig.server.service.registry.lock:
        from localcloud.ebs.model import UNENCRYPTED

        rig.server.service.registry.snapshots[wrong].encryption = UNENCRYPTED
    with pytest.raises(TransferFailed, match=f"{wrong}.*asked for.*came out"):
        rig.complete(job_id)
    rig.control("clock", {"advance": 10})
    assert wrong not in states(rig)
    assert rig.state(good) == "completed"


def test_no_receipt_is_written_for_a_target_with_another_encryption(rig: Rig) -> None:
    job_id, (wrong,) = moved(rig, RECOVERY, encrypted=True)
    rig.complete(job_id)
    with rig.server.service.registry.lock:
        from localcloud.ebs.model import UNENCRYPTED

        rig.server.service.registry.snapshots[wrong].encryption = UNENCRYPTED
    with pytest.raises(TargetFailed, match=f"{wrong}.*asked for.*came out"):
        rig.finish(job_id)
    assert rig.state(wrong) == "completed"


def test_a_target_that_came_out_encrypted_is_not_left_without_its_zeros(rig: Rig) -> None:
    # The account's default was switched on between the look and the start.
    source = snapshot(rig, BLOCKS)
    rig.control("faults", {"operation": "StartSnapshot", "action": "other_key", "region": RECOVERY})
    request = {"snapshot_id": source, "targets": [{"region": RECOVERY}], "options": {"holes": "skip_zero"}}
    with pytest.raises(InvalidRequest, match=r"no encryption.* was asked for, and it came out encrypted"):
        rig.plan(request)
    assert len(content(0)) == BLOCK_SIZE
    assert states(rig) == {source: "completed"}
