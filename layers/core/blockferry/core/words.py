"""Words that messages of all rooms have in common."""

from __future__ import annotations


def counted(count: int, what: str, plural: str | None = None) -> str:
    """``1 range``, ``2 ranges``; ``plural`` of words that have more than an s as theirs."""
    return f"{count} {what}" if count == 1 else f"{count} {plural or what + 's'}"
