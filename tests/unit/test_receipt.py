"""The end of a job: what is waited for, what fails it, and what its receipt says, figure by figure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from blockferry import __version__
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import HOLES_TAG
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import by_operation
from blockferry.core.errors import IncompleteTransfer, RetryLater, TargetFailed
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.quotas import DELETED_OBJECTS
from blockferry.cost.work import Work, cost_of
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import RECEIPT
from blockferry.jobs.record import JobWarning
from blockferry.sources.delta import BaseSnapshot
from blockferry.sources.image import Unpacked
from blockferry.transfer.check import check_targets
from blockferry.transfer.job import Job
from blockferry.transfer.receipt import report, write_receipt
from blockferry.transfer.sentences import cost_line, holes_line
from botocore.exceptions import EndpointConnectionError
from fakes import ManualClock
from job_records import AT_ONCE, HOME, PROOF, RECOVERY, THIRD, delta, folder_of, image, job, on_parent, source, target
from job_records import recorded as put_on_record
from memory_ec2 import MemoryEc2, described, refusal
from memory_s3 import MemoryS3

KEY = f"arn:aws:kms:{RECOVERY}:111122223333:key/11111111-2222-3333-4444-555555555555"
ENDED = datetime(2026, 1, 1, 0, 1, 2, 345_678, tzinfo=UTC)

Regions = dict[str, MemoryEc2]


class Recorded:
    """A job on record, proved unless ``proved`` is false."""

    def __init__(self, of: Job, *, proved: bool = True, s3: MemoryS3 | None = None) -> None:
        self.s3 = s3 or MemoryS3()
        self.folder = folder_of(of, self.s3, "work")
        self.record = put_on_record(self.folder, of)
        self.proof = self.folder.save_proof(PROOF) if proved else "0" * 64

    def call(self, regions: Regions) -> JobCall:
        return JobCall(aws=aws(regions), folder=self.folder, waits=AT_ONCE)


def aws(regions: Regions) -> Any:
    def ec2(identity: Identity) -> MemoryEc2:
        return regions[identity.region]

    return SimpleNamespace(ec2=ec2)


def written(of: Job, regions: Regions, *, on: Recorded | None = None) -> dict[str, Any]:
    on = on or Recorded(of)
    return write_receipt(on.call(regions), on.record, on.proof, now=ENDED)


TARGETS = (
    target(snapshot_id="snap-1", kms_key_arn=KEY, tags={HOLES_TAG: "noise"}, size_gib=3),
    on_parent("snap-9", snapshot_id="snap-2", region=THIRD, size_gib=3),
)


def completed() -> Regions:
    return {
        RECOVERY: MemoryEc2(described("snap-1", VolumeSize=3, Encrypted=True, KmsKeyId=KEY)),
        THIRD: MemoryEc2(described("snap-2", VolumeSize=3, OwnerId="444455556666")),
    }


# -- what it says ------------------------------------------------------------------------------------------------------


def test_every_figure_of_the_receipt_is_that_of_the_record_the_proof_or_ec2() -> None:
    base = BaseSnapshot(snapshot_id="snap-b", size_gib=1, start_time="2025-12-31T00:00:00+00:00")
    of = job(
        delta(base, size_gib=3, lineage_name="db"),
        *TARGETS,
        operation="sync",
        holes_taken_for=HoleMeaning.NOISE,
        holes_decided_by="request",
        holes_reason="because",
        workers_because="enough",
        warnings=(JobWarning(code="w", message="look"),),
    )
    on = Recorded(of)
    receipt = written(of, completed(), on=on)
    requests = {"CompleteSnapshot": 2, "GetSnapshotBlock": 11, "PutSnapshotBlock": 13, "StartSnapshot": 2}
    both = {"blocks_written": 13, "zero_blocks": 3, "linear_checksum": "c", "state": "completed", "volume_size_gib": 3}
    assert receipt == {
        "job_id": "job-1",
        "operation": "sync",
        "status": "SUCCEEDED",
        "source": {
            "snapshot_id": "snap-0",
            "base_snapshot_id": "snap-b",
            "region": HOME,
            "owner_id": "111122223333",
            "volume_id": "vol-1",
            "volume_size_gib": 3,
            "start_time": "2026-01-01T00:00:00+00:00",
            "encrypted": False,
        },
        "targets": [
            {
                **both,
                "region": RECOVERY,
                "snapshot_id": "snap-1",
                "parent_snapshot_id": None,
                "owner_id": "111122223333",
                "encrypted": True,
                "kms_key_arn": KEY,
                "holes_stand_for": "noise",
            },
            {
                **both,
                "region": THIRD,
                "snapshot_id": "snap-2",
                "parent_snapshot_id": "snap-9",
                "owner_id": "444455556666",
                "encrypted": False,
                "kms_key_arn": None,
                "holes_stand_for": None,
            },
        ],
        "lineage": {
            "name": "db",
            "base_snapshot_id": "snap-b",
            "snapshot_id": "snap-0",
            "targets": [
                {"region": RECOVERY, "parent_snapshot_id": None, "snapshot_id": "snap-1"},
                {"region": THIRD, "parent_snapshot_id": "snap-9", "snapshot_id": "snap-2"},
            ],
        },
        "manifest_uri": None,
        "allocated_blocks": 7,
        "changed_blocks": 5,
        "removed_blocks": 2,
        "zero_blocks": 3,
        "parent_blocks_compared": 17,
        "bytes_read": 11 * BLOCK_SIZE,
        "bytes_written": 2 * 13 * BLOCK_SIZE,
        "holes": "preserve",
        "holes_taken_for": "noise",
        "holes_decided_by": "request",
        "holes_reason": "because",
        "workers": 4,
        "workers_because": "enough",
        "linear_checksum": "c",
        "duration_seconds": 62.346,
        "requests": requests,
        "retries": {"a": 1, "b": 2},
        "cost_usd": cost_of(Work(requests=PROOF.requests, home=HOME, gb_seconds=1_000.0)),
        "warnings": [{"code": "w", "message": "look"}],
        "tool_version": __version__,
        "receipt_uri": "s3://work/jobs/sync/job-1/receipt.json",
        "report_uri": "s3://work/jobs/sync/job-1/report.md",
    }
    assert list(receipt["requests"]) == sorted(requests)
    assert list(receipt["retries"]) == ["a", "b"]
    assert json.loads(on.s3.objects["jobs/sync/job-1/receipt.json"]) == receipt
    assert on.s3.objects["jobs/sync/job-1/report.md"].decode() == report(receipt)
    assert on.s3.types["jobs/sync/job-1/report.md"] == "text/markdown; charset=utf-8"


def test_a_receipt_of_an_image_counts_its_unpacking_and_drops_what_was_unpacked() -> None:
    of = job(
        image(
            region=THIRD,
            codec="gzip",
            size_bytes=3 * 2**30,
            unpacked=Unpacked(
                raw_bytes=2, requests={f"GetObject {THIRD}": 5, f"PutObject {HOME}": 2}, gb_seconds=500.0
            ),
        ),
        target(),
        holes=HolePolicy.SKIP_ZERO,
    )
    on = Recorded(of)
    for name in ("image/image.json", "image/0", "image/1", "moved/digests/1"):
        on.folder.write(name, b"x")
    receipt = written(of, {RECOVERY: MemoryEc2(described("snap-1"))}, on=on)
    requests = {**PROOF.requests, f"GetObject {THIRD}": 5, f"PutObject {HOME}": 2}
    assert receipt["requests"] == {**by_operation(requests), "StartSnapshot": 1, "CompleteSnapshot": 1}
    whole = Work(requests=requests, home=HOME, object_bytes={THIRD: 3 * 2**30}, gb_seconds=1_500.0)
    assert receipt["cost_usd"] == cost_of(whole)
    # 3 GiB from the bucket's region, 13 blocks to the target's.
    assert receipt["cost_usd"]["DataTransfer"] == round(3 * 0.098 + 13 / 2048 * 0.02, 6)
    assert receipt["lineage"] is None
    assert [made["zero_blocks"] for made in receipt["targets"]] == [0]
    assert receipt["source"] == {
        "image_uri": "s3://b/k",
        "region": THIRD,
        "etag": "e",
        "codec": "gzip",
        "object_bytes": 3 * 2**30,
        "image_bytes": 2,
    }
    assert {key for key in on.s3.objects if "image" in key} == set()
    assert on.folder.read("moved/digests/1") == b"x"


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", "no connection"])
def test_what_may_not_be_dropped_is_told_and_fails_no_job(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def refuse(_: MemoryS3, **__: Any) -> None:
        if code == "no connection":
            raise EndpointConnectionError(endpoint_url="http://local")
        raise refusal(code, "DeleteObject", status=403)

    unpacked = Unpacked(raw_bytes=2, requests={}, gb_seconds=0.0)
    of = job(image(codec="gzip", size_bytes=3, unpacked=unpacked), target())
    regions = {RECOVERY: MemoryEc2(described("snap-1"))}
    monkeypatch.setattr(MemoryS3, "delete_object", refuse)
    if code != "AccessDenied":
        with pytest.raises(RetryLater):
            written(of, regions)
        return
    (warning,) = written(of, regions)["warnings"]
    assert warning["code"] == "unpacked_image_left"
    assert "image/ until the bucket's rule removes it: it could not be deleted (DeleteObject: Acc" in warning["message"]


def test_an_image_of_more_pieces_than_a_call_can_delete_has_its_receipt_with_a_warning() -> None:
    clock = ManualClock()

    class SlowToDelete(MemoryS3):
        def delete_objects(self, **members: Any) -> Any:
            clock.advance(300.0)
            return super().delete_objects(**members)

    unpacked = Unpacked(raw_bytes=2, requests={}, gb_seconds=0.0)
    of = job(image(codec="gzip", size_bytes=3, unpacked=unpacked), target())
    on = Recorded(of, s3=SlowToDelete())
    for number in range(7 * DELETED_OBJECTS):
        on.folder.write(f"image/{number:08}.zst", b"")
    ends = clock.now + 300.0
    call = replace(
        on.call({RECOVERY: MemoryEc2(described("snap-1"))}), clock=clock, time_left=lambda: ends - clock.monotonic()
    )
    receipt = write_receipt(call, on.record, on.proof, now=ENDED)
    (warning,) = receipt["warnings"]
    assert (receipt["status"], warning["code"]) == ("SUCCEEDED", "unpacked_image_left")
    assert "image/ until the bucket's rule removes it: it could not be deleted (" in warning["message"]
    # Those that were under way by then.
    left = [key for key in on.s3.objects if "/image/" in key]
    assert 2 * DELETED_OBJECTS <= len(left) <= 6 * DELETED_OBJECTS


def test_a_copy_of_a_snapshot_has_nothing_unpacked_to_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryS3, "delete_object", None)
    assert written(job(source(), *TARGETS), completed())["status"] == "SUCCEEDED"


def test_a_full_copy_has_no_base() -> None:
    assert source().facts()["base_snapshot_id"] is None
    receipt = written(job(source(), target()), {RECOVERY: MemoryEc2(described("snap-1"))})
    assert receipt["lineage"]["base_snapshot_id"] is None


def test_a_raw_image_leaves_its_bucket_block_by_block_and_a_compressed_one_once() -> None:
    assert image(region=THIRD, raw_bytes=5).object_bytes(4 * BLOCK_SIZE) == {THIRD: 4 * BLOCK_SIZE}
    assert image(region=THIRD, codec="xz", size_bytes=5).object_bytes(4 * BLOCK_SIZE) == {THIRD: 5}
    assert source().object_bytes(BLOCK_SIZE) == {}


def test_the_report_is_the_receipt_for_people() -> None:
    receipt = written(job(source(), *TARGETS, warnings=(JobWarning(code="w", message="look"),)), completed())
    assert report(receipt).splitlines() == [
        "# copy job-1: SUCCEEDED",
        "",
        f"Source: snap-0 in {HOME}.",
        "",
        "| target | region | state | blocks written | encrypted |",
        "|---|---|---|---|---|",
        f"| snap-1 | {RECOVERY} | completed | 13 | yes |",
        f"| snap-2 | {THIRD} | completed | 13 | no |",
        "",
        f"Holes: {holes_line(receipt)}.",
        "",
        "LINEAR checksum `c`, accepted by EBS for every target.",
        "",
        "Took 62.346 s. Requests: 2 CompleteSnapshot, 11 GetSnapshotBlock, 13 PutSnapshotBlock, 2 StartSnapshot. "
        f"Repeated: 1 a, 2 b. Cost: {cost_line(receipt['cost_usd'])}.",
        "",
        "Warning: look.",
    ]


def test_the_report_of_a_job_that_wrote_nothing_does_not_call_a_checksum_accepted() -> None:
    receipt = written(job(source(), target()), {RECOVERY: MemoryEc2(described("snap-1"))})
    nothing = {**receipt, "retries": {}, "targets": [{**receipt["targets"][0], "blocks_written": 0}]}
    assert "There is no checksum over nothing." in report(nothing)
    assert "LINEAR" not in report(nothing)
    assert "Repeated: none." in report(nothing)
    some = {**nothing, "targets": [*nothing["targets"], receipt["targets"][0]]}
    assert "LINEAR checksum `c`" in report(some)


def test_a_job_ends_now() -> None:
    of = job(source(), target(), started_at=datetime.now(UTC).isoformat())
    on = Recorded(of)
    receipt = write_receipt(on.call({RECOVERY: MemoryEc2(described("snap-1"))}), on.record, on.proof)
    assert 0 <= receipt["duration_seconds"] < 60


# -- of a call that is repeated ----------------------------------------------------------------------------------------


def test_a_call_that_is_repeated_tells_the_receipt_that_is_stored() -> None:
    of = job(source(), *TARGETS)
    on = Recorded(of)
    first = written(of, completed(), on=on)
    stored = dict(on.s3.objects)
    assert write_receipt(on.call(completed()), on.record, on.proof, now=ENDED + timedelta(hours=1)) == first
    assert on.s3.objects == stored


def test_another_receipt_in_the_place_of_the_jobs_is_kept_and_fails_it() -> None:
    of = job(source(), *TARGETS)
    on = Recorded(of)
    other = on.folder.save_proof(PROOF.model_copy(update={"zero_blocks": 4}))
    write_receipt(on.call(completed()), on.record, other, now=ENDED)
    stored = dict(on.s3.objects)
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job-1/receipt\.json is there already"):
        written(of, completed(), on=on)
    assert on.s3.objects == stored


# -- what it waits for, and what fails ---------------------------------------------------------------------------------


def test_there_is_no_receipt_without_a_proof() -> None:
    of = job(source(), *TARGETS)
    with pytest.raises(IncompleteTransfer, match=r"s3://work/jobs/copy/job-1/proved/proof-0+\.json is gone"):
        written(of, completed(), on=Recorded(of, proved=False))


def test_a_target_that_is_shown_as_pending_for_a_while_is_waited_for_and_the_others_are_left_alone() -> None:
    class Slow(MemoryEc2):
        def paginate(self, **asked: Any) -> Any:
            self.snapshots["snap-2"]["State"] = "completed" if self.calls["DescribeSnapshots"] == 2 else "pending"
            return super().paginate(**asked)

    regions = {**completed(), THIRD: Slow(described("snap-2", VolumeSize=3))}
    assert [made["state"] for made in written(job(source(), *TARGETS), regions)["targets"]] == ["completed"] * 2
    assert regions[THIRD].calls == {"DescribeSnapshots": 3}
    assert regions[RECOVERY].calls == {"DescribeSnapshots": 1}


def failing(kind: type[Exception], **shown: Any) -> str:
    """How the receipt fails when EC2 shows the second target so."""
    regions = completed()
    regions[THIRD].snapshots["snap-2"] |= shown
    of = job(source(), *TARGETS)
    on = Recorded(of)
    with pytest.raises(kind) as caught:
        written(of, regions, on=on)
    assert on.folder.read(RECEIPT) is None
    return str(caught.value)


def test_a_target_that_is_not_as_it_was_completed_fails_the_receipt_by_name() -> None:
    name = f"targets[1]: target snap-2 in {THIRD}"
    assert failing(RetryLater, State="pending").startswith(f"{name} is shown as pending")
    assert failing(TargetFailed, State="error") == f"{name} is in state error, it was completed before"
    assert failing(TargetFailed, VolumeSize=4) == f"{name} has 4 GiB, it was started with 3"
    assert failing(TargetFailed, VolumeSize=2) == f"{name} has 2 GiB, it was started with 3"
    assert "no encryption was asked for" in failing(TargetFailed, Encrypted=True, KmsKeyId="k")


def test_one_target_that_failed_makes_the_receipt_fail_for_good_and_all_are_named() -> None:
    regions = completed()
    regions[RECOVERY].snapshots["snap-1"]["State"] = "pending"
    regions[THIRD].snapshots.clear()
    with pytest.raises(TargetFailed) as caught:
        written(job(source(), *TARGETS), regions)
    first, second = str(caught.value).splitlines()
    assert first == (
        f"targets[0]: target snap-1 in {RECOVERY} is shown as pending, it was completed before; EC2's answers differ "
        "for a while"
    )
    assert second == (
        f"targets[1]: EC2 does not know snap-2 in {THIRD}; if it was deleted, start a new job for this target"
    )


def test_a_region_that_does_not_answer_may_answer_later() -> None:
    regions = completed()
    regions[THIRD].errors["DescribeSnapshots"] = EndpointConnectionError(endpoint_url="http://local")
    with pytest.raises(RetryLater, match=r"targets\[1\]: EndpointConnectionError"):
        written(job(source(), *TARGETS), regions)


def test_one_that_is_not_known_for_a_moment_is_waited_for_though_another_cannot_be_asked_about() -> None:
    regions = {**completed(), THIRD: Forgetful(looks=AT_ONCE.looks - 2)}
    regions[RECOVERY].errors["DescribeSnapshots"] = refusal("RequestLimitExceeded", "DescribeSnapshots")
    with pytest.raises(RetryLater) as caught:
        written(job(source(), *TARGETS), regions)
    assert str(caught.value) == "targets[0]: DescribeSnapshots: RequestLimitExceeded: refused"


def test_an_error_that_is_over_at_the_next_look_is_forgotten() -> None:
    class Shaky(MemoryEc2):
        def paginate(self, **asked: Any) -> Any:
            if self.calls["DescribeSnapshots"] == 0:
                self.calls["DescribeSnapshots"] += 1
                raise refusal("RequestLimitExceeded", "DescribeSnapshots")
            return super().paginate(**asked)

    class Slow(MemoryEc2):
        def paginate(self, **asked: Any) -> Any:
            self.snapshots["snap-1"]["State"] = "completed" if self.calls["DescribeSnapshots"] else "pending"
            return super().paginate(**asked)

    of = job(source(), target(), target(snapshot_id="snap-2", region=THIRD))
    regions: Regions = {RECOVERY: Slow(described("snap-1")), THIRD: Shaky(described("snap-2"))}
    assert written(of, regions)["status"] == "SUCCEEDED"


# -- Check targets -----------------------------------------------------------------------------------------------------


def checked(regions: Regions, *, waited: int | None = None) -> dict[str, Any]:
    of = job(source(), *TARGETS)
    on = Recorded(of)
    return check_targets(on.call(regions), on.record, waited)


def test_targets_that_are_completed_are_no_longer_waited_for() -> None:
    assert checked(completed()) == {
        "completed": True,
        "wait_seconds": 2,
        "states": {"snap-1": "completed", "snap-2": "completed"},
    }


class Forgetful(MemoryEc2):
    """Does not know its snapshot in the first looks."""

    def __init__(self, looks: int) -> None:
        self.hidden = [described("snap-2", VolumeSize=3)]
        super().__init__()
        self.looks = looks

    def _called(self, operation: str) -> None:
        super()._called(operation)
        if self.calls[operation] > self.looks and self.hidden:
            self.snapshots["snap-2"] = self.hidden.pop()


@pytest.mark.parametrize("waited", [None, 60])
def test_a_target_that_ec2_does_not_know_for_a_moment_has_not_failed(waited: int | None) -> None:
    regions = {**completed(), THIRD: Forgetful(looks=AT_ONCE.looks - 2)}
    assert checked(regions, waited=waited)["completed"]
    regions = {**completed(), THIRD: Forgetful(looks=AT_ONCE.looks - 2)}
    assert len(written(job(source(), *TARGETS), regions)["targets"]) == 2


def test_one_that_is_not_known_is_not_asked_about_again_while_another_is_waited_for_anyway() -> None:
    regions = {RECOVERY: MemoryEc2(described("snap-1", state="pending"), described("snap-3")), THIRD: MemoryEc2()}
    on = Recorded(job(source(), *TARGETS, target(snapshot_id="snap-3")))
    assert check_targets(on.call(regions), on.record, 60)["states"] == {"snap-1": "pending", "snap-3": "completed"}
    assert regions[THIRD].calls["DescribeSnapshots"] == 1


class Sealing(MemoryEc2):
    """Completes its snapshot when so many questions have found it pending."""

    def __init__(self, after: int) -> None:
        super().__init__(described("snap-2", state="pending"))
        self.after = after

    def _called(self, operation: str) -> None:
        super()._called(operation)
        if self.calls["DescribeSnapshots"] > self.after:
            self.snapshots["snap-2"]["State"] = "completed"


def sealing(after: int) -> Regions:
    return {RECOVERY: MemoryEc2(described("snap-1")), THIRD: Sealing(after)}


@pytest.mark.parametrize(("after", "done"), [(0, True), (1, True), (3, True), (4, False)])
def test_what_is_sealed_soon_is_noticed_within_the_first_call(after: int, done: bool) -> None:
    of = job(source(), *TARGETS)
    on = Recorded(of)
    regions, clock = sealing(after), ManualClock()
    call = replace(on.call(regions), clock=clock)
    assert check_targets(call, on.record, None)["completed"] is done
    assert clock.slept == [0.2, 0.4, 0.8][:after]
    assert regions[THIRD].calls["DescribeSnapshots"] == min(after + 1, 4)


def test_a_later_call_looks_once() -> None:
    regions = sealing(1)
    assert checked(regions, waited=2)["completed"] is False
    assert regions[THIRD].calls["DescribeSnapshots"] == 1


def test_states_are_told_in_the_order_of_the_targets() -> None:
    of = job(source(), target(snapshot_id="snap-2"), target(snapshot_id="snap-1"))
    regions = {RECOVERY: MemoryEc2(described("snap-1"), described("snap-2"))}
    on = Recorded(of)
    found = check_targets(on.call(regions), on.record, None)
    assert list(found["states"]) == ["snap-2", "snap-1"]


@pytest.mark.parametrize("pending", [0, 1])
def test_one_that_is_pending_is_waited_for_whatever_became_of_the_other(pending: int) -> None:
    name, other = ("snap-1", "snap-2") if pending == 0 else ("snap-2", "snap-1")
    region, elsewhere = (RECOVERY, THIRD) if pending == 0 else (THIRD, RECOVERY)
    for state in ("completed", "error"):
        regions = completed()
        regions[region].snapshots[name]["State"] = "pending"
        regions[elsewhere].snapshots[other]["State"] = state
        found = checked(regions)
        assert (found["completed"], found["states"]) == (False, {name: "pending", other: state})
    regions[elsewhere].errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
    assert checked(regions)["states"] == {name: "pending"}


def test_targets_that_failed_are_named_with_the_reason_and_those_that_nobody_knows_behind_them() -> None:
    regions = completed()
    regions[RECOVERY].errors["DescribeSnapshots"] = refusal("RequestLimitExceeded", "DescribeSnapshots")
    regions[THIRD].snapshots["snap-2"] |= {"State": "error", "StateMessage": "no key"}
    with pytest.raises(TargetFailed) as caught:
        checked(regions)
    assert str(caught.value).splitlines()[1:] == [
        f"- snap-2 in {THIRD} is in state error: no key",
        f"- snap-1 in {RECOVERY}: DescribeSnapshots: RequestLimitExceeded: refused",
    ]
    regions[THIRD].snapshots["snap-2"]["StateMessage"] = ""
    with pytest.raises(TargetFailed, match="is in state error: EC2 gives no reason"):
        checked(regions)
    regions[THIRD].snapshots.clear()
    with pytest.raises(TargetFailed, match=f"- snap-2 in {THIRD}: EC2 does not know snap-2"):
        checked(regions)


def test_targets_that_ec2_does_not_tell_of_may_be_asked_about_later() -> None:
    regions = completed()
    regions[RECOVERY].errors["DescribeSnapshots"] = refusal("RequestLimitExceeded", "DescribeSnapshots")
    with pytest.raises(RetryLater, match=f"- snap-1 in {RECOVERY}: DescribeSnapshots: RequestLimitExceeded"):
        checked(regions)


@pytest.mark.parametrize(
    ("waited", "then"),
    [(None, 2), (2, 4), (4, 8), (31, 60), (59, 60), (60, 66), (66, 72), (100, 110), (272, 299), (280, 300), (300, 300)],
)
def test_the_waits_grow_fast_at_first_and_then_slowly_up_to_five_minutes(waited: int | None, then: int) -> None:
    assert checked(completed(), waited=waited)["wait_seconds"] == then
