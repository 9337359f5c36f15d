"""Whose request it is: account and Region, from what the request carries."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from localcloud.ebs.decisions import Caller

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/[0-9]*/([^/]*)/")
_ACCOUNT = re.compile(r"[0-9]{12}")


class Callers:
    """Accounts of access keys. A 12-digit key is its account; other keys are asked of the main server.

    Signatures are not verified.
    """

    def __init__(self, *, default_account: str, default_region: str, main_url: str | None) -> None:
        self._default_account = default_account
        self._default_region = default_region
        self._main_url = main_url
        self._known: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, str]:
        """``(account, region)``: the main server's headers, else the SigV4 credential scope."""
        credential = _CREDENTIAL.search(headers.get("authorization", ""))
        if credential is not None:
            key, region = credential.group(1), credential.group(2)
        else:
            scope = query.get("X-Amz-Credential", "").split("/")
            key, region = scope[0], scope[2] if len(scope) > 2 else ""
        account = headers.get("x-local-account") or self.account_of(key)
        return account, headers.get("x-local-region") or region or self._default_region

    def credentials(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
        """The access key and session token that the request was signed with."""
        credential = _CREDENTIAL.search(headers.get("authorization", ""))
        key = credential.group(1) if credential else query.get("X-Amz-Credential", "").split("/")[0]
        return Caller(key, headers.get("x-amz-security-token") or query.get("X-Amz-Security-Token", ""))

    def account_of(self, access_key: str) -> str:
        if _ACCOUNT.fullmatch(access_key):
            return access_key
        if not access_key or self._main_url is None:
            return self._default_account
        with self._lock:
            known = self._known.get(access_key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        account = self._ask(access_key)
        with self._lock:
            self._known[access_key] = (time.monotonic() + 60, account)
        return account

    def _ask(self, access_key: str) -> str:
        url = f"{self._main_url}/_local/caller?access_key={urllib.parse.quote(access_key)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the main server's address
                return str(json.load(answer)["account"])
        except urllib.error.HTTPError as refusal:
            if refusal.code == 404:
                return self._default_account
            raise
