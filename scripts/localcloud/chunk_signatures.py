"""Bodies in signed chunks, S3's alone: every chunk is signed over the one before, the first over the request.

Source: S3 API reference, "Signature calculations for the authorization header: transferring payload in multiple
chunks", and the same with trailing headers.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from localcloud.signatures import EMPTY_SHA256, Claim, SignatureRefused

_LENGTH = re.compile(rb"[0-9a-fA-F]{1,16}")
_CHUNK, _TRAILER = "AWS4-HMAC-SHA256-PAYLOAD", "AWS4-HMAC-SHA256-TRAILER"


def check_chunks(body: bytes, claim: Claim, key: bytes, *, trailer: bool) -> None:
    """Raise ``SignatureRefused`` unless every chunk, and the trailing headers if there are any, are signed."""
    before, at = claim.signature, 0
    while True:
        end = body.find(b"\r\n", at)
        length_text, _, extension = body[at : max(end, at)].partition(b";")
        signature = extension.partition(b"chunk-signature=")[2].decode("ascii", errors="replace")
        if not _LENGTH.fullmatch(length_text):
            raise _refused("a chunk does not tell its length")
        length = int(length_text, 16)
        data = body[end + 2 : end + 2 + length]
        content = f"{EMPTY_SHA256}\n{hashlib.sha256(data).hexdigest()}"
        if not hmac.compare_digest(_signature(key, _CHUNK, claim, before, content), signature):
            raise _refused(f"the signature of a chunk of {length} bytes does not match")
        before, at = signature, end + 2 + length + (2 if length else 0)
        if length == 0:
            break
    if trailer:
        _check_trailer(body[at:], claim, key, before)


def _check_trailer(rest: bytes, claim: Claim, key: bytes, before: str) -> None:
    lines = [line for line in rest.decode("utf-8", errors="replace").split("\r\n") if line]
    named = [line for line in lines if not line.lower().startswith("x-amz-trailer-signature:")]
    given = [line.partition(":")[2].strip() for line in lines if line not in named]
    text = "".join(f"{name.strip().lower()}:{value.strip()}\n" for name, _, value in (n.partition(":") for n in named))
    wanted = _signature(key, _TRAILER, claim, before, hashlib.sha256(text.encode()).hexdigest())
    if given != [wanted]:
        raise _refused("the signature of the trailing headers does not match")


def _signature(key: bytes, algorithm: str, claim: Claim, before: str, content: str) -> str:
    text = "\n".join((algorithm, claim.timestamp, claim.scope, before, content))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _refused(what: str) -> SignatureRefused:
    return SignatureRefused("mismatch", f"The request signature we calculated does not match: {what}.")
