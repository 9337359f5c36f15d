"""A job in one process: the real state machines and handlers against the EBS server of the local cloud and an S3 of
moto, whole, in part, or one call of a function at a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any
from urllib.parse import unquote_plus

import boto3
import pytest
from blockferry.aws.sessions import Aws, Identity, new_session
from blockferry.core.blocks import BLOCKS_PER_GIB, BlockRange
from blockferry.core.retry import Clock
from blockferry.core.tuning import Throughput, UnpackTuning, Waits
from blockferry.jobs.folder import JOB, MISSING, RANGES, RECOUNTS, STARTED, STARTED_LATE, JobFolder
from blockferry.jobs.record import Proof
from blockferry.jobs.workspace import Workspace
from blockferry.lambdas import Invocation
from blockferry.transfer.job import Job, recorded_job, save_job, save_started
from botocore.awsrequest import AWSResponse
from deployment import Around, Deployment, ExecutionFailed, step_of
from job_records import AT_ONCE, UNPACED
from localcloud.ebs.testing import RunningServer, running_server
from localcloud.states.cancellation import Cancellation
from localcloud.states.clock import SkippingClock
from moto import mock_aws
from moto.backend_index import backend_url_patterns
from moto.core.models import botocore_stubber
from moto.s3.models import s3_backends
from sent_requests import SentRequests
from short_s3 import ShortS3, name_the_key
from uploads_s3 import UploadsS3

HOME, RECOVERY, THIRD = "us-east-1", "eu-west-1", "ap-southeast-2"
ACCOUNT = "111122223333"
BUCKET = "blockferry-work-111122223333-us-east-1"

ZEROS = hashlib.sha256(bytes(524_288)).hexdigest()
"""SHA-256 (hex) of a block of zeros."""

NOISE = "noise"
"""Stands for the content of a hole of an encrypted snapshot, which equals nothing that anybody wrote."""

_REGIONS = "".join(
    f"<item><regionName>{name}</regionName><regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint>"
    f"<optInStatus>{status}</optInStatus></item>"
    for name, status in (
        (HOME, "opt-in-not-required"),
        (RECOVERY, "opt-in-not-required"),
        (THIRD, "opt-in-not-required"),
        ("af-south-1", "not-opted-in"),
    )
)
DESCRIBE_REGIONS = (
    '<DescribeRegionsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>'
    f"<regionInfo>{_REGIONS}</regionInfo></DescribeRegionsResponse>"
)


def described_images(images: Mapping[str, str]) -> str:
    """An answer of DescribeImages: an image for each snapshot."""
    items = "".join(
        f"<item><imageId>{image}</imageId><blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><snapshotId>"
        f"{snapshot_id}</snapshotId></ebs></item></blockDeviceMapping></item>"
        for snapshot_id, image in images.items()
    )
    return (
        '<DescribeImagesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>'
        f"<imagesSet>{items}</imagesSet></DescribeImagesResponse>"
    )


@dataclass(frozen=True)
class MadeInstance:
    """An instance as EC2 tells of it; ``devices`` has the ids of its volumes, the first of which it boots from."""

    instance_id: str
    devices: Mapping[str, str]
    tags: Mapping[str, str]
    state: str = "running"


class _Executions:
    """What Step Functions says of executions."""

    def __init__(self, statuses: Mapping[str, str]) -> None:
        self._statuses = statuses

    def describe_execution(self, *, executionArn: str) -> dict[str, str]:
        return {"status": self._statuses.get(executionArn, "RUNNING")}


def described_instances(instances: Sequence[MadeInstance], asked: str) -> str:
    """An answer of DescribeInstances to a query, whose one filter is ``tag-key`` or ``instance-id``."""
    values = set(re.findall(r"Filter\.1\.Value\.[0-9]+=([^&]+)", asked))
    by_tag = "Filter.1.Name=tag-key" in asked
    assert by_tag or "Filter.1.Name=instance-id" in asked
    found = [each for each in instances if (values & each.tags.keys() if by_tag else each.instance_id in values)]
    items = "".join(
        f"<item><instancesSet><item><instanceId>{each.instance_id}</instanceId><instanceState><name>{each.state}</name>"
        f"</instanceState><rootDeviceName>{next(iter(each.devices), '')}</rootDeviceName><blockDeviceMapping>"
        + "".join(
            f"<item><deviceName>{device}</deviceName><ebs><volumeId>{volume}</volumeId></ebs></item>"
            for device, volume in each.devices.items()
        )
        + "</blockDeviceMapping><tagSet>"
        + "".join(f"<item><key>{key}</key><value>{value}</value></item>" for key, value in each.tags.items())
        + "</tagSet></item></instancesSet></item>"
        for each in found
    )
    return (
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>'
        f"<reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    )


def session() -> boto3.Session:
    """A session in the home region that shares the service models with all others."""
    return boto3.Session(botocore_session=new_session(), region_name=HOME)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


ACCOUNT_SETTINGS = {"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}}


def with_account_settings(
    client: Any, settings: Callable[[], tuple[int, dict[str, Any]]] = lambda: (200, ACCOUNT_SETTINGS)
) -> Any:
    """A client of Lambda that asks nobody for the settings of the account; ``settings`` gives status and answer."""

    def answer(**_: Any) -> AWSResponse:
        status, body = settings()
        return AWSResponse("http://local", status, {}, _Raw(json.dumps(body).encode()))

    client.meta.events.register("before-send.lambda.GetAccountSettings", answer)
    return client


class RigAws(Aws):
    """The real clients; only the list of regions, Lambda's settings of the account and images are answered here, which
    the EBS server does not have. ``account_settings`` is what Lambda says, with the status of its answer; ``images``
    are those of the account, by the snapshot that they are made of, ``instances`` those of the home region, and
    ``executions``, if given, the status of each by its ARN: all others are RUNNING."""

    account_settings: tuple[int, dict[str, Any]] = (200, ACCOUNT_SETTINGS)
    images: Mapping[str, str] = MappingProxyType({})
    instances: Sequence[MadeInstance] = ()
    executions: Mapping[str, str] | None = None

    def step_functions(self, region: str) -> Any:
        return super().step_functions(region) if self.executions is None else _Executions(self.executions)

    def functions(self, region: str) -> Any:
        return with_account_settings(super().functions(region), lambda: self.account_settings)

    def ec2(self, identity: Identity) -> Any:
        client = super().ec2(identity)

        def answer(**_: Any) -> AWSResponse:
            return AWSResponse("http://local", 200, {}, _Raw(DESCRIBE_REGIONS.encode()))

        # By an id: threads share the client, and one of them may be sending.
        client.meta.events.register("before-send.ec2.DescribeRegions", answer, unique_id="regions")

        def images(request: Any, **_: Any) -> AWSResponse:
            asked = unquote_plus(request.body.decode() if isinstance(request.body, bytes) else str(request.body))
            assert "IncludeDisabled=true" in asked
            named = set(re.findall(r"Filter\.1\.Value\.[0-9]+=(snap-[0-9a-f]+)", asked))
            made = {id_: image for id_, image in self.images.items() if not named or id_ in named}
            return AWSResponse("http://local", 200, {}, _Raw(described_images(made).encode()))

        client.meta.events.register("before-send.ec2.DescribeImages", images, unique_id="images")

        def instances(request: Any, **_: Any) -> AWSResponse:
            asked = unquote_plus(request.body.decode() if isinstance(request.body, bytes) else str(request.body))
            return AWSResponse("http://local", 200, {}, _Raw(described_instances(self.instances, asked).encode()))

        client.meta.events.register("before-send.ec2.DescribeInstances", instances, unique_id="instances")
        return client


def skipping_clock() -> Clock:
    """A clock of the package whose pauses take no time but move it on. Threads that are paced get in between."""
    skipped = [0.0]
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            skipped[0] += max(seconds, 0.0)
        time.sleep(0.0)

    return Clock(monotonic=lambda: time.monotonic() + skipped[0], sleep=sleep)


@dataclass
class Rig:
    """``server`` holds the snapshots, ``uploads`` what is uploaded to S3 in parts; ``aws``, ``workspace``, ``clock``
    and the tunings are what every step gets."""

    server: RunningServer
    aws: Aws
    workspace: Workspace
    uploads: UploadsS3
    jobs: int = 0
    seconds_left: float = 900.0
    clock: Clock = field(default_factory=skipping_clock)
    waits: Waits = AT_ONCE
    throughput: Throughput = UNPACED
    unpacking: UnpackTuning = field(default_factory=UnpackTuning)
    operations: dict[str, str] = field(default_factory=dict)
    proofs: dict[str, str] = field(default_factory=dict)
    requests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    around: Around = lambda _step, _event: nullcontext()
    _clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = HOME, account: str = ACCOUNT) -> Any:
        """A client of boto3 for the server, one for each region and account: making one of EC2 takes a while."""
        key = (service, region, account)
        if key not in self._clients:
            settings = self.server.client_settings(account=account, region=region)
            self._clients[key] = session().client(service, **settings)
        return self._clients[key]

    def control(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """Ask the server's control endpoint."""
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self.server.control(method or ("GET" if body is None else "POST"), path, data))

    def post(self, path: str, data: bytes) -> None:
        """Send bytes to the server's control endpoint."""
        self.server.control("POST", path, data)

    def get(self, path: str) -> bytes:
        """Bytes from the server's control endpoint."""
        return bytes(self.server.control("GET", path))

    def snapshot(
        self, blocks: Mapping[int, bytes], *, size_gib: int = 1, region: str = HOME, account: str = ACCOUNT, **more: Any
    ) -> str:
        """A completed snapshot that holds exactly ``blocks``."""
        client = self.client("ebs", region, account)
        snapshot_id: str = client.start_snapshot(VolumeSize=size_gib, **more)["SnapshotId"]
        put(client, snapshot_id, blocks)
        client.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=len(blocks))
        assert self.state(snapshot_id) == "completed"
        return snapshot_id

    def held(self, snapshot_id: str) -> dict[int, str]:
        """Allocated blocks of a snapshot as the server itself holds them: index to SHA-256 (hex)."""
        return dict(self.control(f"snapshots/{snapshot_id}/raw-index")["blocks"])

    def facts(self, snapshot_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.control(f"snapshots/{snapshot_id}")
        return found

    def state(self, snapshot_id: str) -> str:
        return str(self.facts(snapshot_id)["state"])

    def snapshots(self) -> list[dict[str, Any]]:
        return list(self.control("snapshots")["snapshots"])

    def calls(self) -> dict[str, int]:
        """Requests that reached the server, by operation."""
        return dict(self.control("stats")["calls"])

    # -- single calls of functions ---------------------------------------------------

    def call(self, function: str, event: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """One call of a function, by its folder, which raises what the package raises."""
        return step_of(function)(event, replace(self.invocation(), **more))

    def invocation(self) -> Invocation:
        return Invocation(
            aws=self.aws,
            workspace=self.workspace,
            time_left=lambda: self.seconds_left,
            clock=self.clock,
            waits=self.waits,
            throughput=self.throughput,
            unpacking=self.unpacking,
        )

    # -- records ---------------------------------------------------------------------

    def folder(self, job_id: str) -> JobFolder:
        """What a job has in the work bucket."""
        return self.workspace.folder(self.operations.get(job_id, "copy"), job_id)

    def folders(self) -> list[JobFolder]:
        """The folders of all jobs that have left anything."""
        return list(self.workspace.folders())

    def record(self, job_id: str) -> str:
        """The SHA-256 of the record as it is, by which the next step goes."""
        folder = self.folder(job_id)
        job = folder.read(JOB) or b""
        late = [(body, _record(job, body)) for name in self._started_late(folder) if (body := folder.read(name))]
        known = [(body, record) for body, record in late if folder.read(f"{STARTED_LATE}{record}.json") == body]
        # Targets that are started stay so: the last record is that of the most.
        newest = max(known, key=lambda each: each[0].count(b"snapshot_id"), default=None)
        return _record(job, folder.read(STARTED) or b"") if newest is None else newest[1]

    def _started_late(self, folder: JobFolder) -> list[str]:
        found = folder.s3.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key(STARTED_LATE))
        return [item["Key"].removeprefix(folder.prefix) for item in found.get("Contents", [])]

    def job(self, job_id: str) -> Job:
        """The record as the next step reads it."""
        return recorded_job(self.invocation().of(self.named(job_id)), self.record(job_id))

    def save_job(self, job: Job) -> None:
        """Put another record in the place of a job's."""
        folder = self.folder(job.job_id)
        save_job(folder, job)
        save_started(folder, job, late=bool(self._started_late(folder)))

    def proof(self, job_id: str) -> Proof | None:
        """What Complete transfer has proved last, if anything."""
        digest = self.proofs.get(job_id)
        return None if digest is None else self.folder(job_id).proof(digest)

    def named(self, job_id: str) -> dict[str, str]:
        """The part of an event that says which job it is for."""
        return {"operation": self.operations.get(job_id, "copy"), "job_id": job_id}

    def event(self, job_id: str) -> dict[str, str]:
        """What every step behind Plan transfer gets."""
        return {**self.named(job_id), "record": self.record(job_id)}

    def plan(
        self,
        request: Mapping[str, Any],
        *,
        operation: str = "copy",
        job_id: str | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Plan transfer, once; ``progress`` is what the last call returned."""
        job_id = job_id or self._next_job()
        self.operations[job_id], self.requests[job_id] = operation, request
        event = {
            "operation": operation,
            "job_id": job_id,
            "execution_arn": f"arn:aws:states:{HOME}:{ACCOUNT}:execution:blockferry-{operation}:{job_id}",
            "started_at": "2026-01-01T00:00:00.000Z",
            "request": request,
            "progress": progress,
        }
        return self.call("plan_transfer", event)

    def ranges(self, job_id: str) -> list[BlockRange]:
        plan = self.folder(job_id).read(RANGES)
        assert plan is not None
        return [BlockRange(**json.loads(line)) for line in plan.decode().splitlines()]

    def move(
        self, job_id: str, within: BlockRange, *, next_index: int | None = None, seconds_left: float | None = None
    ) -> dict[str, Any]:
        """Move blocks, once. ``next_index`` is in the answer, too."""
        left = self.seconds_left if seconds_left is None else seconds_left
        answer = self.call(
            "move_blocks",
            {
                **self.event(job_id),
                "range": {"first": within.first, "stop": within.stop},
                "progress": None if next_index is None else {"next_index": next_index},
            },
            time_left=lambda: left,
        )
        return {"next_index": within.stop, **answer, **answer.get("progress", {})}

    def complete(self, job_id: str, *, missing_moved: bool = False) -> dict[str, Any]:
        """Complete transfer, once. ``missing_ranges`` is in the answer, too."""
        progress = {"missing_ranges": 1} if missing_moved else None
        answer = self.call("complete_transfer", {**self.event(job_id), "progress": progress})
        self.proofs[job_id] = answer["proof"]
        return {"missing_ranges": 0, **answer, **answer.get("progress", {})}

    # -- the state machines ----------------------------------------------------------

    @cached_property
    def deployment(self) -> Deployment:
        return Deployment(
            lambda _event: self.invocation(),
            clock=_RigClock(self),
            around=lambda step, event: self.around(step, event),
        )

    def close(self) -> None:
        if "deployment" in vars(self):
            self.deployment.__exit__()

    def move_all(self, job_id: str) -> None:
        """The map over the plan."""
        self._rest(job_id, RANGES, begin="Move block ranges", until="Complete transfer")

    def move_all_in_little_time(self, job_id: str, *, latency_ms: int, seconds_left: float) -> Counter[int]:
        """The map over the plan, with a server so slow that a call of Move blocks has no time for a whole range.

        Returns how often it was called for each range, by the range's first block.
        """
        self.control("config", {"latency_ms": latency_ms})
        self.seconds_left, before = seconds_left, self.seconds_left
        self.move_all(job_id)
        self.seconds_left = before
        self.control("config", {"latency_ms": 0})
        return Counter(attempt.event["range"]["first"] for attempt in self.deployment.attempts[job_id])

    def forget_recounts(self, job_id: str) -> None:
        """Take away what was counted behind the workers, so that Complete transfer has to count."""
        assert self.folder(job_id).delete_below(RECOUNTS) > 0

    def move_missing(self, job_id: str) -> None:
        """The map over what single targets miss."""
        self._rest(job_id, MISSING, begin="Move block ranges", until="Complete transfer")

    def finish(self, job_id: str) -> dict[str, Any]:
        """What comes behind the map over the plan; returns the receipt."""
        return self._rest(job_id, RANGES, begin="Complete transfer")

    def _rest(self, job_id: str, name: str, *, begin: str, until: str | None = None) -> dict[str, Any]:
        folder = self.folder(job_id)
        pointer = {
            "job_id": job_id,
            "bucket": folder.bucket,
            "plan_key": folder.key(name),
            "results_prefix": folder.key("results"),
            "max_concurrency": 1,
            "record": self.record(job_id),
        }
        with _as_raised():
            return self.deployment.rest(self.operations[job_id], pointer, begin=begin, until=until)

    def run(self, operation: str, request: Mapping[str, Any], *, job_id: str | None = None) -> dict[str, Any]:
        """A whole execution; returns its output, or raises what a function raised for good."""
        job_id = job_id or self._next_job()
        self.operations[job_id] = operation
        with _as_raised():
            return self.deployment.job(operation, request, job_id).run()

    def _next_job(self) -> str:
        self.jobs += 1
        return f"job-{self.jobs}"

    def copy(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self.run("copy", request)

    def reads(self, snapshot_id: str) -> list[str]:
        """What a volume of the snapshot reads, block by block: SHA-256 (hex), and ``NOISE`` in a hole that does not
        read as zeros."""
        facts, held = self.facts(snapshot_id), self.held(snapshot_id)
        hole = NOISE if facts["encrypted"] else ZEROS
        return [held.get(index, hole) for index in range(facts["volume_size"] * BLOCKS_PER_GIB)]

    def image_of(self, snapshot_id: str, *, size_gib: int) -> dict[int, str]:
        """What a volume of the snapshot reads: index to SHA-256 (hex) of every block that is not all zeros."""
        assert self.facts(snapshot_id)["volume_size"] == size_gib
        return {index: digest for index, digest in self.held(snapshot_id).items() if digest != ZEROS}


def _record(job: bytes, started: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (job, started))).hexdigest()


class _RigClock(SkippingClock):
    """The clock of the state machines. When they wait, the clock of the EBS server goes on, too."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(start=datetime(2026, 1, 1, tzinfo=UTC).timestamp())
        self._rig = rig

    def pause(self, seconds: float, cancellation: Cancellation) -> None:
        super().pause(seconds, cancellation)
        self._rig.control("clock", {"advance": seconds})


@contextmanager
def _as_raised() -> Iterator[None]:
    """An execution that failed raises what its function did."""
    try:
        yield
    except ExecutionFailed as failed:
        if failed.failure is None:
            raise
        raise failed.failure from failed


def put(client: Any, snapshot_id: str, blocks: Mapping[int, bytes]) -> None:
    """Write blocks with plain boto3."""
    for index, data in blocks.items():
        client.put_snapshot_block(
            SnapshotId=snapshot_id,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=base64.b64encode(hashlib.sha256(data).digest()).decode(),
            ChecksumAlgorithm="SHA256",
        )


def hashes(blocks: Mapping[int, bytes]) -> dict[int, str]:
    """Index to SHA-256 (hex), to compare with ``Rig.held``."""
    return {index: hashlib.sha256(data).hexdigest() for index, data in blocks.items()}


@contextmanager
def running_rig(monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, Any] | None = None) -> Iterator[Rig]:
    """A rig of its own. ``settings`` are those of ``localcloud.ebs.config.EbsConfig``."""
    quiet = {"quotas_enabled": False, "seal_seconds": 0.0, **(settings or {})}
    with running_server(quiet) as server, mock_aws(config={"core": {"mock_credentials": False}}):
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": server.keys.secret,
            "AWS_REGION": HOME,
            "AWS_DEFAULT_REGION": HOME,
            "AWS_ENDPOINT_URL_EBS": server.url,
            "AWS_ENDPOINT_URL_EC2": server.url,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        sent = SentRequests()
        sent.watch(monkeypatch)
        # These are all that moto serves here, and it tries the patterns of all services one by one.
        served = [pattern for pattern in backend_url_patterns if pattern[0] in ("s3", "kms", "sts")]
        monkeypatch.setattr("moto.backend_index.backend_url_patterns", served)
        # For each request, moto would load the module with the addresses of S3 again.
        monkeypatch.setattr("moto.s3.models.S3Backend.urls", s3_backends["123456789012"]["aws"].urls)
        uploads = UploadsS3(ShortS3(botocore_stubber.process_request))
        monkeypatch.setattr(botocore_stubber, "process_request", uploads)
        monkeypatch.setattr("botocore.auth.S3SigV4Auth.add_auth", name_the_key)
        # botocore's own retries wait with time.sleep.
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
        aws = RigAws(base=session())
        aws.s3(HOME).create_bucket(Bucket=BUCKET)
        rig = Rig(server, aws, Workspace(BUCKET, aws.s3(HOME)), uploads)
        try:
            yield rig
        finally:
            rig.close()
        assert sent.refused == [], "requests that AWS would refuse"
