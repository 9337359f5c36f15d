"""The workers that run in a Region, of all its jobs: what they leave each other of the quotas of EBS.

Each worker leaves a lease in the work bucket and renews it; one that is not renewed has no worker any more. Nothing
here decides about data: without the leases a worker keeps to what its plan gave it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

from botocore.exceptions import ClientError
from pydantic import Field, ValidationError

from blockferry.aws.errors import translated
from blockferry.core.errors import RetryLater
from blockferry.core.rates import Demand, shares
from blockferry.jobs.record import Record

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RUNNING = "running/"
LEASES, SPEEDS = f"{RUNNING}leases/", f"{RUNNING}speeds/"
"""Below them ``<operation>/<job_id>``: a lease for each worker by the first block of its range, and the speed that an
operator gave the job. Only the deployment writes leases; operators write speeds, which decide about nothing else."""

LEASE_SECONDS = 90.0
"""Seconds after which a lease that was not renewed is nobody's: three times the pause between two renewals, which may
fail once."""

LEAST_SPEED = 0.1
"""Blocks a second below which a job is better stopped."""

MOST_BYTES = 65_536
"""Of a lease or speed that is read: a lease of a hundred targets in as many places has a tenth of it."""

Job = tuple[str, str]
"""Operation and job id, which no two running jobs of a deployment share in a Region."""

R = TypeVar("R", bound=Record)


class Asked(Record):
    """What a job asks of EBS for each block, requests by the quota's name, and the blocks a second that the network of
    one worker carries. Every lease of the job holds it."""

    requests: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    blocks_per_worker: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Speed(Record):
    """The most blocks a second that an operator lets a job move."""

    blocks_per_second: Annotated[float, Field(ge=LEAST_SPEED, allow_inf_nan=False)]


@dataclass(frozen=True)
class Seen:
    """What runs at a moment: of each job its workers, what it asks for, and the speed that it was given."""

    workers: Mapping[Job, int]
    asked: Mapping[Job, Asked]
    speeds: Mapping[Job, float]

    def speed(self, job: Job) -> float:
        """Blocks a second that it may move at most."""
        return self.speeds.get(job, float("inf"))

    def others(self, job: Job) -> int:
        """Workers of all other jobs."""
        return sum(workers for each, workers in self.workers.items() if each != job)

    def share(self, job: Job, asked: Asked) -> float:
        """Blocks a second of a job beside the others, of which each is taken to move what its workers can.

        Of its own workers' network it is not held to more than the operator's word: nobody publishes what it carries,
        and what the job cannot use it does not ask for.
        """
        return shares({**self._demands, job: Demand(asked.requests, self.speed(job))})[job]

    def pace(self, job: Job) -> float | None:
        """Blocks a second that the workers of a job may and can move now; ``None`` while it has none."""
        return shares(self._demands).get(job)

    @property
    def _demands(self) -> dict[Job, Demand]:
        return {
            each: Demand(found.requests, min(self.speed(each), self.workers[each] * found.blocks_per_worker))
            for each, found in self.asked.items()
        }


@dataclass
class Running:
    """The leases and speeds of a bucket. Raises ``ClientError`` and ``BotoCoreError`` as S3 does."""

    bucket: str
    s3: S3Client
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    # What a job asks for never changes, and a speed not without its ETag.
    _asked: dict[Job, Asked] = field(default_factory=dict)
    _speeds: dict[tuple[Job, str], float] = field(default_factory=dict)

    def renew(self, job: Job, first: int, asked: Asked) -> None:
        """Say that a worker of the job moves the range that begins with block ``first``."""
        self._write(_lease(job, first), asked)

    def end(self, job: Job, first: int) -> None:
        """Say that the worker is done."""
        self.s3.delete_object(Bucket=self.bucket, Key=_lease(job, first))

    def set_speed(self, job: Job, blocks_per_second: float | None) -> None:
        """Let the job move so many blocks a second at most from now on; with ``None`` all that the quotas give.

        Its workers see it within half a minute.
        """
        if blocks_per_second is None:
            self.s3.delete_object(Bucket=self.bucket, Key=_speed(job))
        else:
            self._write(_speed(job), Speed(blocks_per_second=blocks_per_second))

    def look(self, mine: Job | None = None) -> Seen:
        """What runs at present, and the speeds of what runs and of ``mine``. What cannot be read, since it is gone,
        another version's or nobody's to read, is taken for not there."""
        alive = self.now() - timedelta(seconds=LEASE_SECONDS)
        workers: Counter[Job] = Counter()
        leases: dict[Job, str] = {}
        given: dict[Job, tuple[str, str]] = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=RUNNING):
            for item in page.get("Contents", ()):
                key, etag = item["Key"], item["ETag"]
                if item["Size"] > MOST_BYTES:
                    continue
                if key.startswith(LEASES) and key.count("/") == 4:
                    operation, job_id, _ = key.removeprefix(LEASES).split("/")
                    if item["LastModified"] >= alive:
                        workers[operation, job_id] += 1
                        leases.setdefault((operation, job_id), key)
                elif key.startswith(SPEEDS) and key.count("/") == 3:
                    operation, job_id = key.removeprefix(SPEEDS).split("/")
                    given[operation, job_id] = (key, etag)
        asked = {}
        for job, key in leases.items():
            known = self._asked.get(job) or self._read(key, Asked)
            if known is not None:
                asked[job] = self._asked[job] = known
        speeds = {}
        for job, (key, etag) in given.items():
            # Those of jobs that have ended stay for as long as their records.
            if (job in workers or job == mine) and (speed := self._speed(job, key, etag)) is not None:
                speeds[job] = speed
        return Seen(workers, asked, speeds)

    def _speed(self, job: Job, key: str, etag: str) -> float | None:
        if (job, etag) not in self._speeds:
            found = self._read(key, Speed)
            if found is None:
                return None
            self._speeds[job, etag] = found.blocks_per_second
        return self._speeds[job, etag]

    def _read(self, key: str, model: type[R]) -> R | None:
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return model.model_validate_json(body)
        except ValidationError:
            return None
        except ClientError as error:
            if isinstance(translated(error), RetryLater):
                raise
            return None

    def _write(self, key: str, record: Record) -> None:
        self.s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=record.model_dump_json().encode(),
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
        )


def _lease(job: Job, first: int) -> str:
    return f"{LEASES}{'/'.join(job)}/{first:010d}"


def _speed(job: Job) -> str:
    return f"{SPEEDS}{'/'.join(job)}"
