"""Deleting what a job has started: nothing that may be a good copy, and one that cannot be deleted does not stop it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Aws, Identity
from blockferry.core.errors import BlockferryError
from blockferry.jobs.record import JobTarget
from blockferry.jobs.workspace import Workspace


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
            told.append(f"Not deleted yet: {', '.join(self.failed)}")
        return ". ".join(told)


def discard(job_id: str, found: Iterable[tuple[Identity, str]], *, aws: Aws, workspace: Workspace) -> Discarded:
    """Delete snapshots of a job, all but those that EBS was asked to seal and those that are completed."""
    gone, kept, failed = [], [], []
    errors: list[BlockferryError] = []
    for identity, snapshot_id in found:
        name = f"{snapshot_id} in {identity.region}"
        try:
            sealing = workspace.sealing(job_id, snapshot_id)
            asked = sealing is not None and sealing.state != "refused"
            why = snapshots.delete(aws.ec2(identity), snapshot_id, asked_to_seal=asked)
        except (ClientError, BotoCoreError) as error:
            errors.append(translated(error))
            failed.append(f"{name} ({errors[-1]})")
        except BlockferryError as error:
            errors.append(error)
            failed.append(f"{name} ({error})")
        else:
            if why is None:
                gone.append(snapshot_id)
            else:
                kept.append(f"{name} ({why})")
    return Discarded(tuple(gone), tuple(kept), tuple(failed), tuple(errors))


def started(targets: Iterable[JobTarget]) -> list[tuple[Identity, str]]:
    """The snapshots of those targets that have one."""
    return [(target.identity, target.snapshot_id) for target in targets if target.snapshot_id]
