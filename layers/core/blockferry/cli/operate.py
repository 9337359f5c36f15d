"""Start, watch, resume and stop jobs: the operator's side of the state machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.errors import translated
from blockferry.core.errors import ArchiveDamaged, BlockferryError, InvalidRequest, RetryLater, TransferFailed
from blockferry.core.pacing import growing
from blockferry.jobs.folder import TARGETS
from blockferry.jobs.running import Running
from blockferry.jobs.workspace import Workspace
from blockferry.operations import OPERATIONS

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

TOO_MANY_FAILED = "States.ExceedToleratedFailureThreshold"
"""What an execution fails with when a child of a map does."""

PREFIX = "blockferry"
"""The ``name_prefix`` of a deployment that nobody named."""

INPUT_BYTES = 262_144
"""Of an execution's input (Step Functions quotas)."""

BLIND_SECONDS = 600.0
"""Seconds for which a job that is waited for may not be seen before its watcher gives up."""

# Little is lost without the answer, so little time is spent on it.
LOOKING = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})

FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 5.0
"""Pauses between two questions how far a job is: at first, and in the end."""


class NotSeen(BlockferryError):
    """A job cannot be looked at; it goes on all the same."""


def _about(request: Any) -> str:
    """What a job reads and where it writes, of an input of which nobody has made sure of the shape."""
    if not isinstance(request, dict):
        return "of an input of another form"
    read = request.get("snapshot_id") or request.get("image_uri") or request.get("chain")
    targets = request.get("targets")
    to = [str(each.get("region")) for each in targets if isinstance(each, dict)] if isinstance(targets, list) else []
    return f"of {read}" + (f" to {', '.join(to)}" if to else "")


@dataclass(frozen=True)
class JobState:
    """A job as Step Functions shows it. ``ranges`` counts its block ranges by state; ``error`` and ``cause`` are
    those of a failed execution, ``output`` the receipt of a succeeded one."""

    job_id: str
    arn: str
    status: str
    ranges: Mapping[str, int]
    redriven: int
    error: str | None = None
    cause: str | None = None
    output: Any = None

    @property
    def operation(self) -> str:
        """The operation, told by the state machine's name ``<prefix>-<operation>``."""
        return self.arn.split(":")[-2].rsplit("-", 1)[-1]

    @property
    def running(self) -> bool:
        return self.status in ("RUNNING", "PENDING_REDRIVE")

    @property
    def refused(self) -> bool:
        """Whether the input could not be used: nothing was started."""
        return self.error == InvalidRequest.__name__

    @property
    def over(self) -> bool:
        """Whether there is nothing to go on with: it was refused, or cannot be done whatever is repeated."""
        return self.refused or self.error in (ArchiveDamaged.__name__, TransferFailed.__name__)


@dataclass(frozen=True)
class Moving:
    """The Map Run in which a job moves blocks at present: its ARN, its limit of ``workers`` at a time, and how many the
    plan wanted."""

    arn: str
    workers: int
    planned: int


@dataclass(frozen=True)
class Operator:
    """The state machines ``<prefix>-<operation>`` of one region and account."""

    region: str
    prefix: str
    account: str
    partition: str
    sfn: SFNClient
    s3: S3Client
    ec2: Callable[[str], EC2Client]
    """Makes a client for a Region."""

    @classmethod
    def of(cls, *, region: str, prefix: str = PREFIX, session: boto3.Session | None = None) -> Operator:
        """The operator with the credentials of the session (STS tells the account and the partition)."""
        session = session or boto3.Session()
        caller = session.client("sts", region_name=region).get_caller_identity()
        return cls(
            region=region,
            prefix=prefix,
            account=caller["Account"],
            partition=caller["Arn"].split(":")[1],
            sfn=session.client("stepfunctions", region_name=region),
            s3=session.client("s3", region_name=region),
            ec2=lambda name: session.client("ec2", region_name=name, config=LOOKING),
        )

    def machine_arn(self, operation: str) -> str:
        return f"arn:{self.partition}:states:{self.region}:{self.account}:stateMachine:{self.prefix}-{operation}"

    def execution_arn(self, operation: str, job_id: str) -> str:
        return f"arn:{self.partition}:states:{self.region}:{self.account}:execution:{self.prefix}-{operation}:{job_id}"

    def start(self, operation: str, request: Mapping[str, Any], *, job_id: str) -> str:
        """Start a job and return its execution ARN. The same id and input give the same running job."""
        text = json.dumps(request)
        if len(text.encode()) > INPUT_BYTES:
            raise InvalidRequest(
                f"the input has {len(text.encode()):,} bytes as JSON, and Step Functions takes {INPUT_BYTES:,}: start "
                "several jobs with fewer targets, tags or snapshots each"
            )
        try:
            return self.sfn.start_execution(stateMachineArn=self.machine_arn(operation), name=job_id, input=text)[
                "executionArn"
            ]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "StateMachineDoesNotExist":
                raise InvalidRequest(
                    f"there is no state machine {self.prefix}-{operation} in {self.region} of account {self.account}: "
                    "deploy Blockferry there, or name --region and --name-prefix of the deployment"
                ) from error
            if code == "InvalidName":
                raise InvalidRequest(
                    f"{job_id!r} cannot be the name of a job: Step Functions takes 1 to 80 letters, digits, - and _"
                ) from error
            if code == "ExecutionAlreadyExists":
                raise InvalidRequest(self._taken(self.execution_arn(operation, job_id), request)) from error
            raise

    def _taken(self, arn: str, request: Mapping[str, Any]) -> str:
        """What to do where a job has the name of a new one: only one with the same input is worth going on with."""
        job_id = arn.rsplit(":", 1)[-1]
        place = f"--region {self.region}" + ("" if self.prefix == PREFIX else f" --name-prefix {self.prefix}")
        see = f"blockferry status {job_id} {place}"
        try:
            other = self.sfn.describe_execution(executionArn=arn)
            given = json.loads(other["input"])
            status = other["status"]
        except (ClientError, BotoCoreError, KeyError, ValueError):
            return f"a job named {job_id} exists already: choose another --name, or see: {see}"
        if given != request:
            return (
                f"a job named {job_id} exists already, and it is another one, {_about(given)} ({status}): choose "
                f"another --name, or see: {see}"
            )
        if status in ("SUCCEEDED", "RUNNING", "PENDING_REDRIVE"):
            return f"this job exists already as {job_id} ({status}): see {see}, or choose another --name to do it again"
        return (
            f"this job exists already as {job_id} ({status}): go on with blockferry resume {job_id} {place}, or choose "
            "another --name to begin anew"
        )

    def find(self, job_id: str, operation: str | None = None) -> JobState:
        """The present state of a job of any operation, or of this one.

        Raises ``InvalidRequest`` when there is no such job, or when several operations have one of this name.
        """
        if operation is not None:
            described = self._described(self.execution_arn(operation, job_id))
            if described is None:
                raise InvalidRequest(self._no_job(job_id, operation))
            return self._state(described)
        found = {}
        refusals: dict[str, ClientError] = {}
        for name in OPERATIONS:
            try:
                described = self._described(self.execution_arn(name, job_id))
            except ClientError as error:
                # Someone who may look at copies only can still ask for a copy.
                if error.response["Error"]["Code"] != "AccessDeniedException":
                    raise
                refusals[name] = error
                continue
            if described is not None:
                found[name] = described
        if len(found) > 1:
            raise InvalidRequest(
                f"there are jobs named {job_id} of {' and '.join(found)}: say which one with --operation"
            )
        if not found:
            looked = [name for name in OPERATIONS if name not in refusals]
            refused = "".join(
                f"; no permission to look at {name}: {refusal.response['Error'].get('Message', refusal)}"
                for name, refusal in refusals.items()
            )
            raise InvalidRequest(self._no_job(job_id, ", ".join(looked) or "any operation", refused))
        return self._state(next(iter(found.values())))

    def _no_job(self, job_id: str, operations: str, refused: str = "") -> str:
        return (
            f"there is no job {job_id} of {operations} in {self.region} (account {self.account}, "
            f"state machines {self.prefix}-*){refused}; check the id, --region and --name-prefix"
        )

    def state(self, arn: str) -> JobState:
        """The job's present state. Raises ``InvalidRequest`` when there is no such job."""
        found = self._described(arn)
        if found is None:
            raise InvalidRequest(f"there is no job {arn.rsplit(':', 1)[-1]} in {self.region} ({arn})")
        return self._state(found)

    def _described(self, arn: str) -> DescribeExecutionOutputTypeDef | None:
        try:
            return self.sfn.describe_execution(executionArn=arn)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ExecutionDoesNotExist", "InvalidArn"):
                return None
            raise

    def _state(self, found: DescribeExecutionOutputTypeDef) -> JobState:
        arn = found["executionArn"]
        listed = self.sfn.list_map_runs(executionArn=arn)["mapRuns"]
        runs = sorted(listed, key=lambda run: run["startDate"], reverse=True)
        ranges = self._counts(runs[0]["mapRunArn"]) if runs else {}
        if len(runs) > 1 and ranges["total"]:
            # A later one has what is left of the ranges of the first: they are not more for that.
            total = max(self._counts(runs[-1]["mapRunArn"])["total"], ranges["total"])
            ranges |= {"total": total, "succeeded": total - ranges["total"] + ranges["succeeded"]}
        output = found.get("output")
        return JobState(
            job_id=found.get("name", ""),
            arn=arn,
            status=found["status"],
            ranges=ranges,
            redriven=int(found.get("redriveCount", 0)),
            error=found.get("error"),
            cause=found.get("cause"),
            output=None if output is None else json.loads(output),
        )

    def _counts(self, map_run: str) -> dict[str, int]:
        counts = self.sfn.describe_map_run(mapRunArn=map_run)["itemCounts"]
        names = ("total", "pending", "running", "succeeded", "failed", "aborted", "timedOut")
        return {name: int(counts.get(name, 0)) for name in names}  # type: ignore[call-overload]

    def with_own_cause(self, state: JobState) -> JobState:
        """The job with the error of the first failed child of its maps, where all that it tells is that one failed."""
        if state.error != TOO_MANY_FAILED:
            return state
        try:
            for run in self.sfn.list_map_runs(executionArn=state.arn)["mapRuns"]:
                failed = self.sfn.list_executions(mapRunArn=run["mapRunArn"], statusFilter="FAILED", maxResults=1)
                for child in failed["executions"]:
                    found = self.sfn.describe_execution(executionArn=child["executionArn"])
                    return replace(state, error=found.get("error", state.error), cause=found.get("cause", state.cause))
        except (ClientError, BotoCoreError):
            # It is a better word for what failed, and no reason to say less than is known.
            return state
        return state

    def targets(self, arn: str) -> list[dict[str, Any]]:
        """What the last Complete transfer left of each target: ``region``, ``snapshot_id``, ``completed``,
        ``missing_ranges``, ``error``; empty when the job did not get that far."""
        body = Workspace(self._bucket, self.s3).folder(*self.job_of(arn)).read(TARGETS)
        return [] if body is None else list(json.loads(body))

    def job_of(self, arn: str) -> tuple[str, str]:
        """Operation and job id of an execution."""
        *_, machine, job_id = arn.split(":")
        return machine.removeprefix(f"{self.prefix}-"), job_id

    @property
    def running(self) -> Running:
        """What runs in the Region, and the speeds that jobs were given."""
        return Running(self._bucket, self.s3)

    @property
    def _bucket(self) -> str:
        return f"{self.prefix}-work-{self.account}-{self.region}"

    def moving(self, arn: str) -> Moving | None:
        """What moves the job's blocks at present; ``None`` between two maps, before the first and after the last."""
        for page in self.sfn.get_paginator("list_map_runs").paginate(executionArn=arn):
            for run in page["mapRuns"]:
                found = self.sfn.describe_map_run(mapRunArn=run["mapRunArn"])
                if found["status"] == "RUNNING":
                    return Moving(found["mapRunArn"], found["maxConcurrency"], self._planned(arn))
        return None

    def _planned(self, arn: str) -> int:
        """Workers that Plan transfer answered with. Operators may not read a job's plan, but its history."""
        pages = self.sfn.get_paginator("get_execution_history").paginate(executionArn=arn, reverseOrder=True)
        for page in pages:
            for event in page["events"]:
                output = event.get("taskSucceededEventDetails", {}).get("output")
                answer = json.loads(output).get("Payload") if output else None
                if isinstance(answer, dict) and "max_concurrency" in answer:
                    return int(answer["max_concurrency"])
        raise InvalidRequest(f"the history of job {arn.rsplit(':', 1)[-1]} does not tell how many workers were planned")

    def set_workers(self, moving: Moving, workers: int) -> None:
        """Let so many workers run at a time, as long as this Map Run lasts. Workers that run are not ended."""
        try:
            self.sfn.update_map_run(mapRunArn=moving.arn, maxConcurrency=workers)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            # It may have ended since it was looked at.
            raise InvalidRequest(
                f"--workers: the Map Run {moving.arn} cannot be changed: "
                f"{error.response['Error'].get('Message', error)}; ask for the job's status, and again if it runs"
            ) from error

    def resume(self, arn: str) -> None:
        """Redrive a failed, aborted or timed-out job: it goes on with what is not done."""
        try:
            self.sfn.redrive_execution(executionArn=arn)
        except ClientError as error:
            raise InvalidRequest(
                f"job {arn.rsplit(':', 1)[-1]} cannot be resumed: {error.response['Error'].get('Message', error)}"
            ) from error

    def stop(self, arn: str, *, reason: str) -> None:
        self.sfn.stop_execution(executionArn=arn, error="Stopped", cause=reason)

    def wait(self, arn: str, *, sleep: Callable[[float], None], on_progress: Callable[[JobState], None]) -> JobState:
        """Poll until the job has ended, less and less often; ``on_progress`` sees every state.

        Looks that fail for a while are waited out. Raises ``NotSeen`` when they fail for ``BLIND_SECONDS`` on end, or
        are refused: the job goes on all the same.
        """
        pauses = growing(FIRST_POLL_SECONDS, longest=LONGEST_POLL_SECONDS)
        blind = 0.0
        while True:
            pause = next(pauses)
            try:
                state = self.state(arn)
            except (ClientError, BotoCoreError) as error:
                why = translated(error)
                if blind >= BLIND_SECONDS or not isinstance(why, RetryLater):
                    raise NotSeen(str(why)) from error
                blind += pause
            else:
                blind = 0.0
                on_progress(state)
                if not state.running:
                    return state
            sleep(pause)
