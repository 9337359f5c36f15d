"""Check targets: has EBS sealed them?"""

from __future__ import annotations

from typing import Any

from blockferry.aws.snapshots import settled
from blockferry.core.errors import InvalidRequest, RetryLater, TargetFailed
from blockferry.jobs.call import JobCall
from blockferry.targets.kind import Looked, TargetFacts
from blockferry.transfer.job import started_job

FIRST_WAIT_SECONDS = 2
SOON_SECONDS = 60
MAX_WAIT_SECONDS = 300
"""Small snapshots seal in seconds, mostly within the first call, which looks several times. One of which nobody knows
whether EBS took its completion may be pending until EBS cancels it, after three days: the waits grow until the history
of an execution (25,000 events) has room for that."""


def said_of(error: Exception) -> str:
    """What a look at a target that was completed came to, and what to do about one that is not known any more."""
    gone = "; if it was deleted, start a new job for this target" if isinstance(error, InvalidRequest) else ""
    return f"{error}{gone}"


def check_targets(call: JobCall, record: str, waited_seconds: int | None) -> dict[str, Any]:
    """State of every target.

    Returns ``{"completed": bool, "wait_seconds": int, "states": {snapshot id: state}}``. As long as a target is pending
    nothing is raised: one that failed does not end the job for those that EBS is still sealing. Then raises
    ``TargetFailed`` naming each one that is not completed, and those that cannot be asked about; ``RetryLater`` when
    that is all there is and may pass.
    """
    job = started_job(call, record)
    looked = Looked({}, {})

    def look() -> list[TargetFacts]:
        nonlocal looked
        looked = job.look(range(len(job.targets)), call)
        return list(looked.facts.values())

    pauses = call.waits.first_looks if waited_seconds is None else ()
    settled(look, clock=call.clock, waits=call.waits, pauses=pauses)
    if looked.unknown and not looked.pending:
        settled(look, clock=call.clock, waits=call.waits, missing=lambda: looked.unknown)
    failed: list[str] = []
    unknown: list[str] = []
    for number, target in enumerate(job.targets):
        if number in looked.errors:
            error = looked.errors[number]
            (unknown if isinstance(error, RetryLater) else failed).append(f"{target.name}: {said_of(error)}")
        elif (facts := looked.facts[number]).state not in ("pending", "completed"):
            failed.append(f"{target.name} is in state {facts.state}: {facts.state_message or 'EC2 gives no reason'}")
    states = {facts.snapshot_id: facts.state for _, facts in sorted(looked.facts.items())}
    if "pending" not in states.values():
        told = "\n".join(f"- {line}" for line in (*failed, *unknown))
        if failed:
            raise TargetFailed(f"targets failed after they were completed:\n{told}")
        if unknown:
            raise RetryLater(f"targets whose state EC2 does not tell:\n{told}")
    return {
        "completed": all(state == "completed" for state in states.values()),
        "wait_seconds": _wait(waited_seconds),
        "states": states,
    }


def _wait(waited_seconds: int | None) -> int:
    if waited_seconds is None:
        return FIRST_WAIT_SECONDS
    if waited_seconds < SOON_SECONDS:
        return min(SOON_SECONDS, waited_seconds * 2)
    return min(MAX_WAIT_SECONDS, waited_seconds * 11 // 10)
