"""A raw disk image on this machine (a file or a block device) as a source of blocks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.errors import InvalidRequest, SourceChanged, UnreadableSource
from blockferry.core.ports import Block, BlockRef
from blockferry.formats.recognise import HEAD_BYTES, TAIL_BYTES

_TOLD_BY = {
    "st_size": "its size from {} to {} bytes",
    "st_mtime_ns": "its time of modification from {} to {} ns",
    "st_ctime_ns": "its time of change from {} to {} ns",
}
"""The time of modification can be set back; that of change, which links and permissions move as well, cannot."""

LOOK_AT = "Look at the disk and its file system, and begin again, or with a copy of what can be read"


class ImageSource:
    """The blocks that an image has data in, zeros included; a short last block is filled up with zeros.

    Holes of a sparse file are skipped without being read (``SEEK_DATA``). Use as a context manager. Raises
    ``InvalidRequest`` for what is no readable image, or cannot be seeked in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _refuse_streams(path)
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._opened = os.fstat(self._fd)
        # A block device reports size 0 in stat, its end is where it can be seeked to.
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        if self.size == 0:
            os.close(self._fd)
            raise InvalidRequest(f"image {path} is empty: there is nothing to read")

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """The open file's descriptor."""
        return self._fd

    @property
    def total_blocks(self) -> int:
        """Blocks that the image touches, the unaligned tail included."""
        return -(-self.size // BLOCK_SIZE)

    def ends(self) -> tuple[bytes, bytes]:
        """The first and the last bytes, by which formats are told; all of a shorter image. Raises
        ``UnreadableSource``."""
        return (
            self._pread(HEAD_BYTES, 0, "its beginning"),
            self._pread(TAIL_BYTES, max(self.size - TAIL_BYTES, 0), "its end"),
        )

    def refuse_changed(self) -> None:
        """Raise ``SourceChanged`` if the file is not as it was when it was opened, or another one has its name.

        A block device does not tell that it was written to. Nor does a file tell at once what was written to a mapping
        of it (mmap), or again within the tick of the clock in which it was opened.
        """
        if not stat.S_ISREG(self._opened.st_mode):
            return
        now = os.fstat(self._fd)
        changed = [
            text.format(getattr(self._opened, name), getattr(now, name))
            for name, text in _TOLD_BY.items()
            if getattr(self._opened, name) != getattr(now, name)
        ]
        if not self._has_its_name():
            changed.insert(0, "it was replaced or removed")
        if changed:
            raise SourceChanged(
                f"image {self.path} changed while it was read ({', '.join(changed)}), so what was read of it does not "
                "belong together: begin again while nobody writes to it, or with a copy of it"
            )

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(self._opened, self.path.stat())
        except OSError:
            return False

    def blocks(self, within: BlockRange) -> Iterator[BlockRef]:
        """The blocks of ``within`` that are not in a hole, ascending."""
        index = within.first
        while index < min(within.stop, self.total_blocks):
            data_at = self._next_data(index * BLOCK_SIZE)
            if data_at is None:
                return
            index = max(index, data_at // BLOCK_SIZE)
            if index >= within.stop:
                return
            yield BlockRef(index)
            index += 1

    def read(self, ref: BlockRef) -> Block:
        """The content of any block: zeros in a hole and behind the end.

        Raises ``SourceChanged`` when the image became shorter, and ``UnreadableSource``.
        """
        data = self._content(ref.index)
        return Block(ref.index, data, digest_of(data))

    def _next_data(self, offset: int) -> int | None:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                # Neither the file system nor the device tells holes: all of it is data.
                return offset
            # Only a hole follows, or the end.
            return None

    def _content(self, index: int) -> bytes:
        want = min(BLOCK_SIZE, self.size - index * BLOCK_SIZE)
        data = b""
        while len(data) < want:
            piece = self._pread(want - len(data), index * BLOCK_SIZE + len(data), f"block {index}")
            if not piece:
                self.refuse_changed()
                raise SourceChanged(f"image {self.path} became shorter while block {index} was read")
            data += piece
        return data.ljust(BLOCK_SIZE, b"\0")

    def _pread(self, length: int, offset: int, what: str) -> bytes:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise UnreadableSource(f"image {self.path}: {what} cannot be read ({error.strerror}). {LOOK_AT}") from error


def _refuse_streams(path: Path) -> None:
    if str(path) != "-":
        try:
            # Before it is opened: opening a named pipe waits for its writer.
            mode = path.stat().st_mode
        except OSError as error:
            raise _unreadable(path, error) from error
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return
        if stat.S_ISDIR(mode):
            raise InvalidRequest(f"image {path} is a directory; name a raw disk image")
    name = "standard input" if str(path) == "-" else str(path)
    raise InvalidRequest(
        f"image {name} is a stream, in which the size and the holes of an image cannot be found: write it to a file "
        "and name that, or write it to S3 (aws s3 cp - s3://BUCKET/KEY) and use: blockferry fanout s3://BUCKET/KEY "
        "--to REGION, or blockferry archive s3://BUCKET/KEY --to s3://BUCKET/PREFIX"
    )


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"image {path}: {error.strerror}; name a readable raw disk image")
