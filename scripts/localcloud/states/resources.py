"""The ``Resource`` ARNs of Task states: which are served here, and what they mean.

Source: developer guide, "Integrating services with Step Functions" and "Supported AWS SDK integrations".
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Final

import botocore.loaders

OPTIMIZED: Final[dict[str, frozenset[str]]] = {
    "lambda:invoke": frozenset({"", "waitForTaskToken"}),
    "sqs:sendMessage": frozenset({"", "waitForTaskToken"}),
    "sns:publish": frozenset({"", "waitForTaskToken"}),
    "events:putEvents": frozenset({"", "waitForTaskToken"}),
    "dynamodb:getItem": frozenset({""}),
    "dynamodb:putItem": frozenset({""}),
    "dynamodb:updateItem": frozenset({""}),
    "dynamodb:deleteItem": frozenset({""}),
    "states:startExecution": frozenset({"", "sync", "sync:2", "waitForTaskToken"}),
}
"""Optimized integrations served here, each with its patterns; ``""`` is request-response."""

REQUIRED_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "lambda:invoke": ("FunctionName",),
    "sqs:sendMessage": ("QueueUrl", "MessageBody"),
    "sns:publish": ("Message",),
    "events:putEvents": ("Entries",),
    "states:startExecution": ("StateMachineArn",),
}

_BOTOCORE_NAMES: Final = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "resourcegroupstaggingapi": "resourcegroupstaggingapi",
    "costexplorer": "ce",
    "applicationautoscaling": "application-autoscaling",
    "secretsmanager": "secretsmanager",
}
"""SDK integration names that are not botocore's; all others are the same word."""

_OPTIMIZED_ERRORS: Final = {"lambda": "Lambda", "sqs": "SQS", "sns": "SNS", "events": "EventBridge"}

_LAMBDA = re.compile(
    r"arn:(?:aws|aws-us-gov|aws-cn):lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+(?::[A-Za-z0-9_$-]+)?"
)
_INTEGRATION = re.compile(r"arn:(?:aws|aws-us-gov|aws-cn):states:::(.+)")
_PATTERN = re.compile(r"^(.*?)(?:\.(sync:2|sync|waitForTaskToken))?$")


class UnknownResource(ValueError):
    """The ARN names no integration that is served here; the message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of a task. ``kind`` is ``function`` (a Lambda ARN), ``optimized`` or ``sdk``; ``pattern`` as in
    ``OPTIMIZED``."""

    arn: str
    kind: str
    service: str
    action: str
    pattern: str = ""

    @property
    def name(self) -> str:
        """The integration without its pattern, such as ``lambda:invoke`` or ``aws-sdk:ec2:describeSnapshots``."""
        return f"aws-sdk:{self.service}:{self.action}" if self.kind == "sdk" else f"{self.service}:{self.action}"

    @property
    def event_type(self) -> str:
        """The ``resourceType`` of history events."""
        return f"aws-sdk:{self.service}" if self.kind == "sdk" else self.service

    @property
    def event_resource(self) -> str:
        """The ``resource`` of history events."""
        return f"{self.action}.{self.pattern}" if self.pattern else self.action

    @property
    def waits_for_token(self) -> bool:
        return self.pattern == "waitForTaskToken"


@functools.lru_cache(maxsize=512)
def parse_resource(arn: str) -> Resource:
    """The resource that an ARN names. Raises ``UnknownResource``."""
    if _LAMBDA.fullmatch(arn):
        return Resource(arn=arn, kind="function", service="lambda", action="invoke")
    found = _INTEGRATION.fullmatch(arn)
    if not found:
        raise UnknownResource(f"'{arn}' is neither a Lambda function ARN nor a service integration ARN")
    matched = _PATTERN.fullmatch(found.group(1))
    words, pattern = (matched.group(1), matched.group(2) or "") if matched else ("", "")
    parts = words.split(":")
    if parts[0] == "aws-sdk" and len(parts) == 3:
        if pattern not in ("", "waitForTaskToken"):
            raise UnknownResource(f"'{arn}': SDK integrations have no .{pattern}")
        _check_sdk(arn, service=parts[1], action=parts[2])
        return Resource(arn=arn, kind="sdk", service=parts[1], action=parts[2], pattern=pattern)
    patterns = OPTIMIZED.get(words)
    if patterns is None:
        raise UnknownResource(f"'{arn}': the local cloud has no integration '{words}'")
    if pattern not in patterns:
        raise UnknownResource(f"'{arn}': {words} does not support .{pattern}")
    return Resource(arn=arn, kind="optimized", service=parts[0], action=parts[1], pattern=pattern)


def botocore_name(service: str) -> str:
    return _BOTOCORE_NAMES.get(service, service)


def operation_name(service: str, action: str) -> str:
    """The operation's name in the service's model: ``DescribeSnapshots`` of ``describeSnapshots``.

    Raises ``UnknownResource``.
    """
    operations: dict[str, Any] = _model(botocore_name(service))["operations"]
    wanted = action[0].upper() + action[1:]
    if wanted in operations:
        return wanted
    for name in operations:
        if name.lower() == action.lower():
            return name
    raise UnknownResource(f"{service} has no API action '{action}'")


def modelled_errors(service: str, operation: str) -> frozenset[str]:
    """Codes of the errors that the service's model lists for the operation."""
    model = _model(botocore_name(service))
    shapes = model["shapes"]
    codes: set[str] = set()
    for error in model["operations"][operation].get("errors", []):
        name = error["shape"]
        codes.add(name)
        codes.add(shapes[name].get("error", {}).get("code", name))
    return frozenset(codes)


def error_prefix(resource: Resource) -> str:
    """The service in names of errors: ``Lambda`` for optimized integrations, ``Ec2`` (as in the Java SDK's class names)
    for SDK ones."""
    if resource.kind != "sdk":
        return _OPTIMIZED_ERRORS.get(resource.service, resource.service.title())
    service_id: str = _model(botocore_name(resource.service))["metadata"]["serviceId"]
    words = service_id.split()
    return "".join(
        re.sub(r"[A-Z]+(?![a-z])", lambda run: run.group(0).title(), word[0].upper() + word[1:]) for word in words
    )


def _check_sdk(arn: str, *, service: str, action: str) -> None:
    if service != service.lower() or botocore_name(service) not in _available():
        raise UnknownResource(f"'{arn}': there is no AWS SDK integration of a service '{service}'")
    if action != action[:1].lower() + action[1:]:
        raise UnknownResource(f"'{arn}': API actions are written in camel case, as in 'describeSnapshots'")
    operation_name(service, action)


@functools.lru_cache(maxsize=1)
def _available() -> frozenset[str]:
    return frozenset(botocore.loaders.Loader().list_available_services("service-2"))


@functools.lru_cache(maxsize=16)
def _model(service: str) -> dict[str, Any]:
    model: dict[str, Any] = botocore.loaders.Loader().load_service_model(service, "service-2")
    return model
