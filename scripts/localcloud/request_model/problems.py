"""What is wrong with a request, in AWS's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["malformed", "type", "unknown", "missing", "union", "length", "range", "pattern", "enum"]
Place = Literal["uri", "header", "query", "body"]
Path = tuple[str, ...]
_MOST_SHOWN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A constraint that a request breaks. ``path`` names the member as the model does, elements of lists with their
    number from 1: ``Tags, 1, Key``."""

    kind: Kind
    path: Path
    constraint: str
    """The constraint as AWS words it: ``Member must have length greater than or equal to 1``."""
    value: str | None = None
    """What was sent, as it is shown; ``None`` for nothing."""
    place: Place = "body"

    @property
    def at(self) -> str:
        """The member as AWS's messages name it: ``tags.1.member.key``."""
        parts: list[str] = []
        for name in self.path:
            parts += [name, "member"] if name.isdigit() else [name[:1].lower() + name[1:]]
        return ".".join(parts)

    def __str__(self) -> str:
        shown = "null" if self.value is None else f"'{self.value}'"
        return f"Value {shown} at '{self.at}' failed to satisfy constraint: {self.constraint}"


class Blob:
    """Binary data, of which only the length matters."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class Wrong:
    """In the place of a value that could not be read: what is wrong with it has been noted."""


WRONG = Wrong()


def shown(value: Any) -> str:
    if isinstance(value, Blob):
        return f"{value.length} bytes"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def summary(problems: list[Problem]) -> str:
    """AWS's message for one or many."""
    count = "1 validation error" if len(problems) == 1 else f"{len(problems)} validation errors"
    return f"{count} detected: " + "; ".join(str(problem) for problem in problems)
