"""Tasks on the local cloud's own APIs: optimized integrations and AWS SDK integrations.

Source: developer guide, "Integrating services", "Supported AWS SDK integrations", "Start Step Functions
workflow executions from a task state".
"""

from __future__ import annotations

import datetime
import json
from typing import Any, Final

import botocore.exceptions

from localcloud.host import RoleRefused
from localcloud.states.aws_clients import AwsClients
from localcloud.states.clock import iso
from localcloud.states.errors import Cancelled, StateError
from localcloud.states.lambda_calls import LambdaCalls
from localcloud.states.limits import compact
from localcloud.states.resources import Resource, botocore_name, error_prefix, modelled_errors, operation_name
from localcloud.states.services import TaskCall

_JSON_TEXT_FIELDS: Final = {
    "sqs:sendMessage": ("MessageBody",),
    "sns:publish": ("Message",),
    "states:startExecution": ("Input",),
}
"""Parameters that are strings to the service, and may be any JSON in a state."""
_FIRST_POLL_SECONDS: Final = 0.02
_MAX_POLL_SECONDS: Final = 1.0


class AwsInvoker:
    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._lambda = LambdaCalls(clients)

    def invoke(self, call: TaskCall) -> Any:
        """The result of the task. Raises ``StateError`` named after the service's exception."""
        try:
            return self._invoked(call)
        except RoleRefused as refused:
            raise StateError("States.Permissions", str(refused)) from refused

    def _invoked(self, call: TaskCall) -> Any:
        resource = call.resource
        if resource.kind == "function" or resource.name == "lambda:invoke":
            return self._lambda.invoke(call)
        if resource.kind == "sdk":
            return self._call(call, call.arguments, metadata=False)
        arguments = _with_texts(resource, call.arguments)
        if resource.name == "events:putEvents":
            arguments = _with_origin(call, arguments)
        if resource.name == "states:startExecution":
            return self._start_execution(call, arguments)
        result = self._call(call, arguments, metadata=True)
        if result.get("FailedEntryCount"):
            raise StateError("EventBridge.FailedEntry", compact(result))
        return result

    def _call(self, call: TaskCall, arguments: Any, *, metadata: bool) -> Any:
        resource = call.resource
        service = botocore_name("sfn" if resource.service == "states" else resource.service)
        operation = operation_name(service, resource.action)
        client = self._clients.get(service, call.caller, call.role_arn)
        shape = client.meta.service_model.operation_model(operation)
        parameters = _to_service(arguments, shape.input_shape, path=resource.name) if shape.input_shape else {}
        try:
            # The generic call: method names differ from operation names in ways of their own.
            answer = client._make_api_call(operation, parameters)
        except botocore.exceptions.ClientError as error:
            raise _client_error(error, resource, operation) from error
        except botocore.exceptions.BotoCoreError as error:
            raise StateError(f"{error_prefix(resource)}.SdkClientException", str(error)) from error
        facts = answer.pop("ResponseMetadata", {})
        result = _from_service(answer, shape.output_shape)
        if metadata:
            headers = {name: str(value) for name, value in facts.get("HTTPHeaders", {}).items()}
            result["SdkHttpMetadata"] = {
                "AllHttpHeaders": {name: [value] for name, value in headers.items()},
                "HttpHeaders": headers,
                "HttpStatusCode": facts.get("HTTPStatusCode", 200),
            }
            result["SdkResponseMetadata"] = {"RequestId": facts.get("RequestId", "")}
        return result

    def _start_execution(self, call: TaskCall, arguments: dict[str, Any]) -> Any:
        started = self._call(call, arguments, metadata=True)
        if not call.resource.pattern.startswith("sync"):
            return started
        client = self._clients.get("stepfunctions", call.caller, call.role_arn)
        arn = started["ExecutionArn"]
        try:
            # The parent may have been stopped while its child was being started: then this is where it shows.
            call.submitted(started)
            return self._ended(call, client, arn)
        except Cancelled:
            client.stop_execution(executionArn=arn, cause="The parent execution does not wait for it any more.")
            raise

    def _ended(self, call: TaskCall, client: Any, arn: str) -> Any:
        """The result of a nested execution; ``Cancelled`` when nobody waits for it any more."""
        delay = _FIRST_POLL_SECONDS
        while not call.abandonment.event.wait(delay):
            try:
                about = client.describe_execution(executionArn=arn)
            except botocore.exceptions.ClientError as error:
                raise _client_error(error, call.resource, "DescribeExecution") from error
            if about["status"] != "RUNNING":
                return _nested_result(about, as_json=call.resource.pattern == "sync:2")
            delay = min(delay * 1.5, _MAX_POLL_SECONDS)
        raise Cancelled


def _nested_result(about: dict[str, Any], *, as_json: bool) -> Any:
    about.pop("ResponseMetadata", None)
    result: dict[str, Any] = {}
    for name, value in about.items():
        title = name[0].upper() + name[1:]
        if isinstance(value, datetime.datetime):
            # A nested execution's dates are epoch milliseconds in this integration's output.
            result[title] = int(value.timestamp() * 1000)
        elif title in ("Input", "Output") and as_json:
            result[title] = json.loads(value)
        else:
            result[title] = {k[0].upper() + k[1:]: v for k, v in value.items()} if isinstance(value, dict) else value
    if about["status"] == "SUCCEEDED":
        return result
    # "If a nested state machine throws a States.Timeout, the parent will receive a States.TaskFailed error."
    raise StateError("States.TaskFailed", compact(result))


def _with_texts(resource: Resource, arguments: Any) -> dict[str, Any]:
    texts = dict(arguments)
    for field in _JSON_TEXT_FIELDS.get(resource.name, ()):
        if field in texts and not isinstance(texts[field], str):
            texts[field] = compact(texts[field])
    return texts


def _with_origin(call: TaskCall, arguments: dict[str, Any]) -> dict[str, Any]:
    """Events say which execution they come from, and carry their detail as text."""
    origin = [call.caller.execution_arn, call.caller.state_machine_arn]
    entries = []
    for entry in arguments["Entries"]:
        detail = entry.get("Detail", {})
        text = detail if isinstance(detail, str) else compact(detail)
        entries.append({**entry, "Detail": text, "Resources": [*entry.get("Resources", []), *origin]})
    return {**arguments, "Entries": entries}


def _client_error(error: botocore.exceptions.ClientError, resource: Resource, operation: str) -> StateError:
    facts = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    code, message = str(facts.get("Code", "Unknown")), str(facts.get("Message", ""))
    prefix = error_prefix(resource)
    service = "sfn" if resource.service == "states" else resource.service
    name = code.rsplit(".", 1)[-1]
    if code not in modelled_errors(service, operation):
        # What the service's model does not list is the generic exception of its SDK, as in Ec2.Ec2Exception.
        name = f"Amazon{prefix}" if prefix in ("SQS", "SNS") else prefix
    if not name.endswith("Exception"):
        name += "Exception"
    cause = (
        f"{message} (Service: {prefix}, Status Code: {metadata.get('HTTPStatusCode', 0)}, "
        f"Request ID: {metadata.get('RequestId', '')})"
    )
    return StateError(f"{prefix}.{name}", cause)


def _to_service(value: Any, shape: Any, *, path: str) -> Any:
    """PascalCase parameters in the names of the service's model."""
    if shape.type_name == "structure" and isinstance(value, dict):
        names = {member[0].upper() + member[1:]: member for member in shape.members}
        converted = {}
        for name, item in value.items():
            if name not in names:
                raise StateError("States.Runtime", f"The field '{name}' is not supported by {path}.")
            converted[names[name]] = _to_service(item, shape.members[names[name]], path=f"{path}/{name}")
        return converted
    if shape.type_name == "list" and isinstance(value, list):
        return [_to_service(item, shape.member, path=path) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: _to_service(item, shape.value, path=path) for name, item in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        return value.encode()
    if shape.type_name == "blob" and isinstance(value, dict | list):
        return compact(value).encode()
    return value


def _from_service(value: Any, shape: Any) -> Any:
    """An answer as JSON types, its members in PascalCase, times as ISO 8601, bodies as text."""
    if shape is None:
        return {}
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            name[0].upper() + name[1:]: _from_service(item, shape.members[name])
            for name, item in value.items()
            if name in shape.members
        }
    if shape.type_name == "list":
        return [_from_service(item, shape.member) for item in value]
    if shape.type_name == "map":
        return {name: _from_service(item, shape.value) for name, item in value.items()}
    if isinstance(value, datetime.datetime):
        return iso(value.timestamp())
    if hasattr(value, "read"):
        value = value.read()
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else value
