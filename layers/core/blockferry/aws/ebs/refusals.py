"""Errors of the EBS direct APIs, and which of them pass.

Source: EBS user guide, "Error retries for the EBS direct APIs"; botocore's service model ``ebs/2019-11-02``; IAM user
guide, "Troubleshoot Signature Version 4" and "Changes that I make are not always immediately visible".
"""

from __future__ import annotations

import json

from blockferry.aws.ebs.transport import Answer, says_clock_is_wrong
from blockferry.aws.errors import THROTTLES, sentence_of
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, ChecksumMismatch, RequestRefused, RetryLater
from blockferry.core.words import counted

_PASSING = THROTTLES | {
    "RequestThrottleException",  # as the user guide spells the limit of a snapshot, RequestThrottledException
    "InternalServerException",
    "ConcurrentLimitExceededException",
}

QUOTAS = {
    ("GetSnapshotBlock", "ThrottlingException"): "L-C125AE42",
    ("GetSnapshotBlock", "RequestThrottledException"): "L-028ACFB9",
    ("PutSnapshotBlock", "ThrottlingException"): "L-AFAE1BE8",
    ("PutSnapshotBlock", "RequestThrottledException"): "L-1774F84A",
}
"""Service quota behind a throttle, for messages and alarms."""

MOST_SIGNED_AGAIN = 3
"""Times that a request is repeated because of the clock: the first answer tells the time, a second is rarely needed."""

TAGS_SPREAD_SECONDS = 60.0
"""Seconds after StartSnapshot in which a policy may not see the tags of the new snapshot, which ours asks for."""

MAY_BE_UNKNOWN_SECONDS = 20.0
"""Seconds for which a snapshot that is read may be unknown to the direct APIs: EC2 knew it before it was read, and what
was completed a moment ago may not be known everywhere yet. One that is deleted meanwhile stays unknown."""

_NOT_OF_POLICIES = frozenset({"UNAUTHORIZED_ACCOUNT", "DEPENDENCY_ACCESS_DENIED"})
"""Reasons of AccessDeniedException that no tag changes: another account's snapshot, a key that may not be used."""


class EbsError(BlockferryError):
    """EBS answered a request with an error."""

    def __init__(self, *, request: str, status: int, code: str, reason: str, message: str) -> None:
        quota = QUOTAS.get((request.split(" ", 1)[0], code))
        text = f"{request}: {code}" + (f" ({reason})" if reason else "") + f": {message or f'HTTP {status}'}"
        super().__init__(text + (f" [service quota {quota}]" if quota else ""))
        self.request = request
        self.status = status
        self.code = code
        self.reason = reason
        self.message = message

    @property
    def clock_is_wrong(self) -> bool:
        """Whether the request was refused for the time it was signed at."""
        return says_clock_is_wrong(self.status, self.code, self.message)


class StaleToken(EbsError):
    """A block or page token is expired or no longer known: list again from that index."""


def error_of(request: str, answer: Answer) -> EbsError:
    """The error that an answer tells."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    code = (answer.headers.get("x-amzn-errortype") or body.get("__type") or body.get("code") or "").split(":")[0]
    code = code.rsplit("#", 1)[-1] or f"HTTP {answer.status}"
    reason = str(body.get("Reason") or body.get("reason") or "")
    message = sentence_of(str(body.get("Message") or body.get("message") or ""))
    kind = StaleToken if reason in {"INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"} else EbsError
    return kind(request=request, status=answer.status, code=code, reason=reason, message=message)


def may_pass(error: EbsError, *, may_be_unknown: bool, tags_may_spread: bool, signed_again: int) -> bool:
    """Whether repeating the request may help.

    ``may_be_unknown``: the request is about a snapshot that is there, but that not all of EBS may know yet;
    ``tags_may_spread``: it was started so recently that a policy may not see its tags; ``signed_again``: how often the
    request was repeated because of the clock.
    """
    if error.code in _PASSING or error.status >= 500:
        return True
    if error.code == "ValidationException":
        # The body came too slowly; the same request may be quicker.
        return error.reason == "WRITE_REQUEST_TIMEOUT" or "failed to read block data" in error.message.lower()
    if error.clock_is_wrong:
        return signed_again < MOST_SIGNED_AGAIN
    if error.code == "AccessDeniedException":
        return tags_may_spread and error.reason not in _NOT_OF_POLICIES
    return error.code == "ResourceNotFoundException" and may_be_unknown


def final(error: BlockferryError, *, attempts: int) -> BlockferryError:
    """The error to raise when the budget for repeating is used up."""
    text = f"{error} (after {counted(attempts, 'attempt')})"
    if isinstance(error, ChecksumMismatch):
        return ChecksumMismatch(text)
    if isinstance(error, EbsError) and error.code in ("ResourceNotFoundException", "AccessDeniedException"):
        return RequestRefused(text)
    return RetryLater(text)


def throttled_by_quota(counts: RequestCounts) -> dict[str, int]:
    """How many requests each service quota refused, by the quota's code."""
    found = {f"{operation} {code}": quota for (operation, code), quota in QUOTAS.items()}
    return {found[name]: count for name, count in counts.retries.items() if name in found}
