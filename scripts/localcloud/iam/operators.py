"""The operators of conditions that the evaluation of policies knows, and what each can compare with.

Source: IAM user guide, "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime

_OPERATOR = re.compile(r"(?:(ForAllValues|ForAnyValue):)?([A-Za-z]+?)(IfExists)?")


def _number(value: str) -> None:
    float(value)


def _date(value: str) -> None:
    if not re.fullmatch(r"[0-9]+", value):
        datetime.fromisoformat(value.replace("Z", "+00:00"))


def _bool(value: str) -> None:
    if value.lower() not in ("true", "false"):
        raise ValueError


def _address(value: str) -> None:
    ipaddress.ip_network(value, strict=False)


def _arn(value: str) -> None:
    if value != "*" and len(value.split(":", 5)) < 6:
        raise ValueError


def _text(value: str) -> None:
    pass


_COMPARISONS = ("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
_TEXTS = ("Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase", "Like", "NotLike")
OPERATORS: Mapping[str, Callable[[str], None]] = {
    **{f"String{name}": _text for name in _TEXTS},
    **{f"Arn{name}": _arn for name in ("Equals", "NotEquals", "Like", "NotLike")},
    **{f"Numeric{name}": _number for name in _COMPARISONS},
    **{f"Date{name}": _date for name in _COMPARISONS},
    "Bool": _bool,
    "IpAddress": _address,
    "NotIpAddress": _address,
    "Null": _bool,
}
"""Condition operators with what raises ``ValueError`` for a value that they cannot compare with."""


def operand_check(operator: str) -> Callable[[str], None] | None:
    """What raises ``ValueError`` for values that an operator cannot compare with; ``None``: no such operator."""
    parts = _OPERATOR.fullmatch(operator)
    if parts is None or (parts[2] == "Null" and (parts[1] or parts[3])):
        return None
    return OPERATORS.get(parts[2])
