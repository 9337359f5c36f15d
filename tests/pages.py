"""What the pages tell people to type: command lines, in blocks of shell and quoted in sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.environment import repository_root

ROOT = repository_root()
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "terraform" / "README.md",
        ROOT / "tests" / "aws" / "README.md",
    ]
)
PROGRAMS = re.compile(r"(\.venv/bin/)?(blockferry|scripts/\w+|docs/[\w-]+\.sh|terraform|aws|cd|eval|pipx|pytest)( |$)")
FILLED_IN = {"N": "1", "COMMAND": "copy"}
"""What stands in for words in capitals that have to be of a kind; all others fit as they are."""


@dataclass(frozen=True)
class Typed:
    """A command line of a page, in words; ``whole`` if it stands in a block, and not in a sentence."""

    page: Path
    words: tuple[str, ...]
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {' '.join(self.words)}"


def typed(page: Path) -> Iterator[Typed]:
    """Every command of a page, those in blocks first."""
    for line in block_lines(page):
        if PROGRAMS.match(line):
            for words in commands_in(line):
                yield Typed(page, words)
    for quoted in quoted_lines(page):
        for words in commands_in(quoted):
            yield Typed(page, words, whole=False)


def block_lines(page: Path) -> Iterator[str]:
    """The lines of the blocks of shell, with those that are continued in one."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if language in ("", "sh"):
            yield from block.replace("\\\n", " ").splitlines()


def quoted_lines(page: Path) -> Iterator[str]:
    """The command lines that sentences quote."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`([^`\n]+)`", prose):
        if PROGRAMS.match(quoted):
            yield quoted


def commands_in(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line of shell, those in ``$(...)`` too."""
    for inner in re.findall(r"\$\(([^()]*)\)", line):
        yield from commands_in(inner)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[;&|]+", word):
            if words:
                yield tuple(FILLED_IN.get(each, each) for each in words)
            words = []
        else:
            words.append(word)
