"""The speed of a running job: what Step Functions is asked, and what the operator hears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import boto3
import pytest
from blockferry.cli import main as cli
from blockferry.cli.operate import Operator
from blockferry.jobs.running import Asked, Running
from botocore.stub import Stubber
from memory_ec2 import MemoryEc2
from memory_s3 import MemoryS3

REGION, ACCOUNT = "us-east-1", "111122223333"
KEYS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": REGION}
ARN = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:blockferry-copy:nightly"
FIRST, SECOND = (f"arn:aws:states:{REGION}:{ACCOUNT}:mapRun:blockferry-copy/Ranges:{number}" for number in (1, 2))
START = datetime(2026, 1, 1, tzinfo=UTC)
COUNTS = dict.fromkeys(
    ("total", "pending", "running", "succeeded", "failed", "aborted", "timedOut", "resultsWritten"), 1
)
PLANNED = 14
ASKED = Asked(requests={"get 111122223333/us-east-1": 1, "put 111122223333/eu-west-1": 1}, blocks_per_worker=71.5)


class Job:
    """A copy in Step Functions whose Map Runs are those given, each with its status."""

    def __init__(self, stub: Stubber, running: Running) -> None:
        self._stub = stub
        self.running = running

    def runs(self, job_id: str, workers: int) -> None:
        for first in range(workers):
            self.running.renew(("copy", job_id), first, ASKED)

    @property
    def speed(self) -> float | None:
        return self.running.look(("copy", "nightly")).speeds.get(("copy", "nightly"))

    def is_(self, status: str, **runs: str) -> None:
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:blockferry-copy"
        described = {"executionArn": ARN, "stateMachineArn": machine, "name": "nightly", "status": status}
        self._stub.add_response("describe_execution", {**described, "startDate": START}, {"executionArn": ARN})
        self._list(runs)
        for arn, state in runs.items():
            self._describe(arn, state, 14)

    def moves(self, workers: int, **runs: str) -> None:
        """What is asked for the present speed; the newest Map Run comes first."""
        self._list(runs)
        for arn, state in runs.items():
            self._describe(arn, state, workers)
            if state == "RUNNING":
                break

    def planned(self) -> None:
        events = [
            _event(9, "TaskSucceeded", taskSucceededEventDetails=_task({"Payload": {"done": True}})),
            _event(6, "TaskSucceeded", taskSucceededEventDetails=_task({"Payload": {"max_concurrency": PLANNED}})),
            _event(3, "TaskSucceeded", taskSucceededEventDetails=_task({"Payload": {"max_concurrency": 2}})),
        ]
        self._stub.add_response(
            "get_execution_history", {"events": events}, {"executionArn": ARN, "reverseOrder": True}
        )

    def takes(self, workers: int, *, of: str = FIRST, refused: str | None = None) -> None:
        asked = {"mapRunArn": of, "maxConcurrency": workers}
        if refused is None:
            self._stub.add_response("update_map_run", {}, asked)
        else:
            self._stub.add_client_error("update_map_run", refused, "it is no more", expected_params=asked)

    def _list(self, runs: dict[str, str]) -> None:
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:blockferry-copy"
        item = {"executionArn": ARN, "stateMachineArn": machine, "startDate": START}
        self._stub.add_response(
            "list_map_runs", {"mapRuns": [{**item, "mapRunArn": arn} for arn in runs]}, {"executionArn": ARN}
        )

    def _describe(self, arn: str, status: str, workers: int) -> None:
        answer = {"mapRunArn": arn, "executionArn": ARN, "status": status, "startDate": START}
        answer |= {"maxConcurrency": workers, "toleratedFailurePercentage": 0.0, "toleratedFailureCount": 0}
        counts = {"itemCounts": COUNTS, "executionCounts": COUNTS}
        self._stub.add_response("describe_map_run", {**answer, **counts}, {"mapRunArn": arn})


def _event(number: int, kind: str, **details: Any) -> dict[str, Any]:
    return {"timestamp": START, "type": kind, "id": number, "previousEventId": number - 1, **details}


def _task(output: dict[str, Any]) -> dict[str, str]:
    return {"resourceType": "lambda", "resource": "invoke", "output": json.dumps(output)}


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    sfn, s3 = boto3.client("stepfunctions", **KEYS), MemoryS3()
    operator = Operator(REGION, "blockferry", ACCOUNT, "aws", sfn, cast(Any, s3), ec2=lambda _region: MemoryEc2())
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setattr(Operator, "of", lambda **_: operator)
    with Stubber(sfn) as stub:
        yield Job(stub, operator.running)
        stub.assert_no_pending_responses()


def speed(*options: str) -> int:
    return cli.main(["speed", "nightly", "--operation", "copy", *options])


def test_without_an_option_the_present_speed_is_shown(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.is_("RUNNING", **{FIRST: "RUNNING"})
    job.moves(5, **{FIRST: "RUNNING"})
    job.planned()
    job.runs("nightly", 4)
    assert speed("--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "job_id": "nightly",
        "execution_arn": ARN,
        "workers": 5,
        "planned_workers": PLANNED,
        "running_workers": 4,
        "blocks_per_second": None,
        "allowed_blocks_per_second": 286.0,
        "other_jobs": [],
    }


def test_what_it_may_move_is_what_other_jobs_leave(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.is_("RUNNING", **{FIRST: "RUNNING"})
    job.moves(14, **{FIRST: "RUNNING"})
    job.planned()
    job.runs("nightly", 14)
    job.runs("other", 14)
    job.runs("third", 2)
    assert speed() == 0
    # The two workers of the third move 143 blocks a second, and the first two halve the rest.
    assert capsys.readouterr().out.splitlines() == [
        "nightly: 14 workers at a time (14 were planned)",
        "  14 running, which may move 428 blocks a second, beside 2 other jobs",
    ]


@pytest.mark.parametrize(
    ("options", "workers"),
    [(["--workers", "1"], 1), (["--workers", "1000"], 1_000), (["--default"], PLANNED)],
)
def test_the_map_run_that_moves_gets_the_number(job: Job, options: list[str], workers: int) -> None:
    job.is_("RUNNING", **{SECOND: "RUNNING", FIRST: "SUCCEEDED"})
    job.moves(5, **{SECOND: "RUNNING", FIRST: "SUCCEEDED"})
    job.planned()
    job.takes(workers, of=SECOND)
    assert speed(*options) == 0
    assert job.speed is None


@pytest.mark.parametrize("runs", [{}, {FIRST: "SUCCEEDED"}, {FIRST: "RUNNING"}])
def test_a_speed_is_left_for_the_workers_whether_any_runs_or_not(
    job: Job, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for option, wanted in (("--blocks-per-second=250", 250.0), ("--blocks-per-second=0.5", 0.5), ("--default", None)):
        job.is_("RUNNING", **runs)
        job.moves(PLANNED, **runs)
        if "RUNNING" in runs.values():
            job.planned()
            if wanted is None:
                job.takes(PLANNED)
        assert speed(option) == 0
        assert job.speed == wanted
    said = capsys.readouterr().out
    assert "at most 250 blocks a second, as an operator said" in said
    assert said.count("workers follow within half a minute") == 3


def test_workers_and_speed_are_changed_together(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.is_("RUNNING", **{FIRST: "RUNNING"})
    job.moves(PLANNED, **{FIRST: "RUNNING"})
    job.planned()
    job.takes(4)
    job.runs("nightly", 14)
    assert speed("--workers", "4", "--blocks-per-second", "100") == 0
    assert job.speed == 100
    assert capsys.readouterr().out.splitlines() == [
        "nightly: 4 workers at a time (14 were planned); those that run finish their ranges first",
        "  at most 100 blocks a second, as an operator said",
        "  14 running, which may move 100 blocks a second",
        "  workers follow within half a minute",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers: 0 is not from 1 to 1,000"),
        (["--workers", "-1"], "--workers: -1 is not from 1 to 1,000"),
        (["--workers", "1001"], "--workers: 1001 is not from 1 to 1,000"),
        (["--blocks-per-second", "0"], "--blocks-per-second: 0 is not from 0.1 to 1,000"),
        (["--blocks-per-second", "-5"], "--blocks-per-second: -5 is not from 0.1 to 1,000"),
        (["--blocks-per-second", "1000.5"], "--blocks-per-second: 1000.5 is not from 0.1 to 1,000"),
        (["--blocks-per-second", "nan"], "--blocks-per-second: nan is not from 0.1 to 1,000"),
        (["--default", "--workers", "3"], "give it alone"),
        (["--default", "--blocks-per-second", "3"], "give it alone"),
    ],
)
def test_what_no_job_can_have_is_refused_before_anything_is_asked(
    job: Job, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed(*options) == 2
    assert told in capsys.readouterr().err
    assert job.speed is None


def test_a_job_that_has_ended_has_no_speed(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.is_("SUCCEEDED", **{FIRST: "SUCCEEDED"})
    assert speed("--default") == 2
    assert "job nightly is not running, it is SUCCEEDED" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [{}, {FIRST: "SUCCEEDED"}])
def test_a_job_between_maps_says_when_to_ask_again(
    job: Job, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    job.is_("RUNNING", **runs)
    job.moves(14, **runs)
    assert speed("--workers", "2") == 2
    err = capsys.readouterr().err
    assert "--workers: job nightly moves no blocks at the moment" in err
    assert "blockferry status nightly shows ranges" in err


@pytest.mark.parametrize(
    ("code", "status"), [("ValidationException", 2), ("ResourceNotFound", 2), ("AccessDeniedException", 1)]
)
def test_a_map_run_that_ended_meanwhile_is_told_apart_from_a_refusal(
    job: Job, code: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job.is_("RUNNING", **{FIRST: "RUNNING"})
    job.moves(5, **{FIRST: "RUNNING"})
    job.planned()
    job.takes(3, refused=code)
    assert speed("--workers", "3") == status
    assert ("ask for the job's status" in capsys.readouterr().err) == (status == 2)
