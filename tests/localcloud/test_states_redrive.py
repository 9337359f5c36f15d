"""Redrive of executions and of Map Runs.

Expectations: developer guide, "Restarting state machine executions with redrive" and "Redriving Map Runs";
API reference of RedriveExecution and DescribeMapRun.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from localcloud.states.clock import SystemClock
from localcloud.states.engine import redrivability
from localcloud.states.errors import ApiError
from localcloud.states.model import Execution
from localcloud.states.testing import MachineRun


def call(name: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": name, "Payload": "{% $states.input %}"},
        "Output": "{% $states.result.Payload %}",
        "End": True,
        **more,
    }


def machine(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    for name, state in states.items():
        if "Next" in state:
            states[name] = {key: value for key, value in state.items() if key != "End"}
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more}


CONTEXT = "$states.context.Execution"


def types(execution: Execution) -> list[str]:
    return [event["type"] for event in execution.history.events()]


class Recorder:
    """Functions that note their inputs; ``broken`` ones fail until they are mended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.broken: set[str] = set()
        self._lock = threading.Lock()

    def function(self, name: str) -> Callable[[Any], Any]:
        def run(event: Any) -> Any:
            with self._lock:
                self.calls.append((name, event))
            if name in self.broken or f"{name}:{json.dumps(event)}" in self.broken:
                raise ValueError(name)
            return event

        return run

    def of(self, name: str) -> list[Any]:
        return [event for called, event in self.calls if called == name]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_redrive_goes_on_from_the_failed_state_with_its_input_and_variables(recorder: Recorder) -> None:
    recorder.broken = {"second"}
    definition = machine(
        {
            "A": call("first", Assign={"kept": "{% $states.result.Payload.n %}"}, Next="B"),
            "B": call(
                "second", Output={"n": "{% $kept %}", "redrives": "{% $states.context.Execution.RedriveCount %}"}
            ),
        }
    )
    tasks = {name: recorder.function(name) for name in ("first", "second")}
    with MachineRun(definition, tasks=tasks) as run:
        execution = run.finish(run.start({"n": 4}))
        assert execution.status == "FAILED"
        before = len(execution.history)
        recorder.broken = set()
        run.redrive(execution)
        assert execution.status == "SUCCEEDED"
        assert json.loads(execution.output or "") == {"n": 4, "redrives": 1}
        assert recorder.of("first") == [{"n": 4}]
        assert recorder.of("second") == [{"n": 4}, {"n": 4}]
        assert (execution.redrive_count, execution.redrive_date is not None) == (1, True)
        after = execution.history.events()[before:]
        assert [event["type"] for event in after] == [
            "ExecutionRedriven",
            "TaskScheduled",
            "TaskStarted",
            "TaskSucceeded",
            "TaskStateExited",
            "ExecutionSucceeded",
        ]
        assert after[0]["executionRedrivenEventDetails"] == {"redriveCount": 1}
        assert run.statuses == ["RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]


def test_retry_attempts_start_again_on_redrive(recorder: Recorder) -> None:
    recorder.broken = {"f"}
    retry = [{"ErrorEquals": ["ValueError"], "MaxAttempts": 2}]
    with MachineRun(machine({"A": call("f", Retry=retry)}), tasks={"f": recorder.function("f")}) as run:
        execution = run.finish(run.start())
        assert len(recorder.calls) == 3
        run.redrive(execution)
        assert len(recorder.calls) == 6
        assert execution.status == "FAILED"


def test_only_failed_and_aborted_branches_run_again(recorder: Recorder) -> None:
    recorder.broken = {"bad"}
    good_done = threading.Event()
    bad = recorder.function("bad")

    def bad_after_good(event: Any) -> Any:
        assert good_done.wait(10)
        return bad(event)

    branches = [
        {"StartAt": "Good", "States": {"Good": call("good")}},
        {"StartAt": "Bad", "States": {"Bad": call("bad")}},
    ]
    good = recorder.function("good")

    def good_and_tell(event: Any) -> Any:
        good_done.set()
        return good(event)

    definition = machine({"P": {"Type": "Parallel", "Branches": branches, "End": True}})
    with MachineRun(definition, tasks={"good": good_and_tell, "bad": bad_after_good}) as run:
        execution = run.finish(run.start(1))
        assert (execution.status, execution.error) == ("FAILED", "ValueError")
        recorder.broken = set()
        run.redrive(execution)
        assert execution.output == "[1,1]"
        assert len(recorder.of("bad")) == 2


def test_only_failed_iterations_of_an_inline_map_run_again(recorder: Recorder) -> None:
    recorder.broken = {"f:2"}
    state = {
        "Type": "Map",
        "Items": [0, 1, 2],
        "MaxConcurrency": 1,
        "ItemProcessor": {"StartAt": "T", "States": {"T": call("f")}},
        "End": True,
    }
    with MachineRun(machine({"M": state}), tasks={"f": recorder.function("f")}) as run:
        execution = run.finish(run.start())
        assert execution.status == "FAILED"
        recorder.broken = set()
        run.redrive(execution)
        assert execution.output == "[0,1,2]"
        assert recorder.of("f") == [0, 1, 2, 2]


CHILD = {
    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
    "StartAt": "One",
    "States": {
        "One": {
            **{key: value for key, value in call("one").items() if key != "End"},
            "Assign": {"mark": "{% $states.input %}"},
            "Next": "Two",
        },
        "Two": call("two", Output="{% $mark %}"),
    },
}
WRITER = {"Resource": "arn:aws:states:::s3:putObject", "Arguments": {"Bucket": "data", "Prefix": "results"}}


def copy_machine(**more: Any) -> dict[str, Any]:
    state = {
        "Type": "Map",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Arguments": {"Bucket": "data", "Key": "plan.jsonl"},
        },
        "MaxConcurrency": 1,
        "ItemProcessor": CHILD,
        "ResultWriter": WRITER,
        "Label": "Move",
        "End": True,
        **more,
    }
    return machine({"M": state})


def test_a_map_run_is_redriven_in_place(recorder: Recorder) -> None:
    recorder.broken = {"two:1"}
    s3 = {"data": {"plan.jsonl": b"0\n1\n2\n"}}
    tasks = {name: recorder.function(name) for name in ("one", "two")}
    with MachineRun(copy_machine(), tasks=tasks, s3=s3) as run:
        execution = run.finish(run.start())
        assert execution.error == "States.ExceedToleratedFailureThreshold"
        (map_run,) = run.engine.registry.map_runs_of(execution.arn)
        assert map_run.describe()["status"] == "FAILED"
        recorder.broken = set()
        # The dataset is not read again once children have been started.
        s3["data"]["plan.jsonl"] = b"garbage"
        run.redrive(execution)
        assert execution.status == "SUCCEEDED", execution.cause
        assert run.engine.registry.map_runs_of(execution.arn) == [map_run]
        described = map_run.describe()
        failed = map_run.children[1]
    assert run.objects.opened == ["plan.jsonl"]
    assert recorder.of("one") == [0, 1, 2]
    assert recorder.of("two") == [0, 1, 1, 2]
    assert (described["status"], described["redriveCount"]) == ("SUCCEEDED", 1)
    assert described["itemCounts"] == {
        "pending": 0,
        "running": 0,
        "succeeded": 3,
        "failed": 0,
        "timedOut": 0,
        "aborted": 0,
        "total": 3,
        "resultsWritten": 3,
        "failuresNotRedrivable": 0,
        "pendingRedrive": 0,
    }
    (event,) = [event for event in execution.history.events() if event["type"] == "MapRunRedriven"]
    assert event["mapRunRedrivenEventDetails"] == {"mapRunArn": map_run.arn, "redriveCount": 1}
    assert failed.redrive_count == 1
    assert "ExecutionRedriven" in [event["type"] for event in failed.history.events()]
    rows = [json.loads(body) for key, body in s3["data"].items() if key.endswith("SUCCEEDED_0.json")]
    assert [row["Output"] for row in rows[0]] == ["0", "1", "2"]
    assert [row["RedriveCount"] for row in rows[0]] == [0, 1, 0]


def test_express_children_start_again_from_their_first_state(recorder: Recorder) -> None:
    recorder.broken = {"two:0"}
    s3 = {"data": {"plan.jsonl": b"0\n"}}
    child = {**CHILD, "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}}
    tasks = {name: recorder.function(name) for name in ("one", "two")}
    with MachineRun(copy_machine(ItemProcessor=child), tasks=tasks, s3=s3) as run:
        execution = run.finish(run.start())
        assert execution.status == "FAILED"
        recorder.broken = set()
        run.redrive(execution)
        assert execution.status == "SUCCEEDED"
        assert (recorder.of("one"), recorder.of("two")) == ([0, 0], [0, 0])


def test_a_map_run_that_could_not_read_its_dataset_is_started_anew(recorder: Recorder) -> None:
    s3: dict[str, dict[str, bytes]] = {"data": {}}
    tasks = {name: recorder.function(name) for name in ("one", "two")}
    with MachineRun(copy_machine(), tasks=tasks, s3=s3) as run:
        execution = run.finish(run.start())
        assert execution.error == "States.ItemReaderFailed"
        s3["data"]["plan.jsonl"] = b"5\n"
        run.redrive(execution)
        assert execution.status == "SUCCEEDED"
        assert recorder.of("one") == [5]


def test_results_that_could_not_be_written_are_written_on_redrive(recorder: Recorder) -> None:
    writer = {**WRITER, "Arguments": {"Bucket": "later", "Prefix": "r"}}
    s3 = {"data": {"plan.jsonl": b"0\n"}}
    tasks = {name: recorder.function(name) for name in ("one", "two")}
    with MachineRun(copy_machine(ResultWriter=writer), tasks=tasks, s3=s3) as run:
        execution = run.finish(run.start())
        assert execution.error == "States.ResultWriterFailed"
        s3["later"] = {}
        run.redrive(execution)
        assert execution.status == "SUCCEEDED"
        assert recorder.of("one") == [0]
        assert len(s3["later"]) == 2


def test_a_stopped_copy_goes_on_where_it_was(recorder: Recorder) -> None:
    reached, let_go = threading.Event(), threading.Event()
    one = recorder.function("one")

    def slow(event: Any) -> Any:
        if event == 1 and not let_go.is_set():
            reached.set()
            let_go.wait(20)
        return one(event)

    s3 = {"data": {"plan.jsonl": b"0\n1\n2\n"}}
    with MachineRun(
        copy_machine(), tasks={"one": slow, "two": recorder.function("two")}, s3=s3, clock=SystemClock()
    ) as run:
        execution = run.start()
        assert reached.wait(10)
        run.engine.stop(execution.arn, error=None, cause=None)
        # At once, while the attempt before may still be coming to rest.
        let_go.set()
        run.redrive(execution)
        assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
        assert recorder.of("two") == [0, 1, 2]
        rows = [json.loads(body) for key, body in s3["data"].items() if key.endswith("SUCCEEDED_0.json")]
        assert [row["Output"] for row in rows[0]] == ["0", "1", "2"]


def test_running_and_succeeded_executions_are_not_redrivable() -> None:
    with MachineRun(machine({"W": {"Type": "Wait", "Seconds": 3600, "End": True}}), clock=SystemClock()) as run:
        execution = run.start()
        with pytest.raises(ApiError, match="ExecutionNotRedrivable"):
            run.engine.redrive(execution.arn, client_token=None)
        run.engine.stop(execution.arn, error=None, cause=None)
        run.finish(execution)
        assert redrivability(execution, 0)[0] == "REDRIVABLE"
        fortnight = 14 * 86_400 + 1
        assert redrivability(execution, (execution.stop_date or 0) + fortnight)[0] == "NOT_REDRIVABLE"
    with MachineRun(machine({"Z": {"Type": "Succeed"}})) as run:
        execution = run.finish(run.start())
        assert redrivability(execution, 0) == (
            "NOT_REDRIVABLE",
            "Execution is SUCCEEDED and cannot be redriven",
        )


def test_a_redrive_with_the_same_client_token_happens_once(recorder: Recorder) -> None:
    recorder.broken = {"f"}
    with MachineRun(machine({"A": call("f")}), tasks={"f": recorder.function("f")}) as run:
        execution = run.finish(run.start())
        first = run.engine.redrive(execution.arn, client_token="t")
        run.finish(execution)
        assert run.engine.redrive(execution.arn, client_token="t") == first
        assert execution.redrive_count == 1
        assert len(recorder.calls) == 2


def test_the_machines_timeout_starts_again_on_redrive() -> None:
    definition = machine({"W": {"Type": "Wait", "Seconds": 1, "End": True}}, TimeoutSeconds=100)
    clock = SystemClock(timeout_scale=0.0005)
    with MachineRun(definition, clock=clock) as run:
        execution = run.finish(run.start())
        assert execution.status == "TIMED_OUT"
        clock.timeout_scale = 1.0
        run.redrive(execution)
        assert execution.status == "SUCCEEDED"


def test_an_execution_with_a_full_history_is_not_redrivable() -> None:
    definition = machine({"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}})
    with MachineRun(definition) as run:
        execution = run.finish(run.start())
        with pytest.raises(ApiError, match="ExecutionNotRedrivable"):
            run.engine.redrive(execution.arn, client_token=None)


class Tripwire:
    """Calls that fail by chance, and an event at the n-th call from when it was set."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.crossed = threading.Event()
        self._lock = threading.Lock()
        self._left = 0

    def set(self, calls: int) -> None:
        with self._lock:
            self.crossed.clear()
            self._left = calls

    def __call__(self, event: Any) -> Any:
        with self._lock:
            self._left -= 1
            draw = self.chance.random()
            if self._left == 0:
                self.crossed.set()
        if draw < 0.05:
            raise ValueError("by chance")
        return event


@pytest.mark.parametrize("seed", range(6))
def test_however_often_a_map_is_stopped_and_redriven_every_item_is_reported_once(seed: int) -> None:
    count = 60
    chance = random.Random(seed)
    tripwire = Tripwire(chance)
    s3 = {"data": {"plan.jsonl": b"".join(b"%d\n" % number for number in range(count))}}
    definition = copy_machine(MaxConcurrency=6)
    with MachineRun(definition, tasks={"one": tripwire, "two": tripwire}, s3=s3) as run:
        tripwire.set(chance.randrange(1, 40))
        execution = run.start()
        for _ in range(200):
            # Whichever comes first: so many calls, or an end by a failure or by success.
            while not tripwire.crossed.wait(0.001) and execution.is_open:
                pass
            run.engine.stop(execution.arn, error=None, cause=None)
            if execution.status == "SUCCEEDED":
                break
            tripwire.set(chance.randrange(1, 40))
            run.engine.redrive(execution.arn, client_token=None)
        run.finish(execution)
        assert execution.status == "SUCCEEDED"
        (map_run,) = [each for each in run.engine.registry.map_runs_of(execution.arn) if each.children]
        counts = map_run.describe()["executionCounts"]
    assert {name: number for name, number in counts.items() if number} == {
        "succeeded": count,
        "total": count,
        "resultsWritten": count,
    }
    rows = json.loads(s3["data"][f"results/{map_run.identifier}/SUCCEEDED_0.json"])
    assert [int(row["Output"]) for row in rows] == list(range(count))
    events = execution.history.events()
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert run.statuses[-1] == "SUCCEEDED"
    assert all(first != second for first, second in pairwise(run.statuses))
