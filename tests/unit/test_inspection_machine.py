"""The state machine inspect with its real function, run by the engine of the local cloud."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest
from blockferry.inspection import count, steps
from fakes import content
from localcloud.states.testing import run_machine
from rig import BUCKET, RECOVERY, Rig, running_rig
from tools.environment import repository_root

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:blockferry-inspect-snapshots"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with running_rig(monkeypatch) as made:
        monkeypatch.setattr(count, "LISTS_PER_SECOND", 10_000.0)
        yield made


class Context:
    aws_request_id = "request-1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def run(rig: Rig, request: Any, *, seconds: float = 900.0) -> tuple[Any, list[dict[str, Any]]]:
    """The finished execution and the events that the function got."""
    path = repository_root() / "functions" / "inspect_snapshots" / "handler.py"
    spec = importlib.util.spec_from_file_location("inspect_snapshots_handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.resources = lambda _job_id: (rig.aws, rig.workspace)  # type: ignore[attr-defined]
    events: list[dict[str, Any]] = []

    def function(event: dict[str, Any]) -> Any:
        events.append(event)
        return module.handler(event, Context(seconds))

    text = (repository_root() / "statemachines" / "inspect.asl.json").read_text()
    definition = text.replace("${inspect_snapshots_arn}", FUNCTION)
    return run_machine(definition, request, tasks={FUNCTION: function}), events


def test_the_output_of_the_execution_is_the_stored_report(rig: Rig) -> None:
    snapshot = rig.snapshot({1: content(1), 9: content(2)})
    execution, events = run(rig, {"snapshot_id": snapshot, "targets": [{"region": RECOVERY}]})
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    output = json.loads(execution.output)
    assert (output["operation"], output["status"], output["allocated_blocks"]) == ("inspect", "SUCCEEDED", 2)
    assert output["job_id"] == events[0]["job_id"]
    stored = rig.workspace.read(output["job_id"], "receipt.json")
    assert stored is not None
    assert json.loads(stored) == output
    assert output["receipt_uri"] == f"s3://{BUCKET}/jobs/{output['job_id']}/receipt.json"
    assert len(events) == 1
    assert events[0]["progress"] is None


def test_a_count_that_takes_longer_than_a_call_goes_on_with_its_progress(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = rig.snapshot({n: content(n % 3) for n in range(0, 2048, 16)})
    monkeypatch.setattr(count, "MAX_PAGE", 100)
    monkeypatch.setattr(count, "PAGES_PER_WINDOW", 1)
    monkeypatch.setattr(count, "LIST_THREADS", 1)
    monkeypatch.setattr(steps, "Deadline", _EndsAfter)
    execution, events = run(rig, {"snapshot_id": snapshot, "options": {"count_zeros": True}})
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    output = json.loads(execution.output)
    assert output["allocated_blocks"] == 128
    assert output["zero_blocks"] == sum(n % 3 == 0 for n in range(0, 2048, 16))
    assert len(events) > 3
    assert [event["request"] for event in events] == [events[0]["request"]] * len(events)
    reached = [event["progress"]["next_index"] for event in events[1:]]
    assert reached == sorted(reached)


class _EndsAfter:
    """A deadline that passes after it was asked about for a few times, so that no time has to pass."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._left = 6

    def passed(self) -> bool:
        self._left -= 1
        return self._left < 0

    def remaining(self) -> float:
        return 600.0


def test_a_request_that_cannot_be_used_ends_the_execution_with_plain_text(rig: Rig) -> None:
    execution, events = run(rig, {"snapshot_id": "snap-00000000000000000"})
    assert (execution.status, execution.error) == ("FAILED", "InvalidRequest")
    assert execution.cause.startswith("snapshot_id: snapshot snap-00000000000000000 in us-east-1: EC2 does not know it")
    assert len(events) == 1
    execution, _ = run(rig, {"snapshot_id": "x", "chain": []})
    assert execution.cause.startswith("The input of inspect cannot be used, nothing was started:\n- snapshot_id: 'x'")
