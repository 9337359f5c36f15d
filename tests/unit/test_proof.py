"""The proof's own alarms: a record of what was moved that does not fit the source completes no target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blockferry.core.checksums import Linear, digest_of
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.tuning import Throughput
from blockferry.jobs.digests import Stretch
from blockferry.sources.kind import Listed
from blockferry.sources.snapshot import JobSnapshot
from blockferry.transfer.complete import complete_transfer
from fakes import ManualClock, content
from job_records import job_call
from rig import HOME, RECOVERY, Rig, running_rig

Digests = tuple[tuple[int, bytes], ...]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch, {"volume_snapshot_seconds": 0.0}) as made:
        yield made


def moved(rig: Rig, blocks: dict[int, bytes], **options: Any) -> str:
    """A copy with one target, all of it moved; its job."""
    request = {
        "snapshot_id": rig.snapshot(blocks),
        "targets": [{"region": RECOVERY}],
        "options": {"blocks_per_range": 512, **options},
    }
    job_id: str = rig.plan(request)["job_id"]
    rig.move_all(job_id)
    return job_id


def moved_delta(rig: Rig, before: dict[int, bytes], after: dict[int, bytes]) -> str:
    """A sync on top of a copy of its base, all of it moved; its job."""
    volume = "vol-0123456789abcdef0"
    rig.control("volumes", {"volume_id": volume, "owner": "111122223333", "region": HOME, "size": 1})
    snapshots = []
    for held in (before, after):
        for index in before.keys() - held.keys():
            rig.control(f"volumes/{volume}/blocks/{index}", method="DELETE")
        for index, data in held.items():
            rig.post(f"volumes/{volume}/blocks/{index}", data)
        snapshots.append(rig.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"])
        rig.control("clock", {"advance": 1})
    base, snapshot = snapshots
    copy = rig.copy({"snapshot_id": base, "targets": [{"region": RECOVERY}]})["targets"][0]["snapshot_id"]
    targets = [{"region": RECOVERY, "parent_snapshot_id": copy}]
    request = {"base_snapshot_id": base, "snapshot_id": snapshot, "targets": targets}
    job_id: str = rig.plan(request, operation="sync")["job_id"]
    rig.move_all(job_id)
    return job_id


def forge(rig: Rig, job_id: str, change: Callable[[Digests], Digests]) -> None:
    """Change what the first range says it has moved, before anybody has counted it."""
    rig.forget_recounts(job_id)
    stretch: Stretch = rig.folder(job_id).stretch(next(iter(rig.folder(job_id).stretch_keys())))
    rig.folder(job_id).save_stretch(dataclasses.replace(stretch, digests=change(stretch.digests)))


def fails_with_its_target_pending(rig: Rig, job_id: str) -> str:
    rig.control("stats/reset", {})
    with pytest.raises(IncompleteTransfer) as caught:
        rig.complete(job_id)
    assert rig.state(rig.job(job_id).targets[0].snapshot_id) == "pending"
    assert "CompleteSnapshot" not in rig.calls()
    folder = rig.folder(job_id)
    stored = folder.s3.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key("")).get("Contents", [])
    # Neither a proof nor anything else that comes after it.
    assert {item["Key"].removeprefix(folder.prefix).split("/")[0] for item in stored} >= {"plan", "moved"}
    assert [item["Key"] for item in stored if item["Key"].startswith(folder.key("proved/"))] == []
    return str(caught.value)


def test_a_block_that_was_moved_but_is_not_listed_fails_the_job(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1), 5: content(2)})
    forge(rig, job_id, lambda digests: tuple(sorted([*digests, (3, digest_of(content(7)))])))
    assert "block 3 was moved but is not allocated" in fails_with_its_target_pending(rig, job_id)


def test_a_block_that_was_moved_but_is_not_in_the_delta_fails_the_job(rig: Rig) -> None:
    job_id = moved_delta(rig, {0: content(1), 1: content(2)}, {0: content(1), 1: content(3)})
    forge(rig, job_id, lambda digests: ((0, digest_of(content(1))), *digests))
    assert "block 0 was moved but is not changed" in fails_with_its_target_pending(rig, job_id)


def test_a_removed_block_where_something_else_than_zeros_was_written_fails_the_job(rig: Rig) -> None:
    job_id = moved_delta(rig, {0: content(1), 1: content(2)}, {0: content(1)})
    forge(rig, job_id, lambda digests: ((1, digest_of(content(2))),))
    assert "block 1 is gone" in fails_with_its_target_pending(rig, job_id)


def test_a_hole_that_was_not_filled_fails_the_job(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1)}, holes="zero_fill")
    forge(rig, job_id, lambda digests: digests[:-1])
    assert "only 511 blocks between 0 and 512" in fails_with_its_target_pending(rig, job_id)


def test_a_block_that_is_missing_where_holes_were_filled_fails_the_job_by_its_number(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1), 9: content(2)}, holes="zero_fill")
    forge(rig, job_id, lambda digests: tuple(entry for entry in digests if entry[0] != 9))
    assert "block 9" in fails_with_its_target_pending(rig, job_id)


def test_a_list_that_is_empty_although_ec2_knows_of_data_fails_the_job(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = moved(rig, {0: content(1)})
    forge(rig, job_id, lambda _digests: ())
    monkeypatch.setattr(JobSnapshot, "relist", lambda *_: Listed(frozenset(), frozenset(), 0))
    assert "an empty copy is refused" in fails_with_its_target_pending(rig, job_id)


def test_the_proof_adds_up_what_all_ranges_took_and_counts_what_the_source_holds(rig: Rig) -> None:
    blocks = {0: content(1), 63: content(0), 64: content(2), 1000: content(0), 2047: content(3)}
    job_id = moved(rig, blocks, blocks_per_range=64)
    rig.forget_recounts(job_id)
    for key in list(rig.folder(job_id).stretch_keys()):
        stretch = rig.folder(job_id).stretch(key)
        took = dataclasses.replace(
            stretch, requests={"Asked there": 1}, retries={"Asked Slow": 2}, parent_blocks=3, gb_seconds=0.2501
        )
        rig.folder(job_id).save_stretch(took)
    rig.complete(job_id)
    proof = rig.proof(job_id)
    assert proof is not None
    linear = Linear()
    for index, data in sorted(blocks.items()):
        linear.add(index, digest_of(data))
    # 32 ranges, each listed once more: more than are looked at ahead.
    assert proof.requests == {"Asked there": 32, f"ListSnapshotBlocks {HOME}": 32}
    assert proof.retries == {"Asked Slow": 64}
    assert (proof.parent_blocks, proof.worker_gb_seconds) == (96, 8.003)
    assert (proof.allocated_blocks, proof.changed_blocks, proof.removed_blocks) == (5, 5, 0)
    assert (proof.zero_blocks, proof.blocks_read, proof.blocks_written) == (2, 5, 5)
    assert proof.linear_checksum == linear.value()


def test_the_proof_of_a_delta_counts_what_is_removed_apart_from_what_is_zero(rig: Rig) -> None:
    before = {0: content(1), 1: content(2), 2: content(3), 3: content(4)}
    job_id = moved_delta(rig, before, {0: content(1), 1: content(0), 3: content(5)})
    rig.complete(job_id)
    proof = rig.proof(job_id)
    assert proof is not None
    assert (proof.allocated_blocks, proof.changed_blocks, proof.removed_blocks) == (3, 2, 1)
    assert (proof.zero_blocks, proof.blocks_read, proof.blocks_written) == (1, 2, 3)


def test_the_first_of_several_blocks_that_were_not_moved_is_named_with_their_number(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1), 5: content(2), 9: content(3)})
    forge(rig, job_id, lambda digests: digests[:1])
    assert "block 5 of" in (text := fails_with_its_target_pending(rig, job_id))
    assert "(2 such blocks between 0 and 512)" in text


def test_the_first_of_several_blocks_that_are_not_listed_is_named(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1)})
    forge(rig, job_id, lambda digests: (*digests, (3, digest_of(content(7))), (8, digest_of(content(7)))))
    assert "block 3 was moved but is not allocated" in fails_with_its_target_pending(rig, job_id)


def test_a_snapshot_of_which_ec2_does_not_tell_how_much_it_holds_may_be_empty(rig: Rig) -> None:
    job_id = moved(rig, {})
    rig.complete(job_id)
    proof = rig.proof(job_id)
    assert proof is not None
    assert (proof.allocated_blocks, proof.blocks_written) == (0, 0)


def test_listing_again_keeps_to_its_share_of_the_quota(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1)}, blocks_per_range=64)
    rig.forget_recounts(job_id)
    clock = ManualClock()
    slow = Throughput(lists_per_second=10.0)
    complete_transfer(job_call(rig.aws, rig.folder(job_id), clock=clock, throughput=slow), rig.record(job_id))
    assert clock.now - 1_000 == pytest.approx(3.1)  # 32 ranges, the first of them at once


def test_zeros_that_were_left_out_are_proved_to_be_zeros_and_not_counted_as_written(rig: Rig) -> None:
    job_id = moved(rig, {0: content(0), 1: content(1)}, holes="skip_zero")
    rig.complete(job_id)
    proof = rig.proof(job_id)
    assert proof is not None
    linear = Linear()
    linear.add(1, digest_of(content(1)))
    assert (proof.allocated_blocks, proof.zero_blocks, proof.blocks_written) == (2, 1, 1)
    assert proof.linear_checksum == linear.value()


def test_a_list_that_was_throttled_is_counted_among_the_repeated_requests_and_waited_for(rig: Rig) -> None:
    job_id = moved(rig, {0: content(1)})
    rig.forget_recounts(job_id)
    rule = {"operation": "ListSnapshotBlocks", "action": "error", "status": 400, "code": "ThrottlingException"}
    rig.control("faults", {**rule, "times": 1})
    clock = ManualClock()
    answer = complete_transfer(job_call(rig.aws, rig.folder(job_id), clock=clock), rig.record(job_id))
    proof = rig.folder(job_id).proof(str(answer["proof"]))
    assert proof.retries == {"ListSnapshotBlocks ThrottlingException": 1}
    assert len(clock.slept) >= 1
