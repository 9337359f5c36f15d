"""Content-addressed block store: the data of every snapshot and volume, in files.

Blocks are 512 KiB slots in segment files of 1 GiB; equal blocks (same SHA-256) share a slot. In memory
a slot costs its digest (32 bytes), a counter (4 bytes) and its share of the hash table (about 8 bytes).
Slots that nobody holds any more are given back to the file system where it can punch holes, and are
used again.

The store lives as long as its process: what an earlier process left in the folder is removed, since the
snapshots that named it are gone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
from array import array
from contextlib import suppress
from pathlib import Path

BLOCK_SIZE = 512 * 1024
ZERO_BLOCK_DIGEST = hashlib.sha256(bytes(BLOCK_SIZE)).digest()

_SEGMENT_SLOTS = 2048
_EMPTY = 0xFFFFFFFF
_DELETED = 0xFFFFFFFE
_PUNCH_HOLE_KEEP_SIZE = 0x03  # linux/falloc.h: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


class BlockStore:
    """The store of a folder. Thread-safe. Every slot handed out is held for the caller until ``release``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("segment-*.blocks"):
            left_over.unlink()
        self._folder = folder
        self._lock = threading.Lock()
        self._files: list[int] = []
        self._digests = bytearray()
        self._holders = array("I")
        self._free = array("I")
        self._table = array("I", [_EMPTY]) * 1024
        self._entries = 0  # occupied or deleted places in the table
        self._live = 0
        self._punch = _hole_puncher()

    # -- writing -----------------------------------------------------------------

    def put(self, data: bytes | bytearray | memoryview, digest: bytes) -> int:
        """Keep ``data`` (one whole block with this SHA-256) and return its slot, held once more."""
        if len(data) != BLOCK_SIZE:
            raise ValueError(f"a block has {BLOCK_SIZE} bytes, not {len(data)}")
        with self._lock:
            slot = self._find(digest)
            if slot is not None:
                self._holders[slot] += 1
                return slot
            slot = self._take_slot()
            file, offset = self._place(slot)
        try:
            _write_all(file, data, offset)
        except BaseException:
            with self._lock:
                self._free.append(slot)
            raise
        with self._lock:
            # Published only when written, so nobody reads a half-written block; of two writers of the
            # same new block the later one gives its slot back.
            known = self._find(digest)
            if known is not None:
                self._holders[known] += 1
                self._give_back(slot)
                return known
            self._digests[slot * 32 : slot * 32 + 32] = digest
            self._holders[slot] = 1
            self._live += 1
            self._insert(slot, digest)
            return slot

    # -- holding -----------------------------------------------------------------

    def retain(self, slot: int) -> None:
        with self._lock:
            self._holders[slot] += 1

    def release(self, slot: int) -> None:
        with self._lock:
            self._holders[slot] -= 1
            if self._holders[slot]:
                return
            self._remove(slot)
            self._live -= 1
            self._give_back(slot)

    # -- reading -----------------------------------------------------------------

    def read(self, slot: int) -> bytes:
        """The block's data. The caller holds the slot for as long as the read takes."""
        with self._lock:
            file, offset = self._place(slot)
        data = os.pread(file, BLOCK_SIZE, offset)
        if len(data) != BLOCK_SIZE:
            raise OSError(f"block store: {len(data)} of {BLOCK_SIZE} bytes in slot {slot}")
        return data

    def digest(self, slot: int) -> bytes:
        """The block's SHA-256, 32 raw bytes."""
        return bytes(self._digests[slot * 32 : slot * 32 + 32])

    def corrupt(self, slot: int, *, bit: int = 0) -> None:
        """Flip one bit on disk, as a failing medium would: the recorded SHA-256 stays as it was."""
        data = bytearray(self.read(slot))
        data[bit // 8] ^= 1 << bit % 8
        with self._lock:
            file, offset = self._place(slot)
        _write_all(file, data, offset)

    def __len__(self) -> int:
        """Number of distinct blocks held."""
        return self._live

    def disk_bytes(self) -> int:
        """What the files take on disk now."""
        with self._lock:
            return sum(os.fstat(file).st_blocks * 512 for file in self._files)

    def memory_bytes(self) -> int:
        """What the store's own tables take in memory."""
        with self._lock:
            tables = (self._digests, self._holders, self._free, self._table)
            return sum(sys.getsizeof(table) for table in tables)

    def close(self) -> None:
        with self._lock:
            for number, file in enumerate(self._files):
                os.close(file)
                with suppress(FileNotFoundError):
                    self._segment_path(number).unlink()
            self._files.clear()

    # -- slots (lock held) -------------------------------------------------------

    def _segment_path(self, number: int) -> Path:
        return self._folder / f"segment-{number:06d}.blocks"

    def _place(self, slot: int) -> tuple[int, int]:
        return self._files[slot // _SEGMENT_SLOTS], slot % _SEGMENT_SLOTS * BLOCK_SIZE

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        slot = len(self._holders)
        if slot // _SEGMENT_SLOTS == len(self._files):
            path = self._segment_path(len(self._files))
            self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        self._holders.append(0)
        self._digests.extend(bytes(32))
        return slot

    def _give_back(self, slot: int) -> None:
        self._punch(*self._place(slot))
        self._free.append(slot)

    # -- open-addressing hash table of slots (lock held) -------------------------

    def _find(self, digest: bytes) -> int | None:
        mask = len(self._table) - 1
        at = int.from_bytes(digest[:8], "little") & mask
        while True:
            slot = self._table[at]
            if slot == _EMPTY:
                return None
            if slot != _DELETED and self._digests[slot * 32 : slot * 32 + 32] == digest:
                return slot
            at = (at + 1) & mask

    def _insert(self, slot: int, digest: bytes) -> None:
        if (self._entries + 1) * 2 > len(self._table):
            self._rebuild()
        mask = len(self._table) - 1
        at = int.from_bytes(digest[:8], "little") & mask
        while self._table[at] < _DELETED:
            at = (at + 1) & mask
        if self._table[at] == _EMPTY:
            self._entries += 1
        self._table[at] = slot

    def _remove(self, slot: int) -> None:
        mask = len(self._table) - 1
        at = int.from_bytes(self._digests[slot * 32 : slot * 32 + 8], "little") & mask
        while self._table[at] != slot:
            at = (at + 1) & mask
        self._table[at] = _DELETED

    def _rebuild(self) -> None:
        slots = [slot for slot in self._table if slot < _DELETED]
        size = 1024
        while size < (len(slots) + 1) * 3:
            size *= 2
        self._table = array("I", [_EMPTY]) * size
        self._entries = 0
        mask = size - 1
        for slot in slots:
            at = int.from_bytes(self._digests[slot * 32 : slot * 32 + 8], "little") & mask
            while self._table[at] != _EMPTY:
                at = (at + 1) & mask
            self._table[at] = slot
            self._entries += 1


def _write_all(file: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written


class _NoHoles:
    """For systems that cannot punch holes: freed slots keep their space until they are used again."""

    def __call__(self, file: int, offset: int) -> None:
        return


class _LinuxHoles:
    def __init__(self, libc: ctypes.CDLL) -> None:
        self._fallocate = libc.fallocate
        self._fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)

    def __call__(self, file: int, offset: int) -> None:
        # A file system without holes refuses; the slot is then used again all the same.
        self._fallocate(file, _PUNCH_HOLE_KEEP_SIZE, offset, BLOCK_SIZE)


def _hole_puncher() -> _NoHoles | _LinuxHoles:
    if not sys.platform.startswith("linux"):
        return _NoHoles()
    try:
        return _LinuxHoles(ctypes.CDLL(None, use_errno=True))
    except (OSError, AttributeError):
        return _NoHoles()
