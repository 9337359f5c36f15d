"""What the holes of a source stand for, and what a job may therefore do about them. No AWS in here.

Zeros that somebody wrote are never turned into a hole that does not read as zeros. Where nobody can know whether
somebody wrote there, the operator decides. Reasons: docs/decisions, 15.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockferry.aws.snapshots import HOLES_TAG, SnapshotFacts, has_volume
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import FULL_COPY, HoleDecision, HoleMeaning, HolePolicy, worst

_HARMLESS = frozenset({HoleMeaning.NONE, HoleMeaning.NOISE})


def meaning_of(facts: SnapshotFacts) -> tuple[HoleMeaning, str]:
    """What the holes of a snapshot stand for, and how that is known.

    Tags travel with restored volumes and backup tools. One that warns is believed wherever it is; one that says that
    all is well only where it names the snapshot itself.
    """
    name, tag = facts.snapshot_id, facts.tags.get(HOLES_TAG)
    said = f"its tag {HOLES_TAG} says {tag}"
    if tag == HoleMeaning.NONE and facts.names_itself:
        return HoleMeaning.NONE, f"{name} has no holes: {said}"
    if facts.encrypted:
        return HoleMeaning.NOISE, f"{name} is encrypted, so its holes read as noise there already"
    if tag == HoleMeaning.ZEROS:
        return HoleMeaning.ZEROS, f"zeros may have been left out of {name}: {said}"
    if tag is not None and tag not in _HARMLESS:
        return HoleMeaning.UNKNOWN, f"what the holes of {name} stand for is not known: {said}"
    if has_volume(facts.volume_id):
        return HoleMeaning.NOISE, f"{name} was made by EBS of {facts.volume_id}: what nobody wrote is a hole"
    if tag == HoleMeaning.NOISE and facts.names_itself:
        return HoleMeaning.NOISE, f"nobody wrote where {name} has holes: {said}"
    return HoleMeaning.UNKNOWN, (
        f"{name} is not of a volume, and no tag {HOLES_TAG} of its own says whether zeros were left out of it"
    )


def for_snapshot(asked: HolePolicy | None, facts: SnapshotFacts, *, may_be_encrypted: bool) -> HoleDecision:
    """What a full copy of a snapshot does: see ``for_holes``."""
    meaning, reason = meaning_of(facts)
    return for_holes(asked, meaning, reason, encrypted=facts.encrypted, may_be_encrypted=may_be_encrypted)


def for_holes(
    asked: HolePolicy | None, meaning: HoleMeaning, reason: str, *, encrypted: bool, may_be_encrypted: bool
) -> HoleDecision:
    """What is done about the holes of a source, which stand for ``meaning`` for this ``reason``. ``encrypted`` tells of
    the source, ``may_be_encrypted`` of any target; one policy holds for all.

    Without a policy in the decision the operator has to choose one of the possible ones. Raises ``InvalidRequest`` for
    a choice that could lose zeros.
    """
    differs = may_be_encrypted and meaning not in _HARMLESS
    possible = [HolePolicy.ZERO_FILL]
    if not (differs and meaning is HoleMeaning.ZEROS):
        possible.insert(0, HolePolicy.PRESERVE)
    if not (may_be_encrypted or encrypted):
        possible.append(HolePolicy.SKIP_ZERO)

    def decided(policy: HolePolicy | None, left: HoleMeaning) -> HoleDecision:
        return HoleDecision(policy, meaning, left, "default" if asked is None else "request", reason, tuple(possible))

    if asked is HolePolicy.ZERO_FILL:
        return decided(asked, HoleMeaning.NONE)
    if asked is HolePolicy.SKIP_ZERO:
        return decided(asked, HoleMeaning.ZEROS)
    if not differs:
        return decided(HolePolicy.PRESERVE, meaning)
    if meaning is HoleMeaning.ZEROS:
        if asked is HolePolicy.PRESERVE:
            raise InvalidRequest(
                f"options.holes: preserve is not safe: {reason}, and a hole of a target that is or may be encrypted "
                "does not read as zeros; use zero_fill, or leave holes out, which decides for it"
            )
        return decided(HolePolicy.ZERO_FILL, HoleMeaning.NONE)
    # The operator's word that nobody wrote there holds for the targets.
    return decided(asked, HoleMeaning.NOISE)


def for_image(asked: HolePolicy | None, *, may_be_encrypted: bool, fills_volume: bool) -> HoleDecision:
    """What a fanout of a disk image does, which does not tell holes from zeros: everything in it was written.

    ``fills_volume`` says that nothing of the volume lies behind the image's end, where nobody wrote.
    """
    possible = [HolePolicy.PRESERVE, HolePolicy.ZERO_FILL]
    if not may_be_encrypted:
        possible.append(HolePolicy.SKIP_ZERO)
    policy = asked or (HolePolicy.PRESERVE if may_be_encrypted else HolePolicy.SKIP_ZERO)
    left = {
        HolePolicy.PRESERVE: HoleMeaning.NONE if fills_volume else HoleMeaning.NOISE,
        HolePolicy.ZERO_FILL: HoleMeaning.NONE,
        HolePolicy.SKIP_ZERO: HoleMeaning.ZEROS,
    }[policy]
    return HoleDecision(
        policy,
        HoleMeaning.ZEROS,
        left,
        "default" if asked is None else "request",
        "an image does not tell holes from zeros",
        tuple(possible),
    )


def for_delta(asked: HolePolicy | None, base: SnapshotFacts, snapshot: SnapshotFacts) -> HoleDecision:
    """What a sync does: its holes are those of the parents, wherever base and snapshot have one, too."""
    found = [meaning_of(base), meaning_of(snapshot)]
    meaning = worst(*(each for each, _ in found))
    reason = next(why for each, why in found if each is meaning)
    return HoleDecision(
        HolePolicy.PRESERVE,
        meaning,
        meaning,
        "default" if asked is None else "request",
        reason,
        (HolePolicy.PRESERVE,),
    )


@dataclass(frozen=True)
class ParentHoles:
    """What the holes of a target on top of a parent stand for; ``full`` says that the parent may not have any, which
    the comparison has to show."""

    left: HoleMeaning
    full: bool = False


def on_parent(
    parent: SnapshotFacts, *, snapshot: SnapshotFacts, delta: HoleDecision, clone: bool, verify: bool, name: str
) -> ParentHoles:
    """What is known of the holes of a target on top of this parent, which is a ``clone`` of the base by its id or tags,
    or else is compared with it (``verify``).

    Raises ``InvalidRequest`` when a hole of the parent may not read as the same hole of the base. ``name`` is the
    parent's in the text.
    """
    own, meaning = meaning_of(parent)[0], delta.taken_for
    grows = snapshot.size_gib > parent.size_gib
    if own is HoleMeaning.NONE and not grows:
        return ParentHoles(HoleMeaning.NONE)
    if not parent.encrypted:
        # A comparison takes a hole for the zeros that the base has there, which is how both read.
        return ParentHoles(worst(own, meaning) if clone else HoleMeaning.ZEROS)
    if snapshot.encrypted or meaning in _HARMLESS:
        return ParentHoles(HoleMeaning.NOISE)
    unknown = meaning is HoleMeaning.UNKNOWN
    decided = clone and parent.names_itself and parent.tags.get(HOLES_TAG) == HoleMeaning.NOISE
    if unknown and (delta.by == "request" or decided):
        return ParentHoles(HoleMeaning.NOISE)
    if verify and not grows:
        return ParentHoles(HoleMeaning.NONE, full=True)
    raise InvalidRequest(
        f"{name} is encrypted, so its holes do not read as those of the source, and {delta.reason}; {FULL_COPY}"
        + ("; or set options.holes to preserve, if nobody relies on zeros there" if unknown else "")
    )
