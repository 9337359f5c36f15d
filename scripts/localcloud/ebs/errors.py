"""Refusals of the EBS direct APIs and of EC2, as their clients see them."""

from __future__ import annotations


class ApiError(Exception):
    """A request is refused with a code that the client's SDK turns into an exception."""

    def __init__(self, *, status: int, code: str, message: str, reason: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.reason = reason


class EbsError(ApiError):
    """Refusal of an EBS direct API (codes, statuses, reasons: botocore ebs/2019-11-02 service-2.json)."""


class Ec2Error(ApiError):
    """Refusal of an EC2 action (codes: EC2 API reference, "Error codes for the Amazon EC2 API")."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(status=status, code=code, message=message)


def invalid(reason: str, message: str) -> EbsError:
    """A request that can never succeed as it is; ``reason`` is of ValidationExceptionReason."""
    return EbsError(status=400, code="ValidationException", message=message, reason=reason)


def invalid_parameter(message: str) -> EbsError:
    return invalid("INVALID_PARAMETER_VALUE", message)


def snapshot_not_found(snapshot_id: str) -> EbsError:
    return EbsError(
        status=404,
        code="ResourceNotFoundException",
        message=f"The snapshot '{snapshot_id}' does not exist.",
        reason="SNAPSHOT_NOT_FOUND",
    )


def account_not_authorized(snapshot_id: str) -> EbsError:
    return EbsError(
        status=403,
        code="AccessDeniedException",
        message=f"This account has no access to the snapshot '{snapshot_id}'.",
        reason="UNAUTHORIZED_ACCOUNT",
    )


def key_access_denied(message: str) -> EbsError:
    return EbsError(status=403, code="AccessDeniedException", message=message, reason="DEPENDENCY_ACCESS_DENIED")


def account_throttled(operation: str) -> EbsError:
    """The account's limit in this Region is used up (the generic code, not in the service's model)."""
    return EbsError(status=400, code="ThrottlingException", message=f"Rate exceeded for {operation} in this account.")


def snapshot_throttled(operation: str, snapshot_id: str) -> EbsError:
    """One snapshot's own limit is used up."""
    return EbsError(
        status=400,
        code="RequestThrottledException",
        message=f"Rate exceeded for {operation} on {snapshot_id}.",
        reason="RESOURCE_LEVEL_THROTTLE",
    )


def too_many_pending(limit: int, *, as_quota: bool) -> EbsError:
    """The documents name the limit of pending snapshots, but not which of the two codes it has."""
    if as_quota:
        return EbsError(
            status=402,
            code="ServiceQuotaExceededException",
            message=f"This account has {limit} pending snapshots in this Region already.",
            reason="DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
        )
    return EbsError(
        status=400,
        code="ConcurrentLimitExceededException",
        message=f"This account has {limit} pending snapshots in this Region already.",
    )


def client_token_conflict() -> EbsError:
    return EbsError(
        status=409,
        code="ConflictException",
        message="The client token was used before in a request with other parameters.",
    )
