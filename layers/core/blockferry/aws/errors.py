"""Errors of boto3 calls in the terms of this package: what passes, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.core.errors import BlockferryError, InvalidRequest, RequestRefused, RetryLater
from blockferry.core.retry import Clock
from blockferry.core.tuning import Waits

T = TypeVar("T")

THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""Every code by which a service says "not so fast". botocore's list (``retries/standard.py``), which a test compares,
but for ``LimitExceededException``: with KMS and IAM that is a limit of resources, and stays."""

_PASSING = THROTTLES | {
    "ConditionalRequestConflict",  # S3: another one writes the same name, and neither is stored yet
    "InternalError",
    "InternalFailure",
    "OperationAborted",  # S3: another request about the same object is under way
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "Unavailable",
}


def translated(error: ClientError | BotoCoreError) -> BlockferryError:
    """The error by which a step fails: ``RetryLater`` when a later attempt may succeed, else ``RequestRefused``.

    botocore has made its own attempts before; connection errors and server errors are worth the state's.
    """
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = RetryLater if code in _PASSING or status >= 500 else RequestRefused
        return kind(f"{error.operation_name}: {code}: {sentence_of(error.response['Error'].get('Message', ''))}")
    return RetryLater(f"{type(error).__name__}: {error}")


def about(what: str, error: BlockferryError) -> str:
    """``<what>: <error>``; the operation that ``what`` begins with (``GetObject of …``) is not named once more."""
    return f"{what}: {str(error).removeprefix(what.partition(' ')[0] + ': ')}"


def not_deleted(where: str, failed: Mapping[str, Any]) -> BlockferryError:
    """What an object that DeleteObjects has left is told as; ``failed`` is its entry in the answer's ``Errors``, and
    ``where`` the address of its bucket."""
    code = failed.get("Code")
    kind = RetryLater if code in _PASSING else RequestRefused
    return kind(f"DeleteObjects of {where}{failed.get('Key')}: {code}: {failed.get('Message')}")


def sentence_of(message: str) -> str:
    """AWS's words without the working below them: how a signature was to be made takes it a dozen lines."""
    return message.partition("\n")[0]


def patiently(ask: Callable[[], T], *, clock: Clock, waits: Waits) -> T:
    """What ``ask`` gives, asked again for a short while as long as its error passes. Raises ``translated`` errors."""
    looks = 0
    while True:
        try:
            return ask()
        except (ClientError, BotoCoreError) as error:
            looks += 1
            told = translated(error)
            if looks >= waits.looks or not isinstance(told, RetryLater):
                raise told from error
        clock.sleep(waits.look_seconds)


def assuming(call: Callable[[], T], what: str) -> T:
    """Make the first call under an identity; a role that may not be assumed is a fault of the input."""
    try:
        return call()
    except ClientError as error:
        if error.operation_name == "AssumeRole":
            passing = translated(error)
            if isinstance(passing, RetryLater):
                raise passing from error
            raise InvalidRequest(
                f"{what}: the role cannot be assumed ({error.response['Error']['Code']}: "
                f"{error.response['Error'].get('Message', '')}); check role_arn, external_id, the role's trust policy "
                "and trusted_role_arns of the deployment"
            ) from error
        raise
