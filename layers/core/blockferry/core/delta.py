"""What differs between two snapshots, as counts of blocks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Delta:
    """How many blocks are only in the second of two snapshots, differ between them, are only in the first."""

    added: int = 0
    overwritten: int = 0
    removed: int = 0

    @property
    def read(self) -> int:
        """Blocks that have to be read of the second snapshot to write it on top of the first."""
        return self.added + self.overwritten

    @property
    def blocks(self) -> int:
        """Blocks that have to be written on top of the first snapshot to get the second, removed ones as zeros."""
        return self.added + self.overwritten + self.removed
