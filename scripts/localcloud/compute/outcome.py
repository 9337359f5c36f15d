"""How an invocation can end, in the words Lambda uses for it."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Literal

MAX_RESPONSE_BYTES = 6_291_556  # Lambda quotas: 6 MB, plus the 100 bytes that the service allows in fact
INIT_SECONDS = 10.0  # Lambda developer guide, "Init phase"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an invocation. ``payload`` is what the caller gets; ``error_type`` is set for a function error."""

    payload: bytes
    status: Literal["success", "error", "timeout"] = "success"
    error_type: str | None = None


def handler_error(payload: bytes) -> Outcome:
    """The outcome with the error object that AWS's runtime client posted, unchanged."""
    try:
        error_type = str(json.loads(payload).get("errorType") or "Unhandled")
    except (ValueError, AttributeError):
        error_type = "Unhandled"
    return Outcome(payload=payload, status="error", error_type=error_type)


def timed_out(request_id: str, seconds: int) -> Outcome:
    return _platform_error(
        "Sandbox.Timedout",
        f"RequestId: {request_id} Error: Task timed out after {seconds}.00 seconds",
        status="timeout",
    )


def process_exited(request_id: str, code: int) -> Outcome:
    """The outcome of a process that ended. ``code`` is its exit status, or minus the number of the signal that ended
    it."""
    if code == 0:
        reason = "Runtime exited without providing a reason"
    elif code > 0:
        reason = f"Runtime exited with error: exit status {code}"
    else:
        name = signal.strsignal(-code) or f"signal {-code}"
        reason = f"Runtime exited with error: signal: {name.lower()}"
    return _platform_error("Runtime.ExitError", f"RequestId: {request_id} Error: {reason}")


def response_too_large() -> Outcome:
    return _platform_error(
        "Function.ResponseSizeTooLarge",
        f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).",
    )


def _platform_error(error_type: str, message: str, *, status: Literal["error", "timeout"] = "error") -> Outcome:
    payload = json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":"))
    return Outcome(payload=payload.encode(), status=status, error_type=error_type)
