"""Whose keys requests are signed with: account, and the secret to verify signatures with."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass

from localcloud.local_keys import LocalKeys
from localcloud.signatures import Secret

_ACCOUNT = re.compile(r"[0-9]{12}")
_SECONDS = 60.0
"""Seconds for which an answer of the main server is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    account: str
    secret: Secret | None
    """What the key signs with; ``None`` where nobody has such a key."""


class Callers:
    """Owners of access keys. A 12-digit key is its account's root; other keys are asked of the main server."""

    def __init__(self, keys: LocalKeys, *, main_url: str | None) -> None:
        self._keys = keys
        self._root = Secret(secret_access_key=keys.secret)
        self._main_url = main_url
        self._known: dict[str, tuple[float, Owner]] = {}
        self._lock = threading.Lock()

    def secret_of(self, access_key: str) -> Secret | None:
        """What the key signs with. Raises ``OSError`` when the main server does not answer."""
        return self.owner_of(access_key).secret

    def owner_of(self, access_key: str) -> Owner:
        """The owner of the key. Raises ``OSError`` when the main server does not answer."""
        if _ACCOUNT.fullmatch(access_key):
            return Owner(account=access_key, secret=self._root)
        if not access_key or self._main_url is None:
            return Owner(account="", secret=None)
        with self._lock:
            known = self._known.get(access_key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        owner = self._ask(access_key)
        # A key that nobody has may be made in the next moment.
        if owner.secret is not None:
            with self._lock:
                self._known[access_key] = (time.monotonic() + _SECONDS, owner)
        return owner

    def _ask(self, access_key: str) -> Owner:
        url = f"{self._main_url}/_local/caller?access_key={urllib.parse.quote(access_key)}"
        request = urllib.request.Request(url, headers=self._keys.control_headers())  # noqa: S310 - the main server's
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            told = json.load(answer)
        return Owner(account=str(told["account"]), secret=Secret(**told["secret"]) if told["secret"] else None)
