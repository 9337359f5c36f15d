"""A copy job as Step Functions runs it, with a fault at any one of its external calls.

``Execution`` is the copy state machine: the order of its steps, and its Retry and Catch read from the file that is
deployed. ``Proving`` runs jobs on one EBS server, each in a bucket of its own, and holds what a job leaves behind
against what it must leave behind.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from blockferry.aws_errors import translated
from blockferry.blocks import BLOCK_SIZE, BlockRange
from blockferry.snapshots import JOB_TAG
from blockferry.transfer.check import check_targets
from blockferry.transfer.complete import complete_transfer
from blockferry.transfer.move import move_range
from blockferry.transfer.plan import PlanInput, plan_transfer
from blockferry.transfer.receipt import write_receipt
from blockferry.transfer.sweep import sweep_jobs
from blockferry.workspace import Workspace
from botocore.exceptions import BotoCoreError, ClientError
from fakes import ManualClock, content
from moto.backend_index import backend_url_patterns
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, put, running_rig
from wire import Call, Died, TappedAws, Wire, tapped_http, untouched

MACHINE = Path(__file__).resolve().parents[1] / "statemachines" / "copy.asl.json"

BLOCKS = {0: content(1), 1: content(0), 300: content(3), 699: content(4), 2046: content(5)}
"""A run, an allocated block of zeros, holes, the last block of a range, a range of one block. The list
of the last range needs a second page, since it does not reach the end of the volume."""

REQUEST_OPTIONS = {"blocks_per_range": 700}
"""Three ranges of a volume of 1 GiB; the second one holds nothing."""

TARGET_REGIONS = (RECOVERY, THIRD)

SWEPT_AT = datetime(2026, 1, 10, tzinfo=UTC)
"""Long after the jobs, which start on 2026-01-01."""


MOST_CHECKS = 20
"""Sealing takes a second here: a job that is not done by then is stuck."""


class ExecutionFailed(Exception):
    """The execution failed; ``refused`` when it ended in the Fail state of a caught error, which ends it for good."""

    def __init__(self, step: str, error: str, cause: str, *, refused: bool) -> None:
        super().__init__(f"{step} failed with {error}: {cause}")
        self.step = step
        self.error = error
        self.cause = cause
        self.refused = refused


@cache
def _states() -> Mapping[str, Any]:
    states: dict[str, Any] = dict(json.loads(MACHINE.read_text())["States"])
    for name in ("Move block ranges", "Move missing ranges"):
        states |= states[name]["ItemProcessor"]["States"]
    return states


@dataclass
class Execution:
    """One execution of the copy state machine. ``run`` again after ``ExecutionFailed`` is its redrive."""

    job_id: str
    request: Mapping[str, Any]
    aws: TappedAws
    workspace: Workspace
    clock: ManualClock
    seal: Callable[[], None]
    seconds_left: float = 900.0
    after_attempt: Callable[[], None] = lambda: None
    trace: list[tuple[str, Call]] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    redrives: int = -1
    _planned: bool = False
    _left: list[tuple[BlockRange, tuple[int, ...] | None]] = field(default_factory=list)
    _missing_moved: bool = False
    _completed: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-copy:{self.job_id}"

    def run(self) -> dict[str, Any]:
        """Go on from the first step that is not done; returns the receipt. Raises ``ExecutionFailed``."""
        self.redrives += 1
        if not self._planned:
            self._attempt("Plan transfer", self._plan)
            self._left = self._items("plan.jsonl")
            self._planned = True
        self._move_all("Move blocks")
        if not self._completed and not self._missing_moved:
            answer = self._attempt("Complete transfer", self._complete)
            self._completed = answer["missing_ranges"] == 0
            if not self._completed:
                self._left = self._items("missing.jsonl")
                self._missing_moved = True
        if not self._completed:
            self._move_all("Move missing blocks")
            self._attempt("Complete transfer", self._complete)
            self._completed = True
        waited = None
        for _ in range(MOST_CHECKS):
            checked = self._attempt("Check targets", partial(self._check, waited))
            if checked["completed"]:
                return self._attempt("Write receipt", self._receipt)
            waited = checked["wait_seconds"]
            self.seal()
        raise AssertionError(f"{self.job_id}: the targets are still pending after {MOST_CHECKS} checks")

    def _move_all(self, step: str) -> None:
        """The map: a range that is done is not moved again by a redrive."""
        while self._left:
            (within, targets), start = self._left[0], None
            while True:
                answer = self._attempt(step, partial(self._move, within, targets, start))
                if answer["done"]:
                    break
                start = answer["next_index"]
            self._left.pop(0)

    def _attempt(self, step: str, work: Callable[[], Any]) -> Any:
        """One state: its function, called again as its Retry says."""
        state = _states()[step]
        used: Counter[int] = Counter()
        while True:
            before = len(self.aws.wire.calls)
            try:
                return work()
            except Died:
                error, cause = "Runtime.ExitError", "the process died"
            except (ClientError, BotoCoreError) as failure:
                error, cause = type(translated(failure)).__name__, str(failure)
            except Exception as failure:
                error, cause = type(failure).__name__, str(failure)
            finally:
                self.trace += [(step, call) for call in self.aws.wire.calls[before:]]
                self.aws.wire.revive()
                self.after_attempt()
            number = next((n for n, r in enumerate(state["Retry"]) if error in r["ErrorEquals"]), None)
            if number is None or used[number] >= state["Retry"][number]["MaxAttempts"]:
                caught = any(error in c["ErrorEquals"] for c in state.get("Catch", ()))
                raise ExecutionFailed(step, error, cause, refused=caught)
            used[number] += 1
            self.retries[step] += 1

    def _plan(self) -> dict[str, Any]:
        event = PlanInput(self.job_id, self.arn, "2026-01-01T00:00:00.000Z", self.request)
        return plan_transfer(event, aws=self.aws, workspace=self.workspace)

    def _items(self, name: str) -> list[tuple[BlockRange, tuple[int, ...] | None]]:
        """The ItemReader, which is Step Functions' own and no call of ours."""
        calls = len(self.aws.wire.calls)
        spoiler, self.aws.wire.spoiler = self.aws.wire.spoiler, untouched
        plan = self.workspace.read(self.job_id, name)
        self.aws.wire.spoiler = spoiler
        del self.aws.wire.calls[calls:]
        assert plan is not None
        items = [json.loads(line) for line in plan.decode().splitlines()]
        return [(BlockRange(i["first"], i["stop"]), tuple(i["targets"]) if "targets" in i else None) for i in items]

    def _move(self, within: BlockRange, targets: tuple[int, ...] | None, next_index: int | None) -> dict[str, Any]:
        return move_range(
            job_id=self.job_id,
            within=within,
            next_index=next_index,
            targets=targets,
            seconds_left=self.seconds_left,
            aws=self.aws,
            workspace=self.workspace,
            clock=self.clock,
        )

    def _complete(self) -> dict[str, object]:
        return complete_transfer(
            job_id=self.job_id,
            missing_moved=self._missing_moved,
            aws=self.aws,
            workspace=self.workspace,
            clock=self.clock,
        )

    def _check(self, waited: int | None) -> dict[str, Any]:
        return check_targets(job_id=self.job_id, waited_seconds=waited, aws=self.aws, workspace=self.workspace)

    def _receipt(self) -> dict[str, Any]:
        return write_receipt(job_id=self.job_id, aws=self.aws, workspace=self.workspace)


class _FailedExecutions:
    """DescribeExecution: every execution has failed nine days before the sweep."""

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:
        return {"status": "FAILED", "stopDate": SWEPT_AT - timedelta(days=9)}


class _LateAws(TappedAws):
    def step_functions(self, region: str) -> Any:
        return _FailedExecutions()


@dataclass
class Proving:
    """Jobs on one EBS server. ``points`` counts what was tried, by how it came out."""

    rig: Rig
    wire: Wire
    aws: TappedAws
    clock: ManualClock
    source: str
    points: Counter[str] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def execution(self, **more: Any) -> Execution:
        """A new job that copies the source to both target regions."""
        job_id = f"job-{next(self._numbers)}"
        bucket = f"blockferry-work-{job_id}"
        self.wire.clear()
        self.aws.s3(HOME).create_bucket(Bucket=bucket)
        self.wire.clear()
        return Execution(
            job_id=job_id,
            request={
                "snapshot_id": self.source,
                "targets": [{"region": region} for region in TARGET_REGIONS],
                "options": REQUEST_OPTIONS,
            },
            aws=self.aws,
            workspace=Workspace(bucket, self.aws.s3(HOME)),
            clock=self.clock,
            seal=self.seal,
            **more,
        )

    def seal(self) -> None:
        """What Wait for targets waits for."""
        self.rig.server.service.clock.advance(2)
        self.rig.server.service.tick()

    def started(self, job_id: str) -> dict[str, str]:
        """Every snapshot that a job ever started and that still exists: id to state."""
        registry = self.rig.server.service.registry
        with registry.lock:
            return {s.snapshot_id: s.state for s in registry.snapshots.values() if s.tags.get(JOB_TAG) == job_id}

    def strangers(self) -> set[str]:
        """Snapshots that are neither the source nor any job's."""
        registry = self.rig.server.service.registry
        with registry.lock:
            return {i for i, s in registry.snapshots.items() if JOB_TAG not in s.tags and i != self.source}

    def redriven(self, execution: Execution, *, times: int = 3) -> tuple[dict[str, Any] | None, ExecutionFailed | None]:
        """Run, and redrive what failed: the receipt, or the failure that no redrive has mended."""
        for attempt in itertools.count():
            try:
                return execution.run(), None
            except ExecutionFailed as failure:
                if failure.refused or attempt == times:
                    return None, failure
        raise AssertionError("unreachable")

    def proved(self, execution: Execution, receipt: Mapping[str, Any], where: str) -> None:
        """The job has left exactly what a job without any fault leaves."""
        self.wire.clear()
        expected = hashes(BLOCKS)
        targets = receipt["targets"]
        assert [t["region"] for t in targets] == list(TARGET_REGIONS), where
        assert self.started(execution.job_id) == {t["snapshot_id"]: "completed" for t in targets}, where
        assert self.strangers() == set(), where
        for target in targets:
            held, facts = self.rig.held(target["snapshot_id"]), self.rig.facts(target["snapshot_id"])
            assert held == expected, where
            assert facts["region"] == target["region"], where
            assert facts["linear_checksum"] == target["linear_checksum"] == receipt["linear_checksum"], where
            assert facts["tags"]["blockferry:linear-checksum"] == receipt["linear_checksum"], where
            assert target["blocks_written"] == len(BLOCKS), where
        assert receipt["status"] == "SUCCEEDED", where
        assert receipt["allocated_blocks"] == receipt["changed_blocks"] == len(BLOCKS), where
        assert receipt["zero_blocks"] == 1, where
        assert receipt["bytes_read"] == len(BLOCKS) * BLOCK_SIZE, where
        assert receipt["bytes_written"] == 2 * len(BLOCKS) * BLOCK_SIZE, where
        assert receipt["requests"]["GetSnapshotBlock"] >= len(BLOCKS), where
        stored = execution.workspace.read(execution.job_id, "receipt.json")
        assert stored is not None, where
        assert json.loads(stored) == receipt, where
        self._source_is_untouched(where)
        self._forget(execution)

    def abandoned(self, execution: Execution, where: str) -> None:
        """The job failed for good: no target is usable, and after the sweep none is left."""
        self.wire.clear()
        assert "completed" not in self.started(execution.job_id).values(), where
        self.sweep(execution)
        assert self.started(execution.job_id) == {}, where
        assert self.strangers() == set(), where
        assert execution.workspace.read(execution.job_id, "plan.jsonl") is None, where
        self._source_is_untouched(where)

    def sweep(self, execution: Execution) -> dict[str, Any]:
        """One run of the sweeper over the job's bucket, long after the job."""
        return sweep_jobs(
            aws=self.aws,
            workspace=execution.workspace,
            resume_window=timedelta(hours=72),
            time_left=lambda: 300.0,
            now=SWEPT_AT,
        )

    def _source_is_untouched(self, where: str) -> None:
        assert self.rig.held(self.source) == hashes(BLOCKS), where
        assert self.rig.state(self.source) == "completed", where

    def _forget(self, execution: Execution) -> None:
        """Copies that were proved would only slow the rest down."""
        registry = self.rig.server.service.registry
        with registry.lock:
            for snapshot_id in self.started(execution.job_id):
                registry.delete(registry.snapshots[snapshot_id])


@contextmanager
def proving_ground(settings: Mapping[str, Any] | None = None) -> Iterator[Proving]:
    """A server, clients behind a wire, one worker thread (so that call n is the same call in every run), no sleep."""
    wanted = {"trailing_empty_page": True, "seal_seconds": 1.0, **(settings or {})}
    with pytest.MonkeyPatch.context() as patch, running_rig(patch, wanted) as rig:
        wire, clock = Wire(rig.server.service.faults), ManualClock()
        patch.setattr("blockferry.sessions.SignedHttp", tapped_http(wire))
        patch.setattr("blockferry.transfer.plan.MIN_THREADS", 1)
        patch.setattr("blockferry.transfer.plan.MAX_THREADS", 1)
        patch.setattr("blockferry.transfer.complete.ThreadPoolExecutor", lambda **_: ThreadPoolExecutor(1))
        # S3 is all that moto serves here, and it tries the patterns of all services one by one.
        patch.setattr("moto.backend_index.backend_url_patterns", [p for p in backend_url_patterns if p[0] == "s3"])
        # botocore's own retries wait with time.sleep.
        patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
        aws = _LateAws(base=boto3.Session(region_name=HOME), wire=wire, clock=clock)
        source = rig.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
        put(rig.client("ebs"), source, BLOCKS)
        rig.client("ebs").complete_snapshot(SnapshotId=source, ChangedBlocksCount=len(BLOCKS))
        proving = Proving(rig, wire, aws, clock, source)
        proving.seal()
        yield proving
