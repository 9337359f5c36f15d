"""What all codecs share: the compressed bytes as they arrive, and where unpacking can begin."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from blockferry.formats.errors import DamagedImage

MAX_PIECE = 128 * 1024
"""Bytes that a piece has at most: the largest block of zstd."""

MAX_WINDOW = 128 * 1024 * 1024
"""Bytes of history that unpacking may need in memory: what ``zstd --long=27`` asks for, twice what ``xz -9`` does."""


@dataclass(frozen=True)
class RestartPoint:
    """A place from which the image can be unpacked on: a frame, member, stream or block begins there.

    ``stream`` is what unpacking xz has to know of the stream that the block is in; empty where a stream begins.
    """

    compressed_offset: int = 0
    raw_offset: int = 0
    stream: tuple[int, ...] = ()


@dataclass(frozen=True)
class Boundary:
    """A place between two pieces at which unpacking can begin; ``stream`` is that of ``RestartPoint``."""

    stream: tuple[int, ...] = ()


Pieces = Iterator[bytes | Boundary]
"""What is unpacked, at most ``MAX_PIECE`` bytes each. An empty piece only gives a moment to look at the clock."""


class Input:
    """The compressed bytes, read in the amounts that the formats ask for."""

    def __init__(self, parts: Iterator[bytes], codec: str, *, name: str, offset: int) -> None:
        self._parts = parts
        self._codec = codec
        self.name = name
        """The name of the image, for errors."""
        self._part = b""
        self._used = 0
        self.offset = offset
        """The offset of the next byte in the whole stream."""

    def at_end(self) -> bool:
        while self._used == len(self._part):
            part = next(self._parts, None)
            if part is None:
                return True
            self._part, self._used = part, 0
        return False

    def peek(self, count: int) -> bytes:
        """The next bytes, which stay to be read; fewer than ``count`` only before the end."""
        while len(self._part) - self._used < count:
            part = next(self._parts, None)
            if part is None:
                break
            self._part, self._used = self._part[self._used :] + part, 0
        return self._part[self._used : self._used + count]

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises ``DamagedImage`` when the stream ends before."""
        at = self.offset
        taken = b""
        while len(taken) < count:
            some = self.some(count - len(taken))
            if not some:
                raise self.damaged(f"the stream ends {count - len(taken)} bytes too early for what begins", at=at)
            taken += some
        return taken

    def some(self, limit: int) -> bytes:
        """The next bytes, at most ``limit``; none only at the end."""
        if self.at_end():
            return b""
        taken = self._part[self._used : self._used + limit]
        self._used += len(taken)
        self.offset += len(taken)
        return taken

    def back(self, count: int) -> None:
        """Give back bytes that the last ``some`` returned."""
        self._used -= count
        self.offset -= count

    def skip_zeros(self) -> Iterator[bytes]:
        """Pass over zeros, such as padding to whole blocks of a tape; stops at the end, or before what is not zero."""
        while padding := self.some(MAX_PIECE):
            other = padding.lstrip(b"\0")
            if other:
                self.back(len(other))
                return
            yield b""

    def skip_frame(self) -> Iterator[bytes]:
        """Pass over the rest of a skippable frame, of which the magic was taken (RFC 8878, 3.1.2; LZ4 has the same)."""
        left = int.from_bytes(self.take(4), "little")
        while left:
            left -= len(self.take(min(left, MAX_PIECE)))
            yield b""

    def damaged(self, what: str, *, at: int) -> DamagedImage:
        return DamagedImage(
            f"image {self.name} is damaged at byte {at} of its {self._codec} stream: {what}; compress it again, check "
            f"it ({self._codec} -t) and upload it again"
        )

    def followed(self, by: bytes, *, end: int, begins: bool) -> DamagedImage:
        """What is raised where something else than zeros comes next, though the stream ended at byte ``end``.

        ``by`` are its first bytes; ``begins``: they begin another stream, which would be read if no zeros were before.
        """
        at, zeros = self.offset, self.offset - end
        behind = f", behind {zeros} zeros" if zeros else ""
        name = PurePosixPath(self.name).name
        cut = f"head -c {end} {shlex.quote(name)} > {shlex.quote(f'cut-{name}')}"
        if begins:
            what = f"another {self._codec} stream begins at byte {at}{behind}"
            other = "join the two without the zeros"
        else:
            what = f"something else follows from byte {at} on{behind} (it begins with {by.hex()})"
            other = "the stream is damaged there: compress the image again"
        return DamagedImage(
            f"image {self.name}: its {self._codec} stream ends at byte {end}, and {what}. If that is not part of the "
            f"disk, cut it off with `{cut}` and upload the image again; if it is, {other}"
        )
