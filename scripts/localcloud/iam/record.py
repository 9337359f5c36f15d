"""What roles asked for, as CloudTrail would tell it: one line a role session, action and outcome."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Kind:
    principal: str
    action: str
    allowed: bool


class Record:
    """Counts decisions about sessions of roles and about users; what an account's root does is not kept.

    The EBS server remembers its decisions for some seconds, so its counts are of decisions, not of requests.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[_Kind, tuple[int, str]] = {}

    def add(self, *, principal: str, action: str, resource: str, allowed: bool) -> None:
        if principal.endswith(":root"):
            return
        kind = _Kind(principal, action, allowed)
        with self._lock:
            count, _ = self._calls.get(kind, (0, ""))
            self._calls[kind] = (count + 1, resource)

    def listing(self) -> list[dict[str, Any]]:
        """``principal``, ``action``, ``allowed``, ``count`` and the last ``resource``, sorted."""
        with self._lock:
            calls = dict(self._calls)
        found = [{**vars(kind), "count": count, "resource": resource} for kind, (count, resource) in calls.items()]
        return sorted(found, key=lambda call: (call["principal"], call["action"], call["allowed"]))

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
