"""The inputs of a map's children, on disk: a map of any length costs little memory, and a redrive
finds the inputs of the original attempt without reading the dataset again.
"""

from __future__ import annotations

import tempfile
import threading
from array import array


class Spool:
    """Written once by the reader of the dataset, read by index while that goes on."""

    def __init__(self, directory: str | None) -> None:
        # Unlinked at once by the operating system's temporary file, so nothing is left behind.
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self._lock = threading.Lock()
        self._ends = array("Q")
        self._items = array("L")
        self.total_items = 0

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, child_input: str, *, items: int) -> None:
        data = child_input.encode("utf-8", "surrogatepass")
        with self._lock:
            start = self._ends[-1] if self._ends else 0
            self._file.seek(start)
            self._file.write(data)
            self._ends.append(start + len(data))
            self._items.append(items)
            self.total_items += items

    def input(self, index: int) -> str:
        with self._lock:
            start = self._ends[index - 1] if index else 0
            self._file.seek(start)
            return self._file.read(self._ends[index] - start).decode("utf-8", "surrogatepass")

    def items(self, index: int) -> int:
        return self._items[index]

    def close(self) -> None:
        with self._lock:
            self._file.close()
