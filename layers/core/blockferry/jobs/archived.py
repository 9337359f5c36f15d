"""What the workers of a job leave of an archive that it writes, in the work bucket.

A *part* is the index of what one call has stored; parts that make up a range are put together when it is counted again,
and a *note* of the range is left for the manifest. Both begin with one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from blockferry.core.blocks import BlockRange
from blockferry.core.checksums import DIGEST_SIZE
from blockferry.core.errors import ArchiveDamaged, IncompleteTransfer
from blockferry.core.words import counted
from blockferry.formats.archive import index
from blockferry.formats.archive.index import RangeIndex
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Record

PARTS, NOTES = "moved/archived/{}/parts/", "moved/archived/{}/ranges/"
"""Where parts and notes are, by the position of the target."""


@dataclass(frozen=True)
class Part:
    """The index of what a call has stored, and the ETag of each segment by its first block."""

    index: RangeIndex
    etags: Mapping[int, str]


class Note(Record):
    """What an archive has of a range: its index object (``index_bytes`` is 0 where nothing is stored), counts of its
    entries, and each of its ``objects`` as the bucket listed it: key, size and ETag. ``digests`` follow, 32 bytes each:
    those of every block that the snapshot has in the range, if the archive is built upon another one."""

    first: int
    stop: int
    index_bytes: int = 0
    index_sha256: str = ""
    data_blocks: int = 0
    zero_blocks: int = 0
    removed_blocks: int = 0
    segments: int = 0
    stored_bytes: int = 0
    objects: tuple[tuple[str, int, str], ...] = ()
    digests: int = 0


def save_part(folder: JobFolder, number: int, part: Part) -> None:
    """Store what a call has stored for the target at this position."""
    line = json.dumps({str(first): etag for first, etag in part.etags.items()}).encode()
    folder.write(_name(PARTS, number, part.index.range), line + b"\n" + index.pack(part.index))


def parts_of(folder: JobFolder, number: int, within: BlockRange) -> list[Part]:
    """All parts that calls have left of a range, also those of calls that were repeated from another block on."""
    prefix = PARTS.format(number)
    found = []
    for name in folder.names(prefix, after=f"{within.first:010d}"):
        first, _ = _range(name, prefix)
        if first >= within.stop:
            break
        found.append(_part(folder, name))
    return found


def covering(parts: Iterable[Part], within: BlockRange) -> list[Part]:
    """Parts that lie one behind another and make up the range; none if there are no such ones.

    What a call has stored and nobody heard of may end anywhere: the calls that came after it need not have begun there.
    """
    onwards: dict[int, Part] = {}
    for part in sorted(parts, key=lambda part: part.index.range, reverse=True):
        if part.index.range.stop == within.stop or part.index.range.stop in onwards:
            onwards.setdefault(part.index.range.first, part)
    found: list[Part] = []
    due = within.first
    while due in onwards:
        found.append(onwards[due])
        due = onwards[due].index.range.stop
    return found


def save_note(folder: JobFolder, number: int, note: Note, digests: bytes = b"") -> None:
    """Leave a note of a range for the manifest."""
    name = _name(NOTES, number, BlockRange(note.first, note.stop))
    folder.write(name, note.model_dump_json().encode() + b"\n" + digests)


def note_names(folder: JobFolder, number: int) -> list[str]:
    """The notes of a target, in the order of their ranges."""
    return list(folder.names(NOTES.format(number)))


def note(folder: JobFolder, name: str) -> tuple[Note, bytes]:
    """A note and its digests. Raises ``IncompleteTransfer`` when it is gone or damaged."""
    line, digests = _lines(folder, name)
    try:
        found = Note.model_validate_json(line)
    except ValidationError as error:
        raise IncompleteTransfer(f"{folder.uri(name)} is damaged: {error}") from error
    if len(digests) != found.digests * DIGEST_SIZE:
        raise IncompleteTransfer(
            f"{folder.uri(name)} is damaged: {counted(len(digests), 'byte')} for {counted(found.digests, 'digest')}"
        )
    return found, digests


def _part(folder: JobFolder, name: str) -> Part:
    line, body = _lines(folder, name)
    try:
        etags = {int(first): str(etag) for first, etag in json.loads(line).items()}
        return Part(index.unpack(body, name=folder.uri(name)), etags)
    except (ValueError, AttributeError, ArchiveDamaged) as error:
        raise IncompleteTransfer(f"{folder.uri(name)} is damaged: {error}") from error


def _lines(folder: JobFolder, name: str) -> tuple[bytes, bytes]:
    body = folder.read(name)
    if body is None:
        raise IncompleteTransfer(f"{folder.uri(name)} is gone; start a new job")
    line, _, rest = body.partition(b"\n")
    return line, rest


def _name(where: str, number: int, within: BlockRange) -> str:
    return f"{where.format(number)}{within.first:010d}-{within.stop:010d}.bin"


def _range(name: str, prefix: str) -> tuple[int, int]:
    first, _, stop = name.removeprefix(prefix).removesuffix(".bin").partition("-")
    return int(first), int(stop)
