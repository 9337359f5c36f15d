"""The state machine inspect with its real function, run by the engine of the local cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from blockferry.jobs.folder import RECEIPT
from deployment import ExecutionFailed
from fakes import ManualClock, TickingClock, content
from rig import BUCKET, RECOVERY, Rig, running_rig


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        made.clock = ManualClock()
        yield made


def events_of(rig: Rig, job_id: str) -> list[Mapping[str, Any]]:
    """What the function got in each of its calls."""
    return [attempt.event for attempt in rig.deployment.attempts[job_id]]


def test_the_output_of_the_execution_is_the_stored_report(rig: Rig) -> None:
    snapshot = rig.snapshot({1: content(1), 9: content(2)})
    output = rig.run("inspect", {"snapshot_id": snapshot, "targets": [{"region": RECOVERY}]})
    events = events_of(rig, output["job_id"])
    assert (output["operation"], output["status"], output["allocated_blocks"]) == ("inspect", "SUCCEEDED", 2)
    stored = rig.folder(output["job_id"]).read(RECEIPT)
    assert stored is not None
    assert json.loads(stored) == output
    assert output["receipt_uri"] == f"s3://{BUCKET}/jobs/inspect/{output['job_id']}/receipt.json"
    assert len(events) == 1
    assert events[0]["progress"] is None


def test_a_count_that_takes_longer_than_a_call_goes_on_with_its_progress(rig: Rig) -> None:
    # A window of one list spans 160,000 blocks, and more where little is allocated: a TiB has several.
    held = range(0, 2_097_152, 16_384)
    snapshot = rig.snapshot({n: content(n // 16_384 % 3) for n in held}, size_gib=1024)
    rig.clock, rig.seconds_left = TickingClock(), 80.0
    output = rig.run("inspect", {"snapshot_id": snapshot, "options": {"count_zeros": True}})
    events = events_of(rig, output["job_id"])
    assert output["allocated_blocks"] == len(held) == 128
    assert output["zero_blocks"] == sum(n // 16_384 % 3 == 0 for n in held)
    assert len(events) > 3
    assert [event["request"] for event in events] == [events[0]["request"]] * len(events)
    reached = [event["progress"]["next_index"] for event in events[1:]]
    assert reached == sorted(reached)
    assert 0 < reached[0] < reached[-1] == 2_097_152


def test_a_request_that_cannot_be_used_ends_the_execution_with_plain_text(rig: Rig) -> None:
    job = rig.deployment.job("inspect", {"snapshot_id": "snap-00000000000000000"}, "unknown")
    with pytest.raises(ExecutionFailed) as failed:
        job.run()
    assert (failed.value.error, failed.value.refused) == ("InvalidRequest", True)
    assert failed.value.cause.startswith(
        "snapshot_id: snapshot snap-00000000000000000 in us-east-1: EC2 does not know it"
    )
    assert len(job.attempts) == 1
    with pytest.raises(ExecutionFailed) as failed:
        rig.deployment.job("inspect", {"snapshot_id": "x", "chain": []}, "malformed").run()
    assert failed.value.cause.startswith(
        "The input of inspect cannot be used, nothing was started:\n- snapshot_id: 'x'"
    )
