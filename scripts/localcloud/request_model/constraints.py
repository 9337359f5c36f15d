"""The constraints of a model's shapes, compiled into checks of values that have been read.

Values are ``str``, ``int``, ``float``, ``bool``, ``Blob``, ``list`` and ``dict`` (by member or key); ``WRONG`` stands
for what could not be read. Null and absent are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from localcloud.request_model.patterns import compiled
from localcloud.request_model.problems import WRONG, Blob, Kind, Path, Problem, shown

Check = Callable[[Any, Path, list[Problem]], None]
_BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}


class Constraints:
    """Checks by shape, each compiled once: models refer to a shape from many places, and to itself."""

    def __init__(self) -> None:
        self._checks: dict[tuple[Any, ...], Check] = {}

    def of(self, shape: Shape) -> Check:
        traits = shape.metadata
        key = (shape.name, shape.type_name, traits.get("min"), traits.get("max"), traits.get("pattern"))
        if key not in self._checks:
            # A shape within itself finds this one, which by then leads to the real one.
            self._checks[key] = lambda value, path, out: self._checks[key](value, path, out)
            self._checks[key] = self._compiled(shape)
        return self._checks[key]

    def _compiled(self, shape: Shape) -> Check:
        match shape.type_name:
            case "structure":
                return self._structure(cast(StructureShape, shape))
            case "list":
                return self._list(cast(ListShape, shape))
            case "map":
                return self._map(cast(MapShape, shape))
            case "string":
                return _string(cast(StringShape, shape))
            case "blob":
                return _bounds(shape, "length", lambda value: cast(Blob, value).length)
            case "byte" | "short" | "integer" | "long":
                return _number(shape, _BITS[shape.type_name])
            case "float" | "double":
                return _bounds(shape, "range", lambda value: cast(float, value))
        return _anything

    def _structure(self, shape: StructureShape) -> Check:
        if getattr(shape, "is_document_type", False):
            return _anything
        required = tuple(shape.required_members)
        members = {name: self.of(member) for name, member in shape.members.items()}
        union = bool(getattr(shape, "is_tagged_union", False))

        def check(value: Any, path: Path, out: list[Problem]) -> None:
            if value is WRONG:
                return
            out += [
                Problem(kind="missing", path=(*path, name), constraint="Member must not be null")
                for name in required
                if value.get(name) is None
            ]
            if union and sum(each is not None for each in value.values()) != 1:
                names = ", ".join(members)
                constraint = f"Exactly one member must be set, of [{names}]"
                out.append(Problem(kind="union", path=path, constraint=constraint, value=", ".join(value)))
            for name, each in value.items():
                if each is not None:
                    members[name](each, (*path, name), out)

        return check

    def _list(self, shape: ListShape) -> Check:
        bounds, member = _bounds(shape, "length", len), self.of(shape.member)

        def check(value: Any, path: Path, out: list[Problem]) -> None:
            bounds(value, path, out)
            if value is not WRONG:
                for number, each in enumerate(value, 1):
                    if each is not None:
                        member(each, (*path, str(number)), out)

        return check

    def _map(self, shape: MapShape) -> Check:
        bounds, key, member = _bounds(shape, "length", len), self.of(shape.key), self.of(shape.value)

        def check(value: Any, path: Path, out: list[Problem]) -> None:
            bounds(value, path, out)
            if value is not WRONG:
                for name, each in value.items():
                    key(name, path, out)
                    if each is not None:
                        member(each, (*path, str(name)), out)

        return check


def _anything(value: Any, path: Path, out: list[Problem]) -> None:
    """Booleans, timestamps and documents have no constraints but their type."""


def _string(shape: StringShape) -> Check:
    bounds = _bounds(shape, "length", len)
    enum = frozenset(shape.enum)
    text = shape.metadata.get("pattern")
    pattern = compiled(text) if text else None
    if not enum and pattern is None:
        return bounds
    values = ", ".join(shape.enum)

    def check(value: Any, path: Path, out: list[Problem]) -> None:
        if value is WRONG:
            return
        bounds(value, path, out)
        if enum and value not in enum:
            out.append(_broken("enum", path, f"Member must satisfy enum value set: [{values}]", value))
        if pattern is not None and pattern.fullmatch(value) is None:
            out.append(_broken("pattern", path, f"Member must satisfy regular expression pattern: {text}", value))

    return check


def _number(shape: Shape, bits: int) -> Check:
    bounds = _bounds(shape, "range", lambda value: cast(int, value))
    most = 2 ** (bits - 1)

    def check(value: Any, path: Path, out: list[Problem]) -> None:
        if value is not WRONG and not -most <= value < most:
            out.append(_broken("type", path, f"Member must be a number of {bits} bits", value))
        else:
            bounds(value, path, out)

    return check


def _bounds(shape: Shape, kind: Kind, measure: Callable[[Any], float]) -> Check:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return _anything
    what = f"Member must have {'length' if kind == 'length' else 'value'}"

    def check(value: Any, path: Path, out: list[Problem]) -> None:
        if value is WRONG:
            return
        size = measure(value)
        if least is not None and size < least:
            out.append(_broken(kind, path, f"{what} greater than or equal to {least}", value))
        if most is not None and size > most:
            out.append(_broken(kind, path, f"{what} less than or equal to {most}", value))

    return check


def _broken(kind: Kind, path: Path, constraint: str, value: Any) -> Problem:
    return Problem(kind=kind, path=path, constraint=constraint, value=shown(value))
