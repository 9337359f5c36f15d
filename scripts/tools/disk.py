"""A real disk to ferry: an ext4 image with a real file tree in it, sparse on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.environment import repository_root

GIB = 2**30


class DiskFailed(RuntimeError):
    """An e2fsprogs command is missing or failed."""


def make_tree(folder: Path, *, packages: bool) -> int:
    """Fill ``folder`` with Python's standard library and this project and, if asked for, the installed packages.

    Returns the bytes of the files in it: real sources, binaries and data, with packages some hundred MB.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    skip = shutil.ignore_patterns("site-packages", "__pycache__", "*.pyc")
    shutil.copytree(library, folder / "python", ignore=skip, symlinks=True)
    if packages:
        shutil.copytree(sysconfig.get_paths()["purelib"], folder / "packages", ignore=skip, symlinks=True)
    for name in ("layers", "functions", "statemachines", "terraform", "docs", "README.md"):
        source = repository_root() / name
        if source.is_dir():
            shutil.copytree(source, folder / "blockferry" / name, ignore=skip, symlinks=True)
        elif source.exists():
            (folder / "blockferry").mkdir(exist_ok=True)
            shutil.copy2(source, folder / "blockferry" / name)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def make_ext4(image: Path, *, tree: Path, size_gib: int, label: str = "blockferry") -> None:
    """Make a sparse ext4 image of ``size_gib`` GiB holding ``tree``. Raises ``DiskFailed``."""
    with image.open("wb") as handle:
        handle.truncate(size_gib * GIB)
    _run("mkfs.ext4", "-q", "-F", "-L", label, "-d", str(tree), str(image))


def change_ext4(image: Path, *, into: Path, new_file: Path, remove: Sequence[str]) -> None:
    """Copy an ext4 image and change files in the copy without mounting it; freed blocks become holes, as on a volume
    that is trimmed. Raises ``DiskFailed``."""
    _run("cp", "--sparse=always", str(image), str(into))
    # Written first, or it would take the very blocks that become free.
    commands = [f"write {new_file} {new_file.name}", *(f"rm {name}" for name in remove)]
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        script.write("\n".join(commands) + "\n")
        script.flush()
        said = _run("debugfs", "-w", "-f", script.name, str(into))
    if "not found" in said:
        raise DiskFailed(f"debugfs did not find a file to remove:\n{said}")
    _run("e2fsck", "-f", "-y", str(into))
    _trim(into)


def _trim(image: Path) -> None:
    """Make holes of the free blocks of an ext4 image, as fstrim does on a mounted volume."""
    said = _run("dumpe2fs", str(image))
    size = int(re.findall(r"^Block size: +(\d+)$", said, re.MULTILINE)[0])
    free = "\n".join(re.findall(r"^  Free blocks: (.*)$", said, re.MULTILINE))
    for first, last in re.findall(r"(\d+)-(\d+)", free):
        length = (int(last) - int(first) + 1) * size
        _run("fallocate", "--punch-hole", "--offset", str(int(first) * size), "--length", str(length), str(image))


def check_ext4(image: Path) -> str:
    """``fsck -n -f`` of an image: its summary line. Raises ``DiskFailed`` when anything is wrong with it."""
    return _run("e2fsck", "-n", "-f", str(image)).strip().splitlines()[-1]


def _run(command: str, *arguments: str) -> str:
    found = shutil.which(command) or shutil.which(command, path="/sbin:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise DiskFailed(f"{command} is not installed; install e2fsprogs (apt-get install e2fsprogs) and try again")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DiskFailed(f"{command} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr if command == "debugfs" else done.stdout
