"""Patterns of the service models, which are Java's, as Python understands them.

Java differs: ``\\d``, ``\\w`` and ``\\s`` are ASCII, ``\\p{..}`` is not, and characters beyond U+FFFF are written as
surrogate pairs. AWS's servers match the whole value (``String.matches``), whether or not a pattern is anchored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Protocol

import regex

_UNICODE = re.compile(r"\\[pP]\{(?:L|M|N|P|S|Z)\w?\}")
_BRACED = re.compile(r"\\x\{([0-9a-fA-F]{1,6})\}")
_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")

UNREADABLE: Mapping[str, str] = MappingProxyType(
    {
        r"[\p{all}]*": "dlm: Java's own class, of all characters",
        r"^(\p{LD}|\p{Punct}| )+$": "ds: Java's own class, of letters and digits",
        r"^arn:\S+:rbin:[a-z\-0-9]{0,63}:[0-9]{12}:rule/[0-9a-zA-Z]{11}{0,1011}$": "rbin: a count of a count",
    }
)
"""Patterns that cannot be compiled, with the reason: their values are not matched. The tests go through every model
that botocore has and compare."""


class Pattern(Protocol):
    def fullmatch(self, text: str, /) -> object | None: ...


class PatternUnreadable(ValueError):
    """A model's pattern that is neither understood nor known not to be."""


@cache
def compiled(pattern: str) -> Pattern | None:
    """The pattern as Python has it; ``None`` for one of ``UNREADABLE``. Raises ``PatternUnreadable``."""
    if pattern in UNREADABLE:
        return None
    translated = _BRACED.sub(lambda match: f"\\U{int(match.group(1), 16):08x}", _SURROGATES.sub(_character, pattern))
    flags = regex.UNICODE if _UNICODE.search(translated) else regex.ASCII
    try:
        found: Pattern = regex.compile(translated, flags)
    except regex.error as error:
        raise PatternUnreadable(f"the pattern {pattern!r} of a service model: {error}") from error
    return found


def _character(pair: re.Match[str]) -> str:
    high, low = int(pair.group(1), 16), int(pair.group(2), 16)
    return f"\\U{0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00:08x}"
