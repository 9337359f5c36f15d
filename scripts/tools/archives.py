"""Zip files that come out the same, byte for byte, wherever and whenever they are made.

A zip records for every entry its order, time, permissions and maker. All of these are fixed here, so
that the hash of an artifact changes exactly when its content does and a deployment follows only then.
(The compressed bytes are zlib's: another zlib release may pack the same content differently.)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can express
FILE_MODE = 0o100644  # a regular file that the function's user can read; nothing in /opt is executed
UNIX = 3  # zip's number for the system whose permissions are recorded
COMPRESSION_LEVEL = 6


def write_zip(target: Path, entries: Mapping[str, bytes | Path]) -> str:
    """Write entries (name in the zip -> bytes, or a file to read) to ``target``; returns its SHA-256.

    The file appears under its name only when it is complete, and then ``<target>.sha256`` beside it in
    the form that ``sha256sum --check`` reads.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial_name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(partial_name)
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive,
        ):
            for name in sorted(entries):
                content = entries[name]
                info = zipfile.ZipInfo(name, EARLIEST_TIME)
                info.create_system = UNIX
                info.external_attr = FILE_MODE << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                data = content.read_bytes() if isinstance(content, Path) else content
                archive.writestr(info, data, zipfile.ZIP_DEFLATED, COMPRESSION_LEVEL)
        partial.chmod(0o644)  # mkstemp's 0600 would follow the file into other users' deployments
        digest = file_sha256(partial)
        checksum_file(target).unlink(missing_ok=True)  # never a new zip beside an old checksum
        partial.replace(target)
        checksum_file(target).write_text(f"{digest}  {target.name}\n")
    finally:
        partial.unlink(missing_ok=True)
    return digest


def checksum_file(archive: Path) -> Path:
    """Where the SHA-256 of an archive is kept."""
    return archive.with_name(f"{archive.name}.sha256")


def is_intact(archive: Path) -> bool:
    """Whether an archive is there and still has the content its checksum file names."""
    try:
        recorded = checksum_file(archive).read_text().split()[0]
        return recorded == file_sha256(archive)
    except (OSError, IndexError):
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
