"""Move blocks: one range, or what is left of it, from the source to every target."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from blockferry.core.blocks import BlockRange
from blockferry.core.errors import (
    ArchiveDamaged,
    IncompleteTransfer,
    OutOfTime,
    ParentDiffers,
    RetryLater,
    SourceChanged,
)
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.reserves import MOVE_SECONDS
from blockferry.core.retry import Deadline
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Stretch
from blockferry.jobs.folder import JobFolder
from blockferry.jobs.record import Stopped
from blockferry.transfer.job import Job, started_job
from blockferry.transfer.pace import WorkerPace
from blockferry.transfer.recount import range_around, recount

MOVED, LEFT, REFUSED, STOPPED = "moved", "left", "refused", "stopped"
"""How a range ends: its blocks are in every target that took them; no target takes them, or another range has stopped
the job, so Complete transfer has to decide; the job was refused, and nothing more of it is moved; or this range could
not be moved, and no other one is begun."""


def move_range(
    call: JobCall,
    record: str,
    *,
    within: BlockRange,
    next_index: int | None,
    targets: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Move the blocks of ``within`` from ``next_index`` on, as far as the time allows, and store their digests.

    When all are moved the range of the plan around them is counted again, in this call or, where no time is left, in
    the next.

    Without ``targets`` the blocks go to all of them; with ``targets`` (positions) to these only. A target that fails is
    marked and left to the end of the job, so that it does not spoil the rest, and others that are marked are left out.
    The call's counts are filled also when the range fails. Returns ``{"next_index", "done", "outcome", "blocks_read",
    "blocks_written"}``; when not ``done``, call again with ``next_index``, and ``outcome`` is ``None``. Else it is
    ``MOVED`` (a target that failed meanwhile is marked), ``LEFT`` or ``REFUSED``.

    With ``verify_parents`` the range is compared in base and parents before anything of it is written. A parent that
    cannot be read fails its target; one that differs gives its target up. A job with no other target, or of an image
    that was replaced, cannot be done: that is left to Complete transfer, which deletes the targets and tells why, and
    the ranges that are not moved yet are done without being moved.

    Raises what reading raises, and, without ``targets``, the error of the last target when none can be written: each
    range must be somewhere.
    """
    try:
        return _move_range(call, record, within=within, next_index=next_index, targets=targets)
    except (SourceChanged, ArchiveDamaged) as error:
        call.folder.refuse(str(error))
        return _nothing_more(within, REFUSED)


def _move_range(
    call: JobCall, record: str, *, within: BlockRange, next_index: int | None, targets: tuple[int, ...] | None
) -> dict[str, Any]:
    clock, folder = call.clock, call.folder
    began = clock.monotonic()
    deadline = call.reserving(MOVE_SECONDS)
    job = started_job(call, record)
    call = call.until(deadline, connections=job.threads + call.throughput.max_writers)
    rest = within.after(within.first if next_index is None else next_index)
    if rest is None:
        return _recounted(job, call, within)
    if _may_be_refused(job) and folder.refusal() is not None:
        return _nothing_more(within, REFUSED)
    numbers = _writable(job, folder, targets)
    if not numbers:
        return _nothing_more(within, LEFT)
    parent_blocks = 0
    failures: dict[int, Exception] = {}
    with WorkerPace(job, call, first=within.first, blocks=rest.stop - rest.first, deadline=deadline) as pace:
        if job.verify_parents:
            # Half of the time: what was compared and then not moved would be compared again, for ever.
            half = Deadline(deadline.remaining() / 2, clock=clock)
            comparing = call.until(half)
            parents = job.source.beside(comparing, [job.targets[n].clone(n, comparing) for n in numbers])
            compared = move(rest, parents, [], holes=HolePolicy.PRESERVE, threads=job.threads, deadline=half, pace=pace)
            parent_blocks = compared.blocks_read
            failures = {numbers[clone]: error for clone, error in parents.failed.items()}
            _mark(failures, folder)
            numbers = tuple(number for number in numbers if number not in failures)
            if not numbers:
                return _none_left(job, failures, within, folder, only_some=targets is not None)
            proven = rest.before(compared.next_index)
            if proven is None:
                return _more(rest.first)
            rest = proven
        moved = move(
            rest,
            job.source.open(call),
            [job.targets[number].sink(call, number=number, within=rest) for number in numbers],
            holes=job.holes,
            threads=job.threads,
            deadline=deadline,
            pace=pace,
            writers=call.throughput.max_writers,
            spare_others=True,
            ahead=min((most for n in numbers if (most := job.targets[n].most_ahead) is not None), default=None),
        )
    unwritten = {numbers[sink]: failure for sink, failure in moved.failed_sinks.items()}
    _mark(unwritten, folder)
    written = tuple(number for number in numbers if number not in unwritten)
    if not written:
        return _none_left(job, failures | unwritten, within, folder, only_some=targets is not None)
    if moved.next_index > rest.first:
        # Stored last: a stretch that is on record is in every target that it names.
        folder.save_stretch(
            Stretch(
                rest.first,
                moved.next_index,
                written,
                moved.digests,
                call.counts.placed,
                call.counts.retries,
                parent_blocks,
                round((clock.monotonic() - began) * call.memory_gb, 3),
            ),
        )
    facts = {"blocks_read": moved.blocks_read, "blocks_written": moved.blocks_written}
    if moved.next_index < within.stop:
        return {**_more(moved.next_index), **facts}
    try:
        return {**_recounted(job, call, within), **facts}
    except (OutOfTime, RetryLater):
        # Everything is on record: the next call only has to count it again.
        return {**_more(within.stop), **facts}


def stop_moving(call: JobCall, within: BlockRange, *, error: str, cause: str) -> dict[str, Any]:
    """Note that a range could not be moved, by the name of the error and its cause as Step Functions tells them.

    Other ranges are not begun then, and Complete transfer says why. Returns the same as ``move_range``.
    """
    call.folder.stop(Stopped(first=within.first, stop=within.stop, error=error, cause=message_of(cause)))
    return _nothing_more(within, STOPPED)


def message_of(cause: str) -> str:
    """The message of a function's error in the cause of a failed task, which is JSON with a stack trace."""
    try:
        told = json.loads(cause)
    except ValueError:
        return cause
    return str(told["errorMessage"]) if isinstance(told, dict) and "errorMessage" in told else cause


def _recounted(job: Job, call: JobCall, within: BlockRange) -> dict[str, Any]:
    """Count the range of the plan again that is moved now, and store what was found.

    What does not fit is left to Complete transfer, which finds it too, and then no target was completed.
    """
    with contextlib.suppress(IncompleteTransfer):
        call.folder.save_recount(*recount(job, call, range_around(job, within.first)))
    return _nothing_more(within, MOVED)


def _mark(failures: Mapping[int, Exception], folder: JobFolder) -> None:
    for number, error in failures.items():
        if isinstance(error, ParentDiffers):
            folder.give_up(number, str(error))
        else:
            folder.mark_failed(number, str(error))


def _none_left(
    job: Job, failures: Mapping[int, Exception], within: BlockRange, folder: JobFolder, *, only_some: bool
) -> dict[str, Any]:
    """What becomes of a range that could be written to no target.

    In a round for ``only_some`` targets it is missing as before. In the first one it must not stay unwritten: others,
    which were left out since they failed before, have their turn when the range is tried again.
    """
    if only_some or not _writable(job, folder, None):
        return _nothing_more(within, LEFT)
    passing = {number: error for number, error in failures.items() if not isinstance(error, ParentDiffers)}
    others = any(number not in failures for number in job.started)
    if others:
        told = "; ".join(f"{job.targets[n].name}: {e}" for n, e in failures.items())
        raise RetryLater(f"no target that was tried takes blocks {within.first} to {within.stop - 1}: {told}")
    raise next(iter(passing.values()))


def _may_be_refused(job: Job) -> bool:
    """Whether a worker may find out that the job cannot be done at all."""
    return job.verify_parents or job.source.may_change


def _more(next_index: int) -> dict[str, Any]:
    return {"next_index": next_index, "done": False, "outcome": None, "blocks_read": 0, "blocks_written": 0}


def _nothing_more(within: BlockRange, outcome: str) -> dict[str, Any]:
    return {"next_index": within.stop, "done": True, "outcome": outcome, "blocks_read": 0, "blocks_written": 0}


def _writable(job: Job, folder: JobFolder, among: tuple[int, ...] | None) -> tuple[int, ...]:
    """The started targets, or those ``among`` them, that no worker has marked. Without ``among`` those marked as failed
    come again when no other would be left. None when the moving of blocks has ended."""
    marks = folder.marks()
    if marks.stopped:
        return ()
    possible = [number for number in job.started if number not in marks.given_up]
    if among is not None:
        return tuple(number for number in possible if number in among and number not in marks.failed)
    return tuple(number for number in possible if number not in marks.failed) or tuple(possible)
