"""Move blocks: one range, or what is left of it, from the source to every target."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import ParentDiffers, RetryLater, SourceChanged
from blockferry.core.holes import HolePolicy
from blockferry.core.mover import move
from blockferry.core.pacing import Pace
from blockferry.core.reserves import MOVE_SECONDS
from blockferry.core.retry import Clock, Deadline
from blockferry.jobs.digests import Stretch
from blockferry.jobs.record import Job, JobImage, JobTarget
from blockferry.jobs.workspace import Workspace
from blockferry.targets.sink import SnapshotSink
from blockferry.transfer.sources import block_source, parents_beside_base
from blockferry.transfer.steps import recorded_job

MOVED, LEFT, REFUSED = "moved", "left", "refused"
"""How a range ends: its blocks are in every target that took them; no target takes them, so Complete transfer has to
decide; the job was refused, and nothing more of it is moved."""


def move_range(
    *,
    job_id: str,
    within: BlockRange,
    next_index: int | None,
    targets: tuple[int, ...] | None = None,
    seconds_left: float,
    memory_gb: float = 0.0,
    aws: Aws,
    workspace: Workspace,
    counts: RequestCounts | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Move the blocks of ``within`` from ``next_index`` on, as far as the time allows, and store their digests.

    Without ``targets`` the blocks go to all of them; with ``targets`` (positions) to these only. A target that fails is
    marked and left to the end of the job, so that it does not spoil the rest, and others that are marked are left out.
    ``seconds_left`` is what remains of the invocation, ``memory_gb`` its size; ``counts`` is filled also when the range
    fails. Returns ``{"next_index", "done", "outcome", "blocks_read", "blocks_written"}``; when not ``done``, call again
    with ``next_index``, and ``outcome`` is ``None``. Else it is ``MOVED`` (a target that failed meanwhile is marked),
    ``LEFT`` or ``REFUSED``.

    With ``verify_parents`` the range is compared in base and parents before anything of it is written. A parent that
    cannot be read fails its target; one that differs gives its target up. A job with no other target, or of an image
    that was replaced, cannot be done: that is left to Complete transfer, which deletes the targets and tells why, and
    the ranges that are not moved yet are done without being moved.

    Raises what reading raises, and, without ``targets``, the error of the last target when none can be written: each
    range must be somewhere.
    """
    clock = clock or Clock()
    began = clock.monotonic()
    deadline = Deadline(max(seconds_left - MOVE_SECONDS, 1.0), clock=clock)
    job = recorded_job(workspace, job_id)
    rest = within.after(within.first if next_index is None else next_index)
    if rest is None:
        return _nothing_more(within, MOVED)
    if _may_be_refused(job) and workspace.refusal(job_id) is not None:
        return _nothing_more(within, REFUSED)
    counts = counts or RequestCounts()
    numbers = _writable(job, workspace, targets)
    if not numbers:
        return _nothing_more(within, LEFT)

    def client(identity: Identity, until: Deadline = deadline) -> EbsDirect:
        return aws.ebs(identity, counts=counts, clock=clock, deadline=until, connections=job.threads)

    parent_blocks = 0
    pace = Pace(job.blocks_per_second, clock=clock)
    failures: dict[int, Exception] = {}
    try:
        if job.verify_parents:
            # Half of the time: what was compared and then not moved would be compared again, for ever.
            half = Deadline(deadline.remaining() / 2, clock=clock)
            parents = parents_beside_base(job, numbers, ebs_for=lambda identity: client(identity, half))
            compared = move(rest, parents, [], holes=HolePolicy.PRESERVE, threads=job.threads, deadline=half, pace=pace)
            parent_blocks = compared.blocks_read
            failures = {numbers[clone]: error for clone, error in parents.failed.items()}
            _mark(job, failures, workspace)
            numbers = tuple(number for number in numbers if number not in failures)
            if not numbers:
                return _none_left(job, failures, within, workspace, only_some=targets is not None)
            proven = rest.before(compared.next_index)
            if proven is None:
                return {"next_index": rest.first, "done": False, "outcome": None, "blocks_read": 0, "blocks_written": 0}
            rest = proven
        moved = move(
            rest,
            block_source(
                job,
                ebs_for=client,
                aws=aws,
                workspace=workspace,
                counts=counts,
                clock=clock,
                deadline=deadline,
            ),
            [_sink(job.targets[n], client(job.targets[n].identity)) for n in numbers],
            holes=job.holes,
            threads=job.threads,
            deadline=deadline,
            pace=pace,
            spare_others=True,
        )
    except SourceChanged as error:
        workspace.refuse(job_id, str(error))
        return _nothing_more(within, REFUSED)
    unwritten = {numbers[sink]: failure for sink, failure in moved.failed_sinks.items()}
    _mark(job, unwritten, workspace)
    written = tuple(number for number in numbers if number not in unwritten)
    if not written:
        return _none_left(job, failures | unwritten, within, workspace, only_some=targets is not None)
    if moved.next_index > rest.first:
        # Stored last: a stretch that is on record is in every target that it names.
        workspace.save_stretch(
            job_id,
            Stretch(
                rest.first,
                moved.next_index,
                written,
                moved.digests,
                counts.placed,
                counts.retries,
                parent_blocks,
                round((clock.monotonic() - began) * memory_gb, 3),
            ),
        )
    done = moved.next_index >= within.stop
    return {
        "next_index": moved.next_index,
        "done": done,
        "outcome": MOVED if done else None,
        "blocks_read": moved.blocks_read,
        "blocks_written": moved.blocks_written,
    }


def _mark(job: Job, failures: Mapping[int, Exception], workspace: Workspace) -> None:
    for number, error in failures.items():
        if isinstance(error, ParentDiffers):
            workspace.give_up(job.job_id, number, str(error))
        else:
            workspace.mark_failed(job.job_id, number, str(error))


def _none_left(
    job: Job, failures: Mapping[int, Exception], within: BlockRange, workspace: Workspace, *, only_some: bool
) -> dict[str, Any]:
    """What becomes of a range that could be written to no target.

    In a round for ``only_some`` targets it is missing as before. In the first one it must not stay unwritten: others,
    which were left out since they failed before, have their turn when the range is tried again.
    """
    if only_some or not _writable(job, workspace, None):
        return _nothing_more(within, LEFT)
    passing = {number: error for number, error in failures.items() if not isinstance(error, ParentDiffers)}
    others = any(t.snapshot_id and number not in failures for number, t in enumerate(job.targets))
    if others:
        told = "; ".join(f"{job.targets[n].snapshot_id} in {job.targets[n].region}: {e}" for n, e in failures.items())
        raise RetryLater(f"no target that was tried takes blocks {within.first} to {within.stop - 1}: {told}")
    raise next(iter(passing.values()))


def _may_be_refused(job: Job) -> bool:
    """Whether a worker may find out that the job cannot be done at all."""
    return job.verify_parents or isinstance(job.source, JobImage)


def _sink(target: JobTarget, ebs: EbsDirect) -> SnapshotSink:
    return SnapshotSink(ebs, target.snapshot_id, started_seconds_ago=target.started_seconds_ago(datetime.now(UTC)))


def _nothing_more(within: BlockRange, outcome: str) -> dict[str, Any]:
    return {"next_index": within.stop, "done": True, "outcome": outcome, "blocks_read": 0, "blocks_written": 0}


def _writable(job: Job, workspace: Workspace, among: tuple[int, ...] | None) -> tuple[int, ...]:
    """The started targets, or those ``among`` them, that no worker has marked. Without ``among`` those marked as failed
    come again when no other would be left."""
    marks = workspace.marks(job.job_id)
    possible = [n for n, t in enumerate(job.targets) if t.snapshot_id and n not in marks.given_up]
    if among is not None:
        return tuple(number for number in possible if number in among and number not in marks.failed)
    return tuple(number for number in possible if number not in marks.failed) or tuple(possible)
