"""Refuses what the models of EBS direct and EC2 do not allow, at whichever door it comes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from localcloud.ebs.errors import ApiError, EbsError, Ec2Error
from localcloud.ebs.messages import Request
from localcloud.operations import Operation
from localcloud.request_model.models import shared_models
from localcloud.request_model.problems import Problem
from localcloud.request_model.refusals import refusal
from localcloud.request_model.requests import WireRequest

_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "BlockIndex": "INVALID_BLOCK",
        "BlockToken": "INVALID_BLOCK_TOKEN",
        "KmsKeyArn": "INVALID_CUSTOMER_KEY",
        "NextToken": "INVALID_PAGE_TOKEN",
        "SnapshotId": "INVALID_SNAPSHOT_ID",
        "Tags": "INVALID_TAG",
        "VolumeSize": "INVALID_VOLUME_SIZE",
    }
)
"""The ``Reason`` of a refusal by member; which one belongs to a constraint of the model is not documented."""


class Modelled:
    def __init__(self) -> None:
        self._models = shared_models()

    def check(self, request: Request, operation: str, *, ec2: bool) -> None:
        """Raise the service's refusal of the first thing that is wrong."""
        service, asked = ("ec2", Operation(name=operation, protocol="ec2")) if ec2 else ("ebs", _direct(operation))
        wire = WireRequest(
            path=request.path,
            query={name: (value,) for name, value in request.query.items()},
            headers=request.headers,
            body=request.body,
        )
        problems = self._models.problems(service, asked, wire)
        if problems:
            raise self._refused(service, asked, problems)

    def _refused(self, service: str, asked: Operation, problems: list[Problem]) -> ApiError:
        found = self._models.input_of(service, asked.name)
        assert found is not None  # noqa: S101 - it has found the problems
        refused = refusal(service, asked, problems, {each: found.place_of(each) for each in problems})
        if service == "ec2":
            return Ec2Error(refused.code, refused.message, status=refused.status)
        reason = None
        if refused.code == "ValidationException":
            reason = _REASONS.get(problems[0].path[0], "INVALID_PARAMETER_VALUE")
        return EbsError(status=refused.status, code=refused.code, message=refused.message, reason=reason)


def _direct(operation: str) -> Operation:
    return Operation(name=operation, protocol="rest-json")
