"""The environment: made once, entered at once, safe to start twice, and clear words when it cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tools import environment
from tools.environment import EnvironmentFailed, ensure, locked, python_of, repository_root

SCRIPTS = repository_root() / "scripts"


def run(code: str, *, python: str = sys.executable, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n{code}"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_entering_from_inside_returns_at_once() -> None:
    start = time.perf_counter()
    environment.enter()
    assert time.perf_counter() - start < 1  # an install takes several; the usual time is 5 ms


def test_an_old_python_gets_a_sentence_and_status_2() -> None:
    result = run("from tools import environment; environment.OLDEST_PYTHON = (9, 0); environment.enter()")
    assert result.returncode == 2
    assert "Python 9.0 or newer is needed, this is Python 3." in result.stderr
    assert "Traceback" not in result.stderr


def test_a_script_started_outside_goes_on_inside_with_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nfrom tools.environment import enter\n"
        "enter()\nprint(sys.prefix, sys.argv[1:])\n"
    )
    outside = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    result = subprocess.run([outside, str(script), "--one", "two words"], capture_output=True, text=True, check=True)
    assert result.stdout == f"{repository_root() / '.venv'} ['--one', 'two words']\n"


def sources(folder: Path) -> Path:
    """A small repository whose environment needs no package at all."""
    (folder / "layers" / "core" / "greeting").mkdir(parents=True)
    (folder / "layers" / "core" / "greeting" / "__init__.py").write_text("def main():\n    print('hello')\n")
    (folder / "scripts").mkdir()
    (folder / "requirements-dev.txt").write_text("# nothing\n")
    (folder / "pyproject.toml").write_text("[project]\n[project.scripts]\ngreet = 'greeting:main'\n")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as ``python -m venv`` leaves it; making one takes seconds, so tests copy this one."""
    folder = tmp_path_factory.mktemp("bare") / ".venv"
    subprocess.run([sys._base_executable, "-m", "venv", str(folder)], check=True)  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def repository(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = sources(tmp_path / "a repository")  # the space is on purpose
    shutil.copytree(bare, folder / ".venv", symlinks=True)
    monkeypatch.setattr(environment, "repository_root", lambda: folder)
    return folder


def make(repository: Path) -> Path:
    return ensure(repository / ".venv", repository / "requirements-dev.txt", link_project=True)


def test_an_environment_that_does_not_start_is_made_anew(repository: Path) -> None:
    python_of(repository / ".venv").unlink()
    assert make(repository) == python_of(repository / ".venv")
    subprocess.run([python_of(repository / ".venv"), "-c", "import greeting, pip"], check=True)


def test_the_package_and_its_command_are_there(repository: Path) -> None:
    make(repository)
    greeting = subprocess.run([repository / ".venv/bin/greet"], capture_output=True, text=True, check=True)
    assert greeting.stdout == "hello\n"


def test_an_environment_is_filled_again_only_when_its_sources_change(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(repository)
    filled: list[Path] = []
    fill = environment._fill
    monkeypatch.setattr(environment, "_fill", lambda *given: (filled.append(given[0]), fill(*given)))
    make(repository)
    assert filled == []
    (repository / "requirements-dev.txt").write_text("# still nothing\n")
    make(repository)
    assert filled == [repository / ".venv"]
    make(repository)
    assert filled == [repository / ".venv"]


def test_a_failed_install_leaves_no_stamp_and_names_the_command(repository: Path) -> None:
    (repository / "requirements-dev.txt").write_text("no-hash-given==1.0\n")
    with pytest.raises(EnvironmentFailed, match="pip install"):
        make(repository)
    with pytest.raises(EnvironmentFailed, match="pip install"):
        make(repository)


def test_two_starts_at_once_fill_the_environment_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[Path] = []
    fill = environment._fill
    monkeypatch.setattr(environment, "_fill", lambda *given: (filled.append(given[0]), fill(*given)))
    starts = [threading.Thread(target=make, args=(repository,)) for _ in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(60)
    assert filled == [repository / ".venv"]


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "some.lock"
    with locked(lock):
        taken = run(
            "import fcntl\n"
            f"handle = open({str(lock)!r}, 'a')\n"
            "try:\n    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError:\n    print('held')"
        )
    assert taken.stdout == "held\n"
