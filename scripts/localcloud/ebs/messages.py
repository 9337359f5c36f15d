"""A request and its answer, apart from any transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from localcloud.ebs.decisions import Caller
from localcloud.ebs.errors import ApiError

Cut = Literal["none", "before", "after", "short"]
"""How the transport spoils an exchange: closed before any work, closed after the work without a word,
or the full length announced and half the body sent."""

NOBODY = Caller()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the service sees it: ``headers`` have lower-case names, ``query`` the last value of each name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | bytearray
    account: str
    region: str
    caller: Caller = NOBODY


@dataclass(slots=True)
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | bytearray = b""
    cut: Cut = "none"
    code: str = ""
    """The code of the error that the answer tells, for the statistics; empty if it tells none."""


def json_response(status: int, value: Mapping[str, Any]) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def ebs_error_response(error: ApiError) -> Response:
    """REST-JSON error: both spellings of the message, since SDKs differ in which they read."""
    body: dict[str, Any] = {"__type": error.code, "Message": error.message, "message": error.message}
    if error.reason is not None:
        body["Reason"] = error.reason
    answer = json_response(error.status, body)
    answer.code = error.code
    answer.headers["x-amzn-ErrorType"] = error.code
    return answer
