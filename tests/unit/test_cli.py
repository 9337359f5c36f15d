"""The command line: what it sends, what it prints, and its exit status."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blockferry.cli import main as cli
from blockferry.cli.operate import JobState
from blockferry.core.errors import InvalidRequest
from memory_ec2 import MemoryEc2, described, refusal

SNAPSHOT = "snap-0123456789abcdef0"
RECEIPT = {
    "job_id": "job",
    "operation": "copy",
    "status": "SUCCEEDED",
    "source": {"snapshot_id": SNAPSHOT, "region": "us-east-1"},
    "targets": [{"region": "eu-west-1", "snapshot_id": "snap-1", "state": "completed", "blocks_written": 3}],
    "allocated_blocks": 3,
    "zero_blocks": 1,
    "bytes_read": 3 * 2**19,
    "bytes_written": 3 * 2**19,
    "linear_checksum": "abc=",
    "requests": {"GetSnapshotBlock": 3},
    "retries": {},
    "duration_seconds": 1.5,
    "cost_usd": {"total": 0.000027, "basis": "prices"},
    "receipt_uri": "s3://b/jobs/job/receipt.json",
}


def state(status: str, **more: Any) -> JobState:
    made = {"job_id": "job", "arn": "arn:p-copy:job", "status": status, "ranges": {}, "redriven": 0, **more}
    return JobState(**made)


@dataclass
class FakeOperator:
    """Keeps what is started; its jobs go through ``states``."""

    states: list[JobState] = field(default_factory=lambda: [state("SUCCEEDED", output=RECEIPT)])
    started: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    known: tuple[str, ...] | None = None
    """The snapshots that EC2 knows; ``None``: nobody may look."""
    region: str = "us-east-1"

    def ec2(self, region: str) -> MemoryEc2:
        made = MemoryEc2(*(described(name, state="completed") for name in self.known or ()))
        if self.known is None:
            made.errors["DescribeSnapshots"] = refusal("UnauthorizedOperation", "DescribeSnapshots")
        return made

    def start(self, operation: str, request: dict[str, Any], *, job_id: str) -> str:
        self.started.append((operation, request, job_id))
        return f"arn:{job_id}"

    def find(self, job_id: str, operation: str | None = None) -> JobState:
        self.calls.append(f"find {job_id} {operation}")
        return self.states[0]

    def targets(self, job_id: str) -> list[dict[str, Any]]:
        return [
            {"region": "eu-west-1", "snapshot_id": "snap-1", "completed": True, "missing_ranges": 0, "error": None},
            {"region": "eu-west-2", "snapshot_id": "snap-2", "completed": False, "missing_ranges": 7, "error": None},
            {"region": "eu-west-3", "snapshot_id": "", "completed": False, "missing_ranges": 9, "error": None},
        ]

    def resume(self, arn: str) -> None:
        self.calls.append(f"resume {arn}")

    def stop(self, arn: str, *, reason: str) -> None:
        self.calls.append(f"stop {arn}")

    def with_own_cause(self, state: JobState) -> JobState:
        return state

    def wait(self, arn: str, *, sleep: Any, on_progress: Callable[[JobState], None], every: float = 2.0) -> JobState:
        for each in self.states:
            on_progress(each)
        return self.states[-1]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> FakeOperator:
    made = FakeOperator()
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr("blockferry.cli.console.Operator.of", lambda **_: made)
    return made


def test_a_copy_to_two_regions_sends_the_documented_input(operator: FakeOperator) -> None:
    arguments = ["copy", SNAPSHOT, "--from", "us-east-1", "--to", "eu-west-1", "--to", "ap-southeast-2"]
    assert cli.main([*arguments, "--tag", "team=a=b", "--name", "nightly"]) == 0
    assert operator.started == [
        (
            "copy",
            {
                "snapshot_id": SNAPSHOT,
                "targets": [
                    {"region": "eu-west-1", "tags": {"team": "a=b"}},
                    {"region": "ap-southeast-2", "tags": {"team": "a=b"}},
                ],
                "source": {"region": "us-east-1"},
            },
            "nightly",
        )
    ]


def test_waiting_shows_progress_and_prints_the_receipt(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    moving = state("RUNNING", ranges={"total": 4, "succeeded": 1, "failed": 0})
    operator.states = [moving, moving, state("SUCCEEDED", output=RECEIPT)]
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1", "--wait"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == ["job: RUNNING, 1 of 4 ranges moved"]
    assert "snap-1 in eu-west-1, completed, 3 blocks written" in out
    assert "abc= (LINEAR, SHA-256)" in out


def test_what_is_waited_for_behind_the_last_range_is_told(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = state("RUNNING", ranges={"total": 1, "succeeded": 1, "failed": 0})
    operator.states = [moved, moved, state("SUCCEEDED", output=RECEIPT)]
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1", "--wait"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "job: RUNNING, 1 of 1 range moved: checking and completing the targets"
    ]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 1), (ZeroDivisionError(), 70)])
def test_a_command_that_ends_before_its_job_names_the_job(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    def interrupted(*_: object, **__: object) -> JobState:
        raise error

    operator.wait = interrupted  # type: ignore[method-assign]
    copy = ["copy", SNAPSHOT, "--to", "eu-west-1", "--wait", "--name", "nightly", "--name-prefix", "my-ferry"]
    assert cli.main(copy) == status
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith("a started job goes on, see: blockferry status nightly --name-prefix my-ferry")


def test_a_command_that_ends_before_it_starts_anything_says_so(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blockferry.cli.start.refuse_what_is_not_there", interrupted)
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1"]) == 1
    assert capsys.readouterr().err == "blockferry: interrupted; nothing was started\n"
    assert operator.started == []


def test_json_prints_one_object_and_nothing_else_on_standard_output(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1", "--wait", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == RECEIPT


def test_a_failed_job_gives_its_reason_the_state_of_each_target_and_how_to_go_on(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.states = [state("FAILED", error="RetryLater", cause="throttled")]
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1", "--wait"]) == 1
    out, err = capsys.readouterr()
    assert "RetryLater: throttled" in err
    assert "take up places of the 100 pending snapshots" in err
    assert "blockferry resume job" in err
    assert out.splitlines() == [
        "job: FAILED",
        "snap-1 in eu-west-1: completed",
        "snap-2 in eu-west-2: 7 ranges missing",
        "not started in eu-west-3: 9 ranges missing",
    ]


@pytest.mark.parametrize(("status", "expected"), [("RUNNING", 3), ("SUCCEEDED", 0), ("FAILED", 1), ("ABORTED", 1)])
def test_status_tells_the_state_by_its_exit_status(operator: FakeOperator, status: str, expected: int) -> None:
    operator.states = [state(status, output=RECEIPT if status == "SUCCEEDED" else None)]
    assert cli.main(["status", "job"]) == expected


def test_resume_and_stop_act_on_the_execution_that_is_found(operator: FakeOperator) -> None:
    operator.states = [state("RUNNING", arn="arn:p-sync:job")]
    assert cli.main(["resume", "job"]) == 0
    assert cli.main(["stop", "job", "--operation", "sync"]) == 0
    assert operator.calls == ["find job None", "resume arn:p-sync:job", "find job sync", "stop arn:p-sync:job"]


def test_a_refused_job_has_nothing_to_resume(operator: FakeOperator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.states = [state("FAILED", error="InvalidRequest", cause="snapshot_id: unknown")]
    assert cli.main(["status", "job"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("job: FAILED\n", "InvalidRequest: snapshot_id: unknown\n")
    assert cli.main(["resume", "job"]) == 2
    assert "there is nothing to resume; mend what it names" in capsys.readouterr().err
    assert operator.calls == ["find job None", "find job None"]


def test_a_job_that_ran_out_of_time_says_so(operator: FakeOperator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.states = [state("TIMED_OUT")]
    assert cli.main(["status", "job"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("TIMED_OUT: ")
    assert "blockferry resume job" in err


def test_json_of_a_job_that_has_not_succeeded_names_its_operation_and_targets(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.states = [state("FAILED", error="RetryLater", cause="throttled", arn="arn:my-prefix-fanout:job")]
    assert cli.main(["status", "job", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["operation"], printed["error"], printed["status"]) == ("fanout", "RetryLater", "FAILED")
    assert [target["missing_ranges"] for target in printed["targets"]] == [0, 7, 9]


def test_a_job_that_has_ended_cannot_be_stopped(operator: FakeOperator, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "job"]) == 2
    assert "is not running, it is SUCCEEDED" in capsys.readouterr().err
    assert operator.calls == ["find job None"]


BAD = [
    (["copy"], "name the snapshot and at least one --to REGION"),
    (["copy", SNAPSHOT], "at least one --to REGION"),
    (["copy", "vol-1", "--to", "eu-west-1"], "snapshot_id: 'vol-1' is not a snapshot id"),
    (["copy", SNAPSHOT, "--to", "eu-west-1", "--to", "eu-west-1"], "identical"),
    (["copy", SNAPSHOT, "--to", "eu-west-1", "--tag", "novalue"], "write KEY=VALUE"),
    (["copy", SNAPSHOT, "--to", "a", "--to", "b", "--kms-key-arn", "x"], "single --to"),
    (["copy", "--input", "missing.json"], "missing.json"),
    (["copy", SNAPSHOT, "--input", "x.json"], "leave out the snapshot or image"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=[text for _, text in BAD])
def test_an_unusable_command_line_starts_nothing(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert cli.main(arguments) == 2
    assert expected in capsys.readouterr().err
    assert operator.started == []


def test_the_input_can_come_from_a_file_or_from_standard_input(
    operator: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"snapshot_id": SNAPSHOT, "targets": [{"region": "eu-west-1"}], "options": {"max_concurrency": 3}}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(request))
    assert cli.main(["copy", "--input", str(path)]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    assert cli.main(["copy", "--input", "-", "--dry-run"]) == 0
    assert operator.started[0][1] == request
    assert operator.started[1][1]["options"] == {"max_concurrency": 3, "dry_run": True}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_input_file_that_is_no_json_object_is_refused(operator: FakeOperator, tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    assert cli.main(["copy", "--input", str(path)]) == 2


def test_an_operator_error_is_one_line_on_standard_error(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise InvalidRequest("there is no state machine blockferry-copy")

    monkeypatch.setattr(operator, "start", refuse)
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-1"]) == 2
    assert capsys.readouterr().err == "blockferry: there is no state machine blockferry-copy\n"


@pytest.mark.parametrize("command", [["status", "job"], ["upload", "disk.img"]], ids=["job", "upload"])
@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, command: list[str]
) -> None:
    asked = []

    def used(*_: Any, region: str, **__: Any) -> Any:
        asked.append(region)
        raise InvalidRequest("seen")

    without_region(monkeypatch, tmp_path)
    monkeypatch.setenv(variable, "eu-west-2")
    monkeypatch.setattr("blockferry.cli.console.Operator.of", used)
    monkeypatch.setattr("blockferry.cli.upload.upload_image", used)
    assert cli.main(command) == 2
    assert asked == ["eu-west-2"]


@pytest.mark.parametrize("command", [["status", "job"], ["upload", "disk.img"]], ids=["job", "upload"])
@pytest.mark.parametrize("empty", [[], ["AWS_REGION", "AWS_DEFAULT_REGION"]], ids=["unset", "empty"])
def test_without_a_region_every_command_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    empty: list[str],
) -> None:
    without_region(monkeypatch, tmp_path)
    for name in empty:
        monkeypatch.setenv(name, "")
    assert cli.main(command) == 2
    assert "give --region, or set AWS_REGION" in capsys.readouterr().err


def without_region(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    """Neither the environment nor a profile names a region."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere / "config"))


def test_a_functions_error_is_told_without_its_stack_trace(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"errorMessage": "targets that are not complete:\n- snap-2", "errorType": "X", "stackTrace": ["  File"]}
    operator.states = [state("FAILED", error="IncompleteTransfer", cause=json.dumps(told))]
    assert cli.main(["status", "job"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("IncompleteTransfer: targets that are not complete:\n- snap-2\n")
    assert "stackTrace" not in err


@pytest.mark.parametrize("cause", ["null", "[1]", '{"message": "no"}'])
def test_a_cause_that_only_looks_like_a_functions_error_is_told_as_it_is(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str], cause: str
) -> None:
    operator.states = [state("FAILED", error="X", cause=cause)]
    assert cli.main(["status", "job"]) == 1
    assert f"X: {cause}\n" in capsys.readouterr().err


def test_the_next_command_names_the_deployment_that_was_named(
    operator: FakeOperator, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--region", "eu-west-1", "--name-prefix", "mine"]
    assert cli.main(["copy", SNAPSHOT, "--to", "eu-west-2", "--name", "job", *place]) == 0
    operator.states = [state("RUNNING")]
    assert cli.main(["stop", "job", *place]) == 0
    operator.states = [state("FAILED", error="RetryLater", cause="throttled")]
    assert cli.main(["status", "job", *place]) == 1
    out, err = capsys.readouterr()
    assert "blockferry status job --region eu-west-1 --name-prefix mine\n" in out
    assert "blockferry resume job --region eu-west-1 --name-prefix mine\n" in out
    assert "blockferry resume job --region eu-west-1 --name-prefix mine\n" in err
