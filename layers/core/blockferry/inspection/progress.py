"""The progress of an inspection, which one call of its function hands to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockferry.inspection.count import Counts
from blockferry.inspection.zeros import Zeros


@dataclass
class Progress:
    """The counts so far, and the ``requests`` that it took, by operation and region."""

    counts: Counts = field(default_factory=Counts)
    zeros: Zeros = field(default_factory=Zeros)
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def reached(self) -> tuple[int, int]:
        """The next block index of the lists, and of reading."""
        return self.counts.next_index, self.zeros.next_index

    def to_json(self) -> dict[str, Any]:
        """The progress as a function returns it; ``next_index`` is for the reader of an execution."""
        return {
            "next_index": self.counts.next_index,
            "counts": self.counts.to_json(),
            "zeros": self.zeros.to_json(),
            "requests": dict(self.requests),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        """The progress that ``to_json`` gave."""
        return cls(Counts.from_json(data["counts"]), Zeros(**data["zeros"]), Counter(data["requests"]))
