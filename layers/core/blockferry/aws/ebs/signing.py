"""Signature Version 4 for the EBS direct APIs.

The request's fixed parts are signed over and over, thousands of times a minute: the signing key is derived
once a day. What is signed is what a botocore client signs for the same operation: every header of the request itself,
and its body unless the service model says otherwise. A test holds all six operations against such a client.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""Payload hash of PutSnapshotBlock, which alone is modelled as ``v4-unsigned-body``: its signed checksum header
protects the body."""

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Credentials:
    """An access key as the signer needs it; ``token`` for temporary ones."""

    access_key: str
    secret_key: str
    token: str | None = None


def query_string(parameters: Mapping[str, str]) -> str:
    """The parameters as a canonical query string: sorted, RFC 3986 quoted."""
    return "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(parameters.items()))


class Signer:
    """Signs requests of one service in one region."""

    def __init__(self, *, service: str, region: str, host: str) -> None:
        self._service = service
        self._region = region
        self._host = host
        self._lock = threading.Lock()
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def headers(
        self,
        *,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload_sha256: str | None,
        credentials: Credentials,
        timestamp: str,
    ) -> dict[str, str]:
        """The headers to send: ``headers`` plus date, token and authorization.

        ``path`` is already encoded and holds nothing that encoding twice would change; ``headers`` are the
        request's own, names in lower case, and all of them are signed; ``payload_sha256`` is hex,
        ``UNSIGNED_PAYLOAD`` or, for a request without a body, ``None``; ``timestamp`` is UTC as ``20260101T000000Z``.
        """
        signed = dict(headers)
        signed["host"] = self._host
        signed["x-amz-date"] = timestamp
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        if payload_sha256 == UNSIGNED_PAYLOAD:
            signed["x-amz-content-sha256"] = UNSIGNED_PAYLOAD
        names = sorted(signed)
        canonical_headers = "".join(f"{name}:{signed[name].strip()}\n" for name in names)
        signed_names = ";".join(names)
        canonical = "\n".join((method, path, query, canonical_headers, signed_names, payload_sha256 or _EMPTY_SHA256))
        day = timestamp[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        to_sign = "\n".join(("AWS4-HMAC-SHA256", timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = hmac.new(self._signing_key(credentials, day), to_sign.encode(), hashlib.sha256).hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed_names}, Signature={signature}"
        )
        return signed

    def _signing_key(self, credentials: Credentials, day: str) -> bytes:
        with self._lock:
            cached_day, cached_secret, key = self._key
            if cached_day == day and cached_secret == credentials.secret_key:
                return key
            key = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._key = (day, credentials.secret_key, key)
            return key
