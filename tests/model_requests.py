"""Requests by the services' own models: such as they allow, and for every constraint one that breaks it alone.

Values are as botocore's clients take them, and are put on the wire by botocore's own serializers, which do not look at
most constraints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from string import ascii_lowercase
from typing import Any
from urllib.parse import parse_qs, urlsplit

from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.serialize import create_serializer
from localcloud.operations import Operation
from localcloud.request_model.patterns import compiled
from localcloud.request_model.problems import Kind
from localcloud.request_model.requests import WireRequest

LOADER = Loader()
WIRE_NAMES = {"smithy-rpc-v2-cbor": "rpc-v2-cbor"}
DEEPEST = 3
LONGEST = 5_000
"""Bounds beyond these are not tried: the requests would be megabytes."""
MOST_ELEMENTS = 300
UNLIKELY = ("~ü~", "!!", "   ", "\x7f", "a:b/c d", "ABCDEFGHIJKLMNOP!", "0")


@dataclass(frozen=True, kw_only=True)
class Breach:
    """Parameters of which exactly one breaks the model: at ``path``, by this kind of constraint."""

    kind: Kind
    path: tuple[str, ...]
    parameters: dict[str, Any]

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} {self.kind}"


@cache
def service_model(service: str) -> ServiceModel:
    return ServiceModel(LOADER.load_service_model(service, "service-2"), service)


def protocols(service: ServiceModel) -> list[str]:
    return list(service.metadata.get("protocols") or [service.metadata["protocol"]])


def allowed(shape: Shape | None, depth: int = 0) -> Any:
    """A value that the model allows, but for patterns, with every member down to some depth."""
    if shape is None:
        return {}
    least = shape.metadata.get("min")
    match shape.type_name:
        case "structure":
            return _structure(shape, depth)
        case "list":
            return [allowed(shape.member, depth + 1) for _ in range(max(1, least or 1))]
        case "map":
            value = allowed(shape.value, depth + 1)
            keys = shape.key.enum or [allowed(shape.key, depth + 1)[:-1] + letter for letter in ascii_lowercase]
            return dict.fromkeys(keys[: max(1, least or 1)], value)
        case "string":
            return shape.enum[0] if shape.enum else "a" * max(1, least or 1)
        case "boolean":
            return True
        case "timestamp":
            return datetime(2026, 1, 1, tzinfo=UTC)
        case "blob":
            return b"x" * max(1, least or 1)
        case "float" | "double":
            return float(max(1, least or 1))
    return min(max(1, least or 1), shape.metadata.get("max", 2**30))


def _structure(shape: Any, depth: int) -> Any:
    if shape.is_document_type:
        return {"a": 1}
    names = list(shape.members)
    if shape.is_tagged_union:
        names = names[:1]
    elif depth > DEEPEST:
        names = [name for name in names if name in shape.required_members]
        # A structure without members leaves no trace in a form.
        names = names or list(shape.members)[:1]
    if depth > 4 * DEEPEST:
        return {}
    return {name: allowed(shape.members[name], depth + 1) for name in names}


def breaches(operation: OperationModel) -> Iterator[Breach]:
    """One for every constraint of every member that ``allowed`` has."""
    whole = allowed(operation.input_shape)
    if operation.input_shape is not None:
        yield from _within(operation.input_shape, whole, (), lambda broken: broken)


def _within(
    shape: Any, value: Any, path: tuple[str, ...], placed: Callable[[Any], Any], *, text_only: bool = False
) -> Iterator[Breach]:
    for kind, broken in _broken(shape, value, text_only=text_only):
        yield Breach(kind=kind, path=path, parameters=placed(broken))
    if shape.type_name == "structure" and not shape.is_document_type:
        for name in shape.required_members:
            without = {each: kept for each, kept in value.items() if each != name}
            # A structure without members leaves no trace in a form, and data without bytes none in a body.
            if name in value and (without or not path) and not _is_always_there(shape, name):
                yield Breach(kind="missing", path=(*path, name), parameters=placed(without))
        for name, each in value.items():
            member = shape.members[name]

            def put(broken: Any, name: str = name) -> Any:
                return placed({**value, name: broken})

            yield from _within(member, each, (*path, name), put, text_only=bool(member.serialization.get("location")))
    elif shape.type_name == "list" and value:
        yield from _within(shape.member, value[0], (*path, "1"), lambda broken: placed([broken, *value[1:]]))
    elif shape.type_name == "map" and len(value) == 1:
        key = next(iter(value))
        yield from _within(shape.value, value[key], (*path, key), lambda broken: placed({key: broken}))


def _is_always_there(shape: Any, name: str) -> bool:
    """In the address, or the body itself."""
    where = shape.members[name].serialization
    is_data = shape.serialization.get("payload") == name and shape.members[name].type_name == "blob"
    return where.get("location") == "uri" or "hostLabel" in where or is_data


def _broken(shape: Any, value: Any, *, text_only: bool) -> Iterator[tuple[Kind, Any]]:
    least, most, pattern = (shape.metadata.get(name) for name in ("min", "max", "pattern"))
    match shape.type_name:
        case "string":
            if shape.enum:
                yield "enum", "no-such-value"
            elif least and not (text_only and least == 1):
                yield "length", "a" * (least - 1)
            if most is not None and most < LONGEST and not shape.enum:
                yield "length", "a" * (most + 1)
            if pattern:
                yield from _mismatches(pattern, least or 0, most or LONGEST, text_only=text_only)
        case "integer" | "long":
            if least is not None:
                yield "range", least - 1
            if most is not None and most < 2**31 - 1:
                yield "range", most + 1
        case "list" if most is not None and most < MOST_ELEMENTS:
            yield "length", [copy.copy(value[0]) for _ in range(most + 1)]
        case "blob" if most is not None and most < LONGEST:
            yield "length", b"x" * (most + 1)


def _mismatches(pattern: str, least: int, most: int, *, text_only: bool) -> Iterator[tuple[Kind, str]]:
    for text in UNLIKELY:
        padded = text if len(text) >= least else text + "!" * (least - len(text))
        if (text_only and not padded.isascii()) or len(padded) > most or padded.strip() != padded:
            continue
        matcher = compiled(pattern)
        if matcher is not None and matcher.fullmatch(padded) is None:
            yield "pattern", padded
            return


def on_the_wire(operation: OperationModel, protocol: str, parameters: Any) -> tuple[Operation, WireRequest]:
    """As a botocore client would send it, by the protocol of the model's that is named."""
    serialized = create_serializer(protocol, include_validation=False).serialize_to_request(parameters, operation)
    prepare_request_dict(serialized, "http://service/", {})
    request: Any = create_request_object(serialized).prepare()
    address = urlsplit(request.url)
    body = request.body or b""
    named = Operation(name=operation.name, protocol=WIRE_NAMES.get(protocol, protocol))
    return named, WireRequest(
        path=address.path,
        query=parse_qs(address.query, keep_blank_values=True),
        headers={name.lower(): _text(value) for name, value in request.headers.items()},
        body=body.encode() if isinstance(body, str) else bytes(body),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
