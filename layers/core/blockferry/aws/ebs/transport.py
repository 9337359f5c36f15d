"""HTTP to the EBS direct endpoint: one kept-alive connection per thread, signed requests, no retries.

boto3 spends half of a block's CPU time on building, parsing and hooks (measured), so blocks do not go through
it; endpoint and credentials still come from botocore, which knows partitions, FIPS, trust stores, roles and
``AWS_ENDPOINT_URL_EBS``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3
from botocore.utils import get_environ_proxies

from blockferry.aws.ebs.signing import UNSIGNED_PAYLOAD, Credentials, Signer, query_string

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
"""Seconds until a silent connection is given up, long before the retry budget ends; a block takes tens of
milliseconds."""


class TransportError(Exception):
    """The request may or may not have reached the service: no complete answer came back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the endpoint: status, headers (names in lower case) and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def says_clock_is_wrong(status: int, code: str, message: str) -> bool:
    """Whether a request was refused for its time. A signature that is wrong has the same code, and stays wrong
    (IAM user guide, "Troubleshoot Signature Version 4")."""
    if status != 403:
        return False
    if code in ("RequestTimeTooSkewed", "RequestInTheFuture"):
        return True
    return code == "InvalidSignatureException" and message.startswith(
        ("Signature expired", "Signature not yet current")
    )


class Transport(Protocol):
    """Sends one request and returns its answer, whatever its status."""

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        sign_body: bool,
    ) -> Answer:
        """Send a request, whose ``headers`` have lower-case names.

        Raises ``TransportError`` when no complete answer was received.
        """
        ...


class SignedHttp:
    """``Transport`` over urllib3."""

    def __init__(
        self,
        *,
        endpoint_url: str,
        region: str,
        credentials: Callable[[], Credentials],
        trust_store: str | None = None,
        connections: int = 32,
        read_timeout: float = READ_TIMEOUT_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        parts = urlsplit(endpoint_url)
        self._pool = _pool(endpoint_url, connections=connections, trust_store=trust_store, read_timeout=read_timeout)
        self._signer = Signer(service="ebs", region=region, host=parts.netloc)
        self._base = parts.path.rstrip("/")
        self._credentials = credentials
        self._now = now
        self._ahead = timedelta()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        sign_body: bool,
    ) -> Answer:
        encoded = query_string(query)
        path = self._base + path
        payload = None
        if body is not None:
            payload = hashlib.sha256(body).hexdigest() if sign_body else UNSIGNED_PAYLOAD
        signed = self._signer.headers(
            method=method,
            path=path,
            query=encoded,
            headers=headers,
            payload_sha256=payload,
            credentials=self._credentials(),
            timestamp=(self._now() + self._ahead).strftime("%Y%m%dT%H%M%SZ"),
        )
        url = f"{path}?{encoded}" if encoded else path
        try:
            answer = self._pool.urlopen(method, url, body=body, headers=signed, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise TransportError(f"{type(error).__name__}: {error}") from error
        received = {name.lower(): value for name, value in answer.headers.items()}
        if "content-length" not in received and "transfer-encoding" not in received:
            # A connection that breaks within the head looks like an answer without a body.
            raise TransportError("the answer does not tell its length: its head is incomplete")
        if answer.status == 403:
            self._learn_time(received, answer.data)
        return Answer(answer.status, received, answer.data)

    def _learn_time(self, headers: Mapping[str, str], body: bytes) -> None:
        """Sign by the service's clock from now on, if this answer says that ours is wrong.

        Every AWS SDK but botocore does so. The services allow five minutes, so the answer's way does not matter.
        """
        try:
            told = json.loads(body)
            code = headers.get("x-amzn-errortype", told.get("__type", "")).partition(":")[0].rpartition("#")[2]
            message = told.get("Message") or told.get("message") or ""
            if says_clock_is_wrong(403, code, message):
                self._ahead = parsedate_to_datetime(headers["date"]) - self._now()
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # an answer that is not of EBS: what it is worth is for the caller to say


def _pool(endpoint_url: str, *, connections: int, trust_store: str | None, read_timeout: float) -> Any:
    """A urllib3 pool for the endpoint, through the environment's proxy where it names one."""
    options: dict[str, Any] = {
        "maxsize": connections,
        "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=read_timeout),
    }
    if endpoint_url.startswith("https:"):
        options |= {"cert_reqs": "CERT_REQUIRED", "ca_certs": trust_store}
    parts = urlsplit(endpoint_url)
    proxy = get_environ_proxies(endpoint_url).get(parts.scheme)
    if proxy:
        # The proxy manager keeps a pool per target host and needs absolute URLs only for plain http.
        return urllib3.ProxyManager(proxy, **options).connection_from_url(endpoint_url)
    return urllib3.connection_from_url(endpoint_url, **options)
