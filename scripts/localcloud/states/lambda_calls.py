"""Lambda's Invoke over kept HTTP connections, one per thread, with Step Functions' error names.

Source of the names: developer guide, "Handling errors in Step Functions workflows" and "Handle transient
Lambda service exceptions"; of the protocol: botocore's model of Lambda.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from localcloud.states.aws_clients import AwsClients
from localcloud.states.errors import StateError
from localcloud.states.limits import compact
from localcloud.states.resources import modelled_errors
from localcloud.states.services import TaskCall

_READ_TIMEOUT_SECONDS: Final = 960
"""Seconds that an answer is waited for: longer than a function can run (900 s), so that its own timeout is what is
seen."""
_INVOKE_FIELDS: Final = frozenset(
    {"FunctionName", "Payload", "InvocationType", "Qualifier", "ClientContext", "LogType"}
)


class LambdaCalls:
    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._url = urllib.parse.urlsplit(clients.endpoint_url)
        self._kept = threading.local()

    def invoke(self, call: TaskCall) -> Any:
        """The optimized integration's result, or the function's output for a function ARN as Resource."""
        direct = call.resource.kind == "function"
        arguments = {"FunctionName": call.resource.arn, "Payload": call.arguments} if direct else call.arguments
        unknown = set(arguments) - _INVOKE_FIELDS
        if unknown:
            raise StateError("States.Runtime", f"lambda:invoke does not support the field '{sorted(unknown)[0]}'")
        status, headers, body = self._request(call, arguments)
        text = body.decode("utf-8", "replace")
        if status >= 300:
            raise _service_error(status, headers, text)
        if "x-amz-function-error" in headers:
            raise _function_error(text)
        payload = _parsed(text)
        if direct:
            return payload
        result: dict[str, Any] = {
            "ExecutedVersion": headers.get("x-amz-executed-version", "$LATEST"),
            "SdkHttpMetadata": {
                "AllHttpHeaders": {name: [value] for name, value in headers.items()},
                "HttpHeaders": dict(headers),
                "HttpStatusCode": status,
            },
            "SdkResponseMetadata": {"RequestId": headers.get("x-amzn-requestid", "")},
            "StatusCode": status,
        }
        if text:
            result["Payload"] = payload
        return result

    def _request(self, call: TaskCall, arguments: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
        name, qualifier = _target(str(arguments["FunctionName"]), call)
        qualifier = arguments.get("Qualifier", qualifier)
        path = f"/2015-03-31/functions/{urllib.parse.quote(name, safe='')}/invocations"
        if qualifier:
            path += "?Qualifier=" + urllib.parse.quote(str(qualifier), safe="")
        body = compact(arguments["Payload"]).encode("utf-8", "surrogatepass") if "Payload" in arguments else b""
        headers = {
            "Content-Type": "application/json",
            "X-Amz-Invocation-Type": str(arguments.get("InvocationType", "RequestResponse")),
        }
        for field, header in (("ClientContext", "X-Amz-Client-Context"), ("LogType", "X-Amz-Log-Type")):
            if field in arguments:
                headers[header] = str(arguments[field])
        signed = self._signed(call, path, headers, body)
        connection = self._connection()
        try:
            if connection.sock is None:
                _connect(connection)
            call.abandonment.on_abandon(lambda: _hang_up(connection))
            connection.request("POST", path, body=body, headers=signed)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            # A connection in an unknown state must not serve the next call.
            self._kept.connection = None
            connection.close()
            if isinstance(error, TimeoutError):
                raise StateError("Lambda.ClientExecutionTimeoutException", str(error)) from error
            raise StateError("Lambda.SdkClientException", f"Unable to execute HTTP request: {error}") from error
        if response.will_close or call.abandonment.event.is_set():
            self._kept.connection = None
            connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, answer

    def _signed(self, call: TaskCall, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        credentials = self._clients.credentials(call.caller, call.role_arn)
        request = botocore.awsrequest.AWSRequest(
            method="POST", url=self._clients.endpoint_url.rstrip("/") + path, headers=dict(headers), data=body
        )
        botocore.auth.SigV4Auth(
            botocore.credentials.Credentials(
                credentials.access_key_id, credentials.secret_access_key, credentials.session_token
            ),
            "lambda",
            call.caller.region,
        ).add_auth(request)
        return {name: str(value) for name, value in request.headers.items()}

    def _connection(self) -> http.client.HTTPConnection:
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if kept is not None and kept.sock is not None and not _is_readable(kept.sock):
            return kept
        if kept is not None:
            # Something to read while nothing was asked: the server has closed it.
            kept.close()
        connection = http.client.HTTPConnection(
            self._url.hostname or "127.0.0.1", self._url.port or 80, timeout=_READ_TIMEOUT_SECONDS
        )
        self._kept.connection = connection
        return connection


def _connect(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    sock: socket.socket = connection.sock
    # Head and body are sent apart; waiting to join them costs 40 ms a call.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _is_readable(sock: socket.socket) -> bool:
    # Not select(): it knows descriptors below 1024 only, and a busy server has more.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a call that nobody waits for: the thread that reads gets an error at once."""
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _target(name: str, call: TaskCall) -> tuple[str, str | None]:
    """Function name and qualifier; an ARN of another account or region is passed on whole."""
    parts = name.split(":")
    if len(parts) < 7 or parts[0] != "arn":
        return name, None
    qualifier = parts[7] if len(parts) > 7 else None
    if (parts[3], parts[4]) == (call.caller.region, call.caller.account):
        return parts[6], qualifier
    return ":".join(parts[:7]), qualifier


def _parsed(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _function_error(text: str) -> StateError:
    """The function's own failure: its error type is the error name, the whole payload the cause."""
    payload = _parsed(text)
    error = payload.get("errorType") if isinstance(payload, dict) else None
    cause = compact(payload) if isinstance(payload, dict) else text
    return StateError(str(error or "Lambda.Unknown"), cause)


def _service_error(status: int, headers: Mapping[str, str], text: str) -> StateError:
    body = _parsed(text)
    body = body if isinstance(body, dict) else {}
    code = headers.get("x-amzn-errortype") or str(body.get("__type") or body.get("Code") or "")
    code = code.split(":")[0].rsplit("#", 1)[-1]
    message = body.get("message") or body.get("Message") or text
    known = code in modelled_errors("lambda", "Invoke")
    if not code:
        code = "ServiceException" if status >= 500 else "Unknown"
        known = status >= 500
    request_id = headers.get("x-amzn-requestid", "")
    cause = (
        f"{message} (Service: AWSLambda; Status Code: {status}; Error Code: {code}; Request ID: {request_id}; "
        "Proxy: null)"
    )
    # What the service's model does not list is the generic exception of its SDK.
    return StateError(f"Lambda.{code}" if known else "Lambda.AWSLambdaException", cause)
