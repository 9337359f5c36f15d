"""The Python environment of this checkout: made when it is missing, entered by every script.

A script begins with ``environment.enter()``. It runs on whatever Python started the script, before
anything is installed, so this module uses the standard library only. It also has to be *readable* by
old interpreters, or they would print a SyntaxError instead of the sentence about their age; that is
why there are no ``X | Y`` annotations and no ``from __future__ import annotations`` here.

The environment is ``.venv`` in the repository, filled from ``requirements-dev.txt`` with every hash
checked. A stamp in it says from which files it was filled, so entering it again costs milliseconds.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator  # noqa: UP035  # the other Iterator[None] fails before Python 3.9

OLDEST_PYTHON = (3, 11)
STAMP_NAME = ".blockferry-stamp"
# Set just before the process is replaced, to its own id: the id survives execv, and a child process
# that inherits the variable has another one, so only a real loop is taken for a loop.
REENTRY_MARKER = "BLOCKFERRY_ENVIRONMENT_ENTERED"
EXIT_ENVIRONMENT = 2
# A shell line that Python reads as a string: unlike "#!/path/to/python" it works in a folder whose name
# has a space in it or is longer than the kernel's limit.
COMMAND = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from {module} import {function}

sys.exit({function}())
"""


class EnvironmentFailed(Exception):
    """The environment could not be made; the message says which step failed and what to do."""


def repository_root() -> Path:
    """The top folder of this checkout, whatever the working directory is."""
    return Path(__file__).resolve().parents[2]


def virtual_environment() -> Path:
    """Folder of the project's environment; it may not exist yet."""
    return repository_root() / ".venv"


def python_of(directory: Path) -> Path:
    """The interpreter of a virtual environment."""
    return directory / "bin" / "python"


def enter() -> None:
    """Make sure this process runs in the project's environment, with everything installed.

    Returns at once where that is so; otherwise installs what is missing (progress on stderr) and
    replaces this process by the same command under the environment's interpreter. Ends the process
    with status 2 and one sentence when the environment cannot be had.
    """
    try:
        _refuse_old_python()
        directory = virtual_environment()
        inside = os.path.realpath(sys.prefix) == os.path.realpath(str(directory))
        if inside and os.environ.get(REENTRY_MARKER) == str(os.getpid()):
            return
        python = ensure(directory, repository_root() / "requirements-dev.txt", link_project=True)
        if inside:
            return
        if os.environ.get(REENTRY_MARKER) == str(os.getpid()):
            raise EnvironmentFailed(f"{python} does not start inside {directory}: delete that folder and try again.")
    except EnvironmentFailed as failure:
        print(f"{Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
        sys.exit(EXIT_ENVIRONMENT)
    os.environ[REENTRY_MARKER] = str(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(str(python), [str(python), *sys.argv])  # noqa: S606  # the same command, no shell


def ensure(directory: Path, requirements: Path, *, link_project: bool) -> Path:
    """Make or bring up to date one virtual environment; returns its interpreter.

    ``link_project`` makes the packages of this checkout importable in it and puts the ``blockferry``
    command on its ``bin``. Safe when several processes call it at once. An environment that only
    needs newer packages is changed in place, so that processes already running in it go on.

    Raises EnvironmentFailed when a step fails.
    """
    if _is_current(directory, requirements, link_project):
        return python_of(directory)
    with locked(repository_root() / "build" / (directory.name.lstrip(".") + ".lock")):
        if not _is_current(directory, requirements, link_project):  # another process may have been quicker
            _fill(directory, requirements, link_project)
    return python_of(directory)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes on this machine for the length of a with-block."""
    import fcntl  # not on Windows, where the sentence of _refuse_old_python should still be printed

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process to finish with {path.stem}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _refuse_old_python() -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise EnvironmentFailed(
            "Python {}.{} or newer is needed, this is Python {} ({}). Install a newer one and start the "
            "script with it, for example: python3.13 {}".format(
                OLDEST_PYTHON[0],
                OLDEST_PYTHON[1],
                platform.python_version(),
                sys.executable,
                " ".join(sys.argv),
            )
        )


def _is_current(directory: Path, requirements: Path, link_project: bool) -> bool:
    if not python_of(directory).exists():
        return False
    try:
        found = (directory / STAMP_NAME).read_text()
    except OSError:
        return False
    return found == _stamp(directory, requirements, link_project)


def _stamp(directory: Path, requirements: Path, link_project: bool) -> str:
    """Hash of all that decides what is in the environment."""
    digest = hashlib.sha256(requirements.read_bytes())
    try:
        digest.update((directory / "pyvenv.cfg").read_bytes())  # names the Python it was made with
    except OSError:
        digest.update(b"no environment yet")
    if link_project:
        digest.update(json.dumps(_console_scripts(), sort_keys=True).encode())
        digest.update(str(repository_root()).encode())
    return digest.hexdigest()


def _console_scripts() -> dict:  # type: ignore[type-arg]  # dict[str, str] does not evaluate on old Pythons
    import tomllib

    project = tomllib.loads((repository_root() / "pyproject.toml").read_text())["project"]
    return dict(project.get("scripts", {}))


def _fill(directory: Path, requirements: Path, link_project: bool) -> None:
    python = python_of(directory)
    if not _works(python):
        _say(f"making {directory} with Python {platform.python_version()}")
        shutil.rmtree(str(directory), ignore_errors=True)
        _run([_base_python(), "-m", "venv", str(directory)])
    _say(f"installing {requirements.name} into {directory}")
    _run(
        [
            str(python),
            *("-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--require-hashes", "--no-deps", "--requirement", str(requirements)),
        ]
    )
    if link_project:
        _link_project(directory)
    stamp = directory / STAMP_NAME
    partial = stamp.with_name(stamp.name + ".new")
    partial.write_text(_stamp(directory, requirements, link_project))
    partial.replace(stamp)


def _base_python() -> str:
    """The interpreter outside any virtual environment: one made from another would depend on it."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _works(python: Path) -> bool:
    """Whether an interpreter starts, is new enough and has pip."""
    test = f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON!r})"
    try:
        done = subprocess.run(
            [str(python), "-c", test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def _link_project(directory: Path) -> None:
    """Put this checkout on the environment's import path, and its commands on its bin.

    A path file does what an editable install does, without a build back end, a network or the
    second it takes; the commands come from pyproject.toml, so both installs offer the same ones.
    """
    root = repository_root()
    for site_packages in sorted(directory.glob("lib/python*/site-packages")):
        (site_packages / "blockferry.pth").write_text("{}\n{}\n".format(root / "layers" / "core", root / "scripts"))
    for name, target in sorted(_console_scripts().items()):
        module, function = target.split(":")
        command = directory / "bin" / name
        command.write_text(COMMAND.format(python=python_of(directory), module=module, function=function))
        command.chmod(0o755)


def _run(command: list) -> None:  # type: ignore[type-arg]  # as above
    done = subprocess.run(command, stdout=sys.stderr, stderr=sys.stderr, check=False)
    if done.returncode:
        raise EnvironmentFailed("the command failed with status {}: {}".format(done.returncode, " ".join(command)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
