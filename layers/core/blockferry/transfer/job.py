"""The record of a job: what was planned, and what it has started. Every step of a job reads it from the work bucket.

Two objects of the folder make it: ``plan/job.json``, and the targets that were started. Their SHA-256 travels in the
state of the execution, so that no step goes by a record that somebody else has written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationError

from blockferry.core.errors import IncompleteTransfer
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.rates import blocks_per_worker
from blockferry.core.words import counted
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import JOB, STARTED, STARTED_LATE, JobFolder
from blockferry.jobs.record import JobWarning, Record
from blockferry.jobs.running import Asked
from blockferry.sources.kind import JobSource
from blockferry.targets.kind import JobTarget, Looked, Started

SOURCES = MappingProxyType(
    {
        "snapshot": "blockferry.sources.snapshot:JobSnapshot",
        "delta": "blockferry.sources.delta:JobDelta",
        "image": "blockferry.sources.image:JobImage",
        "archive": "blockferry.sources.archive:JobArchive",
        "foreign": "blockferry.sources.foreign:JobForeign",
    }
)
TARGETS = MappingProxyType(
    {
        "snapshot": "blockferry.targets.full:FullSnapshot",
        "snapshot on parent": "blockferry.targets.on_parent:SnapshotOnParent",
        "archive": "blockferry.targets.archive:ArchiveTarget",
        "image object": "blockferry.targets.image_object:ImageObject",
    }
)
"""The kinds that a record can name, and where their classes are. A class is imported when a record names it: a function
of a short job waits for its imports longer than for anything else, and most jobs have one kind of each."""


def _by_kind(kinds: Mapping[str, str], value: Any) -> Any:
    """A source or target as it is, or made of a record. Raises ``ValueError`` for a kind that this version lacks."""
    if isinstance(value, JobSource | JobTarget):
        return value
    kind = str(value.get("kind") if isinstance(value, dict) else value)
    if kind not in kinds:
        raise ValueError(f"the kind {kind} is none of {', '.join(kinds)}")
    return resolve_name(kinds[kind]).model_validate(value)


if TYPE_CHECKING:
    from blockferry.sources.archive import JobArchive
    from blockferry.sources.delta import JobDelta
    from blockferry.sources.foreign import JobForeign
    from blockferry.sources.image import JobImage
    from blockferry.sources.snapshot import JobSnapshot
    from blockferry.targets.archive import ArchiveTarget
    from blockferry.targets.full import FullSnapshot
    from blockferry.targets.image_object import ImageObject
    from blockferry.targets.on_parent import SnapshotOnParent

    Source = JobSnapshot | JobDelta | JobImage | JobArchive | JobForeign
    Target = FullSnapshot | SnapshotOnParent | ArchiveTarget | ImageObject
else:
    Source = Annotated[Any, PlainValidator(partial(_by_kind, SOURCES))]
    Target = Annotated[Any, PlainValidator(partial(_by_kind, TARGETS))]

EXECUTION_ARN = r"^arn:[^:]+:states:[^:]+:[^:]+:execution:[^:]+:[^:]+$"

EARLIER = "was written by another version of Blockferry: start a new job"


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a moment without its time zone")
    return text


class Job(Record):
    """Everything the steps of a job need to know. Stored as ``plan/job.json``, without what is started.

    ``blocks_per_second`` is one worker's share of the request quota while no other job runs; ``fingerprint`` the
    SHA-256 of the input. ``total_blocks`` is ``None`` as long as the source is not prepared.
    """

    format: Literal[2] = 2
    operation: str
    job_id: str
    execution_arn: Annotated[str, Field(pattern=EXECUTION_ARN)]
    started_at: Annotated[str, AfterValidator(_moment)]
    fingerprint: str
    source: Source
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    total_blocks: int | None
    blocks_per_range: int
    max_concurrency: int
    workers_because: str = ""
    """Why ``max_concurrency`` is what it is."""
    blocks_per_second: float
    threads: int
    warnings: tuple[JobWarning, ...] = ()
    holes: HolePolicy
    holes_taken_for: HoleMeaning = HoleMeaning.UNKNOWN
    """What the source's holes were taken to stand for, who decided about them, and why."""
    holes_decided_by: Literal["request", "default"] = "default"
    holes_reason: str = ""
    verify_parents: bool = False
    """Whether every range of the parents is compared with the base before anything is written on top of them."""

    @property
    def execution(self) -> Execution:
        return Execution(self.execution_arn)

    @property
    def blocks(self) -> int:
        """Blocks of the largest target. Raises ``IncompleteTransfer`` as long as that is not known."""
        if self.total_blocks is None:
            raise IncompleteTransfer(f"{self.source.name} is not unpacked yet: nothing can be moved")
        return self.total_blocks

    @property
    def asks(self) -> Asked:
        """What moving a block asks of the quotas of EBS, each of an account in a Region; with ``verify_parents`` also
        what comparing the parents with the base asks before."""
        home = self.execution.account
        requests = Counter(target.asks(home) for target in self.targets)
        if self.verify_parents:
            requests.update(f"get {target.quota(home)}" for target in self.targets)
        if self.source.read_from_ebs:
            requests[f"get {self.source.quota(home)}"] += 1
        return Asked(requests=dict(requests), blocks_per_worker=blocks_per_worker(len(self.targets)))

    @property
    def started(self) -> Mapping[int, Target]:
        """The targets that are started, by their positions."""
        return {number: target for number, target in enumerate(self.targets) if target.started is not None}

    def look(self, numbers: Iterable[int], call: JobCall) -> Looked:
        """What EC2 says of the targets at these positions, which are started."""
        kind: type[JobTarget] = type(self.targets[0])
        return kind.look({number: self.targets[number] for number in numbers}, call)


class _Started(Record):
    """The snapshot of each target in the order of the job, ``None`` for one that is not started."""

    targets: tuple[Started | None, ...]


def save_job(folder: JobFolder, job: Job) -> None:
    """Store a plan, before anything of it is started."""
    bare = tuple(target.model_copy(update={"started": None}) for target in job.targets)
    folder.write(JOB, job.model_copy(update={"targets": bare}).model_dump_json(indent=1).encode())


def save_started(folder: JobFolder, job: Job, *, late: bool = False) -> str:
    """Store what a job has started, ``late`` when Complete transfer did; returns the SHA-256 of the whole record."""
    body = _Started(targets=tuple(target.started for target in job.targets)).model_dump_json(indent=1).encode()
    record = _digest(_stored(folder), body)
    folder.write(_late(record) if late else STARTED, body)
    return record


def planned_job(folder: JobFolder) -> Job | None:
    """The job as Plan transfer left it; ``None`` when it never planned one. Raises ``IncompleteTransfer`` for a record
    that is damaged, of another version or of another job."""
    body = folder.read(JOB)
    return None if body is None else _job(folder, body, folder.read(STARTED))


def record_digest(folder: JobFolder) -> str:
    """The SHA-256 of a record of which nothing is started."""
    return _digest(_stored(folder), None)


def recorded_job(call: JobCall, record: str) -> Job:
    """The job whose record has this SHA-256. Raises ``IncompleteTransfer`` when it is gone, swept, or another one."""
    folder = call.folder
    body = _stored(folder)
    refuse_swept(folder)
    # What Complete transfer starts late it records under another name each time: it may have died before the state knew
    # of it, and then the next attempt goes by the record before.
    for started in (STARTED, _late(record)):
        targets = folder.read(started)
        if _digest(body, targets) == record:
            return _job(folder, body, targets)
    raise IncompleteTransfer(
        f"{folder.uri(JOB)} is not the record that this execution has planned: somebody else has written there. "
        "Nothing is done by it; start a new job under another name"
    )


def refuse_swept(folder: JobFolder) -> None:
    """Raise ``IncompleteTransfer`` for a job that was given up."""
    swept = folder.swept()
    if swept is not None:
        raise IncompleteTransfer(
            f"job {folder.job_id} was not resumed in time and was swept at {swept.at}: its targets are deleted. Start "
            "a new job"
        )


def started_job(call: JobCall, record: str) -> Job:
    """The job whose record has this SHA-256. Raises ``IncompleteTransfer`` as ``recorded_job``, and when none of its
    targets was ever started."""
    job = recorded_job(call, record)
    if not job.started:
        raise IncompleteTransfer(f"{call.folder.uri(JOB)} names targets that were never started")
    return job


def _stored(folder: JobFolder) -> bytes:
    body = folder.read(JOB)
    if body is None:
        raise IncompleteTransfer(
            f"{folder.uri(JOB)} is gone: the job was swept or its record deleted. Start a new job; a redrive cannot go "
            "on without the record"
        )
    return body


def _job(folder: JobFolder, body: bytes, targets: bytes | None) -> Job:
    try:
        job = Job.model_validate_json(body)
        begun = _Started(targets=()) if targets is None else _Started.model_validate_json(targets)
    except ValidationError as error:
        if any(each["loc"] == ("format",) for each in error.errors()):
            raise IncompleteTransfer(f"{folder.uri(JOB)} {EARLIER}") from error
        raise IncompleteTransfer(f"{folder.uri(JOB)} or what it has started is damaged: {error}") from error
    if (job.operation, job.job_id, job.execution.job_id) != (folder.operation, folder.job_id, folder.job_id):
        raise IncompleteTransfer(
            f"{folder.uri(JOB)} is the record of {job.operation} {job.job_id} ({job.execution_arn}); nothing is done "
            "by it"
        )
    if targets is not None:
        if len(begun.targets) != len(job.targets):
            raise IncompleteTransfer(
                f"{folder.uri(STARTED)} has {counted(len(begun.targets), 'target')}, not {len(job.targets)}"
            )
        pairs = zip(job.targets, begun.targets, strict=True)
        job = job.model_copy(update={"targets": tuple(t.model_copy(update={"started": s}) for t, s in pairs)})
    return job


def _late(record: str) -> str:
    return f"{STARTED_LATE}{record}.json"


def _digest(job: bytes, started: bytes | None) -> str:
    inner = [hashlib.sha256(part).digest() for part in (job, started or b"")]
    return hashlib.sha256(b"".join(inner)).hexdigest()
