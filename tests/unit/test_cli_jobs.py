"""Finding a job by its id: what Step Functions is asked, and what is made of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from blockferry.cli.operate import OPERATIONS, TOO_MANY_FAILED, JobState, NotSeen, Operator
from blockferry.cli.watch import progress_line
from blockferry.core.errors import InvalidRequest
from botocore.stub import Stubber
from memory_ec2 import MemoryEc2

REGION, ACCOUNT = "us-east-1", "111122223333"
KEYS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": REGION}


def arn(operation: str) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:execution:my-ferry-{operation}:nightly"


class Machines:
    """Step Functions with jobs named ``nightly`` of some operations."""

    def __init__(self, operator: Operator, stub: Stubber) -> None:
        self.operator, self._stub = operator, stub
        self.status = "RUNNING"

    def have(self, *operations: str, denied: tuple[str, ...] = ()) -> None:
        for operation in OPERATIONS:
            asked = {"executionArn": arn(operation)}
            if operation in denied:
                self._refuse("AccessDeniedException", f"may not look at {operation}", asked)
            elif operation in operations:
                self._stub.add_response("describe_execution", self._described(operation), asked)
            else:
                self._refuse("ExecutionDoesNotExist", "no such execution", asked)

    def shows(self, operation: str) -> None:
        self._stub.add_response("list_map_runs", {"mapRuns": []}, {"executionArn": arn(operation)})

    def has_only(self, operation: str) -> None:
        self.described(operation)
        self.shows(operation)

    def has_none(self, operation: str) -> None:
        self._refuse("ExecutionDoesNotExist", "no such execution", {"executionArn": arn(operation)})

    def described(self, operation: str) -> None:
        self._stub.add_response("describe_execution", self._described(operation), {"executionArn": arn(operation)})

    def has_failed_child(self, operation: str, *, error: str, cause: str) -> None:
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:my-ferry-{operation}"
        runs = [f"arn:aws:states:{REGION}:{ACCOUNT}:mapRun:my-ferry-{operation}/Ranges:{number}" for number in (1, 2)]
        start = datetime(2026, 1, 1, tzinfo=UTC)
        listed = [
            {"executionArn": arn(operation), "mapRunArn": run, "stateMachineArn": machine, "startDate": start}
            for run in runs
        ]
        self._stub.add_response("list_map_runs", {"mapRuns": listed}, {"executionArn": arn(operation)})
        child = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:my-ferry-{operation}/Ranges:child"
        item = {
            "executionArn": child,
            "stateMachineArn": machine,
            "name": "child",
            "status": "FAILED",
            "startDate": start,
        }
        for run, found in zip(runs, ([], [item]), strict=True):
            asked = {"mapRunArn": run, "statusFilter": "FAILED", "maxResults": 1}
            self._stub.add_response("list_executions", {"executions": found}, asked)
        self._stub.add_response("describe_execution", {**item, "error": error, "cause": cause}, {"executionArn": child})

    def moves(self, operation: str, *runs: tuple[int, int]) -> None:
        """The job's Map Runs, from the first to the last: ranges in all and moved. AWS promises no order."""
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:my-ferry-{operation}"
        named = [f"arn:aws:states:{REGION}:{ACCOUNT}:mapRun:my-ferry-{operation}/Ranges:{n}" for n in range(len(runs))]
        items = [
            {"executionArn": arn(operation), "mapRunArn": name, "startDate": datetime(2026, 1, 1 + n, tzinfo=UTC)}
            for n, name in enumerate(named)
        ]
        listed = [{**item, "stateMachineArn": machine} for item in reversed(items)]
        self._stub.add_response("list_map_runs", {"mapRuns": listed}, {"executionArn": arn(operation)})
        for number in (len(runs) - 1, 0) if len(runs) > 1 else (0,):
            total, moved = runs[number]
            states = ("pending", "running", "failed", "timedOut", "aborted", "resultsWritten")
            counts = {"total": total, "succeeded": moved, **dict.fromkeys(states, 0), "running": total - moved}
            answer = {**items[number], "status": "RUNNING", "maxConcurrency": 1, "toleratedFailurePercentage": 0.0}
            answer |= {"toleratedFailureCount": 0, "itemCounts": counts, "executionCounts": counts}
            self._stub.add_response("describe_map_run", answer, {"mapRunArn": named[number]})

    def may_not_list(self, operation: str) -> None:
        asked = {"executionArn": arn(operation)}
        self._stub.add_client_error("list_map_runs", "AccessDeniedException", "no", expected_params=asked)

    def cannot_look(self, operation: str, code: str) -> None:
        self._refuse(code, "planted", {"executionArn": arn(operation)})

    def has_name(self, operation: str, given: str | None, status: str) -> None:
        """StartExecution finds the name taken, by a job of this input."""
        self._stub.add_client_error("start_execution", "ExecutionAlreadyExists", "taken")
        self.status = status
        if given is None:
            self.cannot_look(operation, "AccessDeniedException")
        else:
            shown = {**self._described(operation), "input": given}
            self._stub.add_response("describe_execution", shown, {"executionArn": arn(operation)})

    def forget(self) -> None:
        """Nothing more is asked of what was said to be asked."""
        self._stub._queue.clear()

    def _refuse(self, code: str, message: str, asked: dict[str, str]) -> None:
        self._stub.add_client_error("describe_execution", code, message, expected_params=asked)

    def _described(self, operation: str) -> dict[str, Any]:
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:my-ferry-{operation}"
        times = {"startDate": datetime(2026, 1, 1, tzinfo=UTC)}
        return {
            "executionArn": arn(operation),
            "stateMachineArn": machine,
            "name": "nightly",
            "status": self.status,
            **times,
        }


@pytest.fixture
def machines() -> Iterator[Machines]:
    sfn, s3 = boto3.client("stepfunctions", **KEYS), boto3.client("s3", **KEYS)
    with Stubber(sfn) as stub:
        operator = Operator(REGION, "my-ferry", ACCOUNT, "aws", sfn, s3, ec2=lambda _region: MemoryEc2())
        yield Machines(operator, stub)
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_job_is_found_among_all_operations(machines: Machines, operation: str) -> None:
    machines.have(operation)
    machines.shows(operation)
    state = machines.operator.find("nightly")
    assert (state.operation, state.arn, state.job_id, state.running) == (operation, arn(operation), "nightly", True)


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        (((2, 1),), "1 of 2 ranges moved"),
        (((2, 2), (1, 0)), "1 of 2 ranges moved"),
        (((9, 9), (4, 4), (3, 1)), "7 of 9 ranges moved"),
    ],
)
def test_ranges_that_are_moved_once_more_are_not_more_ranges(
    machines: Machines, runs: tuple[tuple[int, int], ...], shown: str
) -> None:
    machines.described("copy")
    machines.moves("copy", *runs)
    assert progress_line(machines.operator.find("nightly", "copy")) == f"nightly: RUNNING, {shown}"


def test_a_named_operation_is_the_only_one_that_is_asked(machines: Machines) -> None:
    machines.has_only("fanout")
    assert machines.operator.find("nightly", "fanout").operation == "fanout"


def test_a_job_of_no_operation_is_reported_with_where_it_was_looked_for(machines: Machines) -> None:
    machines.have()
    with pytest.raises(InvalidRequest) as caught:
        machines.operator.find("nightly")
    assert str(caught.value) == (
        "there is no job nightly of copy, sync, fanout, archive, restore, verify, inspect, backup, replicate, expire "
        f"in {REGION} (account {ACCOUNT}, state machines my-ferry-*); check the id, --region and --name-prefix"
    )


def test_a_job_that_a_named_operation_does_not_have_is_reported_with_where_it_was_looked_for(
    machines: Machines,
) -> None:
    machines.has_none("sync")
    with pytest.raises(InvalidRequest) as caught:
        machines.operator.find("nightly", "sync")
    assert str(caught.value) == (
        f"there is no job nightly of sync in {REGION} (account {ACCOUNT}, state machines my-ferry-*); "
        "check the id, --region and --name-prefix"
    )


def test_jobs_of_several_operations_with_one_id_have_to_be_told_apart(machines: Machines) -> None:
    machines.have("copy", "inspect")
    with pytest.raises(InvalidRequest, match="named nightly of copy and inspect: say which one with --operation"):
        machines.operator.find("nightly")


def test_whoever_may_look_at_one_operation_only_finds_its_jobs(machines: Machines) -> None:
    machines.have("copy", denied=("sync", "fanout", "inspect"))
    machines.shows("copy")
    assert machines.operator.find("nightly").operation == "copy"


def test_a_job_that_may_be_where_nobody_was_let_in_is_not_said_to_be_nowhere(machines: Machines) -> None:
    machines.have(denied=("sync",))
    with pytest.raises(
        InvalidRequest,
        match=r"of copy, fanout, archive, restore, verify, inspect, backup, replicate, expire in .*to look at sync: "
        "may not look at sync",
    ):
        machines.operator.find("nightly")


def test_a_job_is_asked_about_often_at_first_and_less_and_less(machines: Machines) -> None:
    for _ in range(36):
        machines.has_only("copy")
    machines.status = "SUCCEEDED"
    machines.has_only("copy")
    slept: list[float] = []
    seen: list[str] = []
    state = machines.operator.wait(arn("copy"), sleep=slept.append, on_progress=lambda state: seen.append(state.status))
    assert (state.status, seen) == ("SUCCEEDED", ["RUNNING"] * 36 + ["SUCCEEDED"])
    assert slept[:3] == pytest.approx([0.2, 0.22, 0.242])
    assert (slept == sorted(slept), slept[-1]) == (True, 5.0)


# -- looks that fail ---------------------------------------------------------------------------------------------------


def test_looks_that_fail_for_a_while_are_waited_out(machines: Machines) -> None:
    machines.has_only("copy")
    for code in ("ThrottlingException", "InternalFailure") * 15:
        machines.cannot_look("copy", code)
    machines.status = "SUCCEEDED"
    machines.has_only("copy")
    seen: list[str] = []
    state = machines.operator.wait(
        arn("copy"), sleep=lambda _seconds: None, on_progress=lambda state: seen.append(state.status)
    )
    assert (state.status, seen) == ("SUCCEEDED", ["RUNNING", "SUCCEEDED"])


def test_a_job_that_is_not_seen_for_ten_minutes_is_given_up_on_and_not_called_failed(machines: Machines) -> None:
    slept: list[float] = []
    for _ in range(300):
        machines.cannot_look("copy", "ThrottlingException")
    with pytest.raises(NotSeen, match="ThrottlingException"):
        machines.operator.wait(arn("copy"), sleep=slept.append, on_progress=lambda _state: None)
    assert 595 <= sum(slept) <= 610
    machines.forget()


def test_whoever_may_not_look_is_told_at_once(machines: Machines) -> None:
    machines.cannot_look("copy", "AccessDeniedException")
    with pytest.raises(NotSeen, match="AccessDeniedException"):
        machines.operator.wait(arn("copy"), sleep=lambda _seconds: None, on_progress=lambda _state: None)


def test_an_input_that_step_functions_would_not_take_is_refused_before_it_is_asked(machines: Machines) -> None:
    with pytest.raises(InvalidRequest, match=r"the input has 262,145 bytes as JSON, and Step Functions takes 262,144"):
        machines.operator.start("copy", {"a": "x" * (262_145 - len('{"a": ""}'))}, job_id="nightly")


# -- a map of which a child failed -------------------------------------------------------------------------------------


def test_the_error_of_the_first_failed_child_is_told_instead_of_the_threshold(machines: Machines) -> None:
    failed = JobState(
        "nightly", arn("copy"), "FAILED", {}, 0, error=TOO_MANY_FAILED, cause="The specified tolerated ..."
    )
    machines.has_failed_child("copy", error="Lambda.AccessDeniedException", cause="may not call blockferry-move-blocks")
    told = machines.operator.with_own_cause(failed)
    assert (told.error, told.cause) == ("Lambda.AccessDeniedException", "may not call blockferry-move-blocks")
    assert (told.job_id, told.status) == ("nightly", "FAILED")


def test_what_is_no_threshold_is_told_as_it_is(machines: Machines) -> None:
    failed = JobState("nightly", arn("copy"), "FAILED", {}, 0, error="RequestRefused", cause="no")
    assert machines.operator.with_own_cause(failed) is failed


def test_whoever_may_not_look_at_children_hears_of_the_threshold(machines: Machines) -> None:
    failed = JobState("nightly", arn("copy"), "FAILED", {}, 0, error=TOO_MANY_FAILED, cause="c")
    machines.may_not_list("copy")
    assert machines.operator.with_own_cause(failed) == failed


# -- names that are taken ----------------------------------------------------------------------------------------------

INPUT = {"snapshot_id": "snap-1", "targets": [{"region": "eu-west-1"}]}
PLACE = f"--region {REGION} --name-prefix my-ferry"


def taken(machines: Machines, given: str | None, status: str) -> str:
    """What is said when a job of this input has the name already; ``None``: nobody may look at it."""
    machines.has_name("copy", given, status)
    with pytest.raises(InvalidRequest) as caught:
        machines.operator.start("copy", INPUT, job_id="nightly")
    return str(caught.value)


def test_a_name_that_another_job_has_is_no_reason_to_go_on_with_that_one(machines: Machines) -> None:
    other = json.dumps({"snapshot_id": "snap-2", "targets": [{"region": "eu-west-2"}, {"region": "eu-west-3"}]})
    assert taken(machines, other, "FAILED") == (
        "a job named nightly exists already, and it is another one, of snap-2 to eu-west-2, eu-west-3 (FAILED): choose "
        f"another --name, or see: blockferry status nightly {PLACE}"
    )


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED_OUT"])
def test_the_same_job_is_gone_on_with(machines: Machines, status: str) -> None:
    assert taken(machines, json.dumps(INPUT), status) == (
        f"this job exists already as nightly ({status}): go on with blockferry resume nightly {PLACE}, or choose "
        "another --name to begin anew"
    )


def test_the_same_job_that_is_done_is_shown(machines: Machines) -> None:
    assert taken(machines, json.dumps(INPUT), "SUCCEEDED") == (
        f"this job exists already as nightly (SUCCEEDED): see blockferry status nightly {PLACE}, or choose another "
        "--name to do it again"
    )


@pytest.mark.parametrize("given", [None, "{"])
def test_a_job_that_nobody_can_look_at_is_told_by_its_name_only(machines: Machines, given: str | None) -> None:
    assert taken(machines, given, "FAILED") == (
        f"a job named nightly exists already: choose another --name, or see: blockferry status nightly {PLACE}"
    )


@pytest.mark.parametrize("given", ["[]", '{"targets": [1]}', '{"targets": {}}'])
def test_a_job_of_any_input_is_told_of(machines: Machines, given: str) -> None:
    assert "it is another one, of " in taken(machines, given, "FAILED")
