"""Complete transfer: put together what was proved of the ranges, then let EBS seal the targets.

Every range was counted again behind the worker that moved it; what was found is taken in the order of the blocks, and
what nobody has counted is counted now: a block that is allocated but was not moved, or the other way round, fails the
job before any target is completed. EBS then gets the count and the LINEAR checksum and refuses a target that does not
match.

A target that could not be written everywhere, or not be completed, does not hold up the others: they are completed, and
what is missing is planned as ranges of its own, for a few rounds. A target that cannot be made at all ends here,
deleted and named; so does a job that a worker has refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from blockferry.core.blocks import BlockRange, split
from blockferry.core.errors import (
    ArchiveDamaged,
    BlockferryError,
    IncompleteTransfer,
    RequestRefused,
    RetryLater,
    TargetFailed,
    TransferFailed,
)
from blockferry.core.reserves import COMPLETE_SECONDS
from blockferry.core.retry import Deadline
from blockferry.core.words import counted
from blockferry.jobs.call import JobCall
from blockferry.jobs.digests import Coverage
from blockferry.jobs.folder import MISSING, TARGETS, JobFolder
from blockferry.jobs.record import Proof, Stopped
from blockferry.transfer.discard import Discarded, discard
from blockferry.transfer.job import Job, save_started, started_job
from blockferry.transfer.prove import prove
from blockferry.transfer.settle import TargetState, settle
from blockferry.transfer.turns import in_turn

MOST_ROUNDS = 3
"""How often missing ranges are moved before the job fails; each redrive has as many again."""

REMEDIES = {
    "RequestRefused": "Mend what is refused, as permissions or keys, and resume the job",
    "RetryLater": "It was tried for some minutes: resume the job when it has passed",
    "ChecksumMismatch": "It was read again and again: resume the job; if it happens again, ask AWS about the snapshot",
    "IncompleteTransfer": "The execution and what is deployed, or its records, do not belong together: start a new job",
}
OTHER_REMEDY = "The log of Move blocks says more: mend it, and resume the job"
"""What to do about the error that has stopped a job, by its name."""


def complete_transfer(call: JobCall, record: str, *, missing_moved: bool = False) -> dict[str, object]:
    """Prove the transfer, complete every target that holds all blocks, and plan what the others miss.

    ``missing_moved`` says that missing ranges were moved before. Returns ``{"missing_ranges", "missing_key",
    "blocks_written", "linear_checksum", "record", "proof"}``; the last two are the SHA-256 by which the next steps go,
    of the job's record and of the proof. Called again it proves again and leaves targets alone that EBS has taken
    before. Of a job that a range has stopped nothing is proved: it fails with the cause, and when it is resumed, what
    was not moved is planned.

    Raises ``IncompleteTransfer`` with no target completed when the proof fails, and the like when a range has stopped
    the job. Everything else comes after every
    target had its turn: ``IncompleteTransfer`` naming the targets that still miss blocks after ``MOST_ROUNDS`` of
    moving, which a redrive begins again; ``RetryLater`` or ``TargetFailed`` naming those that could not be started or
    completed; and ``TransferFailed``, with what was started for them deleted, when targets were given up, or the whole
    job.
    """
    folder = call.folder
    job = started_job(call, record)
    marks = folder.marks()
    given_up = {number: folder.given_up(number) or "" for number in marks.given_up}
    refusal = folder.refusal()
    if refusal is None and all(number in given_up for number in job.started):
        refusal = "\n".join(given_up[number] for number in sorted(given_up))
    if refusal is not None:
        raise _cannot_be_done(refusal, discard(job, job.targets, call))
    if marks.stopped and (rest := _after_a_stop(job, given_up, call)):
        return {"missing_ranges": rest, "missing_key": folder.key(MISSING), "record": record, "proof": ""}
    coverage = Coverage(targets=len(job.targets), total_blocks=job.blocks)
    try:
        proof = prove(job, coverage, call)
    except IncompleteTransfer:
        # The answer of the call that planned the rest may have been lost: then nobody has moved it yet.
        if not (rest := _rest_once_more(job, folder, missing_moved=missing_moved)):
            raise
        return {"missing_ranges": rest, "missing_key": folder.key(MISSING), "record": record, "proof": ""}
    except ArchiveDamaged as error:
        raise _cannot_be_done(str(error), discard(job, job.targets, call)) from error
    digest = folder.save_proof(proof)
    states = _settled(job, coverage, proof, given_up=given_up, call=call)
    targets = tuple(state.target for state in states)
    if targets != job.targets:
        record = save_started(folder, job.model_copy(update={"targets": targets}), late=True)
    folder.write(TARGETS, json.dumps([state.record() for state in states], indent=1).encode())
    behind = frozenset(state.number for state in states if state.behind)
    pieces = [
        (within, numbers)
        for within, those in coverage.missing_by_range(job.blocks_per_range)
        if (numbers := tuple(number for number in those if number in behind))
    ]
    if behind:
        _plan_round(states, pieces, missing_moved=missing_moved, call=call)
    else:
        _raise_failures(job, states, call)
    return {
        "missing_ranges": len(pieces),
        "missing_key": folder.key(MISSING),
        "blocks_written": proof.blocks_written,
        "linear_checksum": proof.linear_checksum,
        "record": record,
        "proof": digest,
    }


def _after_a_stop(job: Job, given_up: Mapping[int, str], call: JobCall) -> int:
    """What becomes of a job of which a range could not be moved: it fails with the cause, once; called again, it was
    resumed, and the ranges are planned that no worker has moved. Returns how many there are; 0 when all are moved.

    Raises ``TransferFailed`` with nothing left when the source is gone for good, else the error that says why.
    """
    folder = call.folder
    stopped = folder.stopped()
    rest = _rest(job, folder)
    if stopped is not None and folder.told() != stopped:
        # What is all moved and counted needs its source no more.
        gone = job.source.gone(call, home=job.execution.account) if rest else None
        if gone is not None:
            raise _cannot_be_done(gone, discard(job, job.targets, call))
        states = [_stopped_target(job, number, given_up, rest, folder) for number in range(len(job.targets))]
        folder.write(TARGETS, json.dumps([state.record() for state in states], indent=1).encode())
        why = _why(stopped, states, ranges=len(_ranges(job)), left=len(rest))
        # Last: whatever fails before it is tried again by the state machine, and must not be taken for a redrive.
        folder.save_told(stopped)
        raise why
    if rest:
        folder.save_rest(rest)
        folder.save_resumed()
    folder.save_rounds(0)
    folder.forget_failures(folder.marks().failed)
    folder.save_told(None)
    folder.forget_stop()
    return len(rest)


def _rest_once_more(job: Job, folder: JobFolder, *, missing_moved: bool) -> int:
    """Plan what no worker has moved of a job that was resumed after a stop, as often as anything that is missing.
    Returns how many ranges that are, 0 when this is not why the proof failed."""
    planned = folder.rounds() if missing_moved else 0
    if planned >= MOST_ROUNDS or not folder.resumed():
        return 0
    rest = _rest(job, folder)
    if rest:
        folder.save_rest(rest)
        folder.save_rounds(planned + 1)
    return len(rest)


def _stopped_target(
    job: Job, number: int, given_up: Mapping[int, str], rest: Sequence[BlockRange], folder: JobFolder
) -> TargetState:
    if number in given_up:
        return TargetState(number, job.targets[number], error=TargetFailed(given_up[number]), given_up=True)
    target, why = job.targets[number], folder.failure(number)
    sealing = None if target.started is None else folder.sealing(target.snapshot_id)
    # It may have been sealed before, when only others missed blocks.
    completed = sealing is not None and sealing.state != "refused"
    missing = () if completed else tuple(rest)
    error = None if why is None else RetryLater(why)
    return TargetState(number, target, missing=missing, completed=completed, error=error)


def _ranges(job: Job) -> list[BlockRange]:
    return list(split(job.blocks, job.blocks_per_range))


def _rest(job: Job, folder: JobFolder) -> list[BlockRange]:
    """The ranges of the plan that no worker has moved and counted again."""
    done = folder.recounted()
    return [within for within in _ranges(job) if (within.first, within.stop) not in done]


def _why(stopped: Stopped, states: Sequence[TargetState], *, ranges: int, left: int) -> BlockferryError:
    """The error of a job that a range has stopped, with what can be done about it."""
    lines = [f"blocks {stopped.first} to {stopped.stop - 1} could not be moved: {stopped.cause or stopped.error}"]
    remedy = REMEDIES.get(stopped.error, OTHER_REMEDY)
    # Before what may be a hundred targets, of which Step Functions shows no more than fits.
    are = "is moved and stays so" if ranges == 1 else "are moved and stay so"
    lines.append(f"{ranges - left} of {counted(ranges, 'range')} {are}. {remedy}")
    lines += [f"- {state.name}: {state.error}" for state in states if state.error is not None]
    return (RequestRefused if stopped.error == RequestRefused.__name__ else IncompleteTransfer)("\n".join(lines))


def _settled(
    job: Job, coverage: Coverage, proof: Proof, *, given_up: Mapping[int, str], call: JobCall
) -> list[TargetState]:
    """What becomes of each target, those last of which others in their region could not be reached."""
    until = Deadline(call.seconds_left - COMPLETE_SECONDS, clock=call.clock)
    states: dict[int, TargetState] = {}

    def attempt(number: int) -> bool:
        missing = coverage.missing(number)
        states[number] = settle(job, number, missing, proof, given_up=given_up.get(number), call=call)
        return not isinstance(states[number].error, RetryLater)

    def region(number: int) -> str:
        return job.targets[number].region

    for number in in_turn(
        range(len(job.targets)), region=region, attempt=attempt, time_left=lambda: not until.passed()
    ):
        error = RetryLater(f"others in {region(number)} could not be reached, and no time was left for this one")
        states[number] = TargetState(number, job.targets[number], tuple(coverage.missing(number)), error=error)
    return [states[number] for number in range(len(job.targets))]


def _plan_round(
    states: Sequence[TargetState],
    pieces: list[tuple[BlockRange, tuple[int, ...]]],
    *,
    missing_moved: bool,
    call: JobCall,
) -> None:
    """Plan what targets miss, or say that it was tried often enough.

    The map cannot say so itself: it would end with the first target that cannot be written, and with it the others
    that could. Raises ``IncompleteTransfer`` when the rounds are used up; a redrive has as many again.
    """
    folder = call.folder
    planned = folder.rounds() if missing_moved else 0
    if planned >= MOST_ROUNDS:
        folder.save_rounds(0)
        why = {s.number: folder.failure(s.number) for s in states if s.behind}
        lines = [
            f"- {s.name}: misses blocks of {counted(len(s.missing), 'range')}"
            + (f": {why[s.number]}" if why[s.number] else "")
            if s.behind
            else f"- {s.name}: {s.error}"
            for s in states
            if s.behind or s.error is not None
        ]
        raise IncompleteTransfer(
            "\n".join([f"targets that are not complete, tried {counted(planned, 'time')} more:", *lines])
        )
    folder.save_missing(pieces)
    folder.forget_failures(state.number for state in states if state.behind)
    folder.save_rounds(planned + 1)


def _raise_failures(job: Job, states: Sequence[TargetState], call: JobCall) -> None:
    """Say which targets failed, now that none can be helped by moving blocks."""
    failed = [state for state in states if state.error is not None]
    if not failed:
        return
    lines = [f"- {state.name}: {state.error}" for state in failed]
    good = [state.name for state in states if state.error is None]
    lines.append(f"Completed, or being sealed by EBS: {', '.join(good) or 'none'}")
    lost = discard(job, [state.target for state in failed if state.given_up], call)
    lines += [f"Kept: {', '.join(lost.kept)}"] if lost.kept else []
    lines += [lost.not_deleted] if lost.failed else []
    text = "\n".join(["targets that were not completed:", *lines])
    passing = [state for state in failed if not state.given_up]
    if not passing:
        raise _for_good(lost)(text)
    raise (RetryLater if all(isinstance(state.error, RetryLater) for state in passing) else TargetFailed)(text)


def _cannot_be_done(why: str, left: Discarded) -> BlockferryError:
    """The error of a job that cannot be done: why, and then what became of its targets."""
    return _for_good(left)(f"{why}. {left.told()}")


def _for_good(left: Discarded) -> type[BlockferryError]:
    """As long as a target cannot be deleted for the time being the step is to be tried again."""
    return RetryLater if any(isinstance(error, RetryLater) for error in left.errors) else TransferFailed
