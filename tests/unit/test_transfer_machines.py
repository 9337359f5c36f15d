"""The state machines that move blocks, with their real functions: what happens between the steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.jobs.folder import RECEIPT, TARGETS
from deployment import Attempt, DeployedJob, ExecutionFailed
from fakes import TickingClock, content
from rig import HOME, RECOVERY, Rig, hashes, running_rig
from wire import Died

STARTS = (0, 512, 1024, 1536)
BLOCKS = {0: content(1), 700: content(2), 2047: content(3)}
IMAGE_URI = "s3://images/disk.img"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        yield made


def copy_of(rig: Rig, *regions: str, **options: Any) -> DeployedJob:
    """A copy in four ranges, the third of which holds nothing."""
    targets = [{"region": region} for region in regions or (RECOVERY,)]
    request = {
        "snapshot_id": rig.snapshot(BLOCKS),
        "targets": targets,
        "options": {"blocks_per_range": 512, **options},
    }
    return rig.deployment.job("copy", request, "job")


def denied(rig: Rig, region: str) -> None:
    """From now on, no block of the job's target in ``region`` can be written."""
    job = rig.job("job")
    assert job is not None
    (snapshot_id,) = (target.snapshot_id for target in job.targets if target.region == region)
    refusal = {"action": "error", "status": 403, "code": "AccessDeniedException", "reason": "UNAUTHORIZED_ACCOUNT"}
    rig.control("faults", {"operation": "PutSnapshotBlock", "snapshot_id": snapshot_id, **refusal})


Event = Mapping[str, Any]


def before(rig: Rig, step: str, act: Callable[[Event], object]) -> None:
    """Do something before each call of a step."""

    @contextmanager
    def around(name: str, event: Event) -> Iterator[None]:
        if name == step:
            act(event)
        yield

    rig.around = around


def steps(attempts: list[Attempt]) -> list[str]:
    return [attempt.step for attempt in attempts]


def outcomes(rig: Rig) -> list[tuple[int, str]]:
    """First block and outcome of every range of every child that succeeded, from the results that the maps stored."""
    s3, found = rig.aws.s3(HOME), []
    listed = s3.list_objects_v2(Bucket=rig.workspace.bucket, Prefix=rig.folder("job").key("results"))["Contents"]
    for item in listed:
        if item["Key"].endswith("SUCCEEDED_0.json"):
            body = s3.get_object(Bucket=rig.workspace.bucket, Key=item["Key"])["Body"].read()
            ended = [json.loads(child["Output"]) for child in json.loads(body)]
            found += [(each["range"]["first"], each["outcome"]) for each in ended]
    return sorted(found)


def test_the_output_of_the_execution_is_the_stored_receipt(rig: Rig) -> None:
    job = copy_of(rig)
    receipt = job.run()
    stored = rig.folder("job").read(RECEIPT)
    assert stored is not None
    assert receipt == json.loads(stored)
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(BLOCKS)
    assert steps(job.attempts)[:6] == ["Plan transfer", *["Move blocks"] * 4, "Complete transfer"]
    assert outcomes(rig) == [(first, "moved") for first in STARTS]


def test_a_dry_run_ends_with_the_estimate_and_stores_nothing(rig: Rig) -> None:
    job = copy_of(rig, dry_run=True)
    assert job.run()["status"] == "DRY_RUN"
    assert steps(job.attempts) == ["Plan transfer"]
    assert rig.folders() == []


def test_a_range_that_takes_several_calls_is_gone_on_with_where_the_last_one_stopped(rig: Rig) -> None:
    blocks = {index: content(index + 1) for index in range(120)}
    request = {"snapshot_id": rig.snapshot(blocks), "targets": [{"region": RECOVERY}]}
    rig.clock, rig.seconds_left = TickingClock(), 200.0
    job = rig.deployment.job("copy", request, "job")
    receipt = job.run()
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(blocks)
    moves = [attempt for attempt in job.attempts if attempt.step == "Move blocks"]
    first = [attempt for attempt in moves if attempt.event["range"]["first"] == 0]
    assert len(first) > 1
    assert first[0].event["progress"] is None
    assert [each.event["progress"] for each in first[1:]] == [each.answer["progress"] for each in first[:-1]]
    assert [each.answer["done"] for each in first] == [False] * (len(first) - 1) + [True]


def test_targets_are_waited_for_as_long_as_their_check_says(rig: Rig) -> None:
    job = copy_of(rig)
    rig.control("config", {"seal_seconds": 9.0})
    job.run()
    checks = [attempt for attempt in job.attempts if attempt.step == "Check targets"]
    # Two, four and eight seconds: the EBS server's clock goes on with those that the state machine waits.
    assert [check.event["progress"] for check in checks] == [
        None,
        *({"waited_seconds": seconds} for seconds in (2, 4, 8)),
    ]


def test_what_one_target_misses_is_moved_by_the_same_map_from_another_list(rig: Rig) -> None:
    job = copy_of(rig, HOME, RECOVERY)
    planned: list[Event] = []

    def once_denied(event: Event) -> None:
        if not planned:
            denied(rig, RECOVERY)
        planned.append(event)

    before(rig, "Move blocks", once_denied)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.step, failed.value.error) == ("Complete transfer", "IncompleteTransfer")
    # To the other target all ranges were moved at first. In three rounds for the one alone, none was.
    assert outcomes(rig) == sorted((first, end) for first in STARTS for end in ("moved", "left", "left", "left"))
    assert [event["range"].get("targets") for event in planned] == [None] * 4 + [[1]] * 12
    rig.control("faults", method="DELETE")
    receipt = job.run()
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [hashes(BLOCKS)] * 2


def test_a_redrive_goes_on_with_the_list_of_a_later_round(rig: Rig) -> None:
    job = copy_of(rig, HOME, RECOVERY)
    dies: list[bool] = []

    def spoiled(event: Event) -> None:
        if "targets" not in event["range"]:
            if event["range"]["first"] == 0:
                denied(rig, RECOVERY)
        elif event["range"]["first"] >= 512 and len(dies) < 5:
            # One call and its four retries.
            rig.control("faults", method="DELETE")
            dies.append(True)
            raise Died
        else:
            rig.control("faults", method="DELETE")

    before(rig, "Move blocks", spoiled)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.step, failed.value.error) == ("Complete transfer", "IncompleteTransfer")
    assert "blocks 512 to 1023 could not be moved: RequestId: 1 Error: the process died" in failed.value.cause
    so_far = len(job.attempts)
    rig.control("stats/reset", {})
    receipt = job.run()
    assert [rig.held(target["snapshot_id"]) for target in receipt["targets"]] == [hashes(BLOCKS)] * 2
    moved = [attempt.event["range"] for attempt in job.attempts[so_far:] if attempt.step == "Move blocks"]
    # The range that was moved in this round before is not moved again, and nothing goes to the target that has it all.
    assert moved == [{"first": first, "stop": first + 512, "targets": [1]} for first in (512, 1024, 1536)]
    assert rig.calls()["PutSnapshotBlock"] == 2
    complete = next(attempt for attempt in job.attempts[so_far:] if attempt.step == "Complete transfer")
    assert complete.event["progress"] == {"missing_ranges": 4}


def test_the_ranges_of_a_job_that_a_worker_refused_say_that_they_were_not_moved(rig: Rig) -> None:
    rig.aws.s3(HOME).create_bucket(Bucket="images")
    store(rig, 1)
    request = {"image_uri": IMAGE_URI, "targets": [{"region": RECOVERY}], "options": {"blocks_per_range": 64}}
    job = rig.deployment.job("fanout", request, "job")
    rig.operations["job"] = "fanout"
    before(rig, "Move blocks", lambda event: store(rig, 2) if event["range"]["first"] == 64 else None)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert failed.value.refused
    assert (failed.value.step, failed.value.error) == ("Complete transfer", "TransferFailed")
    assert "replaced" in failed.value.cause
    assert outcomes(rig) == [(0, "moved"), *((first, "refused") for first in range(64, 2048, 64))]
    assert rig.snapshots() == []


def store(rig: Rig, seed: int) -> None:
    body = bytes(70 * BLOCK_SIZE) + content(seed)
    rig.aws.s3(HOME).put_object(Bucket="images", Key="disk.img", Body=body)


def test_a_range_that_no_target_takes_fails_the_job_with_its_request_and_what_aws_said(rig: Rig) -> None:
    job = copy_of(rig)
    before(rig, "Move blocks", lambda event: denied(rig, RECOVERY) if event["range"]["first"] == 512 else None)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert failed.value.step == "Complete transfer"
    assert (failed.value.error, failed.value.refused) == ("RequestRefused", False)
    (target,) = rig.job("job").targets
    first, advice, second = failed.value.cause.splitlines()
    request = f"PutSnapshotBlock block 700 of {target.snapshot_id} in {RECOVERY}"
    assert first.startswith(f"blocks 512 to 1023 could not be moved: {request}: ")
    assert "AccessDeniedException" in first
    assert second.startswith(f"- {target.snapshot_id} in {RECOVERY}: {request}: ")
    assert advice.startswith("1 of 4 ranges are moved and stay so. Mend what is refused, as permissions or keys, and")
    # The ranges behind it are not begun, so nobody waits for thousands of refusals.
    assert outcomes(rig) == [(0, "moved"), (512, "stopped"), (1024, "left"), (1536, "left")]
    (told,) = json.loads(rig.folder("job").read(TARGETS) or b"")
    assert (told["snapshot_id"], told["completed"]) == (target.snapshot_id, False)
    assert request in told["error"]

    # Resumed, it says so again as long as it is refused, and then moves what no worker has moved.
    with pytest.raises(ExecutionFailed) as again:
        job.run()
    assert again.value.cause.startswith(f"blocks 512 to 1023 could not be moved: {request}")
    rig.control("faults", method="DELETE")
    rig.around = lambda _step, _event: nullcontext()
    so_far = len(job.attempts)
    receipt = job.run()
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(BLOCKS)
    moved = [attempt.event["range"]["first"] for attempt in job.attempts[so_far:] if attempt.step == "Move blocks"]
    assert moved == [512, 1024, 1536]


def test_a_worker_that_dies_for_good_stops_the_job_by_its_range(rig: Rig) -> None:
    job = copy_of(rig)

    def dies(event: Event) -> None:
        if event["range"]["first"] == 0:
            raise Died

    before(rig, "Move blocks", dies)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.step, failed.value.error) == ("Complete transfer", "IncompleteTransfer")
    why, told = failed.value.cause.splitlines()
    assert why == "blocks 0 to 511 could not be moved: RequestId: 1 Error: the process died"
    # The others are moved beside it, or not begun any more.
    assert re.fullmatch(r"[0-3] of 4 ranges are moved and stay so\. The log of Move blocks says more: .*", told)
    assert steps(job.attempts)[:7] == ["Plan transfer", *["Move blocks"] * 5, "Note failure"]
    rig.around = lambda _step, _event: nullcontext()
    receipt = job.run()
    assert rig.held(receipt["targets"][0]["snapshot_id"]) == hashes(BLOCKS)


@pytest.mark.parametrize("operation", ["copy", "sync"])
def test_a_source_that_is_deleted_on_the_way_ends_the_job_with_nothing_left(rig: Rig, operation: str) -> None:
    base = rig.snapshot({0: content(5)})
    made = rig.copy({"snapshot_id": base, "targets": [{"region": RECOVERY}]})["targets"][0]["snapshot_id"]
    source = rig.snapshot(BLOCKS, ParentSnapshotId=base)
    kept = {snapshot["snapshot_id"] for snapshot in rig.snapshots()}
    request: dict[str, Any] = {"snapshot_id": source, "options": {"blocks_per_range": 512}}
    if operation == "sync":
        request |= {"base_snapshot_id": base, "targets": [{"region": RECOVERY, "parent_snapshot_id": made}]}
    else:
        request |= {"targets": [{"region": RECOVERY}, {"region": HOME}]}
    job = rig.deployment.job(operation, request, "job")
    rig.operations["job"] = operation

    def gone(event: Event) -> None:
        if event["range"]["first"] == 512:
            rig.client("ec2").delete_snapshot(SnapshotId=source)

    before(rig, "Move blocks", gone)
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.step, failed.value.error, failed.value.refused) == (
        "Complete transfer",
        "TransferFailed",
        True,
    )
    assert failed.value.cause.startswith(f"{source} in {HOME} is there no more")
    assert failed.value.cause.endswith("Nothing is left of the job")
    assert {snapshot["snapshot_id"] for snapshot in rig.snapshots()} == kept - {source}


def test_an_input_that_cannot_be_used_is_shown_as_plain_text(rig: Rig) -> None:
    job = rig.deployment.job("copy", {"snapshot_id": "x"}, "job")
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.step, failed.value.error, failed.value.refused) == ("Plan transfer", "InvalidRequest", True)
    assert failed.value.cause.startswith("The input of copy cannot be used, nothing was started:\n- snapshot_id: 'x'")
