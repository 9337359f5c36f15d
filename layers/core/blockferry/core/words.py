"""Words that messages of all rooms have in common."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """``1 range``, ``2 ranges``; for words that have an s as their plural."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
