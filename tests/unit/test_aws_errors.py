"""Which errors of boto3 calls pass."""

from __future__ import annotations

import botocore.session
import pytest
from blockferry.aws.ebs.refusals import EbsError, may_pass
from blockferry.aws.errors import THROTTLES, translated
from blockferry.core.errors import RequestRefused, RetryLater
from botocore.exceptions import ClientError
from botocore.retries import standard

OF_RESOURCES = {"LimitExceededException"}
"""A limit of resources with KMS and IAM, which nobody lifts by waiting."""


def error(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Operation")  # type: ignore[arg-type]  # not all members


def test_every_throttle_that_botocore_knows_passes_everywhere() -> None:
    known = set(standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES)
    assert known - OF_RESOURCES == THROTTLES
    assert set(standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES) - THROTTLES == {
        "RequestTimeout",
        "RequestTimeoutException",
    }
    for code in known - OF_RESOURCES:
        assert isinstance(translated(error(code)), RetryLater)
        refusal = EbsError(request="r", status=400, code=code, reason="", message="")
        assert may_pass(refusal, may_be_unknown=False, tags_may_spread=False, signed_again=0)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestTimeout", 400, RetryLater),
        ("RequestTimeoutException", 408, RetryLater),
        ("OperationAborted", 409, RetryLater),
        ("ConditionalRequestConflict", 409, RetryLater),
        ("KMSInternalException", 500, RetryLater),
        ("Anything", 503, RetryLater),
        ("LimitExceededException", 400, RequestRefused),
        ("AccessDenied", 403, RequestRefused),
        ("InvalidSignatureException", 403, RequestRefused),
        ("UnauthorizedOperation", 403, RequestRefused),
    ],
)
def test_what_passes_is_tried_later_and_the_rest_is_refused(code: str, status: int, kind: type[Exception]) -> None:
    assert type(translated(error(code, status))) is kind


def test_every_error_that_the_model_of_ebs_calls_retryable_passes() -> None:
    model = botocore.session.Session().get_service_model("ebs")
    codes = {name: model.shape_for(name).metadata.get("error", {}) for name in model.shape_names}
    fails_of_itself = {name for name, about in codes.items() if about.get("httpStatusCode", 0) >= 500}
    assert fails_of_itself == {"InternalServerException"}
    for code in fails_of_itself | {"RequestThrottledException", "ConcurrentLimitExceededException"}:
        refusal = EbsError(request="r", status=400, code=code, reason="", message="")
        assert may_pass(refusal, may_be_unknown=False, tags_may_spread=False, signed_again=0)
