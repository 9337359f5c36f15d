"""The archive that a command has begun, and what becomes of it when the command ends early.

The error that ended it is the message. What was deleted, or is left, is named in a note of it; whatever goes wrong on
the way is in that note, too, and never takes the place of the error.
"""

from __future__ import annotations

from blockferry.aws.archives import bucket_of
from blockferry.aws.call import Call
from blockferry.core.errors import InvalidRequest, TargetFailed
from blockferry.formats.archive.layout import UNFINISHED
from blockferry.jobs.record import Sealing
from blockferry.targets.archive import ArchiveTarget
from blockferry.targets.archive_claim import ArchiveState, LeftArchive, claimed_by, give_up


class Claimed:
    """The archive of a command, before and after its place was claimed, and whether its manifest was sent."""

    def __init__(self, target: ArchiveTarget, call: Call) -> None:
        self.target = target
        self._call = call
        self._noted: dict[str, Sealing] = {}

    def sealing(self, snapshot_id: str) -> Sealing | None:
        return self._noted.get(snapshot_id)

    def save_sealing(self, snapshot_id: str, sealing: Sealing) -> None:
        self._noted[snapshot_id] = sealing

    def clear(self, error: BaseException) -> None:
        """Delete what was stored, unless it is finished; ``error``, for which the command ends, gets a note of
        what was done. Raises nothing."""
        name, uri = self.target.name, self.target.address.uri()
        try:
            told = self._cleared()
        except Exception as failure:
            told = (
                f"what was begun of {name} could not be deleted ({failure}): delete it with: blockferry discard {uri}"
            )
        if told:
            error.add_note(told)

    def tell(self, error: BaseException) -> None:
        """The same for an ``error`` that came when the manifest was there. Nothing but the claim is deleted."""
        if isinstance(error, TargetFailed | InvalidRequest):
            # It says itself that there is another manifest, or none.
            error.add_note(f"what was stored of {self.target.name} is kept")
        else:
            error.add_note(self._kept())

    def unclaim(self) -> str | None:
        """Take the claim of a finished archive away; tells what is left where that cannot be done. Raises nothing."""
        target = self.target
        try:
            target.unclaim(self._call)
        except Exception as error:
            told = f"its unfinished.json could not be deleted ({error}), which is done with"
            return f"{told}: blockferry discard {target.address.uri()}"
        return None

    def _cleared(self) -> str | None:
        target = self.target
        noted = self.sealing(target.archive_id)
        state = None if noted is None else noted.state
        if state == "accepted":
            return self._kept()
        if state == "asked" and not self._never():
            confirmed(target, self._call)
            return self._kept()
        if target.started is None and not self._has_its_place():
            return None
        why = LeftArchive(target.identity, target.address).discard(self._call, self, mark=target.execution)
        return f"what was begun of {target.name} is deleted" if why is None else f"{target.name} is kept: {why}"

    def _never(self) -> bool:
        """Whether the manifest, which may still be on its way, will never be there."""
        target = self.target
        put = target.hot("application/json")
        return give_up(self._call, target.identity, target.address, mark=target.execution, put=put)

    def _has_its_place(self) -> bool:
        """Whether the claim is there, though nobody has said so."""
        target = self.target
        claim = bucket_of(self._call, target.identity, target.bucket).get(target.address.key(UNFINISHED))
        return claim is not None and claimed_by(claim) == target.execution

    def _kept(self) -> str:
        kept = f"{self.target.name} is finished and kept: {self.target.address.manifest_uri}"
        left = self.unclaim()
        return kept if left is None else f"{kept}; {left}"


def confirmed(target: ArchiveTarget, call: Call) -> ArchiveState:
    """What the stored manifest says. Raises ``TargetFailed`` when it is not this archive's, and ``InvalidRequest`` when
    there is none."""
    looked = ArchiveTarget.look({0: target}, call)
    if looked.errors:
        raise looked.errors[0]
    found: ArchiveState = looked.facts[0]
    target.confirm(found)
    return found
