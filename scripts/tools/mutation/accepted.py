"""The faults that no test has to notice, each with a reason."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.mutation.mutants import Mutant

ACCEPTED = Path(__file__).with_name("accepted.toml")


@dataclass(frozen=True)
class Accepted:
    """Faults that need no test, each with a reason. The key is what names the fault in ``accepted.toml``."""

    reasons: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, file: Path) -> Accepted:
        """The faults that a file lists. Raises ``ValueError`` for an entry without a reason and for a fault that is
        listed twice."""
        reasons: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for entry in tomllib.loads(file.read_text())["accepted"]:
            for key in entry["mutants"]:
                if not entry["why"].strip() or key in reasons[entry["module"]]:
                    raise ValueError(f"{file.name}: {entry['module']}: {key!r} has no reason, or is listed twice")
                reasons[entry["module"]][key] = entry["why"]
        return cls(reasons)

    def stale(self, module: str, mutants: Iterable[Mutant]) -> list[str]:
        """Entries of a module that name no fault of it any more."""
        there = {key_of(mutant) for mutant in mutants}
        return [key for key in self.reasons.get(module, {}) if key not in there]


def key_of(mutant: Mutant) -> str:
    again = f" #{mutant.nth}" if mutant.nth > 1 else ""
    return f"{mutant.scope or 'module'}: {mutant.before} -> {mutant.after}{again}"
