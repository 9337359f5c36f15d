"""Code and layer archives, unpacked once by content; and the packages that Lambda's runtime itself brings."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path, PurePosixPath

from tools.build import local_architecture, local_runtime

RUNTIME_DISTRIBUTIONS = (
    "awslambdaric",
    "simplejson",
    "snapshot-restore-py",
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "python-dateutil",
    "six",
    "urllib3",
)
"""What ``/var/runtime`` of Lambda's Python runtimes holds: the runtime client and the SDK."""


class BadPackage(RuntimeError):
    """A code or layer archive that cannot be unpacked safely."""


class BuiltForAnotherMachine(RuntimeError):
    """A code or layer archive has compiled modules that this Python, on this processor, cannot load."""


def refuse_foreign(archives: Sequence[bytes]) -> None:
    """Raise ``BuiltForAnotherMachine`` naming a compiled module for another Python or processor that stands alone.

    Modules tell by their names (PEP 3149). Where one for this machine lies beside it, Python takes that one.
    """
    foreign = next((name for archive in archives for name in _foreign_modules(archive)), None)
    if foreign is None:
        return
    runtime, architecture = local_runtime(), local_architecture()
    raise BuiltForAnotherMachine(
        f"{foreign} was built for another machine: functions of the local cloud run on this one, with {runtime} on "
        f"{architecture}. Build for it with `scripts/build --local`, and apply Terraform with -var "
        f"""'lambda={{runtime="{runtime}", architecture="{architecture}"}}'"""
    )


class PackageStore:
    """Folders of unpacked archives below ``root``, named by the SHA-256 of the archives.

    Safe between threads, which wait for the one that unpacks, and between processes: a folder is filled
    beside its place and renamed into it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def code(self, archive: bytes) -> Path:
        """Folder with the function's code."""
        return self._folder(_name("code", [archive]), lambda folder: _unpack(archive, folder))

    def layers(self, archives: Sequence[bytes]) -> Path:
        """Folder with the layers laid over each other in order, later ones over earlier ones, as in ``/opt``."""

        def fill(folder: Path) -> None:
            for archive in archives:
                _unpack(archive, folder)
            _compile(folder)

        return self._folder(_name("opt", archives), fill)

    def runtime(self) -> Path:
        """Folder of links to the packages of ``RUNTIME_DISTRIBUTIONS``; raises if one is not installed."""

        def fill(folder: Path) -> None:
            for name in RUNTIME_DISTRIBUTIONS:
                for entry in _top_level_entries(name):
                    (folder / entry.name).symlink_to(entry)

        return self._folder("runtime", fill)

    def _folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        target = self._root / name
        if target.is_dir():
            return target
        with self._lock:
            if target.is_dir():
                return target
            building = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=self._root))
            try:
                fill(building)
                building.chmod(0o755)
                building.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was quicker
                    raise
            finally:
                shutil.rmtree(building, ignore_errors=True)
        return target


def _name(kind: str, archives: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for archive in archives:
        digest.update(_digest(archive))
    return f"{kind}-{digest.hexdigest()[:32]}"


def _compile(folder: Path) -> None:
    """Compile once what otherwise every one of many first environments would compile, all at the same time.

    In a process of its own, as it takes seconds; a file that does not compile fails where it is imported.
    """
    subprocess.run(
        [sys.executable, "-I", "-S", "-m", "compileall", "-q", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


@lru_cache(maxsize=128)
def _foreign_modules(archive: bytes) -> tuple[str, ...]:
    """Entries that are compiled modules for other machines only; none of what is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            names = opened.namelist()
    except zipfile.BadZipFile:
        return ()
    here = {name.removesuffix(suffix) for name in names for suffix in EXTENSION_SUFFIXES if name.endswith(suffix)}
    tagged = (re.fullmatch(r"(.+)\.cpython-\d+\w*-[\w-]+\.so", name) for name in names)
    return tuple(found[0] for found in tagged if found and found[1] not in here)


@lru_cache(maxsize=128)
def _digest(archive: bytes) -> bytes:
    """The SHA-256 of an archive, cached, because every invocation asks: archives are the base's own objects and never
    change."""
    return hashlib.sha256(archive).digest()


def _unpack(archive: bytes, target: Path) -> None:
    try:
        opened = zipfile.ZipFile(io.BytesIO(archive))
    except zipfile.BadZipFile as error:
        raise BadPackage(f"not a zip archive: {error}") from error
    with opened:
        for entry in opened.infolist():
            parts = PurePosixPath(entry.filename).parts
            if entry.filename.startswith("/") or ".." in parts:
                raise BadPackage(f"the archive has an entry outside of it: {entry.filename!r}")
            destination = target.joinpath(*parts)
            mode = entry.external_attr >> 16
            if entry.is_dir():
                destination.mkdir(parents=True, exist_ok=True)
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.is_symlink() or destination.is_file():
                destination.unlink()
            if stat.S_ISLNK(mode):
                link = opened.read(entry).decode()
                end = Path(os.path.normpath(destination.parent / link))
                if link.startswith("/") or not end.is_relative_to(target):
                    raise BadPackage(f"the archive has a link that may leave it: {entry.filename!r} -> {link!r}")
                destination.symlink_to(link)
                continue
            with opened.open(entry) as source, destination.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            # Lambda's users have read permission only if the archive says so; execution bits are kept.
            destination.chmod((stat.S_IMODE(mode) or 0o644) | stat.S_IRUSR)


def _top_level_entries(distribution: str) -> list[Path]:
    """Absolute paths of a distribution's packages, modules and metadata in site-packages."""
    found = metadata.distribution(distribution)
    names = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    entries = [Path(str(found.locate_file(name))) for name in sorted(names)]
    return [entry for entry in entries if entry.exists()]
