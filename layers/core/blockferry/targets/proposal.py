"""The targets of a new job, as they will be made, and what is common to proposing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from blockferry.aws import snapshots
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision, HoleMeaning
from blockferry.core.quotas import MAX_TAGS
from blockferry.jobs.execution import Execution
from blockferry.jobs.record import JobWarning
from blockferry.lifecycle.tags import AUTOMATED, TagNames
from blockferry.requests.parts import CONTROL_PREFIX
from blockferry.targets.kind import JobTarget

NAMES = TagNames()
STAYING = NAMES.of_backups - {NAMES.type}
"""Tags that only ``replicate`` hands on (docs/tags.md). ``Type`` may be anybody's own, but for one value of it."""

TAGS_AT_THE_END = 2
"""Kept free for what is set when the target is completed: the checksum and the target's own id."""

T_co = TypeVar("T_co", bound=JobTarget, covariant=True)


@dataclass(frozen=True)
class Proposal(Generic[T_co]):
    """The targets of a job, none of them started, and what the job does about holes. ``compared`` says that every
    parent is compared with the base before anything is written on top of it; ``warnings`` go to the receipt."""

    targets: Sequence[T_co]
    holes: HoleDecision
    compared: bool = False
    warnings: tuple[JobWarning, ...] = ()


def job_tags(execution: Execution, left: HoleMeaning) -> dict[str, str]:
    """The tags of a target that do not come from its source; ``left`` is what its holes will stand for."""
    return {
        snapshots.JOB_TAG: execution.job_id,
        snapshots.EXECUTION_TAG: execution.mark,
        snapshots.HOLES_TAG: left.value,
    }


def staying(source: Mapping[str, str]) -> list[str]:
    """Keys of the source's tags that say how a backup is looked after, which stay where they are: a target with them
    would be taken for a backup by tag, and deleted on its day."""
    return sorted(key for key in source if key in STAYING or (key, source[key]) == (NAMES.type, AUTOMATED))


def tags_left_out(source: Mapping[str, str]) -> tuple[JobWarning, ...]:
    """What the receipt says of tags of the source that the targets do not get."""
    if not (left := staying(source)):
        return ()
    told = f"{', '.join(left)} say how the source is looked after as a backup, and are not carried to the targets"
    return (JobWarning(code="tags_left_out", message=told),)


def all_tags(
    source: Mapping[str, str], asked: Mapping[str, str], own: Mapping[str, str], *, region: str
) -> dict[str, str]:
    """The source's tags but for those that are ``staying``, those asked for, which win, and the job's. Raises
    ``InvalidRequest`` for too many."""
    left = set(staying(source))
    tags = {k: v for k, v in source.items() if k not in left and not k.lower().startswith(("aws:", CONTROL_PREFIX))}
    tags |= asked
    tags |= own
    if len(tags) + TAGS_AT_THE_END > MAX_TAGS:
        raise InvalidRequest(
            f"target in {region}: {len(tags) + TAGS_AT_THE_END} tags (the source's, the target's and "
            f"{len(own) + TAGS_AT_THE_END} of the job), EC2 keeps {MAX_TAGS}; name fewer tags or remove some from the "
            "source"
        )
    return tags
