"""Which operation of which service a request asks for, by the same signs that AWS goes by.

JSON protocols name it in ``X-Amz-Target``, RPC v2 in the path, query protocols in ``Action``. REST protocols have to be
matched against method and URI of the service's model (botocore's), in which several operations can share both: then
the one wins whose required query parameters and headers are all there and are the most, as with S3's ``UploadPart``
and ``CopyObject`` against ``PutObject``. Buckets are looked for in the path; callers put those of a host name there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from botocore.loaders import Loader

Protocol = Literal["json", "rest-json", "rest-xml", "query", "ec2", "rpc-v2-cbor"]
UNKNOWN = "unknown"
_RPC_V2 = re.compile(r"/service/[^/]+/operation/([^/]+)")
_LABEL = re.compile(r"\\{(\w+)(\\\+)?\\}")
BOTOCORE_NAMES: Mapping[str, str] = {
    "airflow": "mwaa",
    "documentdb": "docdb",
    "elasticfilesystem": "efs",
    "elasticloadbalancing": "elbv2",
    "elasticmapreduce": "emr",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
"""Services that requests are signed for under another name than botocore's."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of a service. ``name`` is ``UNKNOWN`` if the service has none for the request."""

    name: str
    protocol: Protocol


@dataclass(frozen=True, kw_only=True)
class _Route:
    operation: str
    method: str
    path: re.Pattern[str]
    literals: int
    """Characters of the path that are no label: ``/a/b`` goes before ``/a/{name}``."""
    flags: tuple[tuple[str, str | None], ...]
    """Query parameters that have to be there, with their value if it matters."""
    headers: tuple[str, ...]

    def fits(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        return (
            self.method == method
            and self.path.fullmatch(path) is not None
            and all(name in query and value in (None, query[name]) for name, value in self.flags)
            and all(name in headers for name in self.headers)
        )


class Operations:
    """Reads botocore's models as they are needed, and once. Safe between threads."""

    def __init__(self) -> None:
        self._loader = Loader()
        self._models: dict[str, tuple[Protocol, tuple[_Route, ...]]] = {}
        self._lock = threading.Lock()

    def prepare(self, service: str) -> None:
        """Read the service's model now, so that no request waits for it."""
        self._model(service)

    def of(
        self, service: str, *, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Operation:
        """The operation that a request asks for: ``path`` as it is sent (with its percent signs), ``headers`` with
        lower-case names."""
        if target := headers.get("x-amz-target"):
            return Operation(name=target.rpartition(".")[2], protocol="json")
        if "smithy-protocol" in headers and (match := _RPC_V2.fullmatch(path)):
            return Operation(name=match.group(1), protocol="rpc-v2-cbor")
        protocol, routes = self._model(service)
        if protocol in ("query", "ec2") or "Action" in query:
            form = dict(parse_qsl(body.decode("utf-8", errors="replace"))) if "Action" not in query else query
            if action := form.get("Action"):
                return Operation(name=action, protocol="ec2" if service == "ec2" else "query")
        # A slash at the end means nothing, but for a key in a bucket.
        plain = path if service == "s3" and path.count("/") > 2 else path.rstrip("/") or "/"
        fitting = [route for route in routes if route.fits(method, plain, query, headers)]
        if not fitting:
            return Operation(name=UNKNOWN, protocol=protocol)
        best = max(fitting, key=lambda route: (route.literals, len(route.flags) + len(route.headers)))
        return Operation(name=best.operation, protocol=protocol)

    def names(self, service: str) -> frozenset[str]:
        """Every operation of the service; empty if botocore does not know it."""
        description = self._description(service)
        return frozenset(description["operations"]) if description else frozenset()

    def status_of(self, service: str, code: str) -> int | None:
        """The HTTP status that the model gives an error; ``None`` if it says nothing."""
        description = self._description(service) or {"shapes": {}}
        status: int | None = description["shapes"].get(code, {}).get("error", {}).get("httpStatusCode")
        return status

    def leaves_body_unsigned(self, service: str, operation: str) -> bool:
        """Whether the model lets clients leave the operation's body out of the signature."""
        description = self._description(service) or {"operations": {}}
        model = description["operations"].get(operation, {})
        return model.get("authtype") == "v4-unsigned-body" or bool(model.get("unsignedPayload"))

    def _description(self, service: str) -> dict[str, Any] | None:
        name = BOTOCORE_NAMES.get(service, service)
        if name not in self._loader.list_available_services("service-2"):
            return None
        description: dict[str, Any] = self._loader.load_service_model(name, "service-2")
        return description

    def _model(self, service: str) -> tuple[Protocol, tuple[_Route, ...]]:
        with self._lock:
            if service not in self._models:
                self._models[service] = _read(self._description(service))
            return self._models[service]


def _read(description: Mapping[str, Any] | None) -> tuple[Protocol, tuple[_Route, ...]]:
    if description is None:
        return "rest-json", ()
    protocol: Protocol = description["metadata"]["protocol"]
    if not protocol.startswith("rest-"):
        return protocol, ()
    shapes = description["shapes"]
    current = {name: each for name, each in description["operations"].items() if not each.get("deprecated")}
    return protocol, tuple(_route(name, current[name], shapes) for name in sorted(current))


def _route(name: str, operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> _Route:
    path, _, flags = operation["http"]["requestUri"].partition("?")
    wanted: dict[str, str | None] = {}
    for flag in filter(None, flags.split("&")):
        key, _, value = flag.partition("=")
        wanted[key] = value or None
    headers: list[str] = []
    shape = shapes[operation["input"]["shape"]] if "input" in operation else {}
    for member_name in shape.get("required", ()):
        member = shape["members"][member_name]
        place = member.get("location")
        if place == "querystring":
            wanted.setdefault(member["locationName"], None)
        elif place == "header":
            headers.append(member["locationName"].lower())
    plain = path.rstrip("/") or "/"
    return _Route(
        operation=name,
        method=operation["http"]["method"],
        path=re.compile(_LABEL.sub(lambda match: ".+" if match.group(2) else "[^/]+", re.escape(plain))),
        literals=len(re.sub(r"\{.*?\}", "", plain)),
        flags=tuple(sorted(wanted.items())),
        headers=tuple(sorted(headers)),
    )
