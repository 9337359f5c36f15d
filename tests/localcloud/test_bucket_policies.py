"""Which bucket policies are taken, without a server: S3's refusals, and whatever would not count in the local cloud."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from localcloud.iam.bucket_policies import MOST_BYTES, PolicyRefused, checked_policy
from localcloud.iam.operators import OPERATORS
from ministack.core import iam_evaluator

HOME = "111122223333"
ROLE = f"arn:aws:iam::{HOME}:role/service/writer"
BUCKET = "records"
DENY: dict[str, Any] = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:PutObject",
    "Resource": f"arn:aws:s3:::{BUCKET}/*",
}


def exists(kind: str, account: str, name: str) -> bool:
    return (kind, account) == ("role", HOME) and name in (ROLE, "writer")


def check(*statements: Any, **policy: Any) -> None:
    document = {"Version": "2012-10-17", "Statement": list(statements), **policy}
    checked_policy(json.dumps(document).encode(), BUCKET, exists)


def refused(message: str) -> Any:
    return pytest.raises(PolicyRefused, match=re.escape(message))


def without(name: str) -> dict[str, Any]:
    return {member: value for member, value in DENY.items() if member != name}


def test_the_policy_of_our_own_buckets_is_taken() -> None:
    check(
        {
            "Sid": "OnlyOverTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{BUCKET}/*", f"arn:aws:s3:::{BUCKET}"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        {"Effect": "Allow", "Principal": {"AWS": ROLE}},
        {"Principal": {"AWS": [f"arn:aws:iam::{HOME}:root", "123456789012", "*"]}},
        {"Principal": {"AWS": f"arn:aws:sts::{HOME}:assumed-role/writer/session@1"}},
        {"Principal": {"Service": "cloudtrail.amazonaws.com"}},
        {"Action": "*", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Action": ["s3:Put*", "s3:getobject"]},
        {"Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}*"},
        {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": True}}},
        {"Condition": {"ForAnyValue:ArnNotLikeIfExists": {"AWS:principalarn": [ROLE]}}},
        {"Condition": {"StringEquals": {"aws:PrincipalTag/team:name": "x", "s3:RequestObjectTag/job": ["1", "2"]}}},
        {"Condition": {"NumericLessThan": {"aws:EpochTime": 4102444800}}},
        {"Condition": {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}},
    ],
    ids=lambda change: json.dumps(change)[:80],
)
def test_what_counts_is_taken(change: dict[str, Any]) -> None:
    check({**DENY, **change})


@pytest.mark.parametrize(
    "change",
    [{"NotPrincipal": {"AWS": [ROLE]}}, {"NotAction": "s3:Get*"}, {"NotResource": f"arn:aws:s3:::{BUCKET}/jobs/*"}],
    ids=lambda change: next(iter(change)),
)
def test_exceptions_are_taken(change: dict[str, Any]) -> None:
    name = next(iter(change))
    check({**without(name.removeprefix("Not")), **change})
    with refused(f"Statement has both {name.removeprefix('Not')} and {name}"):
        check({**DENY, **change})


@pytest.mark.parametrize("name", ["Effect", "Principal", "Action", "Resource"])
def test_what_a_statement_lacks_is_named(name: str) -> None:
    with refused(f"Missing required field {name}"):
        check(without(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Effect": "deny"}, "Invalid effect: deny"),
        ({"Comment": "x"}, "Unknown field Comment"),
        ({"Sid": 1}, "Invalid policy syntax."),
        ({"Principal": "everybody"}, "Invalid policy syntax."),
        ({"Principal": {}}, "Invalid policy syntax."),
        ({"Principal": {"AWS": []}}, "Invalid principal in policy"),
        ({"Principal": {"Users": "x"}}, "Invalid policy syntax."),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:role/gone"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:user/writer"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:role/*"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:role"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"arn:aws:iam::{HOME}:root/x"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": f"arn:aws:sts::{HOME}:assumed-role/gone/session"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": "1111"}}, "Invalid principal in policy"),
        ({"Principal": {"Service": "*"}}, "Invalid principal in policy"),
        ({"Principal": {"CanonicalUser": "0123"}}, "the local cloud does not evaluate CanonicalUser"),
        ({"Action": []}, "Policy has invalid action"),
        ({"Action": "s3:MoveObject"}, "Policy has invalid action"),
        ({"Action": ["s3:PutObject", "ec2:DeleteSnapshot"]}, "Policy has invalid action"),
        ({"Action": "PutObject"}, "Policy has invalid action"),
        ({"Action": "s3:[P]utObject"}, "Policy has invalid action"),
        ({"Resource": "*"}, "Policy has invalid resource"),
        ({"Resource": "arn:aws:s3:::*"}, "Policy has invalid resource"),
        ({"Resource": [f"arn:aws:s3:::{BUCKET}/*", "arn:aws:s3:::others/*"]}, "Policy has invalid resource"),
        ({"Resource": f"arn:aws:s3:::{BUCKET}-2/*"}, "Policy has invalid resource"),
        ({"Resource": f"arn:aws:s3:::{BUCKET}/${{aws:username}}/*"}, "does not evaluate policy variables"),
        ({"Resource": f"arn:aws:s3:::{BUCKET}"}, "Action does not apply to any resource(s) in statement"),
        ({"Action": "s3:ListBucket"}, "Action does not apply to any resource(s) in statement"),
        ({"Action": ["s3:PutObject", "s3:ListBucket"]}, "Action does not apply to any resource(s) in statement"),
        ({"Condition": []}, "Invalid policy syntax."),
        ({"Condition": {"Bool": {}}}, "Invalid policy syntax."),
        ({"Condition": {"Bool": {"aws:SecureTransport": []}}}, "Invalid policy syntax."),
        ({"Condition": {"Bool": {"aws:SecureTransport": {"a": "b"}}}}, "Invalid policy syntax."),
        ({"Condition": {"Bool": {"aws:SecureTransport": "no"}}}, "Invalid value of aws:SecureTransport for Bool"),
        ({"Condition": {"NumericEquals": {"aws:EpochTime": "soon"}}}, "Invalid value"),
        ({"Condition": {"DateEquals": {"aws:CurrentTime": "soon"}}}, "Invalid value"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "here"}}}, "Invalid value"),
        ({"Condition": {"ArnLike": {"aws:PrincipalArn": "arn:*:role/x"}}}, "Invalid value"),
        ({"Condition": {"StringEquals": {"aws:PrincipalArn": "${aws:userid}"}}}, "does not evaluate policy variables"),
        ({"Condition": {"StringIs": {"aws:PrincipalArn": "x"}}}, "Invalid Condition type : StringIs"),
        ({"Condition": {"stringequals": {"aws:PrincipalArn": "x"}}}, "Invalid Condition type : stringequals"),
        ({"Condition": {"NullIfExists": {"aws:PrincipalArn": "true"}}}, "Invalid Condition type : NullIfExists"),
        ({"Condition": {"ForAnyValue:Null": {"aws:PrincipalArn": "true"}}}, "Invalid Condition type"),
        ({"Condition": {"ForSomeValue:StringLike": {"aws:PrincipalArn": "x"}}}, "Invalid Condition type"),
        ({"Condition": {"BinaryEquals": {"aws:PrincipalArn": "x"}}}, "Invalid Condition type"),
        ({"Condition": {"StringEquals": {"aws:Mood": "x"}}}, "the local cloud does not evaluate aws:Mood"),
        ({"Condition": {"StringEquals": {"s3:TlsVersion": "1.3"}}}, "the local cloud does not evaluate s3:TlsVersion"),
        ({"Condition": {"StringEquals": {"aws:PrincipalTag/": "x"}}}, "does not evaluate aws:PrincipalTag/"),
        ({"Condition": {"StringEquals": {"s3:prefix": "x"}}}, "Conditions do not apply to combination"),
        (
            {"Action": ["s3:PutObject", "s3:DeleteObject"], "Condition": {"Null": {"s3:if-none-match": "true"}}},
            "Conditions do not apply to combination",
        ),
    ],
    ids=lambda value: json.dumps(value)[:80],
)
def test_what_s3_does_not_take_or_would_not_count_is_refused(change: dict[str, Any], message: str) -> None:
    with refused(message):
        check({**DENY, **change})


def test_nobody_is_excepted_from_an_allow() -> None:
    with refused("Allow with NotPrincipal is not supported"):
        check({**without("Principal"), "Effect": "Allow", "NotPrincipal": {"AWS": ROLE}})
    for everybody in ("*", {"AWS": "*"}):
        with pytest.raises(PolicyRefused):
            check({**without("Principal"), "NotPrincipal": everybody})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Policies must be valid JSON"),
        (b"{", "Policies must be valid JSON"),
        (b"[]", "Policies must be valid JSON"),
        (b'{"Version": "2012-10-17"}', "Missing required field Statement"),
        (b'{"Statement": []}', "Missing required field Statement"),
        (b'{"Statement": ["x"]}', "Invalid policy syntax."),
        (b'{"Version": "2012-10-18", "Statement": []}', "valid version string"),
        (b'{"Rules": [], "Statement": []}', "Unknown field Rules"),
        (b'{"Statement": [], "Statement": []}', "a member is there twice"),
    ],
)
def test_a_document_that_is_no_policy_is_refused(body: bytes, message: str) -> None:
    with refused(message):
        checked_policy(body, BUCKET, exists)


def test_statements_have_names_of_their_own() -> None:
    check({**DENY, "Sid": "a"}, {**DENY, "Sid": "b"}, DENY, DENY)
    with refused("must be unique"):
        check({**DENY, "Sid": "a"}, {**DENY, "Sid": "a"})


def test_a_policy_of_20_kilobytes_is_taken_and_one_byte_more_is_not() -> None:
    document = json.dumps({"Statement": [DENY]}).encode()
    checked_policy(document.ljust(MOST_BYTES), BUCKET, exists)
    with refused("maximum allowed document size"):
        checked_policy(document.ljust(MOST_BYTES + 1), BUCKET, exists)


def test_every_operator_that_is_taken_is_one_that_the_evaluation_knows() -> None:
    assert {name.lower() for name in OPERATORS} - {"null"} <= set(iam_evaluator._CONDITION_OPS)
