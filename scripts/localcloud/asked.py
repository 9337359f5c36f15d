"""What a request asks for, as far as its head and its body say without a service's model: for logs and for repeats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

_ATTEMPT = re.compile(r"attempt=(\d+)")
_CREDENTIAL = re.compile(r"Credential=([^/\s]+)/\d+/([^/]+)/([^/]+)/")
_RPC_V2 = re.compile(r"/service/\w+/operation/(\w+)")
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_JSON_NAME = re.compile(rb'"(?:\w*[nN]ame|\w+A(?:rn|RN))"\s*:\s*"([^"]{1,200})"')
_QUERY_NAME = re.compile(rb"&(?:\w*Name|\w*Arn)=([^&]{1,200})")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request. ``invocation`` is the SDK's ``amz-sdk-invocation-id``, the same for every attempt of a call; empty
    if there is none. ``operation`` is method and path where only a model could tell, ``resource`` then empty."""

    access_key: str
    region: str
    service: str
    operation: str
    resource: str
    invocation: str
    attempt: int

    @classmethod
    def of(cls, scope: Mapping[str, Any], body: bytes) -> Asked:
        """The request of an ASGI ``scope``, told by its head and by the body or the body's beginning."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        signed = _CREDENTIAL.search(headers.get(b"authorization", ""))
        access_key, region, service = signed.groups() if signed else ("-", "-", "-")
        operation, named = headers.get(b"x-amz-target", "").rpartition(".")[2], _JSON_NAME
        if rpc := _RPC_V2.fullmatch(scope["path"]):
            operation = rpc.group(1)
        if not operation and (action := _ACTION.search(body)):
            operation, named = action.group(1).decode(), _QUERY_NAME
        resource = named.search(body) if operation else None
        attempt = _ATTEMPT.search(headers.get(b"amz-sdk-request", ""))
        return cls(
            access_key=access_key,
            region=region,
            service=service,
            operation=operation or f"{scope['method']} {scope['path']}",
            resource=unquote_plus(resource.group(1).decode("utf-8", errors="replace")) if resource else "",
            invocation=headers.get(b"amz-sdk-invocation-id", ""),
            attempt=int(attempt.group(1)) if attempt else 1,
        )

    def __str__(self) -> str:
        said = f"{self.region} {self.service} {self.operation} {self.resource}".rstrip()
        # Header and path are the client's own words: a line of a log stays one line.
        return "".join(each if each.isprintable() else "?" for each in said)
