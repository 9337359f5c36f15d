"""Verifying an archive of flexible-snapshot-proxy: its objects against the SHA-256 in their names, its blocks against a
snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from blockferry.core.blocks import BLOCK_SIZE, BlockRange
from blockferry.core.checksums import digest_of
from blockferry.core.errors import ArchiveDamaged, OutOfTime
from blockferry.core.retry import Deadline
from blockferry.core.together import together
from blockferry.formats.foreign import SEGMENT_BLOCKS, ForeignSegment
from blockferry.jobs.call import JobCall
from blockferry.sources.foreign import ForeignObjects, JobForeign
from blockferry.verification.noting import Notes, compared, is_chosen
from blockferry.verification.record import Verification

SEGMENTS_AT_A_TIME = 2
"""Objects in memory of a worker: each has 32 MiB when it is unpacked, and at most as much before."""

COMPARED_AT_A_TIME = 2 * SEGMENT_BLOCKS
"""Blocks of the archive whose digests are made before they are held against the snapshot: what is left of them when the
time is over is read again."""


@dataclass(frozen=True)
class Opened:
    """The objects of a range."""

    source: JobForeign
    objects: ForeignObjects
    segments: Sequence[ForeignSegment]


def foreign_opened(source: JobForeign, within: BlockRange, call: JobCall) -> Opened:
    """The objects that hold blocks of a range, as they are listed now. Raises ``ArchiveDamaged`` for such that cannot
    be: the plan has seen others."""
    objects = source.objects_of(call)
    return Opened(source, objects, objects.within(within))


def look_at_foreign(
    plan: Verification, opened: Opened, rest: BlockRange, notes: Notes, call: JobCall, deadline: Deadline
) -> int:
    """Check the objects that begin in ``rest``; returns where to go on."""
    own = [segment for segment in opened.segments if segment.first in rest]
    for at in range(0, len(own), SEGMENTS_AT_A_TIME):
        some = own[at : at + SEGMENTS_AT_A_TIME]
        if at and deadline.passed():
            return some[0].first
        chosen = [segment for segment in some if is_chosen(plan, segment.name)]
        told = Notes()
        told.count("segments_left_out", len(some) - len(chosen))
        try:
            together(partial(_check, opened, told), chosen, most=SEGMENTS_AT_A_TIME)
        except OutOfTime:
            return some[0].first
        notes.take(told)
    return rest.stop


def _check(opened: Opened, notes: Notes, segment: ForeignSegment) -> None:
    try:
        _, size = opened.objects.fetch(segment)
    except ArchiveDamaged as error:
        name = f"{opened.source.uri}{segment.name}"
        notes.add("segment", name, segment.first, segment.stop, str(error))
    else:
        notes.count("blocks", segment.blocks)
        notes.count("stored_bytes", size)
    notes.count("segments")


def compare_foreign(
    plan: Verification, opened: Opened, rest: BlockRange, notes: Notes, call: JobCall, deadline: Deadline
) -> int:
    """Hold the blocks of the snapshot against those of the objects; returns where to go on."""
    at = rest.first
    while at < rest.stop:
        if at > rest.first and deadline.passed():
            return at
        window = BlockRange(at, min(at - at % COMPARED_AT_A_TIME + COMPARED_AT_A_TIME, rest.stop))
        try:
            held = _digests(plan, opened, window)
        except OutOfTime:
            return at
        size_gib = opened.source.size_gib
        reached = compared(plan, held, window, notes, call, size_gib=size_gib, deadline=deadline)
        if reached < window.stop:
            return reached
        at = window.stop
    return rest.stop


def _digests(plan: Verification, opened: Opened, window: BlockRange) -> Mapping[int, bytes | None]:
    """Digests of the blocks of a window; ``None`` for those of an object that is damaged, which is told already, or of
    which the sample takes none."""
    held: dict[int, bytes | None] = {}
    for segment in opened.segments:
        blocks = [index for index in range(segment.first, segment.stop) if index in window]
        if not blocks:
            continue
        held |= dict.fromkeys(blocks)
        # An object never crosses a multiple of the blocks that a sample takes or leaves out together.
        if not is_chosen(plan, f"blocks/{segment.first // SEGMENT_BLOCKS}"):
            continue
        try:
            raw, _ = opened.objects.fetch(segment)
        except ArchiveDamaged:
            continue
        for index in blocks:
            place = (index - segment.first) * BLOCK_SIZE
            held[index] = digest_of(raw[place : place + BLOCK_SIZE])
    return held
