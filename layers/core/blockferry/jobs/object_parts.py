"""What the workers of a job leave of the parts of an object that they have sent, in the work bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import TypeAdapter, ValidationError

from blockferry.core.blocks import BlockRange
from blockferry.core.errors import IncompleteTransfer
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Record

PARTS = "moved/objects/{}/"
"""Where they are, by the position of the target."""


class PartNote(Record):
    """A part as it was sent: its bytes, their SHA-256 (base64, as S3 has it), and ``content``, the SHA-256 (hex) over
    the raw digests of all its blocks, holes as blocks of zeros."""

    number: int
    size: int
    sha256: str
    content: str


_NOTES = TypeAdapter(tuple[PartNote, ...])


def save_parts(folder: JobFolder, number: int, within: BlockRange, parts: Iterable[PartNote]) -> None:
    """Store what a call has sent of the blocks ``within`` for the target at this position."""
    body = _NOTES.dump_json(tuple(parts))
    folder.write(f"{PARTS.format(number)}{within.first:010d}-{within.stop:010d}.json", body)


def part_names(folder: JobFolder, number: int, within: BlockRange | None = None) -> list[str]:
    """The notes of a target, ascending by their first block; of those that begin ``within``."""
    prefix = PARTS.format(number)
    found = []
    for name in folder.names(prefix, after="" if within is None else f"{within.first:010d}"):
        if within is not None and int(name.removeprefix(prefix).partition("-")[0]) >= within.stop:
            break
        found.append(name)
    return found


def parts_in(folder: JobFolder, name: str) -> tuple[PartNote, ...]:
    """The parts of a note. Raises ``IncompleteTransfer`` when it is gone or damaged."""
    body = folder.read(name)
    if body is None:
        raise IncompleteTransfer(f"{folder.uri(name)} is gone; start a new job")
    try:
        return _NOTES.validate_json(body)
    except ValidationError as error:
        raise IncompleteTransfer(f"{folder.uri(name)} is damaged: {error}") from error


def by_number(notes: Iterable[PartNote]) -> Mapping[int, PartNote]:
    """Parts by their numbers. A repeated call sends the same again; raises ``IncompleteTransfer`` when it did not."""
    found: dict[int, PartNote] = {}
    for note in notes:
        if found.setdefault(note.number, note) != note:
            raise IncompleteTransfer(f"part {note.number} was sent twice with another content; start a new job")
    return found
