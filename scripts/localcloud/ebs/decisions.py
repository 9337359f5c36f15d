"""Whether a caller's policies allow an action: asked of the main server, and remembered for some seconds."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from localcloud.local_keys import LocalKeys

_ACCOUNT = re.compile(r"[0-9]{12}")
_MOST_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The credentials of a request; without an access key the transport has settled who calls."""

    access_key: str = ""
    session_token: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether policies allow an action. ``error`` is the code of credentials that are no good; ``reason`` AWS's text of
    a refusal."""

    allowed: bool
    reason: str = ""
    error: str = ""


ALLOWED = Decision(True)
Context = tuple[tuple[str, str | tuple[str, ...]], ...]
"""Condition keys, in the spelling of the policies, with their value or values."""


class Decisions(Protocol):
    def decide(self, caller: Caller, action: str, resource: str, *, region: str, context: Context = ()) -> Decision:
        """Whether ``caller`` may do ``action`` on ``resource``."""

    def forget(self) -> None:
        """Drop the remembered decisions: callers' policies are asked anew from now on."""


class Everything:
    """Everybody may do everything, as far as policies go."""

    def decide(self, caller: Caller, action: str, resource: str, *, region: str, context: Context = ()) -> Decision:
        return ALLOWED

    def forget(self) -> None:
        return


class MainServerDecisions:
    """Decisions of the main server's ``/_local/authorize``. An account's root (12 digits) is not asked about."""

    def __init__(self, main_url: str, keys: LocalKeys, *, seconds: float = 5.0) -> None:
        self._keys = keys
        self._url = f"{main_url}/_local/authorize"
        self._seconds = seconds
        self._known: dict[Any, tuple[float, Decision]] = {}
        self._asking = threading.Lock()

    def decide(self, caller: Caller, action: str, resource: str, *, region: str, context: Context = ()) -> Decision:
        if not caller.access_key or _ACCOUNT.fullmatch(caller.access_key):
            return ALLOWED
        asked = (caller, action, resource, region, context)
        known = self._known  # a table of its own after "forget": late answers do not get into the new one
        found = known.get(asked)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        # Dozens of threads move blocks of one snapshot: one of them asks, the others wait for its answer.
        with self._asking:
            found = known.get(asked)
            if found is not None and time.monotonic() < found[0]:
                return found[1]
            decision = self._ask(caller, action, resource, region, dict(context))
            if len(known) >= _MOST_KEPT:
                known.clear()
            known[asked] = (time.monotonic() + self._seconds, decision)
        return decision

    def forget(self) -> None:
        self._known = {}

    def _ask(
        self, caller: Caller, action: str, resource: str, region: str, context: Mapping[str, str | tuple[str, ...]]
    ) -> Decision:
        question = {
            "access_key": caller.access_key,
            "session_token": caller.session_token,
            "action": action,
            "resource": resource,
            "region": region,
            "context": context,
        }
        request = urllib.request.Request(  # noqa: S310 - the main server's own address
            self._url, data=json.dumps(question).encode(), headers=self._keys.control_headers()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            found = json.load(answer)
        return Decision(bool(found["allowed"]), str(found["reason"]), str(found["error"]))
