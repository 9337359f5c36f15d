"""A body that is sent as it lies in memory, piece by piece."""

from __future__ import annotations

import io
from collections.abc import Sequence


class Pieces(io.RawIOBase):
    """Pieces of bytes as one body, which is not copied to be sent."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))
        self._place = 0
        self._part = 0
        self._offset = 0

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = left = max(0, min(self._size, start + offset))
        self._part = 0
        while self._part < len(self._parts) and left >= len(self._parts[self._part]):
            left -= len(self._parts[self._part])
            self._part += 1
        self._offset = left
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._size - self._place if size is None or size < 0 else min(size, self._size - self._place)
        taken: list[bytes] = []
        while wanted:
            part = self._parts[self._part]
            piece = part[self._offset : self._offset + wanted]
            taken.append(piece)
            wanted -= len(piece)
            self._place += len(piece)
            self._offset += len(piece)
            if self._offset == len(part):
                self._part, self._offset = self._part + 1, 0
        return taken[0] if len(taken) == 1 else b"".join(taken)
