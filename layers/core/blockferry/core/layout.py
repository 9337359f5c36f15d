"""Text for terminals: lines that are not too long, and columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80
"""Columns of text that flows; ids, commands and addresses are never broken."""


def filled(text: str, *, first: str = "", rest: str = "", lines: int | None = None) -> str:
    """Text in lines of ``WIDTH`` columns, cut off after so many; ``first`` and ``rest`` begin them."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
        max_lines=lines,
        placeholder=" ...",
    )


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[list[str]]:
    """Cells as wide as the widest of their column: the first ``left`` columns begin, the others end in one line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
