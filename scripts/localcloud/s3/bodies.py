"""The bytes of objects, in files, so that what is in buckets may be larger than memory.

A ``Body`` never changes. A multipart object's is made of its parts' without copying a byte, a copy shares the file of
its source, and a file goes when the last body that reads from it goes: an object deleted while it is being read is read
to its end.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import shutil
import uuid
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from localcloud.s3.crc import CRC32, CRC32C, CRC64NVME, Crc

IN_MEMORY = 16 * 1024
"""Bytes up to which a body stays in memory: a file would take more room than that on disk, too."""
CHUNK = 1024 * 1024
"""Bytes that are read at a time."""

CRCS = {"CRC32": CRC32, "CRC32C": CRC32C, "CRC64NVME": CRC64NVME}
_HASHES: dict[str, Callable[..., Any]] = {
    "MD5": hashlib.md5,
    "SHA1": hashlib.sha1,
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
}
SIZES = {name: crc.size for name, crc in CRCS.items()} | {name: make().digest_size for name, make in _HASHES.items()}
"""Bytes of each checksum that can be computed."""
_OF_CRC_CHUNK = 8 * CHUNK


class _File:
    """A file that is there as long as this object is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, _remove, path).atexit = False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the whole folder may be gone already
        path.unlink()


Piece = tuple[bytes | _File, int, int]
"""What holds some bytes, where they begin there, how many they are."""


class Body:
    """Bytes that are read when they are needed. ``len``, slices and iteration are those of ``bytes`` in bytes objects;
    slices are bodies themselves.

    ``etag_digest``: 16 bytes, of which S3 makes the ETag; the MD5 unless ``with_etag`` says otherwise.
    """

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._pieces = tuple(pieces)
        self._size = sum(length for _, _, length in self._pieces)
        self._sums: dict[str, bytes] = {}
        self._etag_digest: bytes | None = None

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0

    def __deepcopy__(self, _: Any) -> Body:
        return self

    def __getitem__(self, wanted: slice) -> Body:
        start, stop, step = wanted.indices(self._size)
        if step != 1:
            raise ValueError("a body has slices of neighbouring bytes only")
        pieces, at = [], 0
        for source, offset, length in self._pieces:
            first, last = max(start - at, 0), min(stop - at, length)
            if first < last:
                pieces.append((source, offset + first, last - first))
            at += length
        return Body(pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """All bytes in order, at most ``size`` at a time."""
        for source, offset, length in self._pieces:
            if isinstance(source, bytes):
                yield source[offset : offset + length]
                continue
            with source.path.open("rb") as file:
                file.seek(offset)
                left = length
                while left:
                    data = file.read(min(size, left))
                    if not data:
                        raise OSError(f"{source.path} is shorter than it was")
                    left -= len(data)
                    yield data

    def digest(self, algorithm: str) -> bytes:
        """The checksum of one of ``SIZES``, computed once."""
        if algorithm not in self._sums:
            self._sums[algorithm] = self._computed(algorithm)
        return self._sums[algorithm]

    def checksum(self, algorithm: str) -> str:
        """``digest`` as S3 writes it."""
        return base64.b64encode(self.digest(algorithm)).decode()

    @property
    def etag_digest(self) -> bytes:
        return self._etag_digest or self.digest("MD5")

    def with_etag(self, digest: bytes) -> Body:
        """The same bytes under another ETag."""
        body = self.held_by(self._pieces)
        body._etag_digest = digest
        return body

    def held_by(self, pieces: Iterable[Piece]) -> Body:
        """The same bytes, held elsewhere."""
        body = Body(pieces)
        body._sums = self._sums
        return body

    def _computed(self, algorithm: str) -> bytes:
        if algorithm == "CRC32":
            crc = 0
            for chunk in self.chunks():
                crc = zlib.crc32(chunk, crc)
            return crc.to_bytes(4, "big")
        if algorithm in CRCS:
            parts = ((CRCS[algorithm].of(chunk), len(chunk)) for chunk in self.chunks(_OF_CRC_CHUNK))
            return crc_of_parts(CRCS[algorithm], parts)
        digest = _HASHES[algorithm]()
        for chunk in self.chunks():
            digest.update(chunk)
        computed: bytes = digest.digest()
        return computed


def crc_of_parts(crc: Crc, parts: Iterable[tuple[int, int]]) -> bytes:
    """The checksum of parts in a row, of each its checksum and its length in bytes."""
    total = crc.of(b"")
    for value, length in parts:
        total = crc.combined(total, value, length)
    return total.to_bytes(crc.size, "big")


def joined(bodies: Iterable[Body]) -> Body:
    return Body(itertools.chain.from_iterable(body._pieces for body in bodies))


class BodyStore:
    """Keeps bodies in files of ``folder``, which is emptied first: nothing in it outlives the server. Safe between
    threads."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder

    def keep(self, data: bytes | Body, *, checksums: Iterable[str] = ()) -> Body:
        """``checksums``: computed now, while the bytes are at hand."""
        if isinstance(data, Body):
            return data
        body = Body([(data, 0, len(data))])
        for algorithm in checksums:
            body.digest(algorithm)
        if len(data) <= IN_MEMORY:
            return body
        file = _File(self._folder / uuid.uuid4().hex)
        file.path.write_bytes(data)
        return body.held_by([(file, 0, len(data))])
