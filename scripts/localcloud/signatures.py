"""Signature Version 4 as a service verifies it: in the Authorization header or in the query of a presigned URL.

Source: IAM user guide, "Create a signed AWS API request"; S3 API reference, "Authenticating requests". The request is
put into canonical form from what came over the wire, so nothing that was sent and has to be signed can be left out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, unquote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SKEW_SECONDS = 300.0
S3_SKEW_SECONDS = 900.0
MOST_PRESIGNED_SECONDS = 604_800
STREAMED = frozenset(
    {
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    }
)
"""Values of ``x-amz-content-sha256`` for bodies in chunks, which only S3 takes."""

Kind = Literal[
    "missing",
    "incomplete",
    "unsupported",
    "unknown key",
    "invalid token",
    "expired token",
    "scope",
    "skewed",
    "expired",
    "unsigned header",
    "mismatch",
    "payload",
    "no payload hash",
]
_PARAMETERS = ("Credential", "SignedHeaders", "Signature")
_MOST_KEYS = 10_000
_HASH = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_COLLAPSED = re.compile(r" +")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


class SignatureRefused(Exception):
    """The request is not proved to come from the holder of its key. What a service says of ``kind``:
    ``localcloud.signature_errors``."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request as it was sent: ``path`` and ``query`` with their percent signs, ``headers`` with lower-case names,
    repeated ones joined by commas."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What a key signs with. ``session_token`` of temporary keys has to come along; ``expires`` in epoch seconds."""

    secret_access_key: str
    session_token: str | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says of its signature."""

    access_key: str
    date: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str
    timestamp: str
    session_token: str
    lifetime: int | None
    """Seconds that a presigned URL lasts; ``None`` for a signature in the header."""

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class SigningKeys:
    """Signing keys by secret and scope: they change once a day. Safe between threads."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str, str, str], bytes] = {}
        self._lock = threading.Lock()

    def of(self, secret: str, *, date: str, region: str, service: str) -> bytes:
        asked = (secret, date, region, service)
        key = self._keys.get(asked)
        if key is None:
            key = f"AWS4{secret}".encode()
            for part in (date, region, service, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            with self._lock:
                if len(self._keys) >= _MOST_KEYS:
                    self._keys.clear()
                self._keys[asked] = key
        return key


class Verifier:
    """Verifies signatures. ``secret_of`` gives an access key's secret, ``None`` if nobody has such a key; ``now`` epoch
    seconds."""

    def __init__(self, secret_of: Callable[[str], Secret | None], *, now: Callable[[], float] = time.time) -> None:
        self._secret_of = secret_of
        self._now = now
        self._keys = SigningKeys()

    def key_of(self, claim: Claim) -> bytes:
        """The signing key behind a claim that has been verified."""
        secret = self._secret_of(claim.access_key)
        assert secret is not None  # noqa: S101
        return self._keys.of(secret.secret_access_key, date=claim.date, region=claim.region, service=claim.service)

    def check(self, claim: Claim, request: Incoming, *, service: str, payload: str) -> None:
        """Raise ``SignatureRefused`` unless the request was signed with its key's secret, for ``service``, now.

        ``payload`` is what the canonical request ends with: the body's SHA-256 in hex, or the literal that stands for
        it where the service allows one (see ``literal_payload``).
        """
        secret = self._secret_of(claim.access_key)
        if secret is None:
            raise SignatureRefused("unknown key", "The security token included in the request is invalid.")
        _check_token(claim, secret, now=self._now())
        if claim.service != service:
            raise SignatureRefused("scope", f"Credential should be scoped to correct service: '{service}'.")
        if claim.date != claim.timestamp[:8]:
            raise SignatureRefused(
                "scope",
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{claim.date}' != '{claim.timestamp[:8]}', from '{claim.timestamp}'.",
            )
        self._check_time(claim)
        _check_headers(claim, request)
        key = self._keys.of(secret.secret_access_key, date=claim.date, region=claim.region, service=claim.service)
        for each in _readings(request, service=service):
            canonical = canonical_request(each, signed=claim.signed, payload=payload, service=service)
            to_sign = string_to_sign(canonical, timestamp=claim.timestamp, scope=claim.scope)
            if hmac.compare_digest(_hmac(key, to_sign).encode(), claim.signature.encode()):
                break
        else:
            raise SignatureRefused(
                "mismatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method. Consult the service documentation for details.\n\n"
                f"The Canonical String for this request should have been\n'{canonical}'\n\n"
                f"The String-to-Sign should have been\n'{to_sign}'\n",
            )

    def _check_time(self, claim: Claim) -> None:
        now, signed_at = self._now(), epoch_of(claim.timestamp)
        allowed = S3_SKEW_SECONDS if claim.service == "s3" else SKEW_SECONDS
        minutes = round(allowed / 60)
        if signed_at > now + allowed:
            raise SignatureRefused(
                "skewed",
                f"Signature not yet current: {claim.timestamp} is still later than {stamp(now + allowed)} "
                f"({stamp(now)} + {minutes} min.)",
            )
        if claim.lifetime is not None:
            if now > signed_at + claim.lifetime:
                raise SignatureRefused("expired", "Request has expired")
        elif signed_at < now - allowed:
            raise SignatureRefused(
                "skewed",
                f"Signature expired: {claim.timestamp} is now earlier than {stamp(now - allowed)} "
                f"({stamp(now)} - {minutes} min.)",
            )


def claim_of(request: Incoming) -> Claim | None:
    """What the request says of its signature; ``None`` if it carries none. Raises ``SignatureRefused``."""
    authorization = request.headers.get("authorization", "")
    query = dict(_pairs(request.query))
    if authorization and ("X-Amz-Signature" in query or "X-Amz-Credential" in query):
        raise SignatureRefused("incomplete", "The request is signed twice: in its Authorization header and its query.")
    if authorization:
        if not authorization.startswith(f"{ALGORITHM} "):
            raise SignatureRefused("unsupported", f"Only {ALGORITHM} is verified here, not {authorization[:20]!r}.")
        parts = [part.strip().partition("=") for part in authorization.removeprefix(ALGORITHM).split(",")]
        given = {name: value for name, _, value in parts}
        if len(given) != len(parts) or not set(given) <= set(_PARAMETERS):
            # Whoever reads such a header in another way would find another caller in it.
            raise SignatureRefused("incomplete", "Authorization header has parameters twice or unknown ones.")
        names = {name: name for name in _PARAMETERS}
        timestamp, token, lifetime = (
            _header_time(request.headers),
            request.headers.get("x-amz-security-token", ""),
            None,
        )
    elif "X-Amz-Signature" in query or "X-Amz-Credential" in query:
        known = [name for name, _ in _pairs(request.query) if name.lower().startswith("x-amz-")]
        if len({name.lower() for name in known}) != len(known):
            raise SignatureRefused("incomplete", "The query has a parameter of its signature twice.")
        if query.get("X-Amz-Algorithm") != ALGORITHM:
            raise SignatureRefused("unsupported", f"Only {ALGORITHM} is verified here.")
        given = query
        names = {name: f"X-Amz-{name}" for name in _PARAMETERS}
        timestamp, token = query.get("X-Amz-Date", ""), query.get("X-Amz-Security-Token", "")
        lifetime = _lifetime(query.get("X-Amz-Expires", ""))
    elif "AWSAccessKeyId" in query or "Signature" in query:
        raise SignatureRefused("unsupported", f"Only {ALGORITHM} is verified here.")
    else:
        return None
    if missing := [name for name in names.values() if not given.get(name)]:
        raise SignatureRefused(
            "incomplete", "".join(f"Authorization header requires '{name}' parameter. " for name in missing).strip()
        )
    scope = given[names["Credential"]].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise SignatureRefused(
            "incomplete",
            "Credential must have exactly 5 slash-delimited elements, "
            "e.g. keyid/date/region/service/term, got '" + given[names["Credential"]] + "'",
        )
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureRefused("incomplete", "The request needs a valid 'X-Amz-Date', such as 20260101T000000Z.")
    signed = tuple(given[names["SignedHeaders"]].split(";"))
    if not all(map(_HEADER_NAME.fullmatch, signed)):
        # Nothing that looks like another parameter: the base searches the header for its first "Credential=".
        raise SignatureRefused("incomplete", f"SignedHeaders are names of headers in lower case, not {signed}.")
    return Claim(
        access_key=scope[0],
        date=scope[1],
        region=scope[2],
        service=scope[3],
        signed=signed,
        signature=given[names["Signature"]],
        timestamp=timestamp,
        session_token=token,
        lifetime=lifetime,
    )


def literal_payload(claim: Claim, request: Incoming, *, service: str, unsigned_body: bool) -> str | None:
    """What stands for the body in the canonical request; ``None``: the body's own SHA-256.

    ``unsigned_body``: the service model says ``v4-unsigned-body`` of the operation. Everywhere else but in S3 a header
    that calls the payload unsigned does not make it so. Raises ``SignatureRefused``.
    """
    given = request.headers.get("x-amz-content-sha256", "")
    if service != "s3":
        return UNSIGNED_PAYLOAD if unsigned_body and given == UNSIGNED_PAYLOAD else None
    if claim.lifetime is not None:
        return given if given and "x-amz-content-sha256" in claim.signed else UNSIGNED_PAYLOAD
    if not given:
        raise SignatureRefused("no payload hash", "Missing required header for this request: x-amz-content-sha256")
    if given != UNSIGNED_PAYLOAD and given not in STREAMED and not _HASH.fullmatch(given):
        raise SignatureRefused(
            "no payload hash",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        )
    return given


def canonical_request(request: Incoming, *, signed: tuple[str, ...], payload: str, service: str) -> str:
    query = sorted(
        (_encoded(name), _encoded(value)) for name, value in _pairs(request.query) if name != "X-Amz-Signature"
    )
    lines = "".join(f"{name}:{_COLLAPSED.sub(' ', request.headers.get(name, '').strip())}\n" for name in signed)
    # S3 alone takes the path as it is; all others encode what is encoded already.
    path = request.path if service == "s3" else quote(_without_dots(request.path), safe="/~")
    return "\n".join(
        (request.method, path, "&".join(f"{name}={value}" for name, value in query), lines, ";".join(signed), payload)
    )


def _readings(request: Incoming, *, service: str) -> list[Incoming]:
    """The request as it was sent, and for S3 with its path as AWS encodes it: clients may send other characters as
    they are than they have signed (``(``, ``!``). The same key either way."""
    if service != "s3":
        return [request]
    encoded = quote(unquote_to_bytes(request.path), safe="/-_.~")
    return [request] if encoded == request.path else [replace(request, path=encoded), request]


def string_to_sign(canonical: str, *, timestamp: str, scope: str) -> str:
    return "\n".join((ALGORITHM, timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))


def signed_headers(
    request: Incoming, *, body: bytes, access_key: str, secret: str, region: str, service: str, now: float
) -> dict[str, str]:
    """The request's headers with a signature over all of them and over ``body``, for the parts' own requests."""
    timestamp = stamp(now)
    headers = {**request.headers, "x-amz-date": timestamp}
    whole = Incoming(method=request.method, path=request.path, query=request.query, headers=headers)
    signed = tuple(sorted(headers))
    payload = hashlib.sha256(body).hexdigest()
    scope = f"{timestamp[:8]}/{region}/{service}/aws4_request"
    to_sign = string_to_sign(
        canonical_request(whole, signed=signed, payload=payload, service=service), timestamp=timestamp, scope=scope
    )
    key = SigningKeys().of(secret, date=timestamp[:8], region=region, service=service)
    signature = _hmac(key, to_sign)
    headers["authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    )
    return headers


def stamp(seconds: float) -> str:
    """Epoch seconds as ``20260101T000000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def epoch_of(timestamp: str) -> float:
    """Epoch seconds of a ``stamp``. Raises ``SignatureRefused`` for a day or a time that does not exist."""
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise SignatureRefused("incomplete", f"'{timestamp}' is no time.") from error


def _check_token(claim: Claim, secret: Secret, *, now: float) -> None:
    if not hmac.compare_digest(claim.session_token.encode(), (secret.session_token or "").encode()):
        raise SignatureRefused("invalid token", "The security token included in the request is invalid.")
    if secret.expires is not None and now > secret.expires:
        raise SignatureRefused("expired token", "The security token included in the request is expired")


def _check_headers(claim: Claim, request: Incoming) -> None:
    """Host, every ``x-amz-`` header, and the content type where the header carries the signature, are signed."""
    signed = set(claim.signed)
    due = {"host"} | {name for name in request.headers if name.startswith("x-amz-")}
    if claim.lifetime is None and "content-type" in request.headers:
        due.add("content-type")
    if left := sorted(due - signed):
        raise SignatureRefused(
            "unsigned header", f"There were headers present in the request which were not signed: {', '.join(left)}"
        )


def _header_time(headers: Mapping[str, str]) -> str:
    given = headers.get("x-amz-date") or headers.get("date", "")
    if not _TIMESTAMP.fullmatch(given):
        try:
            return stamp(datetime.strptime(given, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC).timestamp())
        except ValueError:
            return given
    return given


def _lifetime(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PRESIGNED_SECONDS:
        raise SignatureRefused(
            "incomplete", f"X-Amz-Expires must be between 1 and {MOST_PRESIGNED_SECONDS} seconds, not '{text}'"
        )
    return int(text)


def _pairs(query: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in query.split("&") if part)
    return [(unquote(name), unquote(value)) for name, _, value in parts]


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _without_dots(path: str) -> str:
    """RFC 3986, "Remove dot segments", and no empty segments: as every service but S3 normalises a path."""
    if "/." not in path and "//" not in path:
        return path or "/"
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept[-1:] = []
        elif part not in ("", "."):
            kept.append(part)
    ends = "/" if path.endswith(("/", "/.", "/..")) and kept else ""
    return "/" + "/".join(kept) + ends


def _hmac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
