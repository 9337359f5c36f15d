"""What a plugged-in part of the local cloud may touch of the base, and the check that it still exists.

ministack has no plug-in interface, so our parts replace private module attributes. The base is pinned by
version and hash; this module turns a renamed attribute into one clear error at start-up instead of a
part that is silently not ours.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from localcloud.local_keys import LocalKeys

Response = tuple[int, dict[str, str], bytes]
"""HTTP status, headers, body."""

Handler = Callable[[str, str, dict[str, str], bytes, dict[str, Any]], Awaitable[Response]]
"""``handler(method, path, headers, body, query_params)``, the base's calling convention of a service."""


class ControlError(RuntimeError):
    """A control request that cannot be done; the caller gets ``status`` and the message."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class ControlRequest:
    """One request below ``/_local/<part>/``: ``path`` is what follows the part's name, without slashes."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty body is an empty object."""
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise ControlError(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ControlError("the body must be a JSON object")
        return value


ControlHandler = Callable[[ControlRequest], Any]
"""Answers with anything JSON can carry, or raises ``ControlError``. Runs in a thread of its own, so it may block."""


class HookMissing(RuntimeError):
    """The installed ministack lacks a name that a part of the local cloud replaces or calls."""


class RoleRefused(PermissionError):
    """A service may not assume a role: there is none, or it does not trust the service for this resource."""


@dataclass(frozen=True, kw_only=True)
class SessionKeys:
    """Credentials of a role's session."""

    access_key_id: str
    secret_access_key: str
    session_token: str


class Verdict(Protocol):
    """What policies say of a request; ``reason`` is AWS's text for a refusal."""

    @property
    def allowed(self) -> bool: ...

    @property
    def reason(self) -> str: ...


class ServiceRoles(Protocol):
    """How parts act under roles. Raises ``RoleRefused``; ``kept_credentials`` gives the same session again."""

    def credentials(self, *, role_arn: str, service: str, source_arn: str, session_name: str) -> SessionKeys: ...

    def kept_credentials(self, *, role_arn: str, service: str, source_arn: str, session_name: str) -> SessionKeys: ...

    def may(self, keys: SessionKeys, action: str, resource: str, *, region: str) -> Verdict: ...


@dataclass
class Host:
    """The running base as our parts see it.

    ``config`` is the parsed ``--config`` file of ``scripts/cloud up`` (one object per part: ``ebs``,
    ``lambda``, ``states``, ``events``, ``iam``); a missing part means its defaults.
    """

    endpoint_url: str
    ebs_endpoint_url: str
    data_dir: Path
    default_account_id: str
    config: Mapping[str, Any]
    handlers: dict[str, Handler]
    keys: LocalKeys = field(default_factory=LocalKeys.new)
    control: dict[str, ControlHandler] = field(default_factory=dict)
    """Control handlers by the first path segment below ``/_local/``."""
    roles: ServiceRoles | None = None
    """The roles that parts act under, set where policies are enforced; without it everything acts as its account."""
    target_refusal: Callable[[Mapping[str, Any], str], str] = field(default=lambda target, source_arn: "")
    """Why a rule or schedule (its ARN) may not call a target; empty if it may."""
    key_refusal: Callable[[str, str, str], str] = field(default=lambda action, key_arn, region: "")
    """Why whoever asks S3 in a Region may not do an action of KMS with a key (its ARN); empty if it may."""
    layers: list[Callable[[Any], Any]] = field(default_factory=list)
    """ASGI applications around the base, the innermost first."""
    outer_layers: list[Callable[[Any], Any]] = field(default_factory=list)
    """ASGI applications around the door, the innermost first: they see what it refuses."""
    _missing: list[str] = field(default_factory=list)
    _shutdown: list[Callable[[], None]] = field(default_factory=list)

    def part_config(self, name: str) -> Mapping[str, Any]:
        part = self.config.get(name, {})
        if not isinstance(part, Mapping):
            raise ValueError(f"local cloud config: '{name}' must be an object, not {type(part).__name__}")
        return part

    def lookup(self, module: str, name: str) -> Any:
        """The base's attribute ``name`` of ``ministack.<module>``; ``None`` and a note if it is gone."""
        target = importlib.import_module(f"ministack.{module}")
        if not hasattr(target, name):
            self._missing.append(f"ministack.{module}.{name}")
            return None
        return getattr(target, name)

    def replace(self, module: str, name: str, value: Any) -> Any:
        """Put ``value`` in the place of the base's attribute and return what was there."""
        before = self.lookup(module, name)
        if before is not None:
            setattr(importlib.import_module(f"ministack.{module}"), name, value)
        return before

    def on_shutdown(self, action: Callable[[], None]) -> None:
        self._shutdown.append(action)

    def self_check(self) -> None:
        """Raise ``HookMissing`` naming every attribute that the installed base does not have."""
        if self._missing:
            raise HookMissing(
                "this ministack does not fit the local cloud, missing: "
                + ", ".join(sorted(set(self._missing)))
                + ". Install the pinned version: pip install --require-hashes -r requirements-dev.txt"
            )

    def shut_down(self) -> None:
        """Do every clean-up once, the last registered first, even if one of them fails."""
        with contextlib.ExitStack() as actions:
            while self._shutdown:
                actions.callback(self._shutdown.pop(0))
