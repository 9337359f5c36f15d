"""Copies through all steps, held against what the EBS server itself holds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, RequestRefused, RetryLater, TargetFailed
from blockferry.core.retry import RetryPolicy
from blockferry.jobs.folder import TARGETS
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, hashes, put, running_rig

RANGES = {"blocks_per_range": 512}
SMALL = {"blocks_per_range": 64}
KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def request(snapshot_id: str, *regions: str, **options: Any) -> dict[str, Any]:
    targets = [{"region": region} for region in regions or (RECOVERY,)]
    return {"snapshot_id": snapshot_id, "targets": targets, "options": {**RANGES, **options}}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_a_copy_has_exactly_the_blocks_of_its_source(rig: Rig, count: int) -> None:
    blocks = {index: content(index % 7 + 1) for index in range(count)}
    source = rig.snapshot(blocks)
    receipt = rig.copy(request(source, **SMALL))
    copy = receipt["targets"][0]["snapshot_id"]
    assert rig.held(copy) == hashes(blocks)
    assert rig.facts(copy)["region"] == RECOVERY
    assert rig.state(copy) == "completed"
    assert receipt["status"] == "SUCCEEDED"
    assert receipt["allocated_blocks"] == receipt["changed_blocks"] == count
    assert receipt["targets"][0]["blocks_written"] == count
    assert receipt["linear_checksum"] == rig.facts(copy)["linear_checksum"]
    assert receipt["bytes_read"] == receipt["bytes_written"] == count * BLOCK_SIZE


def test_holes_between_and_behind_blocks_stay_holes_and_the_last_block_of_the_volume_is_copied(rig: Rig) -> None:
    blocks = {0: content(1), 65: content(2), 1000: content(3), 2047: content(4)}
    receipt = rig.copy(request(rig.snapshot(blocks)))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)


def test_an_empty_snapshot_gives_an_empty_copy(rig: Rig) -> None:
    receipt = rig.copy(request(rig.snapshot({})))
    copy = receipt["targets"][0]["snapshot_id"]
    assert rig.held(copy) == {}
    assert rig.state(copy) == "completed"
    assert receipt["allocated_blocks"] == receipt["changed_blocks"] == 0


def test_allocated_blocks_of_zeros_are_copied_as_data(rig: Rig) -> None:
    blocks = {index: content(0) for index in (0, 5, 70)}
    receipt = rig.copy(request(rig.snapshot(blocks)))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert receipt["zero_blocks"] == 3


def test_zero_fill_writes_every_block_of_the_volume(rig: Rig) -> None:
    blocks = {3: content(1)}
    receipt = rig.copy(request(rig.snapshot(blocks), holes="zero_fill", blocks_per_range=512))
    expected = {index: content(0) for index in range(2048)} | blocks
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(expected)
    assert (receipt["allocated_blocks"], receipt["changed_blocks"]) == (1, 2048)


def test_skip_zero_leaves_blocks_of_zeros_out_and_ebs_accepts_the_count(rig: Rig) -> None:
    receipt = rig.copy(request(rig.snapshot({1: content(0), 2: content(5)}), holes="skip_zero"))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes({2: content(5)})
    assert (receipt["allocated_blocks"], receipt["changed_blocks"], receipt["zero_blocks"]) == (2, 1, 1)


def test_three_targets_are_written_from_one_read_of_each_block(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(100)}
    source = rig.snapshot(blocks)
    rig.control("stats/reset", {})
    receipt = rig.copy(request(source, HOME, RECOVERY, THIRD))
    assert [rig.facts(t["snapshot_id"])["region"] for t in receipt["targets"]] == [HOME, RECOVERY, THIRD]
    assert [rig.held(t["snapshot_id"]) for t in receipt["targets"]] == [hashes(blocks)] * 3
    calls = rig.calls()
    assert calls["GetSnapshotBlock"] == receipt["requests"]["GetSnapshotBlock"] == 100
    assert calls["PutSnapshotBlock"] == receipt["requests"]["PutSnapshotBlock"] == 300
    assert calls["StartSnapshot"] == calls["CompleteSnapshot"] == 3
    assert receipt["bytes_written"] == 3 * receipt["bytes_read"]


def test_description_and_tags_of_the_source_are_carried_and_those_of_the_target_win(rig: Rig) -> None:
    tags = [{"Key": "Name", "Value": "disk"}, {"Key": "team", "Value": "a"}]
    source = rig.snapshot({0: content(1)}, Description="the source", Tags=tags)
    wanted = request(source)
    wanted["targets"][0]["tags"] = {"team": "b"}
    receipt = rig.copy(wanted)
    facts = rig.facts(receipt["targets"][0]["snapshot_id"])
    assert facts["description"] == "the source"
    assert facts["tags"] == {
        "Name": "disk",
        "team": "b",
        "blockferry:job-id": receipt["job_id"],
        "blockferry:execution": rig.job(receipt["job_id"]).execution.mark,
        "blockferry:source-snapshot-id": source,
        "blockferry:source-region": HOME,
        "blockferry:lineage": source,
        "blockferry:holes": "unknown",
        "blockferry:linear-checksum": receipt["linear_checksum"],
        "blockferry:proved-snapshot-id": receipt["targets"][0]["snapshot_id"],
    }


def test_a_copy_of_an_encrypted_snapshot_is_encrypted_unless_it_is_asked_not_to_be(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)}, Encrypted=True)
    kept = rig.copy(request(source))["targets"][0]
    wanted = request(source)
    wanted["targets"][0]["encrypted"] = False
    dropped = rig.copy(wanted)["targets"][0]
    assert (kept["encrypted"], dropped["encrypted"]) == (True, False)
    assert rig.facts(kept["snapshot_id"])["encrypted"] is True
    assert rig.facts(dropped["snapshot_id"])["encrypted"] is False


def test_the_region_of_the_source_is_the_one_in_the_input_not_the_one_of_the_environment(rig: Rig) -> None:
    blocks = {3: content(3)}
    source = rig.snapshot(blocks, region=RECOVERY)
    receipt = rig.copy({**request(source, HOME), "source": {"region": RECOVERY}})
    copy = receipt["targets"][0]["snapshot_id"]
    assert (rig.facts(copy)["region"], rig.held(copy)) == (HOME, hashes(blocks))
    assert receipt["source"]["region"] == RECOVERY


def test_a_dry_run_counts_and_prices_and_writes_nothing_anywhere(rig: Rig) -> None:
    source = rig.snapshot({index: content(1) for index in range(100)})
    rig.control("stats/reset", {})
    estimate = rig.plan(request(source, RECOVERY, THIRD, dry_run=True))["estimate"]
    assert estimate["allocated_blocks"] == 100
    assert estimate["requests"]["GetSnapshotBlock"] == 100
    assert estimate["requests"]["PutSnapshotBlock"] == 200
    cost = estimate["cost_usd"]
    assert (cost["GetSnapshotBlock"], cost["PutSnapshotBlock"]) == pytest.approx((0.0003, 0.0012))
    # Both copies leave the home region: 100 MiB at 2 cents per GiB.
    assert cost["DataTransfer"] == pytest.approx(2 * 50 / 1024 * 0.02, rel=0.08)
    assert len(rig.snapshots()) == 1
    assert not {"StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"} & rig.calls().keys()
    assert rig.folders() == []


def test_a_64_tib_volume_is_planned_by_arithmetic(rig: Rig) -> None:
    source = rig.snapshot({0: content(1), 134_217_727: content(2)}, size_gib=65_536)
    rig.control("stats/reset", {})
    pointer = rig.plan({"snapshot_id": source, "targets": [{"region": RECOVERY}]})
    ranges = rig.ranges(pointer["job_id"])
    assert len(ranges) <= 10_000
    assert ranges[0].first == 0
    assert ranges[-1].stop == 134_217_728
    assert all(one.stop == other.first for one, other in itertools.pairwise(ranges))
    assert rig.calls()["ListSnapshotBlocks"] == 1
    assert len(json.dumps(pointer)) < 1_000


def test_planning_twice_finds_the_same_targets(rig: Rig) -> None:
    wanted = request(rig.snapshot({0: content(1)}), RECOVERY, THIRD)
    rig.plan(wanted, job_id="same")
    first = rig.job("same")
    rig.plan(wanted, job_id="same")
    assert rig.job("same") == first
    assert len(rig.snapshots()) == 3


def test_an_invocation_without_time_goes_on_where_it_stopped(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(120)}
    job_id = rig.plan(request(rig.snapshot(blocks), blocks_per_range=1024))["job_id"]
    calls = rig.move_all_in_little_time(job_id, latency_ms=150, seconds_left=60.4)
    assert (len(calls), calls[0] > 1) == (len(rig.ranges(job_id)), True)
    receipt = rig.finish(job_id)
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)


def test_a_range_moved_twice_changes_nothing(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(130)}
    job_id = rig.plan(request(rig.snapshot(blocks), **SMALL))["job_id"]
    rig.move_all(job_id)
    rig.move(job_id, rig.ranges(job_id)[1])
    rig.move(job_id, rig.ranges(job_id)[1], next_index=100)
    receipt = rig.finish(job_id)
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    assert receipt["changed_blocks"] == 130


def test_a_range_that_was_not_moved_fails_the_job_and_no_target_is_completed(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({index: content(1) for index in range(130)}), **SMALL))["job_id"]
    first, _, *rest = rig.ranges(job_id)
    for part in (first, *rest):
        rig.move(job_id, part)
    with pytest.raises(IncompleteTransfer, match="blocks 64 to 127"):
        rig.finish(job_id)
    assert [s["state"] for s in rig.snapshots()] == ["completed", "pending"]


def test_a_digest_that_lost_a_block_is_found_by_the_recount(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({index: content(1) for index in range(130)}), **SMALL))["job_id"]
    rig.move_all(job_id)
    key = list(rig.folder(job_id).stretch_keys())[1]
    stretch = rig.folder(job_id).stretch(key)
    forged = dataclasses.replace(stretch, digests=stretch.digests[1:])
    rig.folder(job_id).save_stretch(forged)
    rig.forget_recounts(job_id)
    with pytest.raises(IncompleteTransfer, match=r"block 64 of snap-\w+ is allocated but was not moved"):
        rig.finish(job_id)
    assert rig.calls().get("CompleteSnapshot", 0) == 1


def test_a_target_that_got_other_bytes_than_were_proved_is_refused_by_ebs(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({0: content(1), 1: content(2)})))["job_id"]
    rig.move_all(job_id)
    job = rig.job(job_id)
    assert job is not None
    put(rig.client("ebs", RECOVERY), job.targets[0].snapshot_id, {1: content(9)})
    with pytest.raises((TargetFailed, RequestRefused)):
        rig.finish(job_id)
    assert rig.state(job.targets[0].snapshot_id) != "completed"


def test_completing_twice_leaves_a_sealed_target_alone(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({0: content(1)})))["job_id"]
    rig.move_all(job_id)
    once = rig.complete(job_id)
    assert rig.complete(job_id) == once
    assert rig.finish(job_id)["changed_blocks"] == 1


def refused(rig: Rig, wanted: dict[str, Any]) -> str:
    before = {s["snapshot_id"]: s["state"] for s in rig.snapshots()}
    with pytest.raises(InvalidRequest) as caught:
        rig.plan(wanted)
    assert {s["snapshot_id"]: s["state"] for s in rig.snapshots()} == before
    return str(caught.value)


def test_an_unknown_snapshot_is_refused_by_name(rig: Rig) -> None:
    text = refused(rig, request("snap-00000000000000000"))
    assert "snap-00000000000000000 in us-east-1: EC2 does not know it" in text


@pytest.mark.parametrize(
    ("region", "expected"), [("eu-west-9", "unknown to AWS"), ("af-south-1", "is not enabled in this account")]
)
def test_a_region_that_cannot_be_used_is_refused_by_name(rig: Rig, region: str, expected: str) -> None:
    source = rig.snapshot({0: content(1)})
    assert f"region {region} is {expected}".replace("is is", "is") in refused(rig, request(source, region))


def test_a_pending_snapshot_is_refused(rig: Rig) -> None:
    pending = rig.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    assert f"{pending} in us-east-1 is pending" in refused(rig, request(pending))


def test_a_snapshot_in_error_is_refused(rig: Rig) -> None:
    broken = rig.client("ebs").start_snapshot(VolumeSize=1, Timeout=10)["SnapshotId"]
    rig.control("clock", {"advance": 3600})
    assert rig.state(broken) == "error"
    assert f"{broken} in us-east-1 is in state error" in refused(rig, request(broken))


def test_an_archived_snapshot_is_refused_with_the_command_that_restores_it(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)})
    rig.client("ec2").modify_snapshot_tier(SnapshotId=source, StorageTier="archive")
    rig.control("clock", {"advance": 60})
    assert "restore-snapshot-tier" in refused(rig, request(source))


def test_a_snapshot_that_may_be_seen_but_not_read_is_refused_before_anything_is_started(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)})
    rig.control("faults", {"operation": "ListSnapshotBlocks", "action": "error", "status": 403,
                           "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"})  # fmt: skip
    text = refused(rig, request(source))
    assert "cannot be read through the EBS direct APIs" in text
    assert "AccessDeniedException" in text


def test_a_target_that_ebs_refuses_leaves_nothing_of_the_targets_started_before_it(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)})
    rig.control("faults", {"operation": "StartSnapshot", "region": THIRD, "action": "error", "status": 400,
                           "code": "ValidationException", "reason": "INVALID_CUSTOMER_KEY"})  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"targets\[2\] in ap-southeast-2 cannot be started") as caught:
        rig.plan(request(source, HOME, RECOVERY, THIRD))
    assert "INVALID_CUSTOMER_KEY" in str(caught.value)
    assert [s["snapshot_id"] for s in rig.snapshots()] == [source]


def test_a_job_name_with_another_input_is_refused(rig: Rig) -> None:
    source = rig.snapshot({0: content(1)})
    rig.plan(request(source), job_id="one")
    with pytest.raises(InvalidRequest, match="another input"):
        rig.plan(request(source, THIRD), job_id="one")


@pytest.mark.parametrize("size", [1, 3])
def test_the_last_range_may_lie_partly_or_wholly_beyond_the_last_allocated_block(rig: Rig, size: int) -> None:
    blocks = {index: content(1) for index in range(size * 2048 - 100, size * 2048 - 50)}
    receipt = rig.copy(request(rig.snapshot(blocks, size_gib=size), blocks_per_range=1000))
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)


def unreachable(rig: Rig, region: str, *, job_id: str) -> None:
    """Every write to the job's target in this region is refused."""
    job = rig.job(job_id)
    assert job is not None
    target = next(target for target in job.targets if target.region == region)
    denied = {"status": 403, "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"}
    rule = {"operation": "PutSnapshotBlock", "snapshot_id": target.snapshot_id, "action": "error", **denied}
    rig.control("faults", rule)


def test_one_target_that_fails_does_not_spoil_the_others_and_only_it_is_moved_again(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(200)}
    source = rig.snapshot(blocks)
    job_id = rig.plan(request(source, HOME, RECOVERY, THIRD, **SMALL))["job_id"]
    unreachable(rig, RECOVERY, job_id=job_id)
    rig.control("stats/reset", {})
    rig.move_all(job_id)
    assert rig.calls()["GetSnapshotBlock"] == 200

    settled = rig.complete(job_id)
    job = rig.job(job_id)
    assert job is not None
    good, bad, last = (target.snapshot_id for target in job.targets)
    assert settled["missing_ranges"] == 32
    assert [rig.state(each) for each in (good, bad, last)] == ["completed", "pending", "completed"]
    states = json.loads(rig.folder(job_id).read(TARGETS) or b"")
    assert [(s["region"], s["completed"]) for s in states] == [(HOME, True), (RECOVERY, False), (THIRD, True)]

    rig.move_missing(job_id)
    assert rig.state(bad) == "pending"

    rig.control("faults", method="DELETE")
    assert rig.complete(job_id, missing_moved=True)["missing_ranges"] == 32
    rig.control("stats/reset", {})
    rig.move_missing(job_id)
    assert rig.calls()["PutSnapshotBlock"] == 200
    rig.complete(job_id, missing_moved=True)
    receipt = rig.finish(job_id)
    assert [rig.held(each) for each in (good, bad, last)] == [hashes(blocks)] * 3
    assert [target["state"] for target in receipt["targets"]] == ["completed"] * 3


def test_workers_leave_a_target_alone_that_another_worker_gave_up_on(rig: Rig) -> None:
    blocks = {index: content(1) for index in range(0, 2048, 8)}
    job_id = rig.plan(request(rig.snapshot(blocks), HOME, RECOVERY))["job_id"]
    unreachable(rig, RECOVERY, job_id=job_id)
    first, *rest = rig.ranges(job_id)
    rig.move(job_id, first)
    rig.control("stats/reset", {})
    for part in rest:
        rig.move(job_id, part)
    assert rig.control("stats")["errors"] == {}
    assert rig.calls()["PutSnapshotBlock"] == sum(index >= first.stop for index in blocks)


def test_when_no_target_can_be_written_the_range_fails(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({0: content(1)}), HOME, RECOVERY))["job_id"]
    for region in (HOME, RECOVERY):
        unreachable(rig, region, job_id=job_id)
    for _ in range(2):
        with pytest.raises(RequestRefused):
            rig.move(job_id, rig.ranges(job_id)[0])


def test_a_region_that_cannot_be_reached_at_first_gets_its_copy_at_the_end(rig: Rig) -> None:
    rig.waits = replace(rig.waits, starts=RetryPolicy(max_attempts=1))
    blocks = {index: content(index + 1) for index in range(70)}
    source = rig.snapshot(blocks)
    rig.control("faults", {"operation": "StartSnapshot", "nth": 2, "action": "error", "status": 503,
                           "code": "InternalServerException"})  # fmt: skip
    receipt = rig.copy(request(source, HOME, RECOVERY))
    assert [target["region"] for target in receipt["targets"]] == [HOME, RECOVERY]
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [hashes(blocks)] * 2


def test_a_region_that_cannot_be_reached_at_all_leaves_the_others_completed(rig: Rig) -> None:
    rig.waits = replace(rig.waits, starts=RetryPolicy(max_attempts=1))
    source = rig.snapshot({0: content(1)})
    rig.control("faults", {"operation": "StartSnapshot", "region": RECOVERY, "action": "error", "status": 503,
                           "code": "InternalServerException"})  # fmt: skip
    job_id = rig.plan(request(source, HOME, RECOVERY))["job_id"]
    rig.move_all(job_id)
    with pytest.raises(RetryLater, match="StartSnapshot in eu-west-1"):
        rig.complete(job_id)
    job = rig.job(job_id)
    assert job is not None
    assert rig.state(job.targets[0].snapshot_id) == "completed"


def test_an_empty_list_of_a_snapshot_that_is_not_empty_is_a_failure(rig: Rig) -> None:
    job_id = rig.plan(request(rig.snapshot({})))["job_id"]
    rig.move_all(job_id)
    job = rig.job(job_id)
    assert job is not None
    facts = job.source.model_copy(update={"full_size_bytes": BLOCK_SIZE})
    rig.save_job(job.model_copy(update={"source": facts}))
    with pytest.raises(IncompleteTransfer, match="an empty copy is refused"):
        rig.finish(job_id)
    assert rig.state(job.targets[0].snapshot_id) == "pending"
