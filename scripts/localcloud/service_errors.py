"""Errors as every service tells them: S3's XML, EC2's, the query protocols', JSON, REST-JSON, RPC v2's CBOR."""

from __future__ import annotations

import json
import uuid
from xml.sax.saxutils import escape

from localcloud.ebs.ec2_query import xml_error
from localcloud.ebs.errors import Ec2Error
from localcloud.host import Response
from localcloud.operations import Operation, Operations

THROTTLES = {"s3": (503, "SlowDown"), "ec2": (503, "RequestLimitExceeded"), "lambda": (429, "TooManyRequestsException")}
DENIALS = {"s3": (403, "AccessDenied"), "ec2": (403, "UnauthorizedOperation")}
FAILURES = {"s3": (500, "InternalError"), "ec2": (500, "InternalError"), "lambda": (500, "ServiceException")}


def throttle(service: str, operation: Operation, operations: Operations) -> tuple[int, str]:
    """Status and code with which the service refuses what is too much."""
    if service in THROTTLES:
        return THROTTLES[service]
    if operation.protocol in ("query", "rest-xml"):
        return 400, "Throttling"
    usual = 429 if operation.protocol == "rest-json" else 400
    return operations.status_of(service, "ThrottlingException") or usual, "ThrottlingException"


def denial(service: str, operation: Operation) -> tuple[int, str]:
    """Status and code for callers whose policies do not allow a request."""
    if service in DENIALS:
        return DENIALS[service]
    if operation.protocol in ("query", "rest-xml"):
        return 403, "AccessDenied"
    return 403 if operation.protocol == "rest-json" else 400, "AccessDeniedException"


def failure(service: str) -> tuple[int, str]:
    """Status and code of a service that fails through no fault of the caller."""
    return FAILURES.get(service, (500, "InternalFailure"))


def error_answer(
    service: str, operation: Operation, *, status: int, code: str, message: str, path: str, content_type: str
) -> Response:
    """The error in the protocol of the request, whose ``path`` and ``content_type`` are given."""
    request_id = str(uuid.uuid4())
    match operation.protocol:
        case "ec2":
            answer = xml_error(Ec2Error(code, message, status=status), request_id)
            return answer.status, answer.headers, bytes(answer.body)
        case "query" | "rest-xml":
            return (
                status,
                {"Content-Type": "text/xml", "x-amzn-RequestId": request_id},
                _xml(service, code=code, message=message, path=path, request_id=request_id, status=status),
            )
        case "rpc-v2-cbor":
            headers = {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}
            return status, headers, b"\xa2" + _cbor("__type", code) + _cbor("message", message)
    headers = {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": code}
    headers["Content-Type"] = content_type if operation.protocol == "json" else "application/json"
    return status, headers, json.dumps({"__type": code, "message": message}).encode()


def _xml(service: str, *, code: str, message: str, path: str, request_id: str, status: int) -> bytes:
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if service == "s3":
        body = f"<Error>{error}<Resource>{escape(path)}</Resource><RequestId>{request_id}</RequestId></Error>"
    else:
        blame = "Sender" if status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{blame}</Type>{error}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def _cbor(*texts: str) -> bytes:
    """Text strings with a length of two bytes each (RFC 8949, major type 3)."""
    encoded = [text.encode() for text in texts]
    return b"".join(b"\x79" + len(text).to_bytes(2, "big") + text for text in encoded)
