"""Which bucket policies S3 takes, and which of those the local cloud evaluates in full.

A policy is refused as a whole for whatever would not count here: an operator, a condition key or a variable that the
evaluation does not know, a principal that there is not. So what stands in a policy holds.

Source: S3 user guide, "Bucket policies for Amazon S3" (20 KB) and "Policies and permissions in Amazon S3"; service
authorization reference, "Amazon S3"; IAM user guide, "IAM JSON policy elements reference". Codes and messages are S3's
where public bug reports quote them (versity/versitygw issues 645 and 648, noobaa/noobaa-core issue 10058,
humanmade/S3-Uploads issue 239); the code for a policy that is too large is unknown.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from localcloud.iam.evaluation import listed
from localcloud.iam.operators import OPERATORS, operand_check

_ACTIONS = json.loads(Path(__file__).with_name("s3_actions.json").read_text())
OF_BUCKETS: frozenset[str] = frozenset(_ACTIONS["bucket"])
OF_OBJECTS: frozenset[str] = frozenset(_ACTIONS["object"])
"""Actions that a bucket policy can name, in lower case."""
MOST_BYTES = 20 * 1024
_VERSIONS = ("2012-10-17", "2008-10-17")
_POLICY_MEMBERS = frozenset({"Version", "Id", "Statement"})
_MEMBERS = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ROOT = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:root|[0-9]{12}")
_ENTITY = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):(role|user)/(?:[\w+=,.@/-]+/)?[\w+=,.@-]+")
_SESSION = re.compile(r"arn:(aws[a-z-]*):sts::([0-9]{12}):assumed-role/([\w+=,.@-]+)/[\w+=,.@-]+")
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?")

Exists = Callable[[str, str, str], bool]
"""Whether an account (second) has a ``role`` or a ``user`` (first) of this ARN, or a role of this name (third)."""


class PolicyRefused(ValueError):
    """A bucket policy is malformed, or says what the local cloud does not evaluate."""


_KEYS_OF_EVERY_REQUEST = frozenset(
    {
        *("aws:currenttime", "aws:epochtime", "aws:multifactorauthpresent", "aws:principalaccount", "aws:principalarn"),
        *("aws:principalisawsservice", "aws:principalorgid", "aws:principaltype", "aws:requestedregion"),
        *("aws:resourceaccount", "aws:securetransport", "aws:sourceip", "aws:userid", "aws:username"),
        *("aws:viaawsservice", "s3:resourceaccount"),
        # Of services that act by themselves, and of networks: no request to a bucket comes from there, so never there.
        *("aws:sourcearn", "aws:sourceaccount", "aws:sourcevpc", "aws:sourcevpce", "aws:vpcsourceip"),
    }
)
_LISTING = frozenset({"listbucket", "listbucketversions"})
_WRITING = frozenset({"putobject"})
_READING = frozenset({"getobject", "getobjectversion"})
_KEYS_OF_ACTIONS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("s3:prefix", "s3:delimiter", "s3:max-keys"), _LISTING),
    **dict.fromkeys(
        (
            *("s3:if-match", "s3:if-none-match", "s3:objectcreationoperation", "s3:requestobjecttagkeys"),
            *("s3:x-amz-acl", "s3:x-amz-copy-source", "s3:x-amz-grant-full-control", "s3:x-amz-grant-read"),
            *("s3:x-amz-grant-read-acp", "s3:x-amz-grant-write", "s3:x-amz-grant-write-acp"),
            *("s3:x-amz-metadata-directive", "s3:x-amz-server-side-encryption", "s3:x-amz-storage-class"),
            "s3:x-amz-server-side-encryption-aws-kms-key-id",
        ),
        _WRITING,
    ),
}
_TAG_KEYS_OF_ACTIONS: Mapping[str, frozenset[str]] = {
    "s3:existingobjecttag/": _READING,
    "s3:requestobjecttag/": _WRITING,
}
_TAG_KEYS_OF_EVERY_REQUEST = ("aws:principaltag/",)


def checked_policy(body: bytes, bucket: str, exists: Exists) -> None:
    """Raise ``PolicyRefused`` for a policy that S3 does not take, or that the local cloud does not evaluate in full."""
    if len(body) > MOST_BYTES:
        raise PolicyRefused("Policy exceeds the maximum allowed document size.")
    policy = _document(body)
    if unknown := sorted(set(policy) - _POLICY_MEMBERS):
        raise PolicyRefused(f"Unknown field {unknown[0]}")
    if policy.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise PolicyRefused("The policy must contain a valid version string")
    statements = policy.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise PolicyRefused("Missing required field Statement")
    for statement in statements:
        _check_statement(statement, bucket, exists)
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(sids) != len(set(sids)):
        raise PolicyRefused("Statement IDs (SID) in a single policy must be unique.")


def _document(body: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise PolicyRefused("This policy contains invalid Json: a member is there twice")
        return members

    try:
        policy = json.loads(body, object_pairs_hook=once)
    except PolicyRefused:
        raise
    except ValueError as error:
        raise PolicyRefused("Policies must be valid JSON and the first byte must be '{'") from error
    if not isinstance(policy, dict):
        raise PolicyRefused("Policies must be valid JSON and the first byte must be '{'")
    return policy


def _check_statement(statement: Any, bucket: str, exists: Exists) -> None:
    if not isinstance(statement, dict):
        raise PolicyRefused("Invalid policy syntax.")
    if unknown := sorted(set(statement) - _MEMBERS):
        raise PolicyRefused(f"Unknown field {unknown[0]}")
    if "Effect" not in statement:
        raise PolicyRefused("Missing required field Effect")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise PolicyRefused(f"Invalid effect: {statement['Effect']}")
    if not isinstance(statement.get("Sid", ""), str):
        raise PolicyRefused("Invalid policy syntax.")
    principals, actions, resources = (_one_of(statement, name) for name in ("Principal", "Action", "Resource"))
    if principals == "NotPrincipal" and statement["Effect"] == "Allow":
        raise PolicyRefused("Allow with NotPrincipal is not supported")
    _check_principals(statement[principals], exists, excepted=principals == "NotPrincipal")
    named_actions = _texts(statement, actions)
    found = [_actions_meant(action) for action in named_actions]
    named_resources = _texts(statement, resources)
    for resource in named_resources:
        if not re.fullmatch(rf"arn:aws:s3:::{re.escape(bucket)}(?:[*?/].*)?", resource, re.DOTALL):
            raise PolicyRefused("Policy has invalid resource")
        _refuse_variables(resource)
    possible = frozenset().union(*found) if actions == "Action" else OF_BUCKETS | OF_OBJECTS
    if resources == "Resource":
        served = _served_by(named_resources)
        possible &= served
        if actions == "Action" and not all(meant & served for meant in found):
            raise PolicyRefused("Action does not apply to any resource(s) in statement")
    wild = [any(character in action for character in "*?") for action in named_actions]
    exact = [meant for meant, is_wild in zip(found, wild, strict=True) if not is_wild] if actions == "Action" else []
    _check_conditions(statement.get("Condition", {}), possible, exact)


def _one_of(statement: Mapping[str, Any], name: str) -> str:
    """Which of ``name`` and ``Not<name>`` the statement has."""
    there = [each for each in (name, f"Not{name}") if each in statement]
    if not there:
        raise PolicyRefused(f"Missing required field {name}")
    if len(there) > 1:
        raise PolicyRefused(f"Statement has both {name} and Not{name}")
    return there[0]


def _texts(statement: Mapping[str, Any], name: str) -> list[str]:
    value = statement[name]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise PolicyRefused(f"Policy has invalid {name.removeprefix('Not').lower()}")
    return texts


def _actions_meant(pattern: str) -> frozenset[str]:
    name = "*" if pattern == "*" else pattern.lower().removeprefix("s3:")
    if pattern != "*" and not pattern.lower().startswith("s3:"):
        raise PolicyRefused("Policy has invalid action")
    if "[" in name:
        raise PolicyRefused("Policy has invalid action")
    meant = frozenset(fnmatch.filter(OF_BUCKETS | OF_OBJECTS, name))
    if not meant:
        raise PolicyRefused("Policy has invalid action")
    return meant


def _served_by(resources: Iterable[str]) -> frozenset[str]:
    """The actions that there are on the bucket, on its objects, or on both, by the ARNs."""
    served: frozenset[str] = frozenset()
    for resource in resources:
        if "/" in resource:
            served |= OF_OBJECTS
        elif resource.endswith("*"):
            served |= OF_BUCKETS | OF_OBJECTS
        else:
            served |= OF_BUCKETS
    return served


def _check_principals(principals: Any, exists: Exists, *, excepted: bool) -> None:
    if principals == "*" and not excepted:
        return
    if not isinstance(principals, dict) or not principals:
        raise PolicyRefused("Invalid policy syntax.")
    for kind, value in principals.items():
        names = listed(value)
        if not names:
            raise PolicyRefused("Invalid principal in policy")
        match kind:
            case "AWS":
                valid = all(_is_principal(name, exists, excepted=excepted) for name in names)
            case "Service":
                valid = all(_SERVICE.fullmatch(name) for name in names)
            case "CanonicalUser" | "Federated":
                raise PolicyRefused(f"Invalid principal in policy: the local cloud does not evaluate {kind}")
            case _:
                raise PolicyRefused("Invalid policy syntax.")
        if not valid:
            raise PolicyRefused("Invalid principal in policy")


def _is_principal(name: str, exists: Exists, *, excepted: bool) -> bool:
    if name == "*":
        return not excepted
    if _ROOT.fullmatch(name):
        return True
    if entity := _ENTITY.fullmatch(name):
        return exists(entity[2], entity[1], name)
    session = _SESSION.fullmatch(name)
    return session is not None and exists("role", session[2], session[3])


def _check_conditions(conditions: Any, possible: frozenset[str], exact: Iterable[frozenset[str]]) -> None:
    """Raise ``PolicyRefused`` for conditions that would not count. ``possible``: all actions of the statement on its
    resources; ``exact``: each that is named without wildcards."""
    if not isinstance(conditions, dict):
        raise PolicyRefused("Invalid policy syntax.")
    for operator, keys in conditions.items():
        takes = operand_check(operator)
        if takes is None:
            raise PolicyRefused(f"Invalid Condition type : {operator}; the local cloud knows {', '.join(OPERATORS)}")
        if not isinstance(keys, dict) or not keys:
            raise PolicyRefused("Invalid policy syntax.")
        for key, values in keys.items():
            actions = _actions_with(key)
            if not possible & actions or not all(meant <= actions for meant in exact):
                raise PolicyRefused("Conditions do not apply to combination of actions and resources in statement")
            _check_values(operator, key, values, takes)


def _check_values(operator: str, key: str, values: Any, takes: Callable[[str], None]) -> None:
    given = values if isinstance(values, list) else [values]
    if not given or not all(isinstance(value, str | bool | int | float) for value in given):
        raise PolicyRefused("Invalid policy syntax.")
    for value in given:
        _refuse_variables(str(value))
        try:
            takes(str(value))
        except ValueError as error:
            raise PolicyRefused(f"Invalid value of {key} for {operator}: {value}") from error


def _actions_with(key: str) -> frozenset[str]:
    """The actions whose requests have a condition key."""
    name = key.lower()
    if name in _KEYS_OF_EVERY_REQUEST or _has_name(name, _TAG_KEYS_OF_EVERY_REQUEST):
        return OF_BUCKETS | OF_OBJECTS
    if name in _KEYS_OF_ACTIONS:
        return _KEYS_OF_ACTIONS[name]
    for prefix, actions in _TAG_KEYS_OF_ACTIONS.items():
        if _has_name(name, (prefix,)):
            return actions
    raise PolicyRefused(f"Policy has an invalid condition key: the local cloud does not evaluate {key}")


def _has_name(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key.startswith(prefix) and len(key) > len(prefix) for prefix in prefixes)


def _refuse_variables(text: str) -> None:
    if "${" in text:
        raise PolicyRefused(f"The local cloud does not evaluate policy variables in bucket policies: {text}")
