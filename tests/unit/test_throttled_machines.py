"""Every state machine while Lambda refuses to start another function: an account's concurrency is used up by others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from blockferry.lambdas import call_again, done
from localcloud.states.clock import SkippingClock
from localcloud.states.errors import StateError
from localcloud.states.limits import MAX_REDRIVABLE_EVENTS
from localcloud.states.model import Execution
from localcloud.states.testing import MachineRun
from tools.machines import PLACEHOLDERS, machine_files, machine_name, states

HOUR = 3600.0
BUCKET = "work"
MACHINES = pytest.mark.parametrize("file", machine_files(), ids=machine_name)


class Functions:
    """Stands for the functions of a deployment: each state is visited, loops go round once more.

    ``refused`` says whether Lambda throttles a call of a function, by its placeholder and how often it was called.
    """

    def __init__(self, refused: Callable[[str, int], bool]) -> None:
        self._refused = refused
        self.asked: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()

    def tasks(self) -> dict[str, Callable[[Any], Any]]:
        return {arn_of(name): lambda event, name=name: self._call(name, event) for name in PLACEHOLDERS}

    def _call(self, name: str, event: Mapping[str, Any]) -> Any:
        self.asked[name] += 1
        if self._refused(name, self.asked[name]):
            raise StateError("Lambda.TooManyRequestsException", "Rate Exceeded.")
        self.ran[name] += 1
        first = self.ran[name] == 1
        match name:
            case "plan_transfer_arn":
                return {
                    "job_id": "job",
                    "bucket": BUCKET,
                    "plan_key": "plan.jsonl",
                    "results_prefix": "results",
                    "max_concurrency": 1,
                    "unpack": first and event["operation"] in ("archive", "fanout", "restore"),
                    "done": True,
                    "dry_run": False,
                    "estimate": None,
                    "record": "r",
                }
            case "unpack_image_arn":
                return call_again({}) if first else done()
            case "move_blocks_arn":
                return call_again({}) if first else done(outcome="moved")
            case "complete_transfer_arn":
                proved = {"record": "r", "proof": "p"}
                return call_again({}, plan_key="missing.jsonl", **proved) if first else done(**proved)
            case "check_targets_arn":
                return call_again({}, wait_seconds=1) if first else done()
            case "plan_verification_arn":
                places = {"bucket": BUCKET, "plan_key": "plan.jsonl", "results_prefix": "results"}
                return {"job_id": "job", **places, "max_concurrency": 1, "record": "r", "readable": True}
            case "plan_backup_arn" | "plan_expiry_arn" | "plan_replication_arn":
                places = {"bucket": BUCKET, "plan_key": "batches.jsonl", "results_prefix": "results"}
                return {"job_id": "job", **places, "max_concurrency": 1, "record": "r", "to_do": True}
            case "verify_blocks_arn":
                return call_again({}) if first else done()
            case "inspect_snapshots_arn":
                return call_again({}) if first else done(report={"status": "SUCCEEDED"})
            case _:
                return {"status": "SUCCEEDED"}


def arn_of(placeholder: str) -> str:
    name = placeholder.removesuffix("_arn").replace("_", "-")
    return f"arn:aws:lambda:us-east-1:111122223333:function:blockferry-{name}"


def machine(file: Path, functions: Functions, clock: SkippingClock) -> MachineRun:
    text = file.read_text()
    for name in PLACEHOLDERS:
        text = text.replace(f"${{{name}}}", arn_of(name))
    items = b'{"first": 0, "stop": 8}\n'
    batches = b'{"act": "delete_expired", "first": 0}\n{"act": "mark_expired", "first": 0}\n'
    s3 = {BUCKET: {"plan.jsonl": items, "missing.jsonl": items, "batches.jsonl": batches}}
    return MachineRun(text, tasks=functions.tasks(), s3=s3, clock=clock)


def functions_of(file: Path) -> set[str]:
    found = {
        state.body["Arguments"]["FunctionName"]
        for state in states(json.loads(file.read_text()))
        if state.type == "Task"
    }
    return {str(name).removeprefix("${").removesuffix("}") for name in found}


def longest_history(run: MachineRun) -> int:
    return max(len(execution.history) for execution in run.engine.services.registry.all())


@MACHINES
def test_a_job_waits_for_hours_for_its_turn_in_every_step(file: Path) -> None:
    clock = SkippingClock()
    functions = Functions(lambda _name, call: call <= 150)
    with machine(file, functions, clock) as run:
        ended = run.finish(run.start({}))
        assert ended.status == "SUCCEEDED", (ended.error, ended.cause)
        assert longest_history(run) < MAX_REDRIVABLE_EVENTS
    assert functions.ran.keys() == functions_of(file)
    assert sum(clock.pauses) > 3 * HOUR * len(functions.ran)


@MACHINES
def test_a_job_that_is_given_no_turn_for_a_day_fails_and_goes_on_when_it_is_redriven(file: Path) -> None:
    for starved in sorted(functions_of(file)):
        room: list[bool] = []
        clock = SkippingClock()
        functions = Functions(lambda name, _call, starved=starved, room=room: name == starved and not room)  # type: ignore[misc]
        with machine(file, functions, clock) as run:
            ended = run.finish(run.start({}))
            assert ended.status == "FAILED", starved
            assert sum(clock.pauses) > 20 * HOUR, starved
            # With a full history an execution cannot be redriven, and everything it moved would be moved again.
            assert longest_history(run) < MAX_REDRIVABLE_EVENTS / 4, starved
            room.append(True)
            again: Execution = run.redrive(ended)
            assert again.status == "SUCCEEDED", (starved, again.error, again.cause)
