"""Block tokens and page tokens: signed, dated, and bound to what they were given for.

Both are base64 of 30 bytes, within the model's ``^[A-Za-z0-9+/=]+$`` of at most 256 characters. A block
token is good for one snapshot, one index and (when re-listing invalidates) one listing; a page token for
one listing with its snapshots. What they are bound to is in the signature, not in the token.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct

_BLOCK = struct.Struct(">II")
_PAGE = struct.Struct(">IQ")
_MAC_BLOCK = 22
_MAC_PAGE = 18


class Tokens:
    """Makes and checks tokens. ``secret`` is drawn per process: tokens of an earlier process are refused."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def block(self, *, snapshot_id: str, index: int, expires: float, listing: int) -> str:
        head = _BLOCK.pack(int(expires), listing)
        return base64.b64encode(head + self._mac(f"b|{snapshot_id}|{index}", head, _MAC_BLOCK)).decode()

    def block_is_good(self, token: str, *, snapshot_id: str, index: int, now: float, listing: int | None) -> bool:
        """Whether a block token opens this block. ``listing``: the only listing whose tokens still count, or ``None``
        if any does."""
        raw = _decoded(token)
        if len(raw) != _BLOCK.size + _MAC_BLOCK:
            return False
        head = raw[: _BLOCK.size]
        if not hmac.compare_digest(raw[_BLOCK.size :], self._mac(f"b|{snapshot_id}|{index}", head, _MAC_BLOCK)):
            return False
        expires, given_in = _BLOCK.unpack(head)
        return now < expires and (listing is None or given_in == listing)

    def page(self, *, listing: str, next_index: int, expires: float) -> str:
        head = _PAGE.pack(int(expires), next_index)
        return base64.b64encode(head + self._mac(f"p|{listing}", head, _MAC_PAGE)).decode()

    def page_start(self, token: str, *, listing: str, now: float) -> int | None:
        """The index a page token goes on from, or ``None`` if it is not good (any more)."""
        raw = _decoded(token)
        if len(raw) != _PAGE.size + _MAC_PAGE:
            return None
        head = raw[: _PAGE.size]
        if not hmac.compare_digest(raw[_PAGE.size :], self._mac(f"p|{listing}", head, _MAC_PAGE)):
            return None
        expires, next_index = _PAGE.unpack(head)
        return int(next_index) if now < expires else None

    def _mac(self, bound_to: str, head: bytes, length: int) -> bytes:
        return hmac.digest(self._secret, bound_to.encode() + b"|" + head, "sha256")[:length]


def _decoded(token: str) -> bytes:
    try:
        return base64.b64decode(token.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""
