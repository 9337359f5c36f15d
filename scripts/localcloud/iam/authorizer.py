"""Decisions about requests that the base does not see or sees too little of.

The algorithm, the conditions' operators and the policies are the base's; this adds what a resource tells
about itself, and keys of other accounts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.host import Host
from localcloud.iam.buckets import Buckets
from localcloud.iam.evaluation import EVALUATOR
from localcloud.iam.record import Record

_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):([0-9]{12}):key/.+")
_ACCOUNT = re.compile(r"[0-9]{12}")

ConditionKeys = Mapping[str, str | list[str]]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An answer about a request. ``error`` is the code of credentials that are no good, empty if policies decided."""

    allowed: bool
    principal: str
    reason: str = ""
    error: str = ""


class Authorizer:
    """Decides by policies, in the base's stores; as safe between threads as these are."""

    def __init__(self, host: Host, record: Record, buckets: Buckets) -> None:
        self._record = record
        self.buckets = buckets
        self._default_account = host.default_account_id
        self._scope = host.lookup("core.responses", "request_scope")
        self._session_account = host.lookup("core.responses", "_account_from_sts_session")
        self._user_account = host.lookup(EVALUATOR, "find_iam_access_key_account")
        self._resolve_credential = host.lookup(EVALUATOR, "resolve_credential")
        self._is_root: Callable[[str], bool] = host.lookup(EVALUATOR, "is_root_access_key")
        self._resolve_principal = host.lookup(EVALUATOR, "resolve_principal")
        self._credential_error = host.lookup(EVALUATOR, "CredentialResolutionError")
        self._auth_error = host.lookup(EVALUATOR, "AuthError")
        self._context = host.lookup(EVALUATOR, "EvalContext")
        self._evaluate = host.lookup(EVALUATOR, "evaluate")
        self._with_resource_policy = host.lookup(EVALUATOR, "combine_resource_policy")
        self._resource_policy = host.lookup(EVALUATOR, "_resource_policy")
        self._key = host.lookup("services.kms", "_resolve_key")
        self._denial = host.lookup("core.iam_actions", "identity_denial_message")
        self._denial_by_resource = host.lookup("core.iam_actions", "_resource_policy_denial")

    def account_of(self, access_key: str) -> str:
        if _ACCOUNT.fullmatch(access_key):
            return access_key
        return str(self._session_account(access_key) or self._user_account(access_key) or self._default_account)

    def decide(
        self,
        *,
        access_key: str,
        action: str,
        resource: str,
        region: str,
        context: ConditionKeys | None = None,
        session_token: str | None = None,
    ) -> Decision:
        """Whether the key's principal may do ``action`` on ``resource``.

        ``context``: condition keys with their values, names in any case. ``session_token``: checked if given.
        """
        account = self.account_of(access_key)
        with self._scope(account, region):
            credential = (
                self._resolve_credential(access_key, account)
                if session_token is None
                else self._resolve_credential(access_key, account, session_token)
            )
            if isinstance(credential, self._credential_error):
                return Decision(allowed=False, principal="", reason=credential.message, error=credential.code)
            principal = self._resolve_principal(access_key, account, credential)
            if isinstance(principal, self._auth_error):
                return Decision(allowed=False, principal="", reason=principal.message, error=principal.code)
            asked = self._asked(principal, action, resource, region, context)
            if principal.policies is None:
                result = self.buckets.of_root(asked)
            else:
                result = self._evaluate(asked, principal.policies, *principal.limits)
        if principal.policies is not None:
            result = self._by_resource(result, asked, principal.limits)
        allowed = result.decision == "Allow"
        self._record.add(principal=principal.arn, action=action, resource=resource, allowed=allowed)
        if allowed:
            return Decision(allowed=True, principal=principal.arn)
        explicit = result.decision == "Deny"
        reason = (
            self._denial_by_resource(action.partition(":")[0], action, principal.arn, resource)
            if explicit and result.resource_policy_arn
            else self._denial(action, principal.arn, resource, explicit)
        )
        return Decision(allowed=False, principal=principal.arn, reason=reason)

    def buckets_refusal(
        self, access_key: str, action: str, resource: str, region: str, context: ConditionKeys | None
    ) -> Any:
        """The base's result for a request to S3 that its own look at the policies lets pass; ``None``: it may pass."""
        if not self._is_root(access_key) and not self.buckets.is_about_policy(action):
            return None
        principal = self._resolve_principal(access_key, self.account_of(access_key))
        asked = self._asked(principal, action, resource, region, context)
        result = self.buckets.by_owner(asked)
        if result is None and principal.policies is None:
            with self.buckets.asked(action):
                result = self.buckets.of_root(asked)
        return None if result is None or result.decision == "Allow" else result

    def _asked(self, principal: Any, action: str, resource: str, region: str, context: ConditionKeys | None) -> Any:
        asked = self._context(
            principal_arn=principal.arn,
            principal_type=principal.type,
            principal_account=principal.account,
            action=action,
            resource_arn=resource,
            region=region,
            service_context={name.lower(): value for name, value in (context or {}).items()},
            principal_keys=principal.keys,
        )
        asked.service_context.setdefault("aws:tagkeys", None)
        return asked

    def _by_resource(self, result: Any, asked: Any, limits: Any) -> Any:
        """The decision with the resource's own policy, which is looked up where the resource is."""
        service = asked.action.partition(":")[0]
        key = _KEY_ARN.fullmatch(asked.resource_arn)
        if service == "kms" and key is not None:
            with self._scope(key.group(2), key.group(1)):
                record = self._key(asked.resource_arn)
            if record is None or record.get("KeyManager") == "AWS":
                # The policies of aws/ebs and aws/s3, which nobody can change: all of its account, through the service.
                via = str(asked.service_context.get("kms:viaservice", ""))
                through = via.startswith(("ec2.", "s3."))
                if result.decision != "Deny" and asked.principal_account == key.group(2) and through:
                    result.decision = "Allow"
                elif result.decision == "Allow":
                    result.decision = "ImplicitDeny"
                return result
            policy = record.get("Policy") or ""
            return self._with_resource_policy(result, asked, policy, key.group(2), required=True, limits=limits)
        with self._scope(asked.principal_account, asked.region):
            found = self._resource_policy(service, asked.resource_arn)
        if found is None:
            return result
        return self._with_resource_policy(result, asked, *found, limits=limits)
