"""Figures of AWS against the services' own models, and what a step keeps back against what an invocation has."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from blockferry.aws.ebs.transport import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS
from blockferry.core import quotas, reserves

INVOCATION_SECONDS = 900.0
"""The longest that Lambda lets a function run."""


def limits(service: str, shape: str) -> dict[str, Any]:
    model = botocore.session.get_session().get_service_model(service)
    return dict(model.shape_for(shape).metadata)


@pytest.mark.parametrize(
    ("service", "shape", "end", "figure"),
    [
        ("ebs", "MaxResults", "min", quotas.MIN_PAGE),
        ("ebs", "MaxResults", "max", quotas.MAX_PAGE),
        ("ebs", "Timeout", "max", quotas.START_TIMEOUT_MINUTES),
        ("ebs", "Description", "max", quotas.MAX_DESCRIPTION),
        ("ebs", "TagKey", "max", quotas.MAX_TAG_KEY),
        ("ebs", "TagValue", "max", quotas.MAX_TAG_VALUE),
        ("stepfunctions", "SensitiveCause", "max", quotas.CAUSE_CHARACTERS),
    ],
)
def test_a_limit_is_that_of_the_services_model(service: str, shape: str, end: str, figure: int) -> None:
    assert limits(service, shape)[end] == figure


def test_two_steps_may_list_at_a_time_within_the_quota() -> None:
    assert 2 * quotas.LISTS_PER_SECOND <= quotas.EBS_LISTS_PER_SECOND
    assert quotas.DRY_RUN_LISTS_PER_SECOND < quotas.EBS_LISTS_PER_SECOND


@pytest.mark.parametrize(
    "reserve", [reserves.MOVE_SECONDS, reserves.UNPACK_SECONDS, reserves.INSPECT_SECONDS, reserves.COMPLETE_SECONDS]
)
def test_a_reserve_outlasts_a_silent_request_and_leaves_most_of_an_invocation(reserve: float) -> None:
    assert CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS < reserve < INVOCATION_SECONDS / 2
