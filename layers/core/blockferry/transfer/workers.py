"""How many workers a job gets: as many as its rate takes, and as Lambda has room for.

Every worker is a running function, and an account's functions share one limit in a Region: 1,000 in most accounts, 10
in new ones (Lambda developer guide, "Understanding Lambda function scaling"). A job that takes all of it makes every
other function wait, those of other jobs and its own next steps too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.errors import translated
from blockferry.core.errors import RequestRefused
from blockferry.core.reserves import JOB_SECONDS
from blockferry.core.words import counted
from blockferry.jobs.record import JobWarning

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

MOST_WORKERS = 1_000
"""Workers of a job, asked for or not: more than its ranges are worth."""

SHARE_OF_A_JOB = 0.4
"""Of what the account has for functions that reserve nothing, at most: two jobs, and a fifth for their other steps and
for everybody else's functions."""

SHARE_OF_ALL_JOBS = 2 * SHARE_OF_A_JOB
"""Of the same, for all jobs together: a third one gets what the first two have left."""

LAMBDA_QUOTA = "L-B99A9384"
"""Concurrent executions, in Service Quotas under ``lambda``."""

_DAY = 24 * 3_600


@dataclass(frozen=True)
class Room:
    """The account's concurrency in the functions' Region; ``unreserved`` is left for those that reserve nothing."""

    region: str
    limit: int
    unreserved: int


@dataclass(frozen=True)
class Workers:
    """``count`` at the same time, and why so many."""

    count: int
    because: str
    warnings: tuple[JobWarning, ...] = ()


def plan_workers(
    asked: int | None,
    *,
    useful: int,
    ranges: int,
    client: Callable[[], LambdaClient],
    region: str,
    others: int = 0,
) -> Workers:
    """Workers of a job with so many ranges, of which ``useful`` reach all that the quotas of its places allow.

    ``asked`` is the operator's word, which may take all that the account has; without it a job leaves room for another
    one, and the places of ``others``, workers of other jobs, are not planned again. What the account has not is not
    planned: workers that wait for a place would hold up the job's end. A refused or failed look at the account is a
    warning: the state machine waits where Lambda has no room.
    """
    wanted = asked or min(useful, MOST_WORKERS)
    planned = max(1, min(wanted, ranges))
    if planned < wanted:
        because = "there is one range" if planned == 1 else f"one for each of {counted(planned, 'range')}"
    elif asked:
        because = "options.max_concurrency"
    else:
        because = "enough for all requests that EBS gives source and targets"
    try:
        room = _room(client(), region)
    except (ClientError, BotoCoreError) as error:
        return Workers(planned, because, (_unknown(region, error),))
    allowed = room.unreserved
    if not asked:
        allowed = int(min(allowed * SHARE_OF_A_JOB, allowed * SHARE_OF_ALL_JOBS - others))
    allowed = max(1, allowed)
    if planned <= allowed:
        return Workers(planned, because)
    return Workers(
        allowed, f"the account's Lambda concurrency in {region}", (_fewer(planned, allowed, room, asked, others),)
    )


def slow_warning(seconds: float) -> JobWarning | None:
    """What the operator of a job hears that takes so long if every block of the volume is to be moved; ``None`` where
    that fits into the time that a job has."""
    if seconds <= JOB_SECONDS:
        return None
    return JobWarning(
        code="longer_than_a_job_has",
        message=(
            f"at the pace that its workers and the quotas of its targets allow, a volume without holes takes "
            f"{seconds / _DAY:.1f} days, and the state machine ends a job after {JOB_SECONDS / _DAY:.0f} days. "
            "Give it more workers, or start several jobs with fewer targets each, one after another"
        ),
    )


def _room(client: LambdaClient, region: str) -> Room:
    limits = client.get_account_settings()["AccountLimit"]
    return Room(region, limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"])


def _fewer(useful: int, allowed: int, room: Room, asked: int | None, others: int) -> JobWarning:
    share = ""
    if not asked:
        share = ", of which a job takes two fifths at most and leaves the rest to others"
        if others:
            share += (
                f"; other jobs have {counted(others, 'worker')}, and blockferry speed --workers gives more when they "
                "have ended"
            )
    return JobWarning(
        code="account_concurrency",
        message=(
            f"planned with {counted(allowed, 'worker')} instead of {useful}: Lambda runs "
            f"{counted(room.unreserved, 'function')} at a time in "
            f"this account in {room.region} (limit {room.limit}, less what is reserved){share}. Raise service quota "
            f"{LAMBDA_QUOTA} for more"
        ),
    )


def _unknown(region: str, error: ClientError | BotoCoreError) -> JobWarning:
    why = translated(error)
    remedy = ". Allow lambda:GetAccountSettings" if isinstance(why, RequestRefused) else ""
    return JobWarning(
        code="account_concurrency_unknown",
        message=(
            f"planned without knowing the account's Lambda concurrency in {region}; where it is used up, workers wait "
            f"for a free place: {why}{remedy}"
        ),
    )
