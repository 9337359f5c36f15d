"""What becomes of each target when the transfer is proved: sealed and tagged, or why not. One never decides for
another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.errors import translated
from blockferry.core.blocks import BlockRange
from blockferry.core.errors import BlockferryError, EncryptionDiffers, TargetFailed
from blockferry.jobs.call import JobCall
from blockferry.jobs.record import Proof
from blockferry.transfer.job import Job, Target
from blockferry.transfer.plan import start


@dataclass(frozen=True)
class TargetState:
    """A target after one call of Complete transfer. ``completed`` says that EBS took or may have taken the completion;
    ``missing`` are the ranges that it lacks; ``given_up`` that no repetition can help it, for the reason in
    ``error``."""

    number: int
    target: Target
    missing: tuple[BlockRange, ...] = ()
    completed: bool = False
    error: BlockferryError | None = None
    given_up: bool = False

    @property
    def behind(self) -> bool:
        """Whether blocks may still be moved to it."""
        return bool(self.missing) and self.error is None

    @property
    def name(self) -> str:
        return f"targets[{self.number}] in {self.target.region}" if self.target.started is None else self.target.name

    def record(self) -> dict[str, object]:
        """For ``targets.json``."""
        return {
            "region": self.target.region,
            "snapshot_id": "" if self.target.started is None else self.target.shown_id,
            "completed": self.completed,
            "missing_ranges": len(self.missing),
            "given_up": self.given_up,
            "error": None if self.error is None else str(self.error),
        }


def settle(
    job: Job, number: int, missing: list[BlockRange], proof: Proof, *, given_up: str | None, call: JobCall
) -> TargetState:
    """Start a target that was never started, or seal one that misses nothing. Raises no error of the target."""
    state = TargetState(number, job.targets[number], tuple(missing))
    if given_up is not None:
        return replace(state, error=TargetFailed(given_up), given_up=True)
    try:
        if state.target.started is None:
            return replace(state, target=start(job, number, call))
        if not missing:
            state.target.seal(call, number, proof, call.folder)
            state = replace(state, completed=True)
            state.target.mark_proved(call, proof)
    except EncryptionDiffers as error:
        return replace(state, error=error, given_up=True)
    except BlockferryError as error:
        return replace(state, error=error)
    except (ClientError, BotoCoreError) as error:
        return replace(state, error=translated(error))
    return state
