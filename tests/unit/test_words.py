"""Messages count one of anything as one."""

from __future__ import annotations

import ast
import re

import pytest
from blockferry.core.words import counted
from pages import ROOT

NOUNS = "range|block|target|archive|worker|segment|attempt|finding|object"
COUNT = re.compile(r"\b(len\(|count|total|number|planned|lost|left|attempts)")


@pytest.mark.parametrize(
    ("count", "words", "expected"),
    [
        (0, ("range",), "0 ranges"),
        (1, ("range",), "1 range"),
        (2, ("range",), "2 ranges"),
        (1, ("index", "indexes"), "1 index"),
        (3, ("index", "indexes"), "3 indexes"),
    ],
)
def test_one_is_counted_as_one(count: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(count, *words) == expected


@pytest.mark.parametrize("room", ["cli", "transfer", "verification"])
def test_no_message_puts_an_s_behind_a_count_that_may_be_one(room: str) -> None:
    """A count in a message, with its noun behind it, is made by ``counted``."""
    found = []
    for file in sorted((ROOT / "layers/core/blockferry" / room).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                for value, text in zip(node.values, node.values[1:], strict=False):
                    behind = text.value if isinstance(text, ast.Constant) else ""
                    counts = isinstance(value, ast.FormattedValue) and COUNT.search(ast.unparse(value.value))
                    if counts and re.match(rf" ({NOUNS})s\b", str(behind)):
                        found.append(f"{file.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
