"""What has to run because of a change: found by imports and by words, and rather too much than too little."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tools.changed import Modules, Touched, changed_files, touched
from tools.environment import repository_root
from tools.processes import CommandFailed, Commands

FILES = {
    "layers/core/blockferry/__init__.py": "",
    "layers/core/blockferry/core/__init__.py": "",
    "layers/core/blockferry/core/blocks.py": "SIZE = 1\n",
    "layers/core/blockferry/core/mover.py": "from blockferry.core.blocks import SIZE\n",
    "layers/core/blockferry/cost/__init__.py": "",
    "layers/core/blockferry/cost/prices.py": "",
    "layers/core/blockferry/cost/prices.json": "{}",
    "functions/move_blocks/handler.py": "from blockferry.core import mover\n",
    "scripts/localcloud/__init__.py": "",
    "scripts/localcloud/server.py": "",
    "tests/rig.py": "def f():\n    import blockferry.core.mover\n",
    "tests/unit/test_blocks.py": "from blockferry.core import blocks\n",
    "tests/unit/test_mover.py": "import rig\n",
    "tests/unit/test_handlers.py": 'FOLDER = ROOT / "functions"\n',
    "tests/unit/test_words.py": 'TEXT = (ROOT / "docs/upload.md").read_text()\n',
    "tests/unit/test_prices.py": "from blockferry.cost.prices import x\n",
    "tests/localcloud/test_doors.py": "",
    "docs/upload.md": "",
    "terraform/main.tf": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def hit_by(root: Path, *changed: str) -> set[str]:
    return {path.rsplit("/", 1)[-1] for path in touched(root, changed).tests or ()}


def test_a_module_is_touched_by_what_it_imports_however_far_away(root: Path) -> None:
    assert hit_by(root, "layers/core/blockferry/core/blocks.py") == {"test_blocks.py", "test_mover.py"}
    assert hit_by(root, "layers/core/blockferry/core/mover.py") == {"test_mover.py"}
    assert hit_by(root, "tests/rig.py") == {"test_mover.py"}
    assert hit_by(root, "layers/core/blockferry/core/__init__.py") == {"test_blocks.py", "test_mover.py"}


def test_a_test_is_touched_by_itself(root: Path) -> None:
    assert hit_by(root, "tests/unit/test_blocks.py") == {"test_blocks.py"}


def test_what_no_import_shows_is_told_by_words(root: Path) -> None:
    assert hit_by(root, "functions/move_blocks/handler.py") == {"test_handlers.py"}
    assert hit_by(root, "docs/upload.md") == {"test_words.py"}
    assert hit_by(root, "docs/other.md") == {"test_words.py"}
    assert hit_by(root, "layers/core/blockferry/cost/prices.json") == {"test_prices.py"}
    assert hit_by(root, "scripts/localcloud/server.py") == {"test_doors.py"}


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "requirements-dev.txt", "tests/conftest.py", "scripts/tools/parts.py", ".ci/run"]
)
def test_on_some_files_everything_depends(root: Path, file: str) -> None:
    assert touched(root, [file, "docs/upload.md"]) == Touched(None, None)


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("layers/core/blockferry/core/blocks.py", {"format", "lint", "types", "unit", "build", "cloud"}),
        ("terraform/main.tf", {"terraform", "checkov", "cloud"}),
        ("statemachines/copy.asl.json", {"terraform", "machines", "cloud"}),
        ("tests/unit/test_blocks.py", {"format", "lint", "unit"}),
        ("docs/upload.md", {"unit"}),
        ("LICENSE", set()),
    ],
)
def test_only_the_parts_that_look_at_a_file_run(root: Path, file: str, parts: set[str]) -> None:
    assert touched(root, [file]).parts == parts


def test_a_file_that_was_deleted_touches_who_names_it(root: Path) -> None:
    (root / "docs/upload.md").unlink()
    assert hit_by(root, "docs/upload.md") == {"test_words.py"}


def test_what_differs_from_the_branch_is_committed_or_not(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("kept", "changed", "committed", "gone"):
        (tmp_path / name).write_text(name)
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "work")
    (tmp_path / "committed").write_text("2")
    git("commit", "-am", "two")
    (tmp_path / "changed").write_text("2")
    (tmp_path / "new").write_text("2")
    (tmp_path / "gone").unlink()
    commands = Commands(tmp_path, os.environ)
    assert changed_files(commands, "main") == ["changed", "committed", "gone", "new"]
    with pytest.raises(CommandFailed):
        changed_files(commands, "no-such-branch")


def test_every_test_of_this_repository_is_touched_by_something_beside_itself() -> None:
    modules = Modules(repository_root())
    tests = [path for path in modules.texts if path.startswith("tests/unit/test_")]
    assert len(tests) > 80
    alone = {path for path in tests if modules.reads(path) == {path}}
    # They read files, and are found by the words in them.
    assert {path.rsplit("/", 1)[-1] for path in alone} <= {"test_words.py", "test_documents.py"}
