"""What the handlers share: an invocation from the environment, one logger and tracer, how to call a function again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import MetricUnit, single_metric
from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.call import Call
from blockferry.aws.ebs.refusals import throttled_by_quota
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Aws
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, IncompleteTransfer
from blockferry.core.quotas import ERROR_CHARACTERS
from blockferry.jobs.call import JobCall
from blockferry.jobs.workspace import Workspace

logger = Logger()
# Patching boto3 would add a subsegment to each of thousands of calls a minute; one segment per invocation is enough.
tracer = Tracer(auto_patch=False)


class Context(Protocol):
    """The part of Lambda's context object that is used here."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


Handler = Callable[[Mapping[str, Any], Context], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Invocation(Call):
    """What one call of a function works with beside its event: a call, and the work bucket."""

    workspace: Workspace

    def of(self, event: Mapping[str, Any]) -> JobCall:
        """The call for the job that an event names.

        Raises ``IncompleteTransfer`` for an execution whose state machine is of an earlier version.
        """
        if "operation" not in event:
            raise IncompleteTransfer(EARLIER_MACHINE)
        return JobCall.of(self, self.workspace.folder(event["operation"], event["job_id"]))


EARLIER_MACHINE = (
    "this execution was started by an earlier version, whose state machine calls its functions in another way: start a "
    "new job"
)


Step = Callable[[Mapping[str, Any], Invocation], dict[str, Any]]
"""The work of a function: its event, and with what it works."""


def of_environment(event: Mapping[str, Any], context: Context) -> Invocation:
    """An invocation in Lambda: clients and the work bucket from the environment, time and size from Lambda."""
    # The sweeper is the one that works for no single job.
    aws, workspace = _resources(str(event.get("job_id") or "sweep-jobs"))
    return Invocation(
        aws=aws,
        workspace=workspace,
        time_left=lambda: context.get_remaining_time_in_millis() / 1000,
        memory_gb=int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0")) / 1024,
    )


@lru_cache(maxsize=1)
def _resources(job_id: str) -> tuple[Aws, Workspace]:
    """Clients for the invocations of one job. ``job_id`` names the sessions of assumed roles.

    Kept while the environment serves the same job: connections stay open between ranges, and memory does not grow
    with their number.
    """
    aws = Aws(job_id=job_id)
    return aws, Workspace(bucket=os.environ["BLOCKFERRY_WORK_BUCKET"], s3=aws.s3(aws.own_region))


def lambda_handler(
    step: Step, invocation: Callable[[Mapping[str, Any], Context], Invocation] = of_environment
) -> Handler:
    """What Lambda calls: ``step`` with what ``invocation`` finds for it, traced, its requests published as metrics."""

    @traced
    def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
        current = invocation(event, context)
        try:
            return step(event, current)
        finally:
            publish_counts(current.counts)

    return handler


def progress_of(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the function's own last call said with ``call_again``; ``None`` in the first call.

    Raises ``IncompleteTransfer`` for an execution whose state machine is older than this idiom.
    """
    if "progress" not in event:
        raise IncompleteTransfer(EARLIER_MACHINE)
    progress: Mapping[str, Any] | None = event["progress"]
    return progress


def call_again(progress: Mapping[str, Any], *, wait_seconds: int | None = None, **facts: Any) -> dict[str, Any]:
    """The answer of a function that is not done: the state machine calls it again with ``progress``, after
    ``wait_seconds`` where it knows how long. ``facts`` are for the states between the two calls."""
    waits = {} if wait_seconds is None else {"wait_seconds": wait_seconds}
    return {"done": False, "progress": progress, **waits, **facts}


def done(**facts: Any) -> dict[str, Any]:
    """The answer of a function that has nothing left to do."""
    return {"done": True, **facts}


METRICS_NAMESPACE = "Blockferry"


def publish_counts(counts: RequestCounts) -> None:
    """Metrics of one invocation, as log lines that CloudWatch turns into metrics (embedded metric format).

    ``ThrottledRequests`` by the code of the quota that refused them: alarms name the quota to raise.
    """
    for operation, count in counts.requests.items():
        _publish("Requests", count, "operation", operation)
    for quota, count in throttled_by_quota(counts).items():
        _publish("ThrottledRequests", count, "quota", quota)


def _publish(name: str, count: int, dimension: str, value: str) -> None:
    with single_metric(name=name, unit=MetricUnit.Count, value=count, namespace=METRICS_NAMESPACE) as metric:
        metric.add_dimension(name=dimension, value=value)


def _in_our_terms(work: Handler, event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    try:
        return work(event, context)
    except (ClientError, BotoCoreError) as error:
        raise translated(error) from error


def _readable(error: BlockferryError) -> BlockferryError:
    """The error with as much of its text as a state machine can read."""
    text = str(error)
    if len(json.dumps(text)) <= ERROR_CHARACTERS:
        return error
    told = "\n... (the function's log has all of it)"
    kept = len(text)
    while len(json.dumps(text[:kept] + told)) > ERROR_CHARACTERS:
        kept = kept * 9 // 10
    return type(error)(text[:kept] + told)


def traced(work: Handler) -> Handler:
    """A handler whose log lines and trace name the job; the event's ``job_id`` and ``range`` are added to both.

    The error is logged with its traceback and raised: its class name is the error of the state, its text the cause, of
    which the beginning is enough where it is too long for one.
    """

    @tracer.capture_lambda_handler(capture_response=False)
    def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
        logger.clear_state()
        logger.append_keys(job_id=event.get("job_id"), range=event.get("range"), request_id=context.aws_request_id)
        tracer.put_annotation("job_id", str(event.get("job_id")))
        try:
            result = _in_our_terms(work, event, context)
        except Exception as error:
            logger.exception(type(error).__name__)
            if isinstance(error, BlockferryError) and (readable := _readable(error)) is not error:
                raise readable from None
            raise
        logger.info("done", result=result)
        return result

    traced_handler: Handler = handler
    return _shown_without_trace(traced_handler)


def _shown_without_trace(work: Handler) -> Handler:
    """A handler whose errors Lambda hands on without their stack trace, which the log has: Step Functions shows what it
    gets to the operator as the cause, and a page of file names hides the one sentence.

    Lambda's runtime takes the trace from the traceback, as far as Python's own limit of it allows.
    """
    if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
        return work

    def handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
        vars(sys).pop("tracebacklimit", None)
        try:
            return work(event, context)
        except BaseException:
            sys.tracebacklimit = 0
            raise

    return handler
