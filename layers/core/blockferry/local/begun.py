"""The snapshot that an upload has begun, and what becomes of it when the upload ends early.

The error that ended it is the message. What is left is named in a note of it, by id and as it was seen; whatever goes
wrong on the way is in that note, too, and never takes the place of the error.
"""

from __future__ import annotations

from blockferry.aws.call import Call
from blockferry.aws.errors import patiently
from blockferry.aws.snapshots import EXECUTION_TAG
from blockferry.core.errors import EncryptionDiffers, InvalidRequest, NoCredentials, RequestRefused, TargetFailed
from blockferry.jobs.record import Sealing
from blockferry.targets.snapshot import LeftSnapshot, SnapshotTarget


class Begun:
    """The snapshot of an upload by its ``mark``, before and after it was started, and what EBS was asked to seal."""

    def __init__(self, target: SnapshotTarget, call: Call, *, mark: str) -> None:
        self.target = target
        self._call = call
        self._mark = mark
        self._noted: dict[str, Sealing] = {}

    def sealing(self, snapshot_id: str) -> Sealing | None:
        return self._noted.get(snapshot_id)

    def save_sealing(self, snapshot_id: str, sealing: Sealing) -> None:
        self._noted[snapshot_id] = sealing

    def clear(self, error: BaseException) -> None:
        """Delete it, unless EBS may have sealed it; ``error``, for which the upload ends, gets a note of what was done.
        Raises nothing."""
        try:
            told = self._cleared(error)
        except Exception as failure:
            told = f"what became of the snapshot of this upload is not known ({failure}): {self._how_to_find}"
        if told:
            error.add_note(told)

    def tell(self, error: BaseException) -> None:
        """The same for an ``error`` that came when EBS had taken all of it. It is kept, unless EC2 calls it failed."""
        if isinstance(error, TargetFailed):
            self.clear(error)
        elif isinstance(error, EncryptionDiffers):
            error.add_note(
                f"{self.target.name} is completed and kept: delete it with: "
                f"{self._how_to_delete(self.target.snapshot_id)}"
            )
        else:
            error.add_note(
                f"{self.target.name} is kept: EBS has taken all of it and seals it. It holds the whole image once EC2 "
                f"calls it completed: aws ec2 describe-snapshots --region {self.target.region} --snapshot-ids "
                f"{self.target.snapshot_id}"
            )

    def _cleared(self, error: BaseException) -> str | None:
        if self.target.started is not None:
            return self._deleted(self.target.snapshot_id)
        if isinstance(error, EncryptionDiffers | NoCredentials):
            # The one says itself what became of the snapshot, before the other nothing was sent.
            return None
        found = self._found(surely_none=isinstance(error, RequestRefused | InvalidRequest))
        if found:
            return "; ".join(self._deleted(snapshot_id) for snapshot_id in found)
        if isinstance(error, RequestRefused | InvalidRequest):
            return None
        return f"EC2 shows no snapshot of it; if one was started after all, {self._how_to_find}"

    def _found(self, *, surely_none: bool) -> list[str]:
        """Ids of what was started though its answer never came: EC2 may not know it yet."""
        clock, waits = self._call.clock, self._call.waits
        for look in range(1 if surely_none else waits.looks):
            if look:
                clock.sleep(waits.look_seconds)
            left = patiently(
                lambda: self.target.left_behind([], self.target.identity, self._call, mark=self._mark),
                clock=clock,
                waits=waits,
            )
            if left:
                return [each.snapshot_id for each in left]
        return []

    def _deleted(self, snapshot_id: str) -> str:
        left = LeftSnapshot(self.target.identity, snapshot_id, new=True)
        delete = f"delete it with: {self._how_to_delete(snapshot_id)}"
        try:
            why = patiently(
                lambda: left.discard(self._call, self, mark=self._mark), clock=self._call.clock, waits=self._call.waits
            )
        except Exception as failure:
            return f"the unfinished snapshot {left.name} could not be deleted: {failure}; {delete}"
        if why is None:
            return f"the unfinished snapshot {left.name} is deleted"
        noted = self.sealing(snapshot_id)
        if noted is None or noted.state == "refused":
            return f"{left.name} is kept: {why}; if nobody needs it, {delete}"
        answer = ", and its answer is not known" if noted.state == "asked" else ""
        return (
            f"{left.name} is kept: {why}{answer}. It holds the whole image if EC2 calls it completed; if it stays "
            f"pending or fails, upload again and {delete}"
        )

    def _how_to_delete(self, snapshot_id: str) -> str:
        return f"aws ec2 delete-snapshot --region {self.target.region} --snapshot-id {snapshot_id}"

    @property
    def _how_to_find(self) -> str:
        return (
            f"it is found with: aws ec2 describe-snapshots --region {self.target.region} --owner-ids self --filters "
            f"Name=tag:{EXECUTION_TAG},Values={self._mark}"
        )
