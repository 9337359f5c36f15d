"""A job as Step Functions runs it, with a fault at any one of its external calls.

``Execution`` is the state machine of an operation: the order of its steps, and its Retry and Catch read from the file
that is deployed. ``Scenario`` is a job with what it must come to. ``Proving`` runs jobs on one EBS server, each in a
bucket of its own, and holds what a job leaves behind against what it must leave behind.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from blockferry.aws.errors import translated
from blockferry.aws.snapshots import CHECKSUM_TAG, HOLES_TAG, JOB_TAG
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.retry import Clock
from blockferry.jobs.workspace import Workspace
from blockferry.local.upload import upload_image
from blockferry.transfer.check import check_targets
from blockferry.transfer.complete import complete_transfer
from blockferry.transfer.move import move_range
from blockferry.transfer.plan import PlanInput, plan_transfer
from blockferry.transfer.receipt import write_receipt
from blockferry.transfer.sweep import sweep_jobs
from blockferry.transfer.unpack import unpack
from botocore.exceptions import BotoCoreError, ClientError
from fakes import ManualClock, content
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, put, running_rig, session
from wire import Call, Died, TappedAws, Wire, tapped_http, untouched

MACHINES = Path(__file__).resolve().parents[1] / "statemachines"

BLOCKS = {0: content(1), 1: content(0), 300: content(3), 699: content(4), 2046: content(5)}
"""Of a copy: a run, an allocated block of zeros, holes, the last block of a range, a range of one block. The list
of the last range needs a second page, since it does not reach the end of the volume."""

COPY_OPTIONS = {"blocks_per_range": 700}
"""Three ranges of a volume of 1 GiB; the second one holds nothing."""

BEFORE = {0: content(1), 1: content(2), 1023: content(3), 1500: content(4)}
"""The base of a sync: kept, changed, removed, becomes zeros."""

AFTER = {0: content(1), 1: content(9), 1500: content(0), 2046: content(7)}

DELTA = {1: content(9), 1023: content(0), 1500: content(0), 2046: content(7)}
"""What a sync writes: a changed block, zeros for a removed one, zeros, an added one."""

IMAGE = {0: content(1), 1: content(0), 2: content(3), 3: content(0), 4: (b"tail" * 25).ljust(BLOCK_SIZE, b"\0")}
"""Of a fanout: data, zeros, and a last block of which the image has no more than 100 bytes."""

IMAGE_BYTES = 4 * BLOCK_SIZE + 100

BLOCKS_PER_CHUNK = 2
"""Of an unpacked image, instead of 64: a small one has three chunks then, too."""

TWO_RANGES = {"blocks_per_range": 1024}
ONE_RANGE = {"blocks_per_range": 2048}

VOLUME_ID = "vol-0123456789abcdef0"
IMAGES = "images"

TARGET_REGIONS = (RECOVERY, THIRD)

SWEPT_AT = datetime(2026, 1, 10, tzinfo=UTC)
"""Long after the jobs, which start on 2026-01-01."""


SEAL_SECONDS = 60.0
"""Of the server's clock, which also goes by itself: a job on a busy machine must not outlast it."""

STALE_SECONDS = 15 * SEAL_SECONDS
"""How long a completed snapshot may still be shown as pending: longer than the clock moves in a job without faults."""

MOST_CHECKS = 20
"""Each is as long after the last one as sealing takes: a job that is not done by then is stuck."""


class ExecutionFailed(Exception):
    """The execution failed; ``refused`` when it ended in the Fail state of a caught error, which ends it for good."""

    def __init__(self, step: str, error: str, cause: str, *, refused: bool) -> None:
        super().__init__(f"{step} failed with {error}: {cause}")
        self.step = step
        self.error = error
        self.cause = cause
        self.refused = refused


@cache
def _states(operation: str) -> Mapping[str, Any]:
    states: dict[str, Any] = dict(json.loads((MACHINES / f"{operation}.asl.json").read_text())["States"])
    states |= states["Move block ranges"]["ItemProcessor"]["States"]
    # The same state, in a round for what single targets miss.
    return {**states, "Move missing blocks": states["Move blocks"]}


@dataclass(frozen=True)
class Scenario:
    """A job, and what it must come to: the blocks that each target holds, what its holes are said to stand for, and
    fields of the receipt."""

    operation: str
    request: Mapping[str, Any]
    held: tuple[Mapping[int, str], ...] = ()
    receipt: Mapping[str, Any] = field(default_factory=dict)
    reads: int = 0
    holes: str = ""


@dataclass
class Execution:
    """One execution of a state machine. ``run`` again after ``ExecutionFailed`` is its redrive."""

    job_id: str
    scenario: Scenario
    aws: TappedAws
    workspace: Workspace
    clock: ManualClock
    seal: Callable[[], None]
    seconds_left: float = 900.0
    after_attempt: Callable[[], None] = lambda: None
    trace: list[tuple[str, Call]] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)
    """Numbers of the calls after which an attempt of a step had nothing more to send."""
    retries: Counter[str] = field(default_factory=Counter)
    redrives: int = -1
    _unpacking: bool = False
    _progress: Mapping[str, Any] | None = None
    _planned: bool = False
    _moved: bool = False
    _left: list[tuple[BlockRange, tuple[int, ...] | None]] = field(default_factory=list)
    _missing_moved: bool = False
    _completed: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-{self.scenario.operation}:{self.job_id}"

    def run(self) -> dict[str, Any]:
        """Go on from the first step that is not done; returns the receipt. Raises ``ExecutionFailed``."""
        self.redrives += 1
        self._plan_all()
        if not self._moved:
            self._move_all("Move blocks")
            self._moved = True
        while not self._completed:
            if self._left:
                # A map that is done is behind the step that asked for it.
                self._move_all("Move missing blocks")
                self._missing_moved = True
            answer = self._attempt("Complete transfer", self._complete)
            self._completed = answer["missing_ranges"] == 0
            if not self._completed:
                self._left = self._items("missing.jsonl")
        waited = None
        for _ in range(MOST_CHECKS):
            checked = self._attempt("Check targets", partial(self._check, waited))
            if checked["completed"]:
                return self._attempt("Write receipt", self._receipt)
            waited = checked["wait_seconds"]
            self.seal()
        raise AssertionError(f"{self.job_id}: the targets are still pending after {MOST_CHECKS} checks")

    def _plan_all(self) -> None:
        """Plan, and unpack and plan again where the plan asks for that."""
        while not self._planned:
            if self._unpacking:
                answer = self._attempt("Unpack image", self._unpack)
                self._unpacking = not answer["done"]
                self._progress = None if answer["done"] else answer["progress"]
                continue
            self._unpacking = self._attempt("Plan transfer", self._plan)["unpack"]
            if not self._unpacking:
                self._left = self._items("plan.jsonl")
                self._planned = True

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
        state = _states(self.scenario.operation)[step]
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
                self.ends.add(len(self.aws.wire.calls))
                self.aws.wire.revive()
                self.after_attempt()
            number = next((n for n, r in enumerate(state["Retry"]) if error in r["ErrorEquals"]), None)
            if number is None or used[number] >= state["Retry"][number]["MaxAttempts"]:
                caught = any(error in c["ErrorEquals"] for c in state.get("Catch", ()))
                raise ExecutionFailed(step, error, cause, refused=caught)
            used[number] += 1
            self.retries[step] += 1

    def _plan(self) -> dict[str, Any]:
        scenario = self.scenario
        event = PlanInput(scenario.operation, self.job_id, self.arn, "2026-01-01T00:00:00.000Z", scenario.request)
        return plan_transfer(event, aws=self.aws, workspace=self.workspace)

    def _unpack(self) -> dict[str, Any]:
        return unpack(
            job_id=self.job_id,
            progress=self._progress,
            seconds_left=self.seconds_left,
            aws=self.aws,
            workspace=self.workspace,
            clock=self.clock,
        )

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
    """Jobs on one EBS server. ``points`` counts what was tried, by operation and how it came out; ``kept`` are the
    snapshots that jobs start from, with what they hold."""

    rig: Rig
    wire: Wire
    aws: TappedAws
    clock: ManualClock
    points: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    kept: dict[str, Mapping[int, str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def execution(self, scenario: Scenario, **more: Any) -> Execution:
        """A new job."""
        job_id = f"job-{next(self._numbers)}"
        bucket = f"blockferry-work-{job_id}"
        self.wire.clear()
        self.aws.s3(HOME).create_bucket(Bucket=bucket)
        self.wire.clear()
        return Execution(
            job_id=job_id,
            scenario=scenario,
            aws=self.aws,
            workspace=Workspace(bucket, self.aws.s3(HOME)),
            clock=self.clock,
            seal=self.seal,
            **more,
        )

    def tried(self, execution: Execution, outcome: str) -> None:
        self.points[execution.scenario.operation][outcome] += 1

    def outcomes(self) -> str:
        """What was tried, for people."""
        lines = [
            f"{operation}: {sum(points.values())} tried: "
            + ", ".join(f"{count} {outcome}" for outcome, count in sorted(points.items()))
            for operation, points in sorted(self.points.items())
        ]
        return "\n".join(["", *(f"crash points of {line}" for line in lines)])

    # -- what jobs start from ------------------------------------------------------

    def snapshot(self, blocks: Mapping[int, bytes], *, region: str = HOME) -> str:
        """A snapshot that nothing is known of."""
        client = self.rig.client("ebs", region)
        made = str(client.start_snapshot(VolumeSize=1)["SnapshotId"])
        put(client, made, blocks)
        client.complete_snapshot(SnapshotId=made, ChangedBlocksCount=len(blocks))
        self.seal()
        return self.keep(made)

    def upload(self, image: Path) -> str:
        """A snapshot of an image, whose sealing is waited for by moving the clock."""
        self.wire.clear()
        clock = Clock(sleep=lambda _seconds: self.seal())
        return upload_image(image, region=HOME, aws=self.aws, clock=clock).snapshot_id

    def keep(self, snapshot_id: str) -> str:
        """No job may change the snapshot from here on, and EC2 has no doubt about it any more."""
        self.rig.server.service.clock.advance(STALE_SECONDS + 1)
        self.kept[snapshot_id] = self.held(snapshot_id)
        return snapshot_id

    def held(self, snapshot_id: str) -> dict[int, str]:
        """As ``Rig.held``, without a request: this is asked after every job."""
        registry = self.rig.server.service.registry
        with registry.lock:
            blocks = registry.snapshots[snapshot_id].blocks
            return {index: registry.store.digest(slot).hex() for index, slot in blocks.allocated()}

    def copy(self) -> Scenario:
        """A copy to both target regions."""
        request = {"snapshot_id": self.snapshot(BLOCKS), "targets": _targets({}, {}), "options": COPY_OPTIONS}
        counts = _counts(2, allocated=5, changed=5, zero=1, read=5)
        return Scenario("copy", request, (hashes(BLOCKS),) * 2, counts, reads=5, holes="unknown")

    @cached_property
    def _night(self) -> tuple[str, str]:
        """Two snapshots of one volume."""
        rig = self.rig
        rig.control("volumes", {"volume_id": VOLUME_ID, "owner": ACCOUNT, "region": HOME, "size": 1})
        made = []
        for blocks in (BEFORE, AFTER):
            for index in BEFORE.keys() - blocks.keys():
                rig.control(f"volumes/{VOLUME_ID}/blocks/{index}", method="DELETE")
            for index, data in blocks.items():
                rig.post(f"volumes/{VOLUME_ID}/blocks/{index}", data)
            made.append(str(rig.client("ec2").create_snapshot(VolumeId=VOLUME_ID)["SnapshotId"]))
            self.seal()
        return self.keep(made[0]), self.keep(made[1])

    def sync(self) -> Scenario:
        """A delta to both target regions, on top of copies that jobs have proved."""
        base, _ = self._night
        copied = self.execution(Scenario("copy", {"snapshot_id": base, "targets": _targets({}, {})})).run()
        return self._sync([self.keep(target["snapshot_id"]) for target in copied["targets"]], TWO_RANGES)

    def sync_on_unknown_parent(self, *, equal: bool = True) -> Scenario:
        """A delta on top of a snapshot that nothing is known of, with a block of zeros more than the base, with which
        it is compared. ``equal`` false: and one block differs."""
        blocks = {**BEFORE, 99: content(0)} | ({} if equal else {1023: content(33)})
        parent = self.snapshot(blocks, region=RECOVERY)
        # A hole of the parent may be one of the base's zeros.
        return self._sync([parent], {**ONE_RANGE, "verify_parent": True}, compared=len(blocks), holes="zeros")

    def sync_on_two_unknown_parents(self) -> Scenario:
        """A delta on top of two snapshots that equal the base, with both of which it is compared."""
        parents = [self.snapshot(BEFORE, region=region) for region in TARGET_REGIONS]
        scenario = self._sync(parents, {**TWO_RANGES, "verify_parent": True}, holes="zeros")
        return replace(scenario, receipt={})

    def _sync(
        self, parents: list[str], options: Mapping[str, Any], *, compared: int = 0, holes: str = "noise"
    ) -> Scenario:
        base, later = self._night
        request = {
            "base_snapshot_id": base,
            "snapshot_id": later,
            "targets": _targets(*({"parent_snapshot_id": parent} for parent in parents)),
            "options": options,
        }
        held = tuple({**self.kept[parent], **hashes(DELTA)} for parent in parents)
        counts = _counts(len(parents), allocated=4, changed=3, removed=1, zero=1, read=3, compared=compared)
        return Scenario("sync", request, held, counts, reads=3, holes=holes)

    def fanout(self, codec: str) -> Scenario:
        """A disk image, ``gzip``, ``zstd`` or ``raw``, to both target regions; compressed one block a piece."""
        pack: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
            "raw": ("disk.img", bytes),
            "gzip": ("disk.img.gz", partial(gzip.compress, compresslevel=1)),
            "zstd": ("disk.img.zst", zstandard.ZstdCompressor(level=1).compress),
        }
        name, compress = pack[codec]
        raw = b"".join(IMAGE.values())[:IMAGE_BYTES]
        body = b"".join(compress(raw[first : first + BLOCK_SIZE]) for first in range(0, IMAGE_BYTES, BLOCK_SIZE))
        self.wire.clear()
        self.aws.s3(HOME).create_bucket(Bucket=IMAGES)
        self.aws.s3(HOME).put_object(Bucket=IMAGES, Key=name, Body=body)
        request = {"image_uri": f"s3://{IMAGES}/{name}", "targets": _targets({}, {}), "options": ONE_RANGE}
        written = {index: data for index, data in IMAGE.items() if data != content(0)}
        counts = _counts(2, allocated=5, changed=3, zero=2, read=5)
        return Scenario("fanout", request, (hashes(written),) * 2, counts, holes="zeros")

    # -- what jobs leave behind ----------------------------------------------------

    def seal(self) -> None:
        """What Wait for targets waits for."""
        self.rig.server.service.clock.advance(SEAL_SECONDS + 1)
        self.rig.server.service.tick()

    def started(self, job_id: str) -> dict[str, str]:
        """Every snapshot that a job ever started and that still exists: id to state."""
        registry = self.rig.server.service.registry
        with registry.lock:
            return {s.snapshot_id: s.state for s in registry.snapshots.values() if s.tags.get(JOB_TAG) == job_id}

    def strangers(self) -> set[str]:
        """Snapshots that are neither kept nor any job's."""
        registry = self.rig.server.service.registry
        with registry.lock:
            return {i for i, s in registry.snapshots.items() if JOB_TAG not in s.tags and i not in self.kept}

    def objects(self, execution: Execution) -> set[str]:
        """Names of what the job has in its bucket."""
        listed = self.aws.s3(HOME).list_objects_v2(Bucket=execution.workspace.bucket)
        prefix = execution.workspace.key(execution.job_id, "")
        return {item["Key"].removeprefix(prefix) for item in listed.get("Contents", ())}

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
        scenario, targets = execution.scenario, receipt["targets"]
        assert [t["region"] for t in targets] == [t["region"] for t in scenario.request["targets"]], where
        assert self.started(execution.job_id) == {t["snapshot_id"]: "completed" for t in targets}, where
        assert self.strangers() == set(), where
        for target, expected in zip(targets, scenario.held, strict=True):
            facts = self.rig.facts(target["snapshot_id"])
            assert self.held(target["snapshot_id"]) == expected, where
            assert facts["region"] == target["region"], where
            assert facts["written_linear_checksum"] == target["linear_checksum"] == receipt["linear_checksum"], where
            assert facts["tags"][CHECKSUM_TAG] == receipt["linear_checksum"], where
            assert facts["tags"][HOLES_TAG] == target["holes_stand_for"] == scenario.holes, where
            assert target["blocks_written"] == receipt["changed_blocks"] + receipt["removed_blocks"], where
        assert receipt["status"] == "SUCCEEDED", where
        assert {name: receipt[name] for name in scenario.receipt} == scenario.receipt, where
        assert receipt["requests"].get("GetSnapshotBlock", 0) >= scenario.reads, where
        stored = execution.workspace.read(execution.job_id, "receipt.json")
        assert stored is not None, where
        assert json.loads(stored) == receipt, where
        assert not {name for name in self.objects(execution) if name.startswith("image")}, where
        self._kept_are_untouched(where)
        self._forget(execution)

    def abandoned(self, execution: Execution, where: str) -> None:
        """The job failed for good: no target is usable, and after the sweep none is left."""
        self.wire.clear()
        assert "completed" not in self.started(execution.job_id).values(), where
        self.sweep(execution)
        assert self.started(execution.job_id) == {}, where
        assert self.strangers() == set(), where
        assert self.objects(execution) <= {"job.json"}, where
        self._kept_are_untouched(where)

    def sweep(self, execution: Execution) -> dict[str, Any]:
        """One run of the sweeper over the job's bucket, long after the job."""
        return sweep_jobs(
            aws=self.aws,
            workspace=execution.workspace,
            resume_window=timedelta(hours=72),
            time_left=lambda: 300.0,
            now=SWEPT_AT,
        )

    def _kept_are_untouched(self, where: str) -> None:
        for snapshot_id, blocks in self.kept.items():
            assert self.held(snapshot_id) == blocks, where
            assert self.rig.server.service.registry.snapshots[snapshot_id].state == "completed", where

    def _forget(self, execution: Execution) -> None:
        """Copies that were proved would only slow the rest down."""
        registry = self.rig.server.service.registry
        with registry.lock:
            for snapshot_id in self.started(execution.job_id):
                registry.delete(registry.snapshots[snapshot_id])


def _targets(*facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """So many targets, each in the next of the target regions."""
    return [{"region": region, **more} for region, more in zip(TARGET_REGIONS, facts, strict=False)]


def _counts(
    targets: int, *, allocated: int, changed: int, zero: int, read: int, removed: int = 0, compared: int = 0
) -> Mapping[str, Any]:
    """What a receipt must count, in blocks."""
    return {
        "allocated_blocks": allocated,
        "changed_blocks": changed,
        "removed_blocks": removed,
        "zero_blocks": zero,
        "parent_blocks_compared": compared,
        "bytes_read": read * BLOCK_SIZE,
        "bytes_written": targets * (changed + removed) * BLOCK_SIZE,
    }


@contextmanager
def proving_ground(settings: Mapping[str, Any] | None = None) -> Iterator[Proving]:
    """A server, clients behind a wire, one worker thread (so that call n is the same call in every run), no sleep.

    Where AWS may be strict, the server is: what is sealed is not completed again, and EC2 shows a snapshot that has
    just been completed as pending at every second look.
    """
    wanted = {
        "trailing_empty_page": True,
        "seal_seconds": SEAL_SECONDS,
        "volume_snapshot_seconds": 0.0,
        "complete_again": "refuse",
        "describe_stale_seconds": STALE_SECONDS,
        **(settings or {}),
    }
    with pytest.MonkeyPatch.context() as patch, running_rig(patch, wanted) as rig:
        wire, clock = Wire(rig.server.service.faults), ManualClock()
        patch.setattr("blockferry.aws.sessions.SignedHttp", tapped_http(wire))
        patch.setattr("blockferry.transfer.plan.MIN_THREADS", 1)
        patch.setattr("blockferry.transfer.plan.MAX_THREADS", 1)
        patch.setattr("blockferry.transfer.complete.ThreadPoolExecutor", lambda **_: ThreadPoolExecutor(1))
        patch.setattr("blockferry.sources.unpack.WRITERS", 1)
        patch.setattr("blockferry.local.upload.THREADS", 1)
        patch.setattr("blockferry.sources.unpack.CHUNK_BLOCKS", BLOCKS_PER_CHUNK)
        patch.setattr("blockferry.sources.unpack.CHUNK_BYTES", BLOCKS_PER_CHUNK * BLOCK_SIZE)
        patch.setattr("blockferry.sources.image.CHUNK_BLOCKS", BLOCKS_PER_CHUNK)
        # botocore's own retries wait with time.sleep.
        patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
        yield Proving(rig, wire, _LateAws(base=session(), wire=wire, clock=clock), clock)
