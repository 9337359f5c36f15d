"""Asking EBS to seal a snapshot, and what its answer is worth.

A completion that EBS has taken cannot be taken back, and its answer may be lost. So the one who asks must tell three
ends apart: taken, surely not taken, and not known. Only what was surely not taken may be deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.errors import translated
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import RequestRefused, RetryLater

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_SURELY_NOT_TAKEN = frozenset(
    {
        "ThrottlingException",
        "RequestThrottledException",
        "RequestThrottleException",
        "ConcurrentLimitExceededException",
        "ResourceNotFoundException",
        "AccessDeniedException",
        "InvalidSignatureException",
    }
)
"""Repeated errors with which EBS says that it did nothing. After any other, and after a lost answer, it may have."""

Answer = Literal["accepted", "in doubt"]


class NotSealed(RequestRefused):
    """EBS did not take the completion, for certain: the snapshot stays pending."""


class NotAsked(RetryLater):
    """EBS did not take the completion, for certain, but may take it later."""


def ask(
    ebs: EbsDirect,
    ec2: EC2Client,
    snapshot_id: str,
    *,
    changed_blocks: int,
    linear_checksum: str,
    asked_before: bool = False,
) -> Answer:
    """Let EBS seal a snapshot that is pending.

    ``in doubt`` when EBS refuses a completion that it may have taken earlier (``asked_before``, or an attempt of this
    call whose answer was lost) and EC2 still says pending: it is to be waited for. Raises ``NotSealed`` or ``NotAsked``
    when nothing was taken; after any other error it is not known. ``ebs`` must have counts of its own.
    """
    try:
        ebs.complete_snapshot(snapshot_id, changed_blocks=changed_blocks, linear_checksum=linear_checksum)
    except RequestRefused as error:
        taken_perhaps = asked_before or may_have_taken(ebs.counts)
        try:
            state = next((facts.state for facts in snapshots.existing(ec2, [snapshot_id])), "gone")
        except (ClientError, BotoCoreError) as failure:
            # A look that fails must not take the place of what EBS said.
            unseen = translated(failure)
            kind = type(unseen) if taken_perhaps else NotSealed
            raise kind(f"{error} (its state cannot be looked at: {unseen})") from error
        if state == "completed":
            return "accepted"
        if not taken_perhaps:
            raise NotSealed(f"{error} (state {state})") from error
        if state == "pending":
            return "in doubt"
        raise
    except RetryLater as error:
        if asked_before or may_have_taken(ebs.counts):
            raise
        raise NotAsked(str(error)) from error
    return "accepted"


def may_have_taken(counts: RequestCounts) -> bool:
    """Whether an attempt to complete has failed in a way that does not say that EBS did nothing."""
    failed = (key.split(" ", 1) for key in counts.retries)
    return any(operation == "CompleteSnapshot" and code not in _SURELY_NOT_TAKEN for operation, code in failed)
