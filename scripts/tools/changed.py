"""What a change can touch: the parts of ``scripts/test``, and the test files, that have to run because of it.

A Python file is touched by every file that it imports, however far away. What no import shows is told by words: a test
that names a file, or the folder at the top that it lies in, reads it. In doubt more is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from tools.processes import Commands

ROOTS = ("layers/core", "scripts", "tests", "tests/unit", "tests/localcloud", "tests/cloud", "tests/terraform")
"""Folders from which modules are imported."""

TESTS = ("tests/unit/", "tests/localcloud/", "tests/terraform/")

EVERYTHING = (
    r"pyproject\.toml",
    r"requirements.*\.txt",
    r"layers/core/requirements\.txt",
    r"package(-lock)?\.json",
    r"(tests/)?conftest\.py",
    r"scripts/test",
    r"scripts/tools/(checks|parts|environment|processes|changed)\.py",
    r"\.ci/.*",
)
"""Files on which every part depends."""

PARTS: Mapping[str, str] = {
    "format": r".*\.py",
    "lint": r".*\.py",
    "types": r"(layers|functions|scripts)/.*\.py",
    "build": r"(layers|functions)/.*|scripts/tools/(build|archives|dependencies)\.py",
    "terraform": r"(terraform|statemachines)/.*|functions/.*\.json|scripts/tools/(terraform|mirror)\.py",
    "machines": r"statemachines/.*|scripts/tools/machine.*\.py",
    "checkov": r"terraform/.*",
    "cloud": r"(layers|functions|statemachines|terraform|scripts/localcloud|tests/cloud)/.*|tests/(cloud_)?rig\.py",
}
"""The files that a part looks at, but for the unit tests."""


@dataclass(frozen=True)
class Touched:
    """Names of parts, and the test files of the part ``unit``; ``None`` stands for all of them."""

    parts: frozenset[str] | None
    tests: tuple[str, ...] | None


def changed_files(commands: Commands, base: str) -> list[str]:
    """Paths, from the root of the repository, of what differs from where this branch left ``base``, committed or not.

    Raises ``CommandFailed`` when there is no such commit.
    """
    left = commands.run("git", "merge-base", base, "HEAD").strip()
    differing = commands.run("git", "diff", "--name-only", "--no-renames", left)
    new = commands.run("git", "ls-files", "--others", "--exclude-standard")
    return sorted({*differing.splitlines(), *new.splitlines()})


def touched(root: Path, changed: Iterable[str]) -> Touched:
    """What has to run because of these files."""
    files = list(changed)
    if any(re.fullmatch(pattern, file) for file in files for pattern in EVERYTHING):
        return Touched(None, None)
    parts = {part for part, pattern in PARTS.items() if any(re.fullmatch(pattern, file) for file in files)}
    tests = tuple(sorted(Modules(root).touched_by(files)))
    return Touched(frozenset(parts | ({"unit"} if tests else set())), tests)


class Modules:
    """The Python files of the repository and what each of them reads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """Every Python file by its path from the root."""
        found = {}
        for folder in ("layers", "functions", "scripts", "tests"):
            for file in sorted((self._root / folder).rglob("*.py")):
                if "__pycache__" not in file.parts and "build" not in file.parts:
                    found[file.relative_to(self._root).as_posix()] = file.read_text()
        return found

    @cached_property
    def _imports(self) -> Mapping[str, frozenset[str]]:
        return {path: frozenset(self._imported_by(path)) for path in self.texts}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Files by the names under which they can be imported."""
        names: dict[str, str] = {}
        for path in self.texts:
            for root in ROOTS:
                if path.startswith(f"{root}/"):
                    inner = PurePosixPath(path).relative_to(root).with_suffix("")
                    parts = inner.parts[:-1] if inner.name == "__init__" else inner.parts
                    names.setdefault(".".join(parts), path)
        return names

    def imports(self, path: str) -> frozenset[str]:
        """The files that a file imports, packages on the way included."""
        return self._imports[path]

    def _imported_by(self, path: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(self.texts[path])):
            wanted: list[str] = []
            if isinstance(node, ast.Import):
                wanted = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            for name in wanted:
                steps = name.split(".")
                for length in range(1, len(steps) + 1):
                    found = self._names.get(".".join(steps[:length]))
                    if found is not None and found != path:
                        yield found

    def reads(self, path: str) -> set[str]:
        """The file and all that it imports, however far away."""
        seen, waiting = {path}, [path]
        while waiting:
            for other in self.imports(waiting.pop()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    def touched_by(self, changed: Iterable[str]) -> set[str]:
        """The test files that read one of these files, or name it."""
        files = set(changed)
        # What a package reads beside its modules is read by all of them in that folder.
        for path in [path for path in files if path.startswith("layers/") and not path.endswith(".py")]:
            files |= {other for other in self.texts if PurePosixPath(other).parent == PurePosixPath(path).parent}
        words = {path: self._words_for(path) for path in files}
        local = any(path.startswith("scripts/localcloud/") for path in files)
        tests = [path for path in self.texts if path.startswith(TESTS) and "/test_" in path]
        found = set()
        for test in tests:
            read = self.reads(test)
            text = "\n".join(self.texts[path] for path in read if path.startswith(("tests/", "scripts/tools/")))
            # The local cloud runs as a process of its own, which no import shows.
            served = local and test.startswith("tests/localcloud/")
            if served or read & files or any(re.search(pattern, text) for pattern in words.values() if pattern):
                found.add(test)
        return found

    def _words_for(self, path: str) -> str:
        """A pattern of the words by which a test would read a file that it does not import; empty for none."""
        pure = PurePosixPath(path)
        if path.endswith(".py") and not path.startswith("functions/"):
            return ""
        words = {pure.name, path}
        if path.startswith(("functions/", "statemachines/", "terraform/", "docs/")):
            words.add(pure.parts[0])
        return "|".join(rf"[\"'/]{re.escape(word)}[\"'/]" for word in sorted(words))
