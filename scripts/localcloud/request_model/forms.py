"""Forms of the ``query`` and ``ec2`` protocols, read by the model's shapes: ``Filter.1.Value.2=x`` and the like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from botocore.model import ListShape, MapShape, Shape, StructureShape

from localcloud.request_model.problems import Path, Problem
from localcloud.request_model.scalars import from_text, mistyped, unknown

Dialect = Literal["query", "ec2"]
_OF_THE_PROTOCOL = frozenset(
    {"Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp"}
)
_SIGNING = "X-Amz-"


@dataclass(slots=True)
class _Node:
    text: str | None = None
    children: dict[str, _Node] = field(default_factory=dict)


def from_form(shape: StructureShape, pairs: Iterable[tuple[str, str]], out: list[Problem], dialect: Dialect) -> Any:
    root = _Node()
    for name, value in pairs:
        if name in _OF_THE_PROTOCOL or name.startswith(_SIGNING):
            continue
        node = root
        for part in name.split("."):
            node = node.children.setdefault(part, _Node())
        node.text = value
    return _Form(dialect, out).structure(shape, root, ())


class _Form:
    def __init__(self, dialect: Dialect, out: list[Problem]) -> None:
        self._ec2 = dialect == "ec2"
        self._out = out

    def structure(self, shape: StructureShape, node: _Node, path: Path) -> Any:
        if node.text:
            return mistyped(shape, node.text, path, self._out, "body")
        names = {self._name(member, name): (name, member) for name, member in shape.members.items()}
        found = {}
        for wire, child in node.children.items():
            if wire in names:
                name, member = names[wire]
                found[name] = self._value(member, child, (*path, name))
            else:
                unknown(wire, path, self._out, "body")
        return found

    def _name(self, shape: Shape, member: str) -> str:
        wire = shape.serialization
        if self._ec2:
            if "queryName" in wire:
                return str(wire["queryName"])
            name = str(wire.get("name", member))
            return name[:1].upper() + name[1:]
        if shape.type_name == "list" and wire.get("flattened"):
            return str(cast(ListShape, shape).member.serialization.get("name", wire.get("name", member)))
        return str(wire.get("name", member))

    def _value(self, shape: Shape, node: _Node, path: Path) -> Any:
        match shape.type_name:
            case "structure":
                return self.structure(cast(StructureShape, shape), node, path)
            case "list":
                return self._list(cast(ListShape, shape), node, path)
            case "map":
                return self._map(cast(MapShape, shape), node, path)
        for wire in node.children:
            unknown(wire, path, self._out, "body")
        if node.text is None:
            return None
        return from_text(shape, node.text, path, self._out, "body")

    def _list(self, shape: ListShape, node: _Node, path: Path) -> Any:
        if node.text:
            return mistyped(shape, node.text, path, self._out, "body")
        if not self._ec2 and not shape.serialization.get("flattened"):
            node = self._only(node, str(shape.member.serialization.get("name", "member")), path)
        items = self._numbered(node, path)
        return [self._value(shape.member, item, (*path, str(number))) for number, item in enumerate(items, 1)]

    def _map(self, shape: MapShape, node: _Node, path: Path) -> Any:
        if not shape.serialization.get("flattened"):
            node = self._only(node, "entry", path)
        key_name = str(shape.key.serialization.get("name", "key"))
        value_name = str(shape.value.serialization.get("name", "value"))
        found = {}
        for entry in self._numbered(node, path):
            if set(entry.children) - {value_name} != {key_name}:
                return mistyped(shape, ", ".join(entry.children), path, self._out, "body")
            key = entry.children[key_name].text or ""
            child = entry.children.get(value_name)
            found[key] = None if child is None else self._value(shape.value, child, (*path, key))
        return found

    def _only(self, node: _Node, name: str, path: Path) -> _Node:
        for wire in node.children:
            if wire != name:
                unknown(wire, path, self._out, "body")
        return node.children.get(name, _Node())

    def _numbered(self, node: _Node, path: Path) -> list[_Node]:
        for wire in node.children:
            if not wire.isdigit():
                unknown(wire, path, self._out, "body")
        return [node.children[number] for number in sorted(filter(str.isdigit, node.children), key=int)]
