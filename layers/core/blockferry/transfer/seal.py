"""What becomes of each target when the transfer is proved: sealed and tagged, or why not. One never decides for
another.

What EBS was asked for is stored before the request and after its answer, target by target, so that whoever comes next
neither completes a sealed target again nor takes it for one that may be deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import sealing, snapshots
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Aws
from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import BlockferryError, EncryptionDiffers, RequestRefused, TargetFailed
from blockferry.core.retry import Clock
from blockferry.jobs.record import Job, JobTarget, Proof, Sealing
from blockferry.jobs.workspace import Workspace
from blockferry.requests.parts import taken_at_the_start
from blockferry.transfer.encryption import refuse_as_described
from blockferry.transfer.targets import start_target


@dataclass(frozen=True)
class TargetState:
    """A target after one call of Complete transfer. ``completed`` says that EBS took or may have taken the completion;
    ``missing`` are the ranges that it lacks; ``given_up`` that no repetition can help it, for the reason in
    ``error``."""

    number: int
    target: JobTarget
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
        where = f"targets[{self.number}]" if not self.target.snapshot_id else self.target.snapshot_id
        return f"{where} in {self.target.region}"

    def record(self) -> dict[str, object]:
        """For ``targets.json``."""
        return {
            "region": self.target.region,
            "snapshot_id": self.target.snapshot_id,
            "completed": self.completed,
            "missing_ranges": len(self.missing),
            "given_up": self.given_up,
            "error": None if self.error is None else str(self.error),
        }


def settle(
    job: Job,
    number: int,
    missing: list[BlockRange],
    proof: Proof,
    *,
    given_up: str | None,
    aws: Aws,
    workspace: Workspace,
    clock: Clock,
) -> TargetState:
    """Start a target that was never started, or complete one that misses nothing. Raises no error of the target."""
    state = TargetState(number, job.targets[number], tuple(missing))
    if given_up is not None:
        return replace(state, error=TargetFailed(given_up), given_up=True)
    try:
        if not state.target.snapshot_id:
            return replace(state, target=start_target(job, number, aws=aws, counts=RequestCounts()))
        if not missing:
            _seal(job, state.target, proof, aws=aws, workspace=workspace, clock=clock)
            state = replace(state, completed=True)
            # What a later sync trusts. If EBS should still find fault with the snapshot it is never completed, tag or
            # not.
            tags = state.target.tags
            late = {key: value for key, value in tags.items() if not taken_at_the_start(key, value)}
            proved = {snapshots.CHECKSUM_TAG: proof.linear_checksum, snapshots.PROVED_TAG: state.target.snapshot_id}
            snapshots.add_tags(aws.ec2(state.target.identity), state.target.snapshot_id, late | proved)
    except EncryptionDiffers as error:
        return replace(state, error=error, given_up=True)
    except BlockferryError as error:
        return replace(state, error=error)
    except (ClientError, BotoCoreError) as error:
        return replace(state, error=translated(error))
    return state


def _seal(job: Job, target: JobTarget, proof: Proof, *, aws: Aws, workspace: Workspace, clock: Clock) -> None:
    """Have EBS seal a target. In doubt it is left to Check targets, which waits for what is pending."""
    before = workspace.sealing(job.job_id, target.snapshot_id)
    if before is not None and before.state == "accepted":
        return
    ec2 = aws.ec2(target.identity)
    facts = snapshots.describe(ec2, target.snapshot_id, region=target.region)
    refuse_as_described(job, target, facts)
    asked = Sealing(state="asked", changed_blocks=proof.blocks_written, linear_checksum=proof.linear_checksum)

    def save(state: Sealing) -> None:
        workspace.save_sealing(job.job_id, target.snapshot_id, state)

    accepted, refused = (asked.model_copy(update={"state": state}) for state in ("accepted", "refused"))
    if facts.state == "completed":
        # Only this step completes targets, always with count and checksum: an earlier call did.
        save(accepted)
        return
    if facts.state != "pending":
        raise TargetFailed(f"it is in state {facts.state}: {facts.state_message or 'EC2 gives no reason'}")
    save(asked)
    ebs = aws.ebs(target.identity, counts=RequestCounts(), clock=clock)
    ebs.was_started(target.snapshot_id, seconds_ago=target.started_seconds_ago(datetime.now(UTC)))
    try:
        answer = sealing.ask(
            ebs,
            ec2,
            target.snapshot_id,
            changed_blocks=proof.blocks_written,
            linear_checksum=proof.linear_checksum,
            asked_before=before is not None and before.state == "asked",
        )
    except (sealing.NotSealed, sealing.NotAsked) as error:
        save(refused)
        raise _failed(error) from error
    except RequestRefused as error:
        raise _failed(error) from error
    if answer == "accepted":
        save(accepted)


def _failed(error: BlockferryError) -> BlockferryError:
    return error if isinstance(error, sealing.NotAsked) else TargetFailed(f"it was not completed: {error}")
