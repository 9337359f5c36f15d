"""Corrections of the base's evaluation of policies, the one that decides by every kind of policy.

Source: IAM user guide, "IAM JSON policy elements: Condition operators", "AWS JSON policy elements: Principal" and
"NotPrincipal", "AWS global condition context keys".
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localcloud.host import Host
from localcloud.iam.operators import operand_check

EVALUATOR = "core.iam_evaluator"
_SESSION = re.compile(r"arn:(aws[a-z-]*):sts::([0-9]{12}):assumed-role/([^/]+)/.+")
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):root|([0-9]{12})")
_ARN_PARTS = 6
_OF_CALLERS_THAT_SIGN = frozenset({"aws:principalarn", "aws:principalaccount", "aws:userid"})

RoleArn = Callable[[str], str]
"""The ARN of a session's role; empty for who is no session."""


def install(host: Host) -> None:
    role_arn = role_arns(host)
    _match_every_character(host)
    _compare_arns(host)
    _tell_condition_keys(host, role_arn)
    _match_principals(host, role_arn)
    _except_principals(host, role_arn)
    _refuse_unknown_operators(host)


def role_arns(host: Host) -> RoleArn:
    roles = host.lookup("services.iam", "_roles")

    def role_arn(principal_arn: str) -> str:
        session = _SESSION.fullmatch(principal_arn)
        if session is None:
            return ""
        partition, account, name = session.groups()
        role = roles.get_scoped(account, None, name) or {}
        return str(role.get("Arn") or f"arn:{partition}:iam::{account}:role/{name}")

    return role_arn


def listed(value: Any) -> list[str]:
    """The values of an element that may be one text or a list of texts."""
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _match_every_character(host: Host) -> None:
    """The base's ``*`` stops at a line feed, which the key of an object may have."""

    @functools.lru_cache(maxsize=4096)
    def compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        wild = {"*": ".*", "?": "."}
        regex = "".join(wild.get(character) or re.escape(character) for character in pattern)
        return re.compile(rf"{regex}\Z", re.DOTALL | (re.IGNORECASE if ignore_case else 0))

    host.replace(EVALUATOR, "_fnmatch_compile", compiled)


def _compare_arns(host: Host) -> None:
    """Each of the six parts of an ARN is compared for itself: ``*`` does not reach over a colon before the last."""
    operators: Mapping[str, Any] | None = host.lookup(EVALUATOR, "_CONDITION_OPS")
    matches: Callable[[str, str], bool] = host.lookup(EVALUATOR, "fnmatch_iam_cs")

    def like(actual: str, expected: str) -> bool:
        if expected == "*":
            return True
        parts, wanted = (arn.split(":", _ARN_PARTS - 1) for arn in (actual, expected))
        return len(parts) == len(wanted) == _ARN_PARTS and all(map(matches, parts, wanted))

    def unlike(actual: str, expected: str) -> bool:
        return not like(actual, expected)

    ours = {"arnequals": like, "arnlike": like, "arnnotequals": unlike, "arnnotlike": unlike}
    host.replace(EVALUATOR, "_CONDITION_OPS", {**(operators or {}), **ours})


def _tell_condition_keys(host: Host, role_arn: RoleArn) -> None:
    """Keys whose values the base does not tell as AWS does.

    ``aws:SecureTransport`` is true although the local cloud speaks plain HTTP: everything here goes over this machine's
    loopback, where nobody listens, and so a policy that demands TLS, as that of our buckets, can be kept and does not
    close the bucket to everybody. It is never false, so such a policy is not seen to refuse anything either.
    """
    base: Callable[[str, Any], Any] = host.lookup(EVALUATOR, "_resolve_condition_key")

    def resolve(key: str, asked: Any) -> Any:
        name = key.lower()
        if name == "aws:securetransport":
            return "true"
        if name in ("aws:principalisawsservice", "aws:viaawsservice"):
            return "false"  # services that act for somebody do so under roles here
        if name in _OF_CALLERS_THAT_SIGN and asked.principal_type == "Anonymous":
            return None
        if name == "aws:principaltype" and asked.principal_type == "Root":
            return "Account"
        if name == "aws:principalarn":
            return role_arn(asked.principal_arn) or asked.principal_arn
        if name in ("aws:resourceaccount", "s3:resourceaccount") and name in asked.service_context:
            return asked.service_context[name]
        return base(key, asked)

    host.replace(EVALUATOR, "_resolve_condition_key", resolve)


def _match_principals(host: Host, role_arn: RoleArn) -> None:
    """Whom ``Principal`` names: an account with all in it, a role with its sessions, one session, one user.

    The base takes wildcards in ARNs, which AWS refuses, and lets an account's root pass as every service; only our
    service sessions are services.
    """

    def matches(principal: Any, caller_arn: str) -> bool:
        if principal == "*":
            return True
        named = principal.get("AWS") if isinstance(principal, Mapping) else principal
        return any(
            each in ("*", caller_arn, role_arn(caller_arn)) or _account_of(each) == caller_arn.split(":")[4:5]
            for each in listed(named)
        )

    host.replace(EVALUATOR, "_principal_matches", matches)


def _account_of(principal: str) -> list[str] | None:
    """The account that is meant by a principal of a policy, as the fifth part of an ARN has it."""
    account = _ACCOUNT.fullmatch(principal)
    return [account.group(1) or account.group(2)] if account is not None else None


def _except_principals(host: Host, role_arn: RoleArn) -> None:
    """A Deny with ``NotPrincipal`` is about everybody whose account, role and session are not all in it."""
    base: Callable[..., Any] = host.lookup(EVALUATOR, "evaluate_resource_policy")

    def excepted(named: Any, caller_arn: str) -> bool:
        names = listed(named.get("AWS") if isinstance(named, Mapping) else named)
        account = caller_arn.split(":")[4:5]
        own = [arn for arn in (caller_arn, role_arn(caller_arn)) if arn and not arn.endswith(":root")]
        return any(_account_of(name) == account for name in names) and set(own) <= set(names)

    def about(statement: Mapping[str, Any], caller_arn: str) -> Iterator[Mapping[str, Any]]:
        if "NotPrincipal" not in statement:
            yield statement
        elif statement.get("Effect") == "Deny" and not excepted(statement["NotPrincipal"], caller_arn):
            yield {**statement, "Principal": "*"}

    def evaluate(document: Any, asked: Any, *arguments: Any, **named: Any) -> Any:
        try:
            policy = json.loads(document) if isinstance(document, str) else document
        except ValueError:
            policy = None
        statements = policy.get("Statement") if isinstance(policy, Mapping) else None
        plain = [statements] if isinstance(statements, Mapping) else statements or []
        kept = [each for one in plain if isinstance(one, Mapping) for each in about(one, asked.principal_arn)]
        return base({"Statement": kept}, asked, *arguments, **named)

    host.replace(EVALUATOR, "evaluate_resource_policy", evaluate)


def _refuse_unknown_operators(host: Host) -> None:
    """A role's or user's policy is refused for a condition that the base would take as never met, in a Deny as well."""
    base: Callable[[Any], str | None] = host.lookup(EVALUATOR, "validate_policy_document")

    def problem(document: Any) -> str | None:
        found = base(document)
        if found is not None:
            return found
        policy = json.loads(document) if isinstance(document, str) else document
        statements = policy["Statement"]
        for statement in [statements] if isinstance(statements, Mapping) else statements:
            conditions = statement.get("Condition", {})
            if not isinstance(conditions, Mapping):
                return "Syntax errors in policy."
            for operator in conditions:
                if operand_check(operator) is None:
                    return f"Syntax errors in policy: {operator} is no condition operator"
        return None

    host.replace(EVALUATOR, "validate_policy_document", problem)
