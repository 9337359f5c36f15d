"""A job as Step Functions runs it, with a fault at any one of its external calls.

``Execution`` is one of the state machine that is deployed, with the real handlers (see ``deployment``): what is tried
again, caught, refused or gone on with by a redrive is what the engine finds in the file. ``Scenario`` is a job with
what it must come to. ``Proving`` runs jobs on one EBS server, each in a bucket of its own, and holds what a job leaves
behind against what it must leave behind.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blockferry.aws.archives import Chain, open_chain
from blockferry.aws.call import Call as AwsCall
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import CHECKSUM_TAG, HOLES_TAG, JOB_TAG
from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import Linear
from blockferry.core.retry import Clock
from blockferry.core.tuning import UnpackTuning
from blockferry.formats.archive.layout import MANIFEST, segment_name
from blockferry.jobs import execution as executions
from blockferry.jobs.folder import JOB, PREFIX, RECEIPT, STARTED, SWEPT, JobFolder
from blockferry.jobs.workspace import SWEEPS, Workspace
from blockferry.lambdas import Invocation
from blockferry.local.tuning import UploadTuning
from blockferry.local.upload import upload_image
from blockferry.transfer.sweep import sweep_jobs
from deployment import EXECUTIONS, DeployedJob, Deployment, ExecutionFailed
from fakes import ManualClock, content
from job_records import AT_ONCE, UNPACED
from localcloud.states.cancellation import Cancellation
from localcloud.states.clock import SkippingClock
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from rig import ACCOUNT, HOME, RECOVERY, THIRD, Rig, hashes, put, running_rig, session
from wire import Call, TappedAws, Wire

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

SMALL_CHUNKS = UnpackTuning(chunk_bytes=2 * BLOCK_SIZE, writers=1)
"""Two blocks to a chunk of an unpacked image, instead of 64: a small one has three chunks then, too."""

LOOKING_ONCE = replace(AT_ONCE, first_looks=())
"""A call asks once whether targets are sealed, so that the machine waits between two questions, too."""

ONE_THREAD = replace(
    UNPACED,
    min_threads=1,
    max_threads=1,
    max_writers=0,
    proving_threads=1,
    starts_at_a_time=1,
    places_at_a_time=1,
)
"""So that call n is the same call in every run."""

TWO_RANGES = {"blocks_per_range": 1024}
ONE_RANGE = {"blocks_per_range": 2048}

VOLUME_ID = "vol-0123456789abcdef0"
OTHER_VOLUME_ID = "vol-0fedcba9876543210"
IMAGES = "images"
ARCHIVES = "archives-111122223333"

TARGET_REGIONS = (RECOVERY, THIRD)

STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
SWEPT_AT = datetime(2026, 2, 1, tzinfo=UTC)
"""Long after the jobs, whose retries move the clock of the state machines on."""


SEAL_SECONDS = 60.0
"""Of the server's clock, which also goes by itself: a job on a busy machine must not outlast it."""

STALE_SECONDS = 15 * SEAL_SECONDS
"""How long a completed snapshot may still be shown as pending: longer than the clock moves in a job without faults."""

MOST_CHECKS = 20
"""Each is as long after the last one as sealing takes: a job that is not done by then is stuck."""


@dataclass(frozen=True)
class Scenario:
    """A job, and what it must come to: the blocks that each target holds, or the archive that it makes, with those of
    its bases; what its holes are said to stand for, and fields of the receipt."""

    operation: str
    request: Mapping[str, Any]
    held: tuple[Mapping[int, str], ...] = ()
    receipt: Mapping[str, Any] = field(default_factory=dict)
    reads: int = 0
    holes: str = ""
    archived: Mapping[int, str] | None = None


@dataclass
class Execution:
    """One execution of a state machine. ``run`` again after ``ExecutionFailed`` is its redrive.

    ``trace`` has every external call with the name of the state that made it. After the calls numbered in ``ends`` an
    attempt of a step had nothing more to send. ``failed`` counts the attempts that raised.
    """

    job: DeployedJob
    scenario: Scenario
    workspace: Workspace
    seconds_left: float
    trace: list[tuple[str, Call]] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def job_id(self) -> str:
        return self.job.job_id

    @property
    def folder(self) -> JobFolder:
        return self.workspace.folder(self.scenario.operation, self.job_id)

    @property
    def mark(self) -> str:
        return executions.Execution(f"{EXECUTIONS}{self.scenario.operation}:{self.job_id}").mark

    @property
    def redrives(self) -> int:
        return self.job.redrives

    @property
    def moved_missing(self) -> bool:
        """Whether single targets missed blocks, which were moved for them."""
        return any("targets" in attempt.event.get("range", {}) for attempt in self.job.attempts)

    def run(self) -> dict[str, Any]:
        """Go on from the first state that did not succeed; returns the receipt. Raises ``ExecutionFailed``."""
        return self.job.run()


class _LongAgo:
    """DescribeExecution: every execution has come to the end that it has, nine days before the sweep."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:
        found = self._deployment.execution(executionArn)
        return {"status": found.status, "stopDate": SWEPT_AT - timedelta(days=9), "input": found.input}


class _LateAws(TappedAws):
    deployment: Deployment

    def step_functions(self, region: str) -> Any:
        return _LongAgo(self.deployment)


class _SealingClock(SkippingClock):
    """The clock of the state machines: what their Wait states wait for is there when they are over."""

    def __init__(self, seal: Callable[[], None]) -> None:
        super().__init__(start=STARTED_AT.timestamp())
        self._seal = seal

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        super().pause(seconds, cancellation)
        self._seal()


@dataclass
class Proving:
    """Jobs on one EBS server. ``points`` counts what was tried, by operation and how it came out; ``kept`` are the
    snapshots that jobs start from, with what they hold, and ``kept_objects`` the archives, key by key with ETags."""

    rig: Rig
    wire: Wire
    aws: _LateAws
    clock: ManualClock
    unpacking: UnpackTuning = SMALL_CHUNKS
    points: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    kept: dict[str, Mapping[int, str]] = field(default_factory=dict)
    kept_objects: dict[str, str] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @cached_property
    def deployment(self) -> Deployment:
        made = Deployment(self._surroundings, clock=_SealingClock(self.seal), around=self._around)
        self.aws.deployment = made
        return made

    def _surroundings(self, event: Mapping[str, Any]) -> Invocation:
        execution = self.executions[event["job_id"]]
        return Invocation(
            aws=self.aws,
            workspace=execution.workspace,
            time_left=lambda: execution.seconds_left,
            clock=self.clock,
            waits=LOOKING_ONCE,
            throughput=ONE_THREAD,
            unpacking=self.unpacking,
        )

    @contextmanager
    def _around(self, step: str, event: Mapping[str, Any]) -> Iterator[None]:
        """One attempt: its calls are noted, and whatever comes after it is another process."""
        execution, before = self.executions[event["job_id"]], len(self.wire.calls)
        checks = sum(attempt.step == "Check targets" for attempt in execution.job.attempts)
        assert checks < MOST_CHECKS, f"{execution.job_id}: the targets are still pending after {checks} checks"
        try:
            yield
        except BaseException:
            execution.failed[step] += 1
            raise
        finally:
            execution.trace += [(step, call) for call in self.wire.calls[before:]]
            execution.ends.add(len(self.wire.calls))
            self.wire.revive()

    def execution(self, scenario: Scenario, *, seconds_left: float = 900.0) -> Execution:
        """A new job."""
        job_id = f"job-{next(self._numbers)}"
        bucket = f"blockferry-work-{job_id}"
        self.wire.clear()
        self.aws.s3(HOME).create_bucket(Bucket=bucket)
        self.wire.clear()
        job = self.deployment.job(scenario.operation, scenario.request, job_id)
        made = Execution(job, scenario, Workspace(bucket, self.aws.s3(HOME)), seconds_left)
        self.executions[job_id] = made
        return made

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
        tuning = UploadTuning(threads=1)
        made = upload_image(image, region=HOME, aws=self.aws, clock=clock, waits=LOOKING_ONCE, tuning=tuning)
        return made.snapshot_id

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
        before, after = self._two_of(VOLUME_ID)
        return self.keep(before), self.keep(after)

    def _two_of(self, volume_id: str) -> tuple[str, str]:
        rig = self.rig
        rig.control("volumes", {"volume_id": volume_id, "owner": ACCOUNT, "region": HOME, "size": 1})
        made = []
        for blocks in (BEFORE, AFTER):
            for index in BEFORE.keys() - blocks.keys():
                rig.control(f"volumes/{volume_id}/blocks/{index}", method="DELETE")
            for index, data in blocks.items():
                rig.post(f"volumes/{volume_id}/blocks/{index}", data)
            made.append(str(rig.client("ec2").create_snapshot(VolumeId=volume_id)["SnapshotId"]))
            self.seal()
        return made[0], made[1]

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

    def archive(self) -> Scenario:
        """A full archive, of a snapshot whose first range fills several segments."""
        return self._archive(self.snapshot(BLOCKS), BLOCKS, COPY_OPTIONS, stored=5, read=5)

    def archive_increment(self) -> Scenario:
        """A delta on top of a full archive, by the list of changes."""
        _, later = self._night
        return self._archive(later, AFTER, TWO_RANGES, base=self._full, stored=3, removed=1, read=3)

    def archive_compared(self) -> Scenario:
        """One on top of an archive whose snapshot is gone: all is read, and what the base has is not stored."""
        before, later = self._two_of(OTHER_VOLUME_ID)
        base = self._archived(before, BEFORE)
        self.rig.client("ec2").delete_snapshot(SnapshotId=before)
        self.keep(later)
        return self._archive(later, AFTER, TWO_RANGES, base=base, stored=3, removed=1, read=4)

    def restore(self) -> Scenario:
        """A chain of two archives to both target regions."""
        _, later = self._night
        uri = self._archived(later, AFTER, base=self._full)
        request = {"manifest_uri": uri, "targets": _targets({}, {}), "options": TWO_RANGES}
        counts = _counts(2, allocated=4, changed=4, zero=1, read=4)
        return Scenario("restore", request, (hashes(AFTER),) * 2, receipt=counts, holes="noise")

    def verify(self) -> Scenario:
        """A chain of two archives, which is compared with its snapshot."""
        _, later = self._night
        uri = self._archived(later, AFTER, base=self._full)
        request = {"manifest_uri": uri, "snapshot_id": later, "options": TWO_RANGES}
        receipt = {
            "findings": 0,
            "orphans": 0,
            "indexes_checked": 4,
            "segments_checked": 7,
            "blocks_checked": 8,
            "blocks_compared": 4,
            "warnings": [],
        }
        return Scenario("verify", request, receipt=receipt, reads=4)

    @cached_property
    def _full(self) -> str:
        """The archive of the first of the two snapshots."""
        return self._archived(self._night[0], BEFORE)

    def _archived(self, snapshot_id: str, blocks: Mapping[int, bytes], *, base: str | None = None) -> str:
        """An archive that no job may change from here on; returns the address of its manifest."""
        scenario = self._archive(snapshot_id, blocks, TWO_RANGES, base=base)
        made = self.execution(replace(scenario, receipt={})).run()
        self.kept_objects = self.archives()
        return str(made["manifest_uri"])

    def _archive(
        self,
        snapshot_id: str,
        blocks: Mapping[int, bytes],
        options: Mapping[str, Any],
        *,
        base: str | None = None,
        stored: int = 0,
        removed: int = 0,
        read: int = 0,
    ) -> Scenario:
        if ARCHIVES not in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets:
            self.aws.s3(HOME).create_bucket(Bucket=ARCHIVES)
        request = {
            "snapshot_id": snapshot_id,
            "base_manifest_uri": base,
            "archive": {"bucket": ARCHIVES, "prefix": "disks", "segment_blocks": 1},
            "options": options,
        }
        counts = {
            "allocated_blocks": len(blocks),
            "changed_blocks": stored,
            "removed_blocks": removed,
            "bytes_read": read * BLOCK_SIZE,
        }
        holes = "unknown" if base is None and options is COPY_OPTIONS else "noise"
        return Scenario("archive", request, archived=hashes(blocks), receipt=counts, reads=read, holes=holes)

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
        """Snapshots, and objects of archives, that are neither kept nor any job's."""
        registry = self.rig.server.service.registry
        objects = self.archives().keys() - self.kept_objects.keys()
        objects -= {key for execution in self.executions.values() for key in self.archived(execution)}
        with registry.lock:
            return {i for i, s in registry.snapshots.items() if JOB_TAG not in s.tags and i not in self.kept} | objects

    def objects(self, execution: Execution) -> set[str]:
        """Names of what the job has in its bucket, and keys of anything else there but the sweeper's note of where it
        goes on."""
        listed = self.aws.s3(HOME).list_objects_v2(Bucket=execution.workspace.bucket)
        prefix = execution.folder.prefix
        keys = {item["Key"] for item in listed.get("Contents", ())} - {f"{PREFIX}{SWEEPS}/next/{SWEPT}"}
        return {key.removeprefix(prefix) for key in keys}

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
        scenario = execution.scenario
        if scenario.operation == "verify":
            self._verification_is_told(execution, receipt, where)
        elif scenario.archived is None:
            self._snapshots_are_proved(execution, receipt, where)
        else:
            self._archive_is_proved(execution, scenario.archived, receipt, where)
        assert self.strangers() == set(), where
        assert receipt["status"] == "SUCCEEDED", where
        assert {name: receipt[name] for name in scenario.receipt} == scenario.receipt, where
        assert receipt["requests"].get("GetSnapshotBlock", 0) >= scenario.reads, where
        stored = execution.folder.read(RECEIPT)
        assert stored is not None, where
        assert json.loads(stored) == receipt, where
        assert not {name for name in self.objects(execution) if name.startswith("image")}, where
        self._kept_are_untouched(where)
        self._forget(execution)

    def _verification_is_told(self, execution: Execution, receipt: Mapping[str, Any], where: str) -> None:
        """In the tags of the manifest; nothing else has come of the job, as ``proved`` sees."""
        bucket, key = receipt["manifest_uri"].removeprefix("s3://").split("/", 1)
        found = self.aws.s3(HOME).get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        assert {each["Key"]: each["Value"] for each in found}["blockferry:verification"] == "intact", where
        self.aws.s3(HOME).delete_object_tagging(Bucket=bucket, Key=key)
        assert self.started(execution.job_id) == {}, where
        assert self.archived(execution) == {}, where

    def _snapshots_are_proved(self, execution: Execution, receipt: Mapping[str, Any], where: str) -> None:
        """Nothing but the targets is there of the job, and each holds what it must."""
        scenario, targets = execution.scenario, receipt["targets"]
        assert [t["region"] for t in targets] == [t["region"] for t in scenario.request["targets"]], where
        assert self.started(execution.job_id) == {t["snapshot_id"]: "completed" for t in targets}, where
        for target, expected in zip(targets, scenario.held, strict=True):
            facts = self.rig.facts(target["snapshot_id"])
            assert self.held(target["snapshot_id"]) == expected, where
            assert facts["region"] == target["region"], where
            assert facts["written_linear_checksum"] == target["linear_checksum"] == receipt["linear_checksum"], where
            assert facts["tags"][CHECKSUM_TAG] == receipt["linear_checksum"], where
            assert facts["tags"][HOLES_TAG] == target["holes_stand_for"] == scenario.holes, where
            assert target["blocks_written"] == receipt["changed_blocks"] + receipt["removed_blocks"], where

    def _archive_is_proved(
        self, execution: Execution, blocks: Mapping[int, str], receipt: Mapping[str, Any], where: str
    ) -> None:
        """Nothing but the archive is there of the job: its manifest, and what that names, which has all blocks.

        A worker that has time for its range stores the same segments whenever it is begun again: no death leaves one
        that no index names.
        """
        (target,) = receipt["targets"]
        found = self.chain(receipt["manifest_uri"])
        assert self.in_chain(found) == blocks, where
        manifest, address = found.manifest, found.newest.address
        linear = Linear()
        for index, digest in sorted(blocks.items()):
            linear.add(index, bytes.fromhex(digest))
        assert manifest.linear_checksum == receipt["linear_checksum"] == linear.value(), where
        assert manifest.execution == execution.mark, where
        assert manifest.holes == target["holes_stand_for"] == execution.scenario.holes, where
        assert target["blocks_written"] == receipt["changed_blocks"] + receipt["removed_blocks"], where
        names = [MANIFEST]
        for facts in manifest.indexes:
            names += [facts.name, *(segment_name(s.first) for s in found.newest.index(facts).segments)]
        assert self.archived(execution).keys() == {address.key(name) for name in names}, where
        assert self.started(execution.job_id) == {}, where

    def chain(self, uri: str) -> Chain:
        """An archive and its bases, as whoever restores it finds them."""
        return open_chain(AwsCall(aws=self.aws, clock=self.clock), Identity(HOME), uri)

    def in_chain(self, chain: Chain) -> dict[int, str]:
        """The blocks of a chain, all of whose segments are read and checked: index to SHA-256 (hex)."""
        for archive in chain.members:
            for facts in archive.manifest.indexes:
                index = archive.index(facts)
                for number in range(len(index.segments)):
                    archive.segment(index, number)
        held = chain.held(BlockRange(0, chain.manifest.total_blocks))
        return {block: located.entry.digest.hex() for block, located in held.items()}

    def archives(self) -> dict[str, str]:
        """The objects of all archives, without a request: key to ETag."""
        bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(ARCHIVES)
        return {} if bucket is None else {key: made.etag for key, made in bucket.keys.items()}

    def archived(self, execution: Execution) -> dict[str, str]:
        """Those of the archive that a job writes."""
        return {key: etag for key, etag in self.archives().items() if f"-{execution.mark[:8]}/" in key}

    def abandoned(self, execution: Execution, where: str) -> None:
        """The job failed for good: no target is usable, and after the sweep none is left."""
        self.wire.clear()
        assert "completed" not in self.started(execution.job_id).values(), where
        assert not [key for key in self.archived(execution) if key.endswith(MANIFEST)], where
        self.sweep(execution)
        assert self.started(execution.job_id) == {}, where
        assert self.archived(execution) == {}, where
        assert self.strangers() == set(), where
        assert self.objects(execution) <= {JOB, STARTED, SWEPT}, where
        self._kept_are_untouched(where)

    def sweep(self, execution: Execution) -> dict[str, Any]:
        """One run of the sweeper over the job's bucket, long after the job."""
        return sweep_jobs(
            AwsCall(aws=self.aws, clock=self.clock, waits=LOOKING_ONCE),
            execution.workspace,
            executions=EXECUTIONS,
            resume_window=timedelta(hours=72),
            now=SWEPT_AT,
        )

    def _kept_are_untouched(self, where: str) -> None:
        for snapshot_id, blocks in self.kept.items():
            assert self.held(snapshot_id) == blocks, where
            assert self.rig.server.service.registry.snapshots[snapshot_id].state == "completed", where
        assert self.kept_objects.items() <= self.archives().items(), where

    def _forget(self, execution: Execution) -> None:
        """Copies that were proved would only slow the rest down, and archives be taken for what another job left."""
        for key in self.archived(execution):
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].delete_object(ARCHIVES, key)
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
        proving = Proving(rig, wire, _LateAws(base=session(), wire=wire, clock=clock), clock)
        with proving.deployment:
            yield proving
