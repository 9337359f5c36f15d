"""What can be wrong with the content of an image."""

from __future__ import annotations

from blockferry.core.errors import BlockferryError


class DamagedImage(BlockferryError):
    """A compressed image is cut off, altered, or followed by something that does not belong to it."""
