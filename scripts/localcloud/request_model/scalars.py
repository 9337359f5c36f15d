"""Values that stand in a request as text: in its address, its headers, XML and forms."""

from __future__ import annotations

import re
from typing import Any

from botocore.model import Shape
from botocore.utils import parse_timestamp

from localcloud.request_model.problems import WRONG, Blob, Path, Place, Problem, shown

_WHOLE = re.compile(r"[-+]?[0-9]{1,25}")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*={0,2}\s*")
NUMBERS = frozenset({"byte", "short", "integer", "long"})


def from_text(shape: Shape, text: str, path: Path, out: list[Problem], place: Place) -> Any:
    """The value, or ``WRONG`` with what is wrong added to ``out``."""
    match shape.type_name:
        case "string" | "character":
            return text
        case "byte" | "short" | "integer" | "long":
            return int(text) if _WHOLE.fullmatch(text) else mistyped(shape, text, path, out, place)
        case "float" | "double":
            try:
                return float(text)
            except ValueError:
                return mistyped(shape, text, path, out, place)
        case "boolean":
            known = {"true": True, "false": False}
            return known[text.lower()] if text.lower() in known else mistyped(shape, text, path, out, place)
        case "timestamp":
            return text if is_timestamp(text) else mistyped(shape, text, path, out, place)
        case "blob":
            return blob(shape, text, path, out, place)
    return mistyped(shape, text, path, out, place)


def blob(shape: Shape, text: str, path: Path, out: list[Problem], place: Place) -> Any:
    """Base64, not decoded: it may be a whole package."""
    if not _BASE64.fullmatch(text):
        return mistyped(shape, text, path, out, place)
    return Blob(len(text) * 3 // 4 - text[-2:].count("="))


def is_timestamp(text: str) -> bool:
    try:
        parse_timestamp(text)
    except (ValueError, OverflowError, RuntimeError):
        return False
    return True


def mistyped(shape: Shape, value: Any, path: Path, out: list[Problem], place: Place) -> Any:
    constraint = f"Member must be a {shape.type_name}"
    out.append(Problem(kind="type", path=path, constraint=constraint, value=shown(value), place=place))
    return WRONG


def unknown(name: str, path: Path, out: list[Problem], place: Place) -> None:
    """AWS's JSON services pass over members that they do not know; it is a mistake all the same."""
    constraint = f"The {place if place in ('header', 'query') else 'member'} is not in the service's model"
    out.append(Problem(kind="unknown", path=(*path, name), constraint=constraint, value=name, place=place))
