"""What every benchmark has in common: the options of its outcome, and how it ends."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any


def add_outcome(parser: argparse.ArgumentParser) -> None:
    """The options ``--check`` and ``--json``."""
    parser.add_argument("--check", action="store_true", help="exit status 1 if an aim is missed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def told(
    options: argparse.Namespace,
    result: dict[str, Any],
    table: Callable[[dict[str, Any]], str],
    *,
    reached: str,
    missed: Sequence[str],
) -> int:
    """Print the result, and in the last line what was ``reached`` and which aims were ``missed``; the exit status."""
    print(json.dumps(result, indent=1) if options.json else table(result))
    print(f"{reached}: {'missed: ' + ', '.join(missed) if missed else 'all aims reached'}")
    return 1 if missed and options.check else 0
