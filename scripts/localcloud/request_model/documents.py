"""Bodies of JSON, CBOR and XML, read by the model's shapes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast
from xml.etree import ElementTree

from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.parsers import RpcV2CBORParser

from localcloud.request_model.problems import Blob, Path, Problem
from localcloud.request_model.scalars import NUMBERS, blob, from_text, is_timestamp, mistyped, unknown

_NAMESPACE = re.compile(r"\{.*\}")
_LARGEST_EXACT = 2**53
"""The number from which on a float need not be the number that was written."""


class Malformed(ValueError):
    """A body that is not of its format at all."""


def wire_name(shape: Shape, member: str) -> str:
    return str(shape.serialization.get("name", member))


# -- JSON and CBOR -----------------------------------------------------------------


def json_document(body: bytes | bytearray) -> Any:
    if not body:
        return {}
    try:
        return json.loads(body)
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def cbor_document(body: bytes | bytearray) -> Any:
    if not body:
        return {}
    stream: Any = io.BufferedReader(cast(Any, io.BytesIO(bytes(body))))
    try:
        return RpcV2CBORParser().parse_data_item(stream)
    except Exception as error:  # the parser raises whatever the bytes lead it to
        raise Malformed(f"the body is not CBOR: {error}") from None


def from_json(shape: Shape, value: Any, path: Path, out: list[Problem]) -> Any:
    """The member that ``value`` stands for: one of ``json.loads``, or of CBOR with its own bytes and times."""
    match shape.type_name:
        case "structure":
            return _json_structure(cast(StructureShape, shape), value, path, out)
        case "list" if isinstance(value, list):
            member = cast(ListShape, shape).member
            return [_json_member(member, each, (*path, str(number)), out) for number, each in enumerate(value, 1)]
        case "map" if isinstance(value, dict):
            member = cast(MapShape, shape).value
            return {name: _json_member(member, each, (*path, str(name)), out) for name, each in value.items()}
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case kind if kind in NUMBERS and _is_whole(value):
            return int(value)
        case "float" | "double" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        case "float" | "double" if value in ("NaN", "Infinity", "-Infinity"):
            return float(value)
        case "timestamp" if _is_time(shape, value):
            return value
        case "blob" if isinstance(value, bytes | bytearray):
            return Blob(len(value))
        case "blob" if isinstance(value, str):
            return blob(shape, value, path, out, "body")
    return mistyped(shape, value, path, out, "body")


def _json_member(shape: Shape, value: Any, path: Path, out: list[Problem]) -> Any:
    return None if value is None else from_json(shape, value, path, out)


def _json_structure(shape: StructureShape, value: Any, path: Path, out: list[Problem]) -> Any:
    if shape.is_document_type:
        return value
    if not isinstance(value, dict):
        return mistyped(shape, value, path, out, "body")
    return json_members(shape.members.items(), value, path, out)


def json_members(members: Iterable[tuple[str, Shape]], value: dict[str, Any], path: Path, out: list[Problem]) -> Any:
    names = {wire_name(member, name): (name, member) for name, member in members}
    found = {}
    for wire, each in value.items():
        if wire in names:
            name, member = names[wire]
            found[name] = _json_member(member, each, (*path, name), out)
        elif wire != "__type":
            unknown(wire, path, out, "body")
    return found


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < _LARGEST_EXACT
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(shape: Shape, value: Any) -> bool:
    if isinstance(value, datetime):
        return True
    if isinstance(value, str):
        return shape.serialization.get("timestampFormat") in ("iso8601", "rfc822") and is_timestamp(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- XML ---------------------------------------------------------------------------


def xml_document(body: bytes | bytearray) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(bytes(body))  # noqa: S314 - the server is reached from this machine only
    except ElementTree.ParseError as error:
        raise Malformed(f"the body is not XML: {error}") from None


def from_xml(shape: Shape, nodes: list[ElementTree.Element], path: Path, out: list[Problem]) -> Any:
    """The member that ``nodes`` stand for: one element, or all of a flattened list or map."""
    node = nodes[-1]
    flattened = bool(shape.serialization.get("flattened"))
    match shape.type_name:
        case "structure":
            return xml_members(cast(StructureShape, shape).members.items(), node, path, out)
        case "list":
            return _xml_list(cast(ListShape, shape), nodes if flattened else list(node), path, out)
        case "map":
            return _xml_map(cast(MapShape, shape), nodes if flattened else list(node), path, out)
    if len(node):
        return mistyped(shape, f"<{_tag(node[0])}>", path, out, "body")
    return from_text(shape, node.text or "", path, out, "body")


def xml_members(
    members: Iterable[tuple[str, Shape]], node: ElementTree.Element, path: Path, out: list[Problem]
) -> dict[str, Any]:
    by_tag: dict[str, tuple[str, Shape]] = {}
    found: dict[str, Any] = {}
    attributes = {_tag_of(name): value for name, value in node.attrib.items()}
    for name, member in members:
        if member.serialization.get("xmlAttribute"):
            found[name] = attributes.get(wire_name(member, name).rpartition(":")[2])
        else:
            by_tag[_element_name(member, name)] = (name, member)
    children: dict[str, list[ElementTree.Element]] = {}
    for child in node:
        children.setdefault(_tag(child), []).append(child)
    for tag, same in children.items():
        if tag in by_tag:
            name, member = by_tag[tag]
            found[name] = from_xml(member, same, (*path, name), out)
        else:
            unknown(tag, path, out, "body")
    return found


def _element_name(shape: Shape, member: str) -> str:
    if shape.type_name == "list" and shape.serialization.get("flattened"):
        # An element of a flattened list stands for the list; some models name the element, some the list.
        return wire_name(cast(ListShape, shape).member, wire_name(shape, member))
    return wire_name(shape, member)


def _xml_list(shape: ListShape, nodes: list[ElementTree.Element], path: Path, out: list[Problem]) -> Any:
    if not shape.serialization.get("flattened"):
        tag = wire_name(shape.member, "member")
        for node in nodes:
            if _tag(node) != tag:
                unknown(_tag(node), path, out, "body")
        nodes = [node for node in nodes if _tag(node) == tag]
    return [from_xml(shape.member, [node], (*path, str(number)), out) for number, node in enumerate(nodes, 1)]


def _xml_map(shape: MapShape, nodes: list[ElementTree.Element], path: Path, out: list[Problem]) -> Any:
    key_tag, value_tag = wire_name(shape.key, "key"), wire_name(shape.value, "value")
    found = {}
    for entry in nodes:
        parts = {_tag(part): part for part in entry}
        if set(parts) != {key_tag, value_tag}:
            return mistyped(shape, ", ".join(parts), path, out, "body")
        key = parts[key_tag].text or ""
        found[key] = from_xml(shape.value, [parts[value_tag]], (*path, key), out)
    return found


def _tag(node: ElementTree.Element) -> str:
    return _tag_of(node.tag)


def _tag_of(name: str) -> str:
    return _NAMESPACE.sub("", name)
