"""Enforced IAM: corrections of the base's own enforcement, roles' sessions, and the EBS server's questions.

The base decides every request it serves itself (its ``AUTH`` mode, which ``base_environment`` switches on).
What is changed: how policies are evaluated (``evaluation``), the policies of buckets (``buckets``), what S3 tells those
who may not list; and requests about snapshots are only authenticated here, since the EBS server decides them: it
alone knows snapshots' tags. An account's root (a 12-digit access key) may do everything in its account that the
policy of a bucket does not deny.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from localcloud.ebs.ec2 import ACTIONS
from localcloud.host import ControlError, ControlRequest, Handler, Host, Response
from localcloud.iam import buckets, evaluation, lambda_actions
from localcloud.iam.authorizer import Authorizer
from localcloud.iam.evaluation import EVALUATOR
from localcloud.iam.record import Record
from localcloud.iam.roles import RoleSessions
from localcloud.iam.targets import Targets

ACTION_NAMES = "core.iam_actions"
_BASE_DECIDES = frozenset({"DescribeVolumes", "DeleteVolume", "DescribeTags"})
_TAGGING = frozenset({"ec2:CreateTags", "ec2:DeleteTags"})
_ELSEWHERE = "decided-by-the-ebs-server"
_READS = ("Get", "List", "Simulate", "Generate")


def enforced(config: Mapping[str, Any]) -> bool:
    """The switch ``{"iam": {"enforced": true}}``, on if not said otherwise. ``ValueError`` for anything else."""
    part = config.get("iam", {})
    if not isinstance(part, Mapping):
        raise ValueError("local cloud config: 'iam' must be an object")
    if unknown := sorted(set(part) - {"enforced"}):
        raise ValueError(f"local cloud config: unknown keys in 'iam': {', '.join(unknown)}")
    value = part.get("enforced", True)
    if not isinstance(value, bool):
        raise ValueError("local cloud config: 'enforced' in 'iam' must be true or false")
    return value


def install(host: Host) -> None:
    if not enforced(host.config):
        host.control["authorize"] = lambda _: {"allowed": True, "principal": "", "reason": "", "error": ""}
        return
    record = Record()
    evaluation.install(host)
    authorizer = Authorizer(host, record, buckets.install(host))
    roles = RoleSessions(host, authorizer)
    host.roles = roles
    _name_resources(host)
    lambda_actions.install(host)
    _decide_requests(host, authorizer, record)
    host.handlers["s3"] = _ask_for_keys(host, host.handlers["s3"], authorizer)
    host.handlers["s3"] = _hide_missing_objects(host, host.handlers["s3"], authorizer)
    host.handlers["iam"] = _forget_decisions(host, host.handlers["iam"])
    targets = Targets(host, roles)
    targets.plug_in()
    host.target_refusal = targets.refusal
    host.control["authorize"] = _authorize(authorizer)
    host.control["iam"] = _Control(record)


def _name_resources(host: Host) -> None:
    """A refusal names the resource, as in AWS (IAM user guide, "Troubleshoot access denied error messages")."""
    base: Callable[..., Response] = host.lookup(ACTION_NAMES, "access_denied_response")
    text: Callable[[str, str, str, bool], str] = host.lookup(ACTION_NAMES, "identity_denial_message")

    def refusal(service: str, action: str, principal: str, request_id: str, **about: Any) -> Response:
        resource = about.get("resource_arn", "*")
        if not (about.get("error_code") or about.get("message") or about.get("resource_policy_arn")):
            shown = f'"{resource}"' if service == "s3" else resource
            message = text(action, principal, shown, bool(about.get("explicit_deny")))
            if service == "ec2":
                message = f"You are not authorized to perform this operation. {message}"
            about["message"] = message
        return base(service, action, principal, request_id, **about)

    host.replace(ACTION_NAMES, "access_denied_response", refusal)


def _decide_requests(host: Host, authorizer: Authorizer, record: Record) -> None:
    enforce = host.lookup(EVALUATOR, "enforce")
    authenticate: Callable[[str, str], Any] = host.lookup(EVALUATOR, "check_credentials")
    resource_of: Callable[..., str] = host.lookup(ACTION_NAMES, "extract_resource_arn")
    identity_of = host.lookup(EVALUATOR, "resolve_caller_identity")
    auth_error = host.lookup(EVALUATOR, "AuthError")
    elsewhere = {f"ec2:{name}" for name in ACTIONS if name not in _BASE_DECIDES} - _TAGGING

    def resource(
        service: str, method: str, path: str, headers: Any, body: bytes, params: Any, region: str, account: str
    ) -> str:
        if service == "ec2":
            ids = [_one(value) for name, value in params.items() if re.fullmatch(r"ResourceId\.[0-9]+", name)]
            if ids and all(each.startswith("snap-") for each in ids):
                return _ELSEWHERE
        if service == "states" and (map_run := re.search(rb'"mapRunArn"\s*:\s*"([^"]+)"', body)):
            return map_run.group(1).decode()
        return resource_of(service, method, path, headers, body, params, region, account)

    def decide(
        access_key: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        if service == "ebs" or action in elsewhere or (action in _TAGGING and resource_arn == _ELSEWHERE):
            return authenticate(access_key, service)
        with authorizer.buckets.asked(action):
            refusal = enforce(
                access_key, action, service, region, resource_arn=resource_arn, service_context=service_context
            )
        if service == "s3" and access_key and not isinstance(refusal, auth_error):
            # The base asks no policy about an account's root.
            refusal = authorizer.buckets_refusal(access_key, action, resource_arn, region, service_context) or refusal
        if not isinstance(refusal, auth_error):
            caller = identity_of(access_key)
            principal = caller["userArn"] if caller else ""
            record.add(principal=principal or ":root", action=action, resource=resource_arn, allowed=refusal is None)
        return refusal

    host.replace(ACTION_NAMES, "extract_resource_arn", resource)
    host.replace(EVALUATOR, "enforce", decide)


def _hide_missing_objects(host: Host, base: Handler, authorizer: Authorizer) -> Handler:
    """Only those who may list a bucket learn that an object is not there (S3 API reference, GetObject)."""
    key_of: Callable[..., str | None] = host.lookup("core.router", "extract_access_key_id")
    denied: Callable[..., Response] = host.lookup(ACTION_NAMES, "access_denied_response")
    region_of: Callable[[], str] = host.lookup("core.responses", "get_region")

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Response:
        answer = await base(method, path, headers, body, query)
        bucket, _, name = path.lstrip("/").partition("/")
        if answer[0] != 404 or method not in ("GET", "HEAD") or not name:
            return answer
        access_key = key_of(headers, query) or ""
        resource = f"arn:aws:s3:::{bucket}"
        listing = authorizer.decide(
            access_key=access_key or authorizer.account_of(""),
            action="s3:ListBucket",
            resource=resource,
            region=region_of(),
        )
        if listing.allowed:
            return answer
        status, sent, content = denied("s3", "s3:ListBucket", listing.principal, "", resource_arn=resource)
        return status, sent, b"" if method == "HEAD" else content

    return handle


def _ask_for_keys(host: Host, base: Handler, authorizer: Authorizer) -> Handler:
    """S3 uses a key of KMS in the name of its caller (S3 user guide, "Using server-side encryption with AWS KMS keys",
    Permissions), which policies know by ``kms:ViaService``."""
    key_of: Callable[..., str | None] = host.lookup("core.router", "extract_access_key_id")
    caller: ContextVar[str] = ContextVar("caller", default="")

    def refusal(action: str, key_arn: str, region: str) -> str:
        access_key = caller.get()
        if not access_key:
            return ""
        context = {
            "kms:ViaService": f"s3.{region}.amazonaws.com",
            "kms:CallerAccount": authorizer.account_of(access_key),
        }
        decision = authorizer.decide(
            access_key=access_key, action=action, resource=key_arn, region=region, context=context
        )
        return "" if decision.allowed else decision.reason

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Response:
        asked = caller.set(key_of(headers, query) or "")
        try:
            return await base(method, path, headers, body, query)
        finally:
            caller.reset(asked)

    host.key_refusal = refusal
    return handle


def _forget_decisions(host: Host, base: Handler) -> Handler:
    """The EBS server remembers decisions for some seconds; a change of policies ends that at once."""
    address = urlsplit(host.ebs_endpoint_url)

    def forget() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        # An EBS server that has ended remembers nothing, and IAM goes on without it.
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("POST", "/_local/decisions/forget", b"{}", host.keys.control_headers())
            connection.getresponse().read()

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Response:
        answer = await base(method, path, headers, body, query)
        action = re.search(rb"(?:^|&)Action=(\w+)", body)
        name = action.group(1).decode() if action else _one(query.get("Action", ""))
        if answer[0] < 300 and not name.startswith(_READS):
            await asyncio.to_thread(forget)
        return answer

    return handle


def _one(value: Any) -> str:
    return str(value[-1] if isinstance(value, list) and value else value or "")


def _authorize(authorizer: Authorizer) -> Callable[[ControlRequest], Any]:
    """``POST /_local/authorize``: ``{access_key, session_token?, action, resource, region, context?}`` is answered
    with ``{allowed, reason, principal, error}``."""

    def authorize(request: ControlRequest) -> Any:
        asked = request.json()
        missing = [
            name for name in ("access_key", "action", "resource", "region") if not isinstance(asked.get(name), str)
        ]
        if request.method != "POST" or missing:
            raise ControlError(f"POST access_key, action, resource and region; missing: {', '.join(missing)}")
        decision = authorizer.decide(
            access_key=asked["access_key"],
            action=asked["action"],
            resource=asked["resource"],
            region=asked["region"],
            context=asked.get("context") or {},
            session_token=asked.get("session_token"),
        )
        return vars(decision)

    return authorize


class _Control:
    """``GET iam/calls``: what roles and users asked for since ``DELETE iam/calls``."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def __call__(self, request: ControlRequest) -> Any:
        match request.method, request.path:
            case "GET", "calls":
                return {"calls": self._record.listing()}
            case "DELETE", "calls":
                self._record.clear()
                return {}
        raise ControlError(f"no such control request: {request.method} /_local/iam/{request.path}", status=404)
