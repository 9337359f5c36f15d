"""Every combination of what is known of holes, against what may be done about them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from blockferry.aws.snapshots import HOLES_TAG, PROVED_TAG, SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy, worst
from blockferry.sources.meaning import ParentHoles, for_delta, for_image, for_snapshot, meaning_of, on_parent

NAME = "snap-00000000000000001"
NONE, NOISE, UNKNOWN, ZEROS = HoleMeaning
PRESERVE, ZERO_FILL, SKIP_ZERO = HolePolicy

BOTH = (False, True)


def facts(meaning: str | None = None, *, own: bool = True, size_gib: int = 1, **more: bool) -> SnapshotFacts:
    tags = {} if meaning is None else {HOLES_TAG: meaning, PROVED_TAG: NAME if own else "snap-00000000000000002"}
    return SnapshotFacts(
        snapshot_id=NAME,
        state="completed",
        size_gib=size_gib,
        tier="standard",
        owner_id="111122223333",
        volume_id="vol-0123456789abcdef0" if more.get("volume") else "vol-ffffffff",
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        description="",
        tags=tags,
        encrypted=more.get("encrypted", False),
        kms_key_id=None,
        full_size_bytes=None,
        state_message="",
    )


def test_the_worst_of_several_meanings_is_the_one_that_claims_least() -> None:
    assert worst(NONE, NOISE) is NOISE
    assert worst(UNKNOWN, NOISE, NONE) is UNKNOWN
    assert worst(UNKNOWN, ZEROS) is ZEROS


@pytest.mark.parametrize(
    ("meaning", "own", "volume", "expected"),
    [
        ("none", True, False, NONE),
        ("none", False, False, UNKNOWN),
        ("noise", True, False, NOISE),
        ("noise", False, False, UNKNOWN),
        ("zeros", False, False, ZEROS),
        ("unknown", True, False, UNKNOWN),
        ("a later word", True, True, UNKNOWN),
        (None, True, False, UNKNOWN),
        (None, True, True, NOISE),
        ("none", False, True, NOISE),
        ("zeros", False, True, ZEROS),
        ("unknown", False, True, UNKNOWN),
    ],
)
def test_what_warns_is_believed_everywhere_and_what_calms_only_of_the_snapshot_itself(
    meaning: str | None, own: bool, volume: bool, expected: HoleMeaning
) -> None:
    assert meaning_of(facts(meaning, own=own, volume=volume))[0] is expected


def test_a_proved_snapshot_without_a_word_about_its_holes_says_nothing_of_them() -> None:
    silent = replace(facts(), tags={PROVED_TAG: NAME})
    assert silent.names_itself
    assert meaning_of(silent)[0] is UNKNOWN


@pytest.mark.parametrize("meaning", HoleMeaning)
def test_an_encrypted_snapshot_has_noise_in_its_holes_unless_it_has_none(meaning: HoleMeaning) -> None:
    assert meaning_of(facts(meaning, encrypted=True))[0] is (NONE if meaning is NONE else NOISE)
    assert meaning_of(facts(meaning, own=False, encrypted=True))[0] is NOISE


@pytest.mark.parametrize(("meaning", "encrypted"), list(itertools.product(HoleMeaning, BOTH)))
def test_where_no_hole_reads_differently_the_blocks_of_the_source_are_copied(
    meaning: HoleMeaning, encrypted: bool
) -> None:
    for may_be, asked in itertools.product([encrypted, False], [None, PRESERVE]):
        decision = for_snapshot(asked, facts(meaning, encrypted=encrypted), may_be_encrypted=may_be)
        known = meaning_of(facts(meaning, encrypted=encrypted))[0]
        assert (decision.policy, decision.taken_for, decision.left) == (PRESERVE, known, known)
        assert decision.by == ("default" if asked is None else "request")
        assert (SKIP_ZERO in decision.possible) is not (may_be or encrypted)
        assert {PRESERVE, ZERO_FILL} <= set(decision.possible)


@pytest.mark.parametrize(
    ("meaning", "asked", "policy", "left"),
    [
        (NONE, None, PRESERVE, NONE),
        (NONE, PRESERVE, PRESERVE, NONE),
        (NOISE, None, PRESERVE, NOISE),
        (NOISE, PRESERVE, PRESERVE, NOISE),
        (UNKNOWN, None, None, NOISE),
        (UNKNOWN, PRESERVE, PRESERVE, NOISE),
        (ZEROS, None, ZERO_FILL, NONE),
        *((meaning, ZERO_FILL, ZERO_FILL, NONE) for meaning in HoleMeaning),
    ],
)
def test_where_holes_read_differently_what_they_stand_for_decides(
    meaning: HoleMeaning, asked: HolePolicy | None, policy: HolePolicy | None, left: HoleMeaning
) -> None:
    decision = for_snapshot(asked, facts(meaning), may_be_encrypted=True)
    assert (decision.policy, decision.taken_for, decision.left) == (policy, meaning, left)
    assert decision.possible == ((ZERO_FILL,) if meaning is ZEROS else (PRESERVE, ZERO_FILL))


def test_zeros_are_never_left_as_holes_that_read_as_noise() -> None:
    with pytest.raises(InvalidRequest, match="preserve is not safe"):
        for_snapshot(PRESERVE, facts(ZEROS), may_be_encrypted=True)


@pytest.mark.parametrize(
    ("asked", "may_be", "fills", "policy", "left"),
    [
        (None, False, False, SKIP_ZERO, ZEROS),
        (None, True, False, PRESERVE, NOISE),
        (None, True, True, PRESERVE, NONE),
        (PRESERVE, False, False, PRESERVE, NOISE),
        (PRESERVE, True, True, PRESERVE, NONE),
        (ZERO_FILL, True, False, ZERO_FILL, NONE),
        (SKIP_ZERO, False, True, SKIP_ZERO, ZEROS),
    ],
)
def test_all_of_an_image_was_written(
    asked: HolePolicy | None, may_be: bool, fills: bool, policy: HolePolicy, left: HoleMeaning
) -> None:
    decision = for_image(asked, may_be_encrypted=may_be, fills_volume=fills)
    assert (decision.policy, decision.taken_for, decision.left) == (policy, ZEROS, left)
    assert (SKIP_ZERO in decision.possible) is not may_be
    assert decision.by == ("default" if asked is None else "request")


def test_zeros_that_are_left_out_are_told_of() -> None:
    decision = for_snapshot(SKIP_ZERO, facts(NOISE), may_be_encrypted=False)
    assert (decision.policy, decision.left, decision.by) == (SKIP_ZERO, ZEROS, "request")


def test_a_delta_has_the_worst_meaning_of_both_of_its_snapshots() -> None:
    for base, later in itertools.product(HoleMeaning, HoleMeaning):
        decision = for_delta(None, facts(base), facts(later))
        assert decision.taken_for is worst(base, later)
        assert decision.reason == meaning_of(facts(worst(base, later)))[1]
        assert (decision.policy, decision.by) == (PRESERVE, "default")
    assert for_delta(PRESERVE, facts(), facts()).by == "request"


CASES = list(itertools.product(HoleMeaning, [*HoleMeaning, None], BOTH, BOTH, BOTH, BOTH, BOTH, BOTH))


def outcome(
    parent: SnapshotFacts, later: SnapshotFacts, delta: HoleDecision, *, clone: bool, verify: bool
) -> ParentHoles | str:
    """What is known of the holes of the target, or why it is refused."""
    try:
        return on_parent(parent, snapshot=later, delta=delta, clone=clone, verify=verify, name="the parent")
    except InvalidRequest as error:
        return str(error)


def test_a_parent_is_built_upon_only_if_its_holes_read_as_those_of_the_base_or_nobody_wrote_there() -> None:
    accepted = 0
    for meaning, tag, own, parent_encrypted, clone, verify, grows, asked in CASES:
        delta = HoleDecision(PRESERVE, meaning, meaning, "request" if asked else "default", "why")
        parent = facts(tag, own=own, encrypted=parent_encrypted)
        later = facts(size_gib=2 if grows else 1)
        case = (meaning, tag, own, parent_encrypted, clone, verify, grows, asked)
        without_holes = tag is NONE and own and not grows
        answered = meaning is UNKNOWN and (asked or (clone and own and tag is NOISE))
        shown = verify and not grows
        harmless = meaning in (NONE, NOISE)
        found = outcome(parent, later, delta, clone=clone, verify=verify)
        if isinstance(found, str):
            assert parent_encrypted, case
            assert not any((without_holes, answered, shown, harmless)), case
            assert ("set options.holes to preserve" in found) is (meaning is UNKNOWN), case
            continue
        accepted += 1
        assert found.full is (parent_encrypted and not (without_holes or answered or harmless)), case
        if parent_encrypted:
            assert without_holes or answered or shown or harmless, case
            assert found.left is (NONE if without_holes or found.full else NOISE), case
        elif without_holes:
            assert found.left is NONE, case
        else:
            assert found.left is (worst(meaning_of(parent)[0], meaning) if clone else ZEROS), case
    assert 0 < accepted < len(CASES)


def test_an_encrypted_parent_of_an_encrypted_source_reads_as_its_base() -> None:
    for meaning, tag in itertools.product(HoleMeaning, [UNKNOWN, ZEROS, None]):
        delta = HoleDecision(PRESERVE, meaning, meaning, "default", "why")
        parent, later = facts(tag, encrypted=True), facts(encrypted=True)
        found = on_parent(parent, snapshot=later, delta=delta, clone=False, verify=True, name="the parent")
        assert (found.left, found.full) == (NOISE, False)
