"""Sessions of roles that AWS services assume: Lambda for functions, Step Functions for machines, schedules."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from localcloud.host import Host, RoleRefused, SessionKeys
from localcloud.iam.authorizer import Authorizer, Decision
from localcloud.iam.evaluation import EVALUATOR

_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):role/(?:.*/)?([^/:]+)")
SESSION_SECONDS = 12 * 3600.0
_RENEW_SECONDS = 3600.0
"""A kept session is renewed this long before its end: longer than any call under it takes."""
_MOST_NAME = 64  # RoleSessionName, STS API reference


class RoleSessions:
    """Makes sessions as STS does for a service principal, if the role's trust policy lets it."""

    def __init__(self, host: Host, authorizer: Authorizer) -> None:
        self.authorizer = authorizer
        self._roles = host.lookup("services.iam", "_roles")
        self._register = host.lookup("services.sts", "register_session")
        self._access_key = host.lookup("services.iam", "_gen_session_access_key")
        self._secret = host.lookup("services.iam", "_gen_secret")
        self._token = host.lookup("services.iam", "_gen_session_token")
        self._context = host.lookup(EVALUATOR, "EvalContext")
        self._names_service = host.lookup(EVALUATOR, "_service_principal_matches")
        self._names_action = host.lookup(EVALUATOR, "_action_matches")
        self._conditions_met = host.lookup(EVALUATOR, "_conditions_met")
        self._kept: dict[tuple[str, str, str, str], tuple[float, SessionKeys]] = {}
        self._lock = threading.Lock()

    def credentials(self, *, role_arn: str, service: str, source_arn: str, session_name: str) -> SessionKeys:
        """Keys of a new session; ``RoleRefused`` when there is no such role or it does not trust ``service``.

        ``service`` is a principal (``lambda.amazonaws.com``), ``source_arn`` the resource it acts for.
        """
        role = self._trusting(role_arn, service=service, source_arn=source_arn)
        account = role_arn.split(":")[4]
        name = re.sub(r"[^\w+=,.@-]", "-", session_name)[:_MOST_NAME]
        keys = SessionKeys(
            access_key_id=self._access_key(), secret_access_key=self._secret(), session_token=self._token()
        )
        self._register(
            keys.access_key_id,
            {
                "Arn": f"{role_arn.split(':iam:')[0]}:sts::{account}:assumed-role/{role['RoleName']}/{name}",
                "UserId": f"{role.get('RoleId', '')}:{name}",
                "SecretAccessKey": keys.secret_access_key,
                "SessionToken": keys.session_token,
                "Expiration": time.time() + SESSION_SECONDS,
                "AccountId": account,
                "PrincipalType": "AssumedRole",
                "SourcePrincipalArn": service,
                "SessionTags": [],
                "SessionPolicies": None,
            },
        )
        return keys

    def kept_credentials(self, *, role_arn: str, service: str, source_arn: str, session_name: str) -> SessionKeys:
        """The same session for the same four, renewed in time; the trust policy is asked every time."""
        self._trusting(role_arn, service=service, source_arn=source_arn)
        which = (role_arn, service, source_arn, session_name)
        with self._lock:
            until, keys = self._kept.get(which, (0.0, None))
            if keys is None or time.time() > until:
                keys = self.credentials(
                    role_arn=role_arn, service=service, source_arn=source_arn, session_name=session_name
                )
                self._kept[which] = (time.time() + SESSION_SECONDS - _RENEW_SECONDS, keys)
            return keys

    def may(
        self,
        keys: SessionKeys,
        action: str,
        resource: str,
        *,
        region: str,
        context: Mapping[str, str | list[str]] | None = None,
    ) -> Decision:
        return self.authorizer.decide(
            access_key=keys.access_key_id, action=action, resource=resource, region=region, context=context
        )

    def _trusting(self, role_arn: str, *, service: str, source_arn: str) -> Any:
        named = _ROLE_ARN.fullmatch(role_arn)
        role = self._roles.get_scoped(named.group(1), None, named.group(2)) if named else None
        if role is None:
            raise RoleRefused(f"there is no role {role_arn} that {service} could assume")
        if not self._trusts(role.get("AssumeRolePolicyDocument") or {}, role_arn, service, source_arn):
            raise RoleRefused(
                f"{service} is not authorized to perform: sts:AssumeRole on resource: {role_arn} "
                f"on behalf of {source_arn}"
            )
        return role

    def _trusts(self, document: Any, role_arn: str, service: str, source_arn: str) -> bool:
        trust = json.loads(document) if isinstance(document, str) else document
        statements = trust.get("Statement", [])
        parts = source_arn.split(":")
        asked = self._context(
            principal_arn=service,
            principal_type="Service",
            principal_account="",
            action="sts:AssumeRole",
            resource_arn=role_arn,
            region=parts[3] if len(parts) > 4 else "",
            service_context={"aws:sourcearn": source_arn, "aws:sourceaccount": parts[4] if len(parts) > 4 else ""},
        )
        trusted = False
        for statement in [statements] if isinstance(statements, dict) else statements:
            principal = statement.get("Principal")
            if principal != "*" and not self._names_service(principal, service):
                continue
            actions = [_listed(statement.get(name)) for name in ("Action", "NotAction")]
            if not any(actions) or not self._names_action(asked.action, *actions):
                continue
            if not self._conditions_met(statement.get("Condition") or {}, asked):
                continue
            if statement.get("Effect") == "Deny":
                return False
            trusted = trusted or statement.get("Effect") == "Allow"
        return trusted


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
