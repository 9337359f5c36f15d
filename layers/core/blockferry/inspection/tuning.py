"""How fast an inspection asks, and how much of it is under way at a time."""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.core.quotas import BLOCKS_PER_SECOND, LISTS_PER_SECOND, MAX_PAGE


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The figures that decide how long counting takes and how much memory it needs, and never what is counted."""

    lists_per_second: float = LISTS_PER_SECOND
    """Requests a second of each list operation."""

    list_threads: int = 12
    """Lists under way at a time: two quotas of 25 a second at up to a quarter of a second each (Little's law)."""

    page: int = MAX_PAGE
    """Indices that one page of a list scans."""

    pages_per_window: int = 16
    """Pages of all lists of a window together: what is under way when time is up is done within seconds."""

    bitmap_bytes: int = 64 * 2**20
    """Memory for the bitmaps of all windows under way, in bytes."""

    reads_per_second: float = BLOCKS_PER_SECOND
    """Blocks read a second."""

    read_threads: int = 16
    """Blocks read at the same time."""

    read_range: int = 4_096
    """Indices whose blocks are read in one go, which bounds the digests in memory."""
