"""Starting the snapshots that a job makes."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Aws
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import EncryptionDiffers
from blockferry.core.retry import RetryPolicy
from blockferry.jobs.record import Job, JobTarget
from blockferry.requests.parts import taken_at_the_start
from blockferry.transfer.encryption import refuse_at_start

START_POLICY = RetryPolicy(budget_seconds=30.0)
"""A region that does not answer must not use up the time in which the other targets are started."""


def start_target(job: Job, number: int, *, aws: Aws, counts: RequestCounts) -> JobTarget:
    """Start the target at this position, or find the one that was started before.

    Raises ``InvalidRequest`` when its role cannot be assumed, ``EncryptionDiffers``, with the snapshot deleted, when it
    is not encrypted as it was asked for, and what ``EbsDirect.start_snapshot`` raises.
    """
    target = job.targets[number]
    new = NewSnapshot(
        volume_size_gib=target.size_gib,
        client_token=_client_token(job.execution_arn, number),
        description=target.description,
        tags={key: value for key, value in target.tags.items() if taken_at_the_start(key, value)},
        encrypted=target.encrypted,
        kms_key_arn=target.kms_key_arn,
        parent_snapshot_id=target.parent_snapshot_id,
    )
    client = aws.ebs(target.identity, counts=counts, policy=START_POLICY)
    started = assuming(lambda: client.start_snapshot(new), f"target in {target.region}")
    try:
        refuse_at_start(job, target, started, aws=aws)
    except EncryptionDiffers as error:
        raise _without(error, started.snapshot_id, target, aws) from error
    return target.model_copy(update={"snapshot_id": started.snapshot_id, "started_at": datetime.now(UTC).isoformat()})


def _without(error: EncryptionDiffers, snapshot_id: str, target: JobTarget, aws: Aws) -> EncryptionDiffers:
    try:
        snapshots.delete(aws.ec2(target.identity), snapshot_id, asked_to_seal=False)
    except (ClientError, BotoCoreError) as failure:
        return EncryptionDiffers(f"{error}. It is empty and could not be deleted yet: {failure}")
    return error


def _client_token(execution_arn: str, number: int) -> str:
    """The idempotency key of a target: at most 64 ASCII characters, the same whenever it is started again."""
    return hashlib.sha256(f"{execution_arn}/{number}".encode()).hexdigest()
