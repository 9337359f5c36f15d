"""Failures of jobs as three readers meet them: console, command line and programs hear the same, and it helps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blockferry.jobs.folder import RECEIPT
from command_line import CommandLine, Said
from fakes import content
from rig import HOME, RECOVERY, THIRD, Rig, hashes, running_rig

BLOCKS = {0: content(1), 700: content(2), 2047: content(3)}
ARCHIVES = "archives-111122223333"
OPTIONS = {"blocks_per_range": 512}

NOISE = ("Traceback", "stackTrace", 'File "', "pydantic", "ValidationError for", "instance of", "errorMessage")
"""What no reader is to meet: stack traces, words of the validation library, and what Lambda puts around a message."""


@dataclass(frozen=True)
class Told:
    """A failed job: its error, its message, and what ``blockferry status`` and its ``--json`` show."""

    error: str
    cause: str
    status: Said
    shown: Mapping[str, Any]


class Operator:
    """Starts jobs as operators do, and looks at them as all readers do."""

    def __init__(self, rig: Rig, line: CommandLine, folder: Path) -> None:
        self.rig, self.line, self._folder = rig, line, folder

    def start(self, operation: str, request: Mapping[str, Any]) -> None:
        path = self._folder / "input.json"
        path.write_text(json.dumps(request))
        self.rig.operations["job"] = operation
        said = self.line.run(operation, "--input", str(path), "--name", "job")
        assert said.status == 0, said.err

    def copy(self, snapshot_id: str, *regions: str) -> None:
        targets = [{"region": region} for region in regions]
        self.start("copy", {"snapshot_id": snapshot_id, "targets": targets, "options": OPTIONS})

    def told(self, *words: str) -> Told:
        """The failure, of which console, command line and programs hear the same, and all of it these words."""
        status, as_json = self.line.run("status", "job"), self.line.run("status", "job", "--json")
        assert (status.status, as_json.status) == (1, 1)
        shown = json.loads(as_json.out)
        error, cause = self.line.console
        # What is not refused for good fails in its task, to be resumed there: the console has the message in what
        # Lambda tells of an error, without its trace.
        cause = json.loads(cause)["errorMessage"] if cause.startswith("{") else cause
        assert (shown["error"], shown["cause"]) == (error, cause)
        assert status.err.startswith(f"{error}: {cause}\n")
        assert as_json.err == status.err
        for word in words:
            assert word in cause
        assert [word for word in NOISE if word in status.all + as_json.all] == []
        for target in shown["targets"]:
            assert f"{target['snapshot_id'] or 'not started'} in {target['region']}: " in status.out
            assert (target["error"] or "completed") in status.out
        return Told(error, cause, status, shown)

    def resumed(self, told: Told) -> list[dict[int, str]]:
        """What each target holds once the job was resumed as it was told and succeeded."""
        assert "go on with: blockferry resume job\n" in told.status.err
        assert self.line.run("resume", "job").status == 0
        done = self.line.run("status", "job", "--json")
        assert done.status == 0
        return [self.rig.held(target["snapshot_id"]) for target in json.loads(done.out)["targets"]]

    def before(self, step: str, act: Callable[[Mapping[str, Any]], object]) -> None:
        """Do something before each call of a step."""

        @contextmanager
        def around(name: str, event: Mapping[str, Any]) -> Iterator[None]:
            if name == step:
                act(event)
            yield

        self.rig.around = around

    def mended(self) -> None:
        self.rig.around = lambda _step, _event: nullcontext()
        self.rig.control("faults", method="DELETE")

    def refuses(self, call: str, code: str, *, status: int = 403, **more: Any) -> None:
        self.rig.control("faults", {"operation": call, "action": "error", "status": status, "code": code, **more})

    def targets(self) -> list[str]:
        return [str(target.snapshot_id) for target in self.rig.job("job").targets]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Operator]:
    with running_rig(monkeypatch) as rig:
        yield Operator(rig, CommandLine(rig, monkeypatch, capsys), tmp_path)


def test_a_block_that_a_region_refuses(operator: Operator) -> None:
    operator.refuses("PutSnapshotBlock", "AccessDeniedException", region=RECOVERY, block_index=700, message="not you")
    operator.copy(operator.rig.snapshot(BLOCKS), RECOVERY)
    (target,) = operator.targets()
    request = f"PutSnapshotBlock block 700 of {target} in {RECOVERY}: AccessDeniedException: not you"
    told = operator.told(f"blocks 512 to 1023 could not be moved: {request}", "Mend what is refused, as permissions")
    assert (told.error, [each["error"] for each in told.shown["targets"]]) == ("RequestRefused", [request])
    operator.mended()
    assert operator.resumed(told) == [hashes(BLOCKS)]


def test_a_key_that_is_disabled(operator: Operator) -> None:
    refused = {"status": 400, "reason": "INVALID_CUSTOMER_KEY", "message": "the key is disabled"}
    operator.refuses("PutSnapshotBlock", "ValidationException", region=RECOVERY, **refused)
    operator.refuses("DeleteSnapshot", "UnauthorizedOperation", region=RECOVERY)
    operator.copy(operator.rig.snapshot(BLOCKS), RECOVERY)
    (target,) = operator.targets()
    told = operator.told(
        f"{target} in {RECOVERY}: ValidationException (INVALID_CUSTOMER_KEY): the key is disabled", "keys"
    )
    # Nothing is deleted that a resumed job goes on with, and so no refusal of that hides the first error.
    assert "DeleteSnapshot" not in told.cause
    operator.mended()
    assert operator.resumed(told) == [hashes(BLOCKS)]


def test_a_source_that_is_deleted_on_the_way(operator: Operator) -> None:
    source = operator.rig.snapshot(BLOCKS)

    def gone(event: Mapping[str, Any]) -> None:
        if event["range"]["first"] == 512:
            operator.rig.client("ec2").delete_snapshot(SnapshotId=source)

    operator.before("Move blocks", gone)
    operator.copy(source, RECOVERY, THIRD)
    told = operator.told(f"{source} in {HOME} is there no more: EC2 does not know it", "Nothing is left of the job")
    assert (told.error, told.shown["targets"]) == ("TransferFailed", [])
    assert "resume" not in told.status.all
    assert operator.rig.snapshots() == []


def test_a_completion_that_is_refused(operator: Operator) -> None:
    operator.refuses("CompleteSnapshot", "AccessDeniedException", region=RECOVERY, message="not you")
    operator.copy(operator.rig.snapshot(BLOCKS), RECOVERY, THIRD)
    refused, completed = operator.targets()
    told = operator.told(
        f"it was not completed: CompleteSnapshot of {refused} in {RECOVERY}: AccessDeniedException: not you",
        f"Completed, or being sealed by EBS: {completed} in {THIRD}",
    )
    assert [each["completed"] for each in told.shown["targets"]] == [False, True]
    operator.mended()
    assert operator.resumed(told) == [hashes(BLOCKS)] * 2


def test_as_many_pending_snapshots_as_ebs_allows(operator: Operator) -> None:
    words = "This account has 100 pending snapshots in this Region already."
    operator.refuses("StartSnapshot", "ConcurrentLimitExceededException", status=400, region=RECOVERY, message=words)
    operator.copy(operator.rig.snapshot(BLOCKS), RECOVERY)
    told = operator.told(f"StartSnapshot in {RECOVERY}: ConcurrentLimitExceededException: {words}")
    assert told.error == "RetryLater"
    operator.mended()
    assert operator.resumed(told) == [hashes(BLOCKS)]


def test_a_region_that_cannot_be_reached(operator: Operator) -> None:
    operator.rig.control("faults", {"operation": "StartSnapshot", "region": RECOVERY, "action": "close_before"})
    operator.copy(operator.rig.snapshot(BLOCKS), RECOVERY, THIRD)
    told = operator.told(
        f"targets[0] in {RECOVERY}: StartSnapshot in {RECOVERY}: ", "Completed, or being sealed by EBS"
    )
    assert told.error == "RetryLater"
    assert f"not started in {RECOVERY}: StartSnapshot" in told.status.out
    operator.mended()
    assert operator.resumed(told) == [hashes(BLOCKS)] * 2


def test_a_target_that_is_deleted_before_the_receipt(operator: Operator) -> None:
    rig, source = operator.rig, operator.rig.snapshot(BLOCKS)

    def delete(_event: Mapping[str, Any]) -> None:
        rig.client("ec2", RECOVERY).delete_snapshot(SnapshotId=operator.targets()[0])
        rig.around = lambda _step, _event: nullcontext()

    operator.before("Write receipt", delete)
    operator.copy(source, RECOVERY, THIRD)
    deleted, kept = operator.targets()
    told = operator.told(
        f"EC2 does not know {deleted} in {RECOVERY}; if it was deleted, start a new job for this target"
    )
    assert told.error == "TargetFailed"
    assert f"{kept} in {THIRD}: completed" in told.status.out
    assert "a target that is gone needs a new job" in told.status.err
    assert "pending" not in told.status.all
    assert rig.folder("job").read(RECEIPT) is None
    (target,) = rig.copy({"snapshot_id": source, "targets": [{"region": RECOVERY}]})["targets"]
    assert rig.held(target["snapshot_id"]) == rig.held(kept) == hashes(BLOCKS)


def test_an_archive_that_is_damaged(operator: Operator) -> None:
    rig, s3 = operator.rig, operator.rig.aws.s3(HOME)
    s3.create_bucket(Bucket=ARCHIVES)
    archive = {"snapshot_id": rig.snapshot(BLOCKS), "archive": {"bucket": ARCHIVES}, "options": OPTIONS}
    uri = rig.run("archive", archive, job_id="made")["manifest_uri"]
    listed = s3.list_objects_v2(Bucket=ARCHIVES)["Contents"]
    segment = next(each["Key"] for each in listed if "/segments/" in each["Key"])
    body = s3.get_object(Bucket=ARCHIVES, Key=segment)["Body"].read()
    s3.put_object(Bucket=ARCHIVES, Key=segment, Body=bytes([body[0] ^ 1]) + body[1:])
    before = rig.snapshots()
    operator.start("restore", {"manifest_uri": uri, "targets": [{"region": RECOVERY}], "options": OPTIONS})
    told = operator.told(f"segment s3://{ARCHIVES}/{segment} is damaged at block 0: ", "Nothing is left of the job")
    assert told.error == "TransferFailed"
    assert "resume" not in told.status.all
    assert rig.snapshots() == before


def test_a_region_that_is_misspelt_starts_nothing(operator: Operator) -> None:
    source = operator.rig.snapshot(BLOCKS)
    for more in ((), ("--json",)):
        said = operator.line.run("copy", source, "--to", "eu-wset-1", *more)
        assert (said.status, said.out) == (2, "")
        assert said.err == (
            "blockferry: nothing was started:\n"
            "- targets[0].region: eu-wset-1 is no Region of AWS; did you mean eu-west-1?\n"
        )
    assert operator.line.started == []
    assert operator.line.run("copy", source, "--to", "eu-west-1", "--name", "job").status == 0
    assert operator.line.run("status", "job").status == 0
