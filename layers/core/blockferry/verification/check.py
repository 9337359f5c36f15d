"""Verify blocks: one range of an archive, or what is left of it, whatever is damaged in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from blockferry.aws.archives import Archive, Chain, Located, open_chain
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import ArchiveDamaged, InvalidRequest, OutOfTime, RetryLater
from blockferry.core.reserves import MOVE_SECONDS
from blockferry.core.retry import Deadline
from blockferry.core.together import together
from blockferry.formats.archive.index import RangeIndex
from blockferry.formats.archive.layout import SEGMENTS, segment_name
from blockferry.formats.archive.manifest import Member
from blockferry.jobs.call import JobCall
from blockferry.verification.foreign import compare_foreign, foreign_opened, look_at_foreign
from blockferry.verification.noting import Notes, compared, difference, is_chosen
from blockferry.verification.record import COMPARED, STORED, Found, Verification, recorded, save_found

SEGMENTS_AT_A_TIME = 3
"""Segments in memory of a worker: each has 32 MiB at most."""


def verify_range(
    call: JobCall, record: str, *, within: BlockRange, progress: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Check what the archive has of a range, as far as the time allows, and store what is found.

    Returns ``{"done", "progress"}``. Damage is a finding, and the rest is looked at all the same. Raises what S3 and
    EBS refuse, and ``RetryLater`` for what passes.
    """
    began = call.clock.monotonic()
    plan = recorded(call.folder, record)
    deadline = call.reserving(MOVE_SECONDS)
    working = call.until(deadline)
    phase = STORED if progress is None else str(progress["phase"])
    next_index = within.first if progress is None else int(progress["next_index"])
    rest = within.after(next_index)
    notes = Notes()
    reached = within.stop
    if rest is not None:
        try:
            if plan.foreign is not None:
                objects = foreign_opened(plan.foreign, within, working)
            else:
                chain = _opened(plan, plan.chain, working)
        except ArchiveDamaged as error:
            notes.add("manifest", plan.uri, within.first, within.stop, str(error))
        else:
            if plan.foreign is not None:
                look = look_at_foreign if phase == STORED else compare_foreign
                reached = look(plan, objects, rest, notes, working, deadline)
            else:
                check = _stored if phase == STORED else _compared
                reached = check(plan, chain, rest, within, notes, working, deadline)
    if reached == next_index:
        raise RetryLater(f"a whole call was not enough for anything of {plan.uri} behind {next_index}")
    save_found(
        call.folder,
        within,
        phase,
        Found(
            first=next_index,
            stop=reached,
            findings=tuple(notes.findings),
            more_findings=notes.more,
            requests=dict(call.counts.placed),
            retries=dict(call.counts.retries),
            gb_seconds=round((call.clock.monotonic() - began) * call.memory_gb, 3),
            **notes.counts,
        ),
    )
    if reached < within.stop:
        return {"done": False, "progress": {"phase": phase, "next_index": reached}}
    if phase == STORED and plan.snapshot_id is not None:
        return {"done": False, "progress": {"phase": COMPARED, "next_index": within.first}}
    return {"done": True, "progress": None}


def _opened(plan: Verification, members: Sequence[Member], call: JobCall) -> Chain:
    uri = members[0].manifest_uri
    try:
        chain = open_chain(call, plan.place.identity, uri)
    except InvalidRequest as error:
        raise ArchiveDamaged(str(error)) from error
    if tuple(each.manifest.sha256 for each in chain.members) != tuple(each.sha256 for each in members):
        raise ArchiveDamaged(f"{uri} was replaced while it was verified")
    return chain


@dataclass(frozen=True)
class _Item:
    """A segment to check."""

    archive: Archive
    index: RangeIndex
    number: int

    @property
    def first(self) -> int:
        return self.index.segments[self.number].first

    @property
    def name(self) -> str:
        return self.archive.address.uri(segment_name(self.first))


def _stored(
    plan: Verification,
    chain: Chain,
    rest: BlockRange,
    within: BlockRange,
    notes: Notes,
    call: JobCall,
    deadline: Deadline,
) -> int:
    """Check the objects of a range; returns where to go on."""
    items: list[_Item] = []
    for archive in chain.members:
        known: set[str] = set()
        whole = True
        for facts in archive.manifest.overlapping(within):
            try:
                found = archive.index(facts)
            except ArchiveDamaged as error:
                whole = False
                if rest.first == within.first:
                    notes.add("index", archive.address.uri(facts.name), facts.first, facts.stop, str(error))
                continue
            notes.count("indexes", int(rest.first == within.first))
            known |= {archive.address.key(segment_name(segment.first)) for segment in found.segments}
            numbers = range(len(found.segments))
            items += [_Item(archive, found, n) for n in numbers if found.segments[n].first in rest]
        if whole and rest.first == within.first:
            notes.count("orphans", _orphans(archive, within, known))
    if plan.other and rest.first == within.first:
        _other(plan, chain, within, notes, call)
    items.sort(key=lambda item: item.first)
    return _checked(plan, items, within, notes, call, deadline)


def _checked(
    plan: Verification, items: Sequence[_Item], within: BlockRange, notes: Notes, call: JobCall, deadline: Deadline
) -> int:
    for number, some in enumerate(_groups(items)):
        if number and deadline.passed():
            return some[0].first
        chosen = [item for item in some if is_chosen(plan, item.name)]
        own = Notes()
        own.count("segments_left_out", len(some) - len(chosen))
        try:
            together(partial(_check_segment, notes=own), chosen, most=SEGMENTS_AT_A_TIME)
        except OutOfTime:
            # What was done of the group is not told: the next call does all of it again.
            return some[0].first
        notes.take(own)
    return within.stop


def _groups(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """A few segments at a time. A chain has several that begin with the same block, by which a call goes on: they stay
    together, or one would be checked and counted by two calls."""
    group: list[_Item] = []
    for item in items:
        if len(group) >= SEGMENTS_AT_A_TIME and item.first != group[-1].first:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _check_segment(item: _Item, notes: Notes) -> None:
    entries = item.index.entries_of(item.number)
    try:
        body = item.archive.segment(item.index, item.number)
    except ArchiveDamaged as error:
        notes.add("segment", item.name, entries[0].block, entries[-1].block + 1, str(error))
    else:
        notes.count("blocks", len(entries))
        notes.count("stored_bytes", len(body))
    notes.count("segments")


def _orphans(archive: Archive, within: BlockRange, known: set[str]) -> int:
    """Segments of a range that no index names: what a worker leaves that dies. They harm nothing and cost storage."""
    prefix = archive.address.key(SEGMENTS)
    after = archive.address.key(segment_name(within.first - 1)) if within.first else prefix
    end = archive.address.key(segment_name(within.stop))
    orphans = 0
    for each in archive.bucket.listed(prefix, after=after):
        if each.key >= end:
            break
        orphans += each.key not in known
    return orphans


def _other(plan: Verification, chain: Chain, within: BlockRange, notes: Notes, call: JobCall) -> None:
    """Hold the blocks of a second archive against those of the first, by what their indexes say."""
    uri = plan.other[0].manifest_uri
    try:
        theirs = _digests(_opened(plan, plan.other, call).held(within))
        ours = _digests(chain.held(within))
    except ArchiveDamaged as error:
        notes.add("other_archive", uri, within.first, within.stop, str(error))
        return
    notes.count("compared", len(ours.keys() | theirs.keys()))
    for block in sorted(block for block in ours.keys() | theirs.keys() if ours.get(block) != theirs.get(block)):
        what = difference(ours.get(block), theirs.get(block), uri)
        notes.add("other_archive", uri, block, block + 1, what)


def _digests(held: Mapping[int, Located]) -> dict[int, bytes]:
    return {block: located.entry.digest for block, located in held.items()}


def _compared(
    plan: Verification,
    chain: Chain,
    rest: BlockRange,
    within: BlockRange,
    notes: Notes,
    call: JobCall,
    deadline: Deadline,
) -> int:
    """Hold the blocks of the snapshot against the archive; returns where to go on."""
    try:
        held = _digests(chain.held(rest))
    except ArchiveDamaged:
        # Told when its objects were checked.
        return within.stop
    size_gib = chain.manifest.volume_size_gib
    return compared(plan, held, rest, notes, call, size_gib=size_gib, deadline=deadline)
