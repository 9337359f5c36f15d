"""Which files of the project a file imports: what it depends on, and what depends on it."""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

IMPORTED_FROM = ("layers/core", "scripts", "tests")
HANDLERS = "functions"
"""Where modules are imported from, and those that are loaded by their path."""


class Sources:
    """The Python files of the project, and which of them each imports, by itself or through others."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = [root / place for place in IMPORTED_FROM]
        self._imports: dict[Path, frozenset[Path]] = {}
        self._digests: dict[Path, bytes] = {}

    def digest(self, test: Path) -> str:
        """A digest of a test file with all that it imports."""
        seen: set[Path] = set()
        waiting = [test, *(self._root / "tests").glob("conftest.py")]
        while waiting:
            file = waiting.pop()
            if file not in seen:
                seen.add(file)
                waiting += self._imported_by(file) - seen
        whole = hashlib.sha256()
        for file in sorted(seen):
            if file not in self._digests:
                self._digests[file] = hashlib.sha256(file.read_bytes()).digest()
            whole.update(f"\0{file.relative_to(self._root)}\0".encode() + self._digests[file])
        return whole.hexdigest()

    def _imported_by(self, file: Path) -> frozenset[Path]:
        if file not in self._imports:
            self._imports[file] = frozenset(self._found_in(file))
        return self._imports[file]

    def _found_in(self, file: Path) -> Iterator[Path]:
        source = file.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield from self._files_of(name.split("."))
        if "import_module(" in source:  # a neighbour, by a name that is not known here
            yield from file.parent.rglob("*.py")
        if "spec_from_file_location(" in source:
            yield from (self._root / HANDLERS).rglob("*.py")

    def _files_of(self, parts: Sequence[str]) -> Iterator[Path]:
        """The files that are executed when a name is imported: those of the packages around it, too."""
        for place in self._places:
            for length in range(1, len(parts) + 1):
                here = place.joinpath(*parts[:length])
                yield from (f for f in (here.with_suffix(".py"), here / "__init__.py") if f.is_file())

    def dependents(self, file: Path, among: Iterable[Path]) -> set[Path]:
        """The file, and those of some files that import it, by themselves or through others of them."""
        importers: defaultdict[Path, set[Path]] = defaultdict(set)
        for importer in among:
            for imported in self._imported_by(importer):
                importers[imported].add(importer)
        found, waiting = {file}, [file]
        while waiting:
            new = importers[waiting.pop()] - found
            found |= new
            waiting += new
        return found
