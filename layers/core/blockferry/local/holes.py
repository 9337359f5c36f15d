"""What an upload does about the zeros and holes of an image on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy
from blockferry.core.ports import BlockSource
from blockferry.sources.device import ImageSource
from blockferry.sources.device_delta import ImageDelta
from blockferry.sources.extents import WholeImage, WrittenImage, tells_extents
from blockferry.sources.snapshot import SnapshotSource

CANNOT_TELL = {
    "code": "unwritten_extents_unknown",
    "message": "the image's file system does not tell holes from zeros that were written without data (no FIEMAP): all "
    "of the image counts as written",
}


@dataclass(frozen=True)
class UploadHoles:
    """The decision about an upload's holes, carried out.

    ``source`` gives what the image counts as written, ``fills`` says that zeros of it go over holes of a parent.
    """

    decision: HoleDecision
    policy: HolePolicy
    source: BlockSource
    fills: bool
    warnings: tuple[Mapping[str, str], ...] = ()

    def to_put(self, parent: SnapshotSource | None) -> tuple[BlockSource, HolePolicy]:
        """The blocks to put, on top of the parent if there is one, and the policy for putting them."""
        if parent is None:
            return self.source, self.policy
        return ImageDelta(self.source, parent, fills=self.fills), HolePolicy.PRESERVE


def decide(
    asked: HolePolicy | None, image: ImageSource, *, may_be_encrypted: bool, on_parent: bool, total_blocks: int
) -> UploadHoles:
    """The decision about an image for a volume of so many blocks. Without ``asked`` nothing that anybody may have
    written becomes a hole that does not read as zeros.

    Raises ``InvalidRequest`` for ``skip_zero`` where holes do not read as zeros.
    """
    possible = [HolePolicy.PRESERVE, HolePolicy.ZERO_FILL]
    if not may_be_encrypted:
        possible.append(HolePolicy.SKIP_ZERO)
    elif asked is HolePolicy.SKIP_ZERO:
        raise InvalidRequest(
            "--holes skip_zero is not safe: the snapshot is or may be encrypted, and a block that is absent there does "
            "not read as zeros; leave --holes out, or use preserve"
        )

    def decided(policy: HolePolicy, taken_for: HoleMeaning, left: HoleMeaning, reason: str) -> HoleDecision:
        return HoleDecision(policy, taken_for, left, "default" if asked is None else "request", reason, tuple(possible))

    whole = WholeImage(image, image.total_blocks)
    behind = HoleMeaning.NONE if image.total_blocks == total_blocks else HoleMeaning.NOISE
    if asked is HolePolicy.ZERO_FILL:
        decision = decided(asked, HoleMeaning.ZEROS, HoleMeaning.NONE, "every block of the volume is written")
        every = WholeImage(image, total_blocks) if on_parent else image
        return UploadHoles(decision, HolePolicy.ZERO_FILL, every, fills=True)
    if asked is HolePolicy.PRESERVE:
        if tells_extents(image.fileno()):
            reason = "nobody wrote where the file has neither data nor an unwritten extent"
            decision = decided(asked, HoleMeaning.NOISE, HoleMeaning.NOISE, reason)
            return UploadHoles(decision, HolePolicy.PRESERVE, WrittenImage(image), fills=True)
        decision = decided(asked, HoleMeaning.ZEROS, behind, CANNOT_TELL["message"])
        return UploadHoles(decision, HolePolicy.PRESERVE, whole, fills=True, warnings=(CANNOT_TELL,))
    if may_be_encrypted:
        reason = (
            "the snapshot is or may be encrypted, and a hole of a file may be zeros that somebody wrote, so all of the "
            "image is written"
        )
        return UploadHoles(
            decided(HolePolicy.PRESERVE, HoleMeaning.ZEROS, behind, reason), HolePolicy.PRESERVE, whole, fills=True
        )
    reason = "holes of an unencrypted snapshot read as zeros"
    decision = decided(HolePolicy.SKIP_ZERO, HoleMeaning.ZEROS, HoleMeaning.ZEROS, reason)
    return UploadHoles(decision, HolePolicy.SKIP_ZERO, image, fills=False)
