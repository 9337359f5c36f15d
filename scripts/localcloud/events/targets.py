"""Calls targets through the local cloud's own APIs, so that they see what any caller's request would be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

SUPPORTED = ("lambda", "states", "sqs", "sns")
_FINAL_STATUS = range(400, 500)
_RETRIED = frozenset({"TooManyRequestsException", "ThrottlingException", "Throttling", "RequestThrottled"})
"""Client errors that pass; all others are the same at the next attempt: no permission, no such target."""


class TargetFailed(Exception):
    """The target's API refused the call."""

    def __init__(self, code: str, message: str, *, retriable: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retriable = retriable


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who calls: a rule, or a schedule."""

    kind: str
    arn: str
    account: str
    region: str

    @property
    def is_schedule(self) -> bool:
        return self.kind == "schedule"


class Targets(Protocol):
    def call(self, target: Mapping[str, Any], payload: str, origin: Origin) -> None:
        """Call the target once; raises ``TargetFailed``."""

    def dead_letter(self, arn: str, body: str, attributes: Mapping[str, str], origin: Origin) -> None:
        """Send to a dead-letter queue; raises ``TargetFailed``."""


Refusal = Callable[[Mapping[str, Any], Origin], str]
"""Why policies do not let this origin call this target; empty if they do."""


class ApiTargets:
    """Calls with the account's credentials, after ``refusal`` has said that the origin may."""

    def __init__(self, *, endpoint_url: str, root_secret: str, refusal: Refusal) -> None:
        self._root_secret = root_secret
        self._endpoint_url = endpoint_url
        self._refusal = refusal
        self._session = botocore.session.Session()
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._lock = threading.Lock()

    def call(self, target: Mapping[str, Any], payload: str, origin: Origin) -> None:
        arn = str(target.get("Arn", ""))
        parts = arn.split(":", 5)
        service = parts[2] if len(parts) == 6 else ""
        if service not in SUPPORTED:
            raise TargetFailed("InvalidTarget", f"the local cloud does not deliver to {arn}", retriable=False)
        if (parts[3], parts[4]) != (origin.region, origin.account):
            # Such a target is accepted when it is put and fails when it is called; buses alone are reached elsewhere.
            raise TargetFailed("InvalidTarget", f"{arn} is in another Region or account", retriable=False)
        if refusal := self._refusal(target, origin):
            raise TargetFailed("AccessDeniedException", refusal, retriable=False)
        calls: dict[str, Callable[[], Any]] = {
            "lambda": lambda: self._client("lambda", origin).invoke(
                FunctionName=arn, InvocationType="Event", Payload=_json_text(payload).encode()
            ),
            "states": lambda: self._client("stepfunctions", origin).start_execution(
                stateMachineArn=arn, input=_json_text(payload)
            ),
            "sqs": lambda: self._client("sqs", origin).send_message(
                QueueUrl=self._queue_url(arn), MessageBody=payload, **_queue_parameters(target)
            ),
            "sns": lambda: self._client("sns", origin).publish(TopicArn=arn, Message=payload),
        }
        _asked(calls[service])

    def dead_letter(self, arn: str, body: str, attributes: Mapping[str, str], origin: Origin) -> None:
        sqs = self._client("sqs", origin)
        values = {name: {"DataType": "String", "StringValue": value or "-"} for name, value in attributes.items()}
        _asked(lambda: sqs.send_message(QueueUrl=self._queue_url(arn), MessageBody=body, MessageAttributes=values))

    def _queue_url(self, arn: str) -> str:
        *_, account, name = arn.split(":")
        return f"{self._endpoint_url}/{account}/{name}"

    def _client(self, service: str, origin: Origin) -> Any:
        key = (service, origin.account, origin.region)
        # Creating a client is not safe in threads, using one is.
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = self._session.create_client(
                    service,
                    region_name=origin.region,
                    endpoint_url=self._endpoint_url,
                    aws_access_key_id=origin.account,
                    aws_secret_access_key=self._root_secret,
                    config=Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=16),
                )
            return client


def _queue_parameters(target: Mapping[str, Any]) -> dict[str, str]:
    group = (target.get("SqsParameters") or {}).get("MessageGroupId")
    return {"MessageGroupId": group} if group else {}


def _json_text(payload: str) -> str:
    """Lambda and Step Functions take JSON only: a text that is not becomes a JSON string."""
    try:
        json.loads(payload)
    except ValueError:
        return json.dumps(payload)
    return payload


def _asked(call: Callable[[], Any]) -> None:
    try:
        call()
    except ClientError as error:
        code = error.response["Error"].get("Code", "Unknown")
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 500)
        final = status in _FINAL_STATUS and code not in _RETRIED and status != 429
        raise TargetFailed(code, error.response["Error"].get("Message", ""), retriable=not final) from error
    except BotoCoreError as error:
        raise TargetFailed(type(error).__name__, str(error), retriable=True) from error
