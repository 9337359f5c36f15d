"""Code and layer archives, unpacked once by content; and the packages that Lambda's runtime itself brings."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath

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


class PackageStore:
    """Folders of unpacked archives below ``root``, named by the SHA-256 of the archives.

    Safe between threads and between processes: a folder is filled beside its place and renamed into it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def code(self, archive: bytes) -> Path:
        """Folder with the function's code."""
        return self._unpacked("code", [archive])

    def layers(self, archives: Sequence[bytes]) -> Path:
        """Folder with the layers laid over each other in order, later ones over earlier ones, as in ``/opt``."""
        return self._unpacked("opt", archives)

    def runtime(self) -> Path:
        """Folder of links to the packages of ``RUNTIME_DISTRIBUTIONS``; raises if one is not installed."""
        target = self._root / "runtime"
        if target.is_dir():
            return target
        with self._filling(target) as building:
            for name in RUNTIME_DISTRIBUTIONS:
                for entry in _top_level_entries(name):
                    (building / entry.name).symlink_to(entry)
        return target

    def _unpacked(self, kind: str, archives: Sequence[bytes]) -> Path:
        digest = hashlib.sha256()
        for archive in archives:
            digest.update(_digest(archive))
        target = self._root / f"{kind}-{digest.hexdigest()[:32]}"
        if target.is_dir():
            return target
        with self._filling(target) as building:
            for archive in archives:
                _unpack(archive, building)
        return target

    def _filling(self, target: Path) -> _Filling:
        return _Filling(self._root, target)


class _Filling:
    """A temporary folder that becomes ``target`` when the block ends well; the first of several wins."""

    def __init__(self, root: Path, target: Path) -> None:
        self._building = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=root))
        self._target = target

    def __enter__(self) -> Path:
        return self._building

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._building.chmod(0o755)
            try:
                self._building.rename(self._target)
            except OSError:
                if not self._target.is_dir():
                    raise
        shutil.rmtree(self._building, ignore_errors=True)


@lru_cache(maxsize=128)
def _digest(archive: bytes) -> bytes:
    """Cached, because every invocation asks: the archives are the base's own objects and change never."""
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
