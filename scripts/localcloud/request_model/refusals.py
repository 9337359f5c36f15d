"""How each service refuses a request that its model does not allow: code, status and message.

Codes: the services' "Common errors" pages, the EC2 API reference ("Error codes"), the S3 API reference ("Error
responses") and the errors of botocore's models. Which code a service has for which constraint is documented for a few
only; the others have the one of their protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from localcloud.operations import BOTOCORE_NAMES, Operation
from localcloud.request_model.problems import Place, Problem, summary

INVALID: Mapping[str, str] = MappingProxyType(
    {
        "cloudtrail": "InvalidParameterCombinationException",
        "logs": "InvalidParameterException",
        "pricing": "InvalidParameterException",
        "resourcegroupstaggingapi": "InvalidParameterException",
        "service-quotas": "IllegalArgumentException",
        "sns": "InvalidParameter",
        "sqs": "InvalidParameterValue",
    }
)
"""Codes of services that do not have their protocol's."""

_OF_PROTOCOL: Mapping[str, str] = MappingProxyType({"query": "ValidationError"})
_MISSING: Mapping[str, str] = MappingProxyType({"sqs": "MissingParameter"})


@dataclass(frozen=True, kw_only=True)
class Refusal:
    code: str
    message: str
    status: int = 400


def refusal(service: str, operation: Operation, problems: list[Problem], places: Mapping[Problem, Place]) -> Refusal:
    """The service's answer to a request with these problems, one at least. ``places`` tells where they are."""
    name = BOTOCORE_NAMES.get(service, service)
    first = problems[0]
    if operation.protocol == "ec2":
        return _ec2(first)
    if operation.protocol == "rest-xml":
        return _xml(first, places[first])
    if any(each.kind == "malformed" for each in problems):
        code = "MalformedInput" if operation.protocol == "query" else "SerializationException"
        return Refusal(code=code, message=first.constraint)
    if any(each.kind == "type" for each in problems):
        code = "MalformedInput" if operation.protocol == "query" else "SerializationException"
        return Refusal(code=code, message=summary(problems))
    if first.kind == "missing" and name in _MISSING:
        return Refusal(code=_MISSING[name], message=f"The request must contain the parameter {first.path[-1]}.")
    code = INVALID.get(name, _OF_PROTOCOL.get(operation.protocol, "ValidationException"))
    return Refusal(code=code, message=summary(problems))


def _ec2(problem: Problem) -> Refusal:
    name = ".".join(problem.path)
    match problem.kind:
        case "missing":
            return Refusal(code="MissingParameter", message=f"The request must contain the parameter {name}")
        case "unknown":
            return Refusal(code="UnknownParameter", message=f"The parameter {name} is not recognized")
        case "malformed":
            return Refusal(code="MalformedInput", message=problem.constraint)
    message = f"Value ({problem.value}) for parameter {name} is invalid. {problem.constraint}"
    return Refusal(code="InvalidParameterValue", message=message)


def _xml(problem: Problem, place: Place) -> Refusal:
    if place == "body":
        schema = "The XML you provided was not well-formed or did not validate against our published schema"
        said = problem.constraint if problem.kind == "malformed" else str(problem)
        return Refusal(code="MalformedXML", message=f"{schema}: {said}")
    if problem.kind == "missing":
        return Refusal(code="InvalidRequest", message=f"Missing required {place} for this request: {problem.at}")
    return Refusal(code="InvalidArgument", message=str(problem))
