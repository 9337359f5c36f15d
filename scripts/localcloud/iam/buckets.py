"""Requests to buckets: what they ask for, told in full, and the policies of buckets, for every caller who signs.

The base evaluates a bucket's policy beside the caller's own; here it learns of keys with slashes of every kind, of
more condition keys, of buckets of other accounts, and that a bucket's policy binds an account's root, too. Access
points are the base's. Source: S3 user guide, "Policies and permissions in Amazon S3", "Enforce conditional writes on
Amazon S3 buckets"; IAM user guide, "Cross-account policy evaluation logic"; API reference, PutBucketPolicy (whom a
policy cannot shut out).
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from localcloud.host import Host, Response
from localcloud.iam.bucket_policies import PolicyRefused, checked_policy
from localcloud.iam.evaluation import EVALUATOR

ACTION_NAMES = "core.iam_actions"
S3 = "services.s3"
ARN = "arn:aws:s3:::"
_OF_POLICY = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
_HEADERS_OF_WRITES = ("x-amz-copy-source", "x-amz-metadata-directive", "x-amz-storage-class")
_CONDITIONAL = ("if-match", "if-none-match")
_OF_HEADERS = (
    ("s3:GetObject", "if-match"),
    ("s3:PutObjectTagging", "x-amz-tagging"),
    ("s3:PutObjectRetention", "x-amz-object-lock-mode"),
    ("s3:PutObjectLegalHold", "x-amz-object-lock-legal-hold"),
)
"""What a write needs besides ``s3:PutObject`` for a header (API reference, PutObject, "Permissions")."""
_ENCRYPTION_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
_KEY = "k"
"""Stands for an object's key where the base would take it apart at its slashes."""

Query = Mapping[str, Any]
Checks = list[tuple[str, str]]


class Buckets:
    """The policies of buckets as a part of decisions. Safe between threads, as far as the base's stores are."""

    def __init__(self, host: Host) -> None:
        self._owner: Callable[[str], str | None] = host.lookup(S3, "_bucket_owner_account")
        self._policies = host.lookup(S3, "_bucket_policies")
        self._blocked: Callable[[str, str, str], bool] = host.lookup(S3, "_public_access_blocked")
        self._is_public: Callable[[str], bool] = host.lookup(S3, "_policy_is_public")
        self._account: Callable[[], str] = host.lookup("core.responses", "get_account_id")
        self._of_others = host.lookup(S3, "bucket_policy_for_arn")
        self._result = host.lookup(EVALUATOR, "EvalResult")
        self._combine = host.lookup(EVALUATOR, "combine_resource_policy")
        self._creating = contextvars.ContextVar("localcloud_creating_a_bucket", default=False)

    def owner(self, arn: str) -> str | None:
        """The account of the bucket that an ARN is about."""
        return self._owner(arn.removeprefix(ARN).partition("/")[0]) if arn.startswith(ARN) else None

    @contextlib.contextmanager
    def asked(self, action: str) -> Iterator[None]:
        """Around the decision about ``action``: whoever creates a bucket of a taken name learns that it is taken."""
        token = self._creating.set(action == "s3:CreateBucket")
        try:
            yield
        finally:
            self._creating.reset(token)

    def policy(self, arn: str) -> tuple[str, str] | None:
        """The policy of the bucket and its owner, whoever asks; ``None`` where there is no such bucket."""
        owner = self.owner(arn)
        if owner is None or self._creating.get():
            return None if arn.startswith(ARN) else self._of_others(arn)
        bucket = arn.removeprefix(ARN).partition("/")[0]
        found = str(self._policies.get_scoped(owner, None, bucket) or "")
        if found and owner != self._account() and self._is_shut_to_others(owner, bucket, found):
            return "", owner
        return found, owner

    def _is_shut_to_others(self, owner: str, bucket: str, policy: str) -> bool:
        return self._is_public(policy) and self._blocked(owner, bucket, "RestrictPublicBuckets")

    def is_about_policy(self, action: str) -> bool:
        """Whether an action reads or changes the policy of a bucket."""
        return action in _OF_POLICY

    def by_owner(self, asked: Any) -> Any:
        """The decision where the bucket's owner alone has a say: only its account touches a bucket's policy.

        ``None`` where others decide. AWS answers 405 to identities of other accounts, which is 403 here.
        """
        owner = self.owner(asked.resource_arn)
        if asked.action not in _OF_POLICY or owner in (None, asked.principal_account):
            return None
        return self._result("Deny", asked.principal_arn, resource_policy_arn=asked.resource_arn)

    def of_root(self, asked: Any) -> Any:
        """The decision about the root of an account: everything that the bucket's policy does not deny.

        The owner's root keeps its hands on the policy itself, and a root of another account needs an Allow.
        """
        allowed = self._result("Allow", asked.principal_arn)
        found = self.policy(asked.resource_arn)
        if found is None or (asked.action in _OF_POLICY and found[1] == asked.principal_account):
            return allowed
        return self._combine(allowed, asked, *found)


def install(host: Host) -> Buckets:
    buckets = Buckets(host)
    host.replace(S3, "bucket_policy_for_arn", buckets.policy)
    _name_requests(host)
    _tell_context(host, buckets)
    _let_decided_requests_in(host)
    _check_policies(host)
    return buckets


def _name_requests(host: Host) -> None:
    """Action and resource of every key, those that begin with, end with or repeat a slash among them."""
    parts: Callable[[str, Mapping[str, str]], tuple[str, str]] = host.lookup(S3, "_parse_bucket_key")
    action_of: Callable[[str, str, Query], str | None] = host.lookup(ACTION_NAMES, "_s3_action")
    resource_of: Callable[..., str] = host.lookup(ACTION_NAMES, "extract_resource_arn")
    more_of: Callable[..., Checks] = host.lookup(ACTION_NAMES, "s3_additional_checks")

    def short(path: str) -> str:
        bucket, key = parts(path, {})
        return f"/{bucket}/{_KEY}" if key else f"/{bucket}"

    def action(method: str, path: str, query: Query) -> str | None:
        return action_of(method, short(path), query)

    def resource(service: str, method: str, path: str, *rest: Any) -> str:
        bucket, key = parts(path, {}) if service == "s3" else ("", "")
        return f"{ARN}{bucket}/{key}" if key else resource_of(service, method, path, *rest)

    def more(method: str, path: str, headers: Mapping[str, str], body: bytes, query: Query) -> Checks:
        bucket, key = parts(path, {})
        checks = more_of(method, short(path), headers, body, query)
        if not key:
            return checks
        exact = f"{ARN}{bucket}/{key}"
        if action(method, path, query) == "PutObject":  # the others are about the source of a copy
            return [*checks, *((name, exact) for name, header in _OF_HEADERS if headers.get(header))]
        return [(name, exact) for name, _ in checks]

    host.replace(ACTION_NAMES, "_s3_action", action)
    host.replace(ACTION_NAMES, "extract_resource_arn", resource)
    host.replace(ACTION_NAMES, "s3_additional_checks", more)


def _tell_context(host: Host, buckets: Buckets) -> None:
    """Condition keys of writes, and everything that a bucket tells looked up in its owner's account."""
    base: Callable[..., dict[str, Any]] = host.lookup(ACTION_NAMES, "s3_service_context")
    scope = host.lookup("core.responses", "request_scope")
    account: Callable[[], str] = host.lookup("core.responses", "get_account_id")
    region: Callable[[], str] = host.lookup("core.responses", "get_region")
    parts: Callable[[str, Mapping[str, str]], tuple[str, str]] = host.lookup(S3, "_parse_bucket_key")
    uploads = host.lookup(S3, "_multipart_uploads")

    def encryption_key(query: Query, headers: Mapping[str, str]) -> str | None:
        """The key that a write asks for; parts and completion ask for that of their upload."""
        upload_id = query.get("uploadId")
        if not upload_id:
            return headers.get(_ENCRYPTION_KEY)
        upload = uploads.get(upload_id[-1] if isinstance(upload_id, list) else upload_id) or {}
        return upload["preserved_headers"].get(_ENCRYPTION_KEY) if upload.get("requested_sse") else None

    def context(
        action: str, query: Query | None, path: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        bucket, key = parts(path, {})
        owner = buckets.owner(f"{ARN}{bucket}")
        with scope(owner or account(), region()):
            found = base(action, query, path, headers)
            asked_key = encryption_key(query or {}, headers or {}) if action == "s3:PutObject" else None
        if asked_key:
            found[f"s3:{_ENCRYPTION_KEY}"] = asked_key
        if owner is not None:
            found |= {"aws:ResourceAccount": owner, "s3:ResourceAccount": owner}
        if action == "s3:PutObject" and key:
            found |= write_context(query or {}, headers or {})
        return found

    host.replace(ACTION_NAMES, "s3_service_context", context)


def write_context(query: Query, headers: Mapping[str, str]) -> dict[str, Any]:
    """Condition keys of a request that is decided as ``s3:PutObject``, besides those of ACLs and encryption.

    ``s3:ObjectCreationOperation`` is false of the requests that only prepare an object, which take no conditions:
    CreateMultipartUpload, UploadPart and UploadPartCopy. No other request has their queries: ``request_model``.
    """
    creates = "uploads" not in query and "partNumber" not in query
    found: dict[str, Any] = {"s3:ObjectCreationOperation": str(creates).lower()}
    found |= {f"s3:{name}": headers[name] for name in _HEADERS_OF_WRITES if headers.get(name)}
    if creates:
        found |= {f"s3:{name}": headers[name] for name in _CONDITIONAL if headers.get(name)}
    tags = dict(parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True))
    if tags:
        found["s3:RequestObjectTagKeys"] = list(tags)
        found |= {f"s3:RequestObjectTag/{name}": value for name, value in tags.items()}
    return found


def _let_decided_requests_in(host: Host) -> None:
    """The base asks the policy of another account's bucket once more, for that account's root in place of the caller.

    Who signs was decided about before, by name. Grants of ACLs to other accounts therefore do not count.
    """
    base: Callable[..., bool] = host.lookup(S3, "_foreign_bucket_allows")
    action_of: Callable[[str, str, Query], str | None] = host.lookup(ACTION_NAMES, "_s3_action")

    def allows(owner: str, bucket: str, key: str, method: str, query: Query, caller: str, headers: Any = None) -> bool:
        if caller:
            return action_of(method, f"/{bucket}/{key}" if key else f"/{bucket}", query) is not None
        return base(owner, bucket, key, method, query, caller, headers)

    host.replace(S3, "_foreign_bucket_allows", allows)


def _check_policies(host: Host) -> None:
    base: Callable[[str, bytes], Response] = host.lookup(S3, "_put_bucket_policy")
    error: Callable[[str, str, int, str], Response] = host.lookup(S3, "_error")
    owner_of: Callable[[str], str | None] = host.lookup(S3, "_bucket_owner_account")
    stores = {"role": host.lookup("services.iam", "_roles"), "user": host.lookup("services.iam", "_users")}

    def exists(kind: str, account: str, name: str) -> bool:
        entity = stores[kind].get_scoped(account, None, name.rpartition("/")[2])
        return entity is not None and name in (entity.get("Arn"), entity.get("RoleName"))

    def put(bucket: str, body: bytes) -> Response:
        if owner_of(bucket) is None:
            return base(bucket, body)
        try:
            checked_policy(body, bucket, exists)
        except PolicyRefused as refused:
            return error("MalformedPolicy", str(refused), 400, f"/{bucket}")
        return base(bucket, body)

    host.replace(S3, "_put_bucket_policy", put)
