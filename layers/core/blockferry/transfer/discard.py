"""Deleting what a job has started: nothing that may be a good copy, and one that cannot be deleted does not stop it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.errors import translated
from blockferry.core.errors import BlockferryError
from blockferry.core.together import together
from blockferry.jobs.call import JobCall
from blockferry.targets.kind import Leftover
from blockferry.transfer.job import Job, Target


@dataclass(frozen=True)
class Discarded:
    """Ids of what is gone, with reasons of what is kept on purpose and the errors of what could not be deleted, both as
    ``<id> in <region> (<why>)``."""

    gone: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[BlockferryError, ...]

    def told(self) -> str:
        """What became of the snapshots, as sentences without the last full stop."""
        if not self.kept and not self.failed:
            return "Nothing is left of the job"
        told = []
        if self.kept:
            told.append(f"Completed or being sealed before that, and kept: {', '.join(self.kept)}")
        if self.failed:
            told.append(self.not_deleted)
        return ". ".join(told)

    @property
    def not_deleted(self) -> str:
        """Where something could not be deleted: what, why, and who sees to it."""
        return (
            f"Not deleted yet: {', '.join(self.failed)}. The sweeper tries again when the resume window is over; until "
            "then snapshots take up places among the pending ones of their Region"
        )


def discard(job: Job, targets: Iterable[Target], call: JobCall, *, new: bool = False) -> Discarded:
    """Delete the snapshots of those of the targets that are started, all but those that are or may be sealed. ``new``
    ones were started by this very call, so that EC2 may not know them yet."""
    return discard_all((left for target in targets if (left := target.leftover(new=new)) is not None), call, job)


def discard_all(found: Iterable[Leftover], call: JobCall, job: Job) -> Discarded:
    """Delete these snapshots of a job, all but those that are or may be sealed."""

    def discarded(left: Leftover) -> str | BlockferryError | None:
        try:
            return left.discard(call, call.folder, mark=job.execution.mark)
        except (ClientError, BotoCoreError) as error:
            return translated(error)
        except BlockferryError as error:
            return error

    gone, kept, failed = [], [], []
    errors: list[BlockferryError] = []
    doomed = list(found)
    ends = together(discarded, doomed, most=call.throughput.places_at_a_time)
    for left, end in zip(doomed, ends, strict=True):
        if end is None:
            gone.append(left.snapshot_id)
        elif isinstance(end, str):
            kept.append(f"{left.name} ({end})")
        else:
            errors.append(end)
            failed.append(f"{left.name} ({end})")
    return Discarded(tuple(gone), tuple(kept), tuple(failed), tuple(errors))
