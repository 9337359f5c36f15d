"""What a sync may be built upon, fact by fact: the base, the parents, and which of them ``follow`` finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest, RetryLater
from blockferry.core.holes import HoleDecision, HoleMeaning, HolePolicy
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.chain import MOST_CANDIDATES, delta_base, examine_delta, follow, named_parents
from blockferry.sources.delta import BaseSnapshot, ExaminedDelta, base_record
from blockferry.sources.snapshot import copy_tags
from blockferry.targets.on_parent import SnapshotOnParent, propose_on_parents
from job_records import AT_ONCE, EXECUTION, HOME, RECOVERY, THIRD, delta
from memory_ebs import MemoryEbs, refused
from memory_ec2 import MemoryEc2, described, refusal

BASE, LATER = "snap-0000000b", "snap-00000000"
TAKEN = datetime(2026, 1, 1, tzinfo=UTC)
OWN, OTHER = "111122223333", "444455556666"
ROLE = f"arn:aws:iam::{OTHER}:role/writer"
HERE = Identity(HOME)


class Cloud:
    def __init__(self, **regions: MemoryEc2) -> None:
        self.regions = {name.replace("_", "-"): ec2 for name, ec2 in regions.items()}
        self.clients = MemoryEbs({})

    def ec2(self, identity: Identity) -> MemoryEc2:
        return self.regions[identity.region]

    def ebs(self, identity: Identity, **_: Any) -> MemoryEbs:
        return self.clients


def taken(days: int) -> datetime:
    return TAKEN - timedelta(days=days)


def at_home(snapshot_id: str = BASE, *, days: int = 1, **more: Any) -> Any:
    return described(snapshot_id, **{"StartTime": taken(days), "VolumeSize": 1, **more})


def related(*names: str) -> MemoryEbs:
    """The direct APIs of a region in which these snapshots are of the source's volume."""
    ids = [LATER, BASE, *names]
    return MemoryEbs({name: {} for name in ids}, **dict.fromkeys([LATER, *names], "vol-1"))


def request(*targets: dict[str, Any], **more: Any) -> SyncRequest:
    known: dict[str, Any] = {"snapshot_id": LATER, "targets": targets or ({"region": RECOVERY},), **more}
    return SyncRequest.model_validate(known)


def named(**more: Any) -> SyncRequest:
    return request({"region": RECOVERY, "parent_snapshot_id": "snap-0000000a"}, base_snapshot_id=BASE, **more)


def source_facts() -> SnapshotFacts:
    """The snapshot that is synced."""
    shown = described(LATER, VolumeSize=2, Description="nightly", tags={"kept": "1", "won": "1"})
    return facts(shown)


def facts(shown: Any) -> SnapshotFacts:
    return snapshots.describe(cast(Any, MemoryEc2(shown)), shown["SnapshotId"], region=RECOVERY)


def call_of(aws: Cloud, ebs: MemoryEbs | None = None) -> Call:
    if ebs is not None:
        aws.clients = ebs
    return Call(aws=cast(Any, aws), waits=AT_ONCE)


# -- the base that is named --------------------------------------------------------------------------------------------


def found_base(shown: Any, ebs: MemoryEbs | None = None) -> SnapshotFacts:
    return delta_base(BASE, source_facts(), HERE, call_of(Cloud(us_east_1=MemoryEc2(shown)), ebs or related(BASE)))


def test_a_base_is_an_earlier_snapshot_of_the_volume_that_is_no_larger() -> None:
    for shown in (at_home(), at_home(days=0), at_home(VolumeSize=2)):
        facts = found_base(shown)
        assert facts.snapshot_id == BASE
        assert base_record(facts) == BaseSnapshot(
            snapshot_id=BASE, size_gib=shown["VolumeSize"], start_time=shown["StartTime"].isoformat()
        )


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (at_home(days=-1), f"base_snapshot_id {BASE} was taken at 2026-01-02T00:00:00.00:00, after {LATER}"),
        (at_home(VolumeSize=3), f"base_snapshot_id {BASE} has 3 GiB, {LATER} has 2"),
        (at_home(state="pending"), "is pending"),
        (at_home(StorageTier="archive"), "archive tier"),
    ],
)
def test_any_other_base_is_refused_with_the_fact(shown: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        found_base(shown)


def test_a_base_of_another_volume_is_refused_and_so_is_one_whose_changes_nobody_lists() -> None:
    with pytest.raises(InvalidRequest, match=rf"{BASE} and {LATER} in {HOME} are not of one volume"):
        found_base(at_home(), related())
    ebs = related(BASE)
    ebs.errors["ListChangedBlocks"] = refused("AccessDeniedException")
    with pytest.raises(InvalidRequest, match="cannot be listed"):
        found_base(at_home(), ebs)


# -- the parents that are named ----------------------------------------------------------------------------------------


OTHERS = SyncTarget(region=THIRD, parent_snapshot_id="snap-0000000c")


def found_parents(ec2: MemoryEc2, third: MemoryEc2 | None = None) -> list[SnapshotFacts]:
    """The parents of two targets, the second of which is in the region of the first argument."""
    aws = Cloud(eu_west_1=ec2, ap_southeast_2=third or MemoryEc2(described("snap-0000000c")))
    one = SyncTarget(region=RECOVERY, parent_snapshot_id="snap-0000000a")
    return named_parents([OTHERS, one], call_of(aws))


def test_a_parent_is_looked_at_where_its_target_will_be() -> None:
    found = found_parents(MemoryEc2(described("snap-0000000a")))
    assert [facts.snapshot_id for facts in found] == ["snap-0000000c", "snap-0000000a"]
    with pytest.raises(
        InvalidRequest,
        match=rf"targets\[1\]\.parent_snapshot_id: snapshot snap-0000000a in {RECOVERY}: .* in the region and account",
    ):
        found_parents(MemoryEc2())


class Slow(MemoryEc2):
    """Shows everything as pending in its first looks."""

    pending_looks = 2

    def _called(self, operation: str) -> None:
        super()._called(operation)
        for shown in self.snapshots.values():
            shown["State"] = "pending" if self.calls[operation] <= self.pending_looks else "completed"


def test_parents_that_are_shown_as_pending_are_waited_for_and_the_others_are_left_alone() -> None:
    slow, quick = Slow(described("snap-0000000a")), MemoryEc2(described("snap-0000000c"))
    assert [facts.state for facts in found_parents(slow, quick)] == ["completed", "completed"]
    assert (slow.calls["DescribeSnapshots"], quick.calls["DescribeSnapshots"]) == (3, 1)


def test_a_role_that_cannot_be_assumed_is_told_by_the_targets_region() -> None:
    ec2 = MemoryEc2()
    ec2.errors["DescribeSnapshots"] = refusal("RegionDisabled", "AssumeRole")
    with pytest.raises(InvalidRequest, match=rf"targets\[1\]\.parent_snapshot_id: target in {RECOVERY}: the role"):
        found_parents(ec2)
    ec2.errors["DescribeSnapshots"] = refusal("Throttling", "AssumeRole")
    with pytest.raises(RetryLater):
        found_parents(ec2)


# -- base and parents that are found -----------------------------------------------------------------------------------


def copy_of(snapshot_id: str, own: str, *, days: int = 1, tags: dict[str, str] | None = None, **more: Any) -> Any:
    known = {
        snapshots.JOB_TAG: "job-0",
        snapshots.SOURCE_TAG: snapshot_id,
        snapshots.SOURCE_REGION_TAG: HOME,
        snapshots.LINEAGE_TAG: "db",
        snapshots.CHECKSUM_TAG: "c",
        snapshots.PROVED_TAG: own,
    }
    return described(own, tags={**known, **(tags or {})}, StartTime=taken(days), **more)


def followed(
    home: list[Any], recovery: list[Any], third: list[Any] | None = None, *, ebs: MemoryEbs | None = None
) -> tuple[str, list[str]]:
    aws = Cloud(us_east_1=MemoryEc2(*home), eu_west_1=MemoryEc2(*recovery), ap_southeast_2=MemoryEc2(*(third or [])))
    regions = [RECOVERY] if third is None else [RECOVERY, THIRD]
    asked = request(*({"region": region} for region in regions), follow=True)
    names = [shown["SnapshotId"] for shown in home]
    base, parents = follow(asked.targets, source_facts(), "db", HERE, call_of(aws, ebs or related(*names)))
    return base.snapshot_id, [parent.snapshot_id for parent in parents]


def test_the_newest_earlier_snapshot_with_a_copy_in_every_place_is_the_base() -> None:
    home = [at_home("snap-1", days=5), at_home("snap-2", days=3), at_home("snap-3", days=1)]
    recovery = [copy_of(f"snap-{n}", f"snap-r{n}") for n in (1, 2, 3)]
    third = [copy_of(f"snap-{n}", f"snap-t{n}") for n in (1, 2)]
    assert followed(home, recovery) == ("snap-3", ["snap-r3"])
    assert followed(home, recovery, third) == ("snap-2", ["snap-r2", "snap-t2"])


def test_of_several_copies_of_one_snapshot_the_newest_is_the_parent() -> None:
    copies = [copy_of("snap-1", f"snap-r{days}", days=days) for days in (2, 1, 3)]
    assert followed([at_home("snap-1")], copies) == ("snap-1", ["snap-r1"])


def test_of_snapshots_of_the_same_moment_the_choice_is_always_the_same() -> None:
    copies = [copy_of(f"snap-{n}", f"snap-r{n}") for n in (1, 2)]
    assert followed([at_home("snap-1"), at_home("snap-2")], copies)[0] == "snap-2"


@pytest.mark.parametrize(
    "unusable",
    [
        {"state": "pending"},
        {"state": "error"},
        {"StorageTier": "archive"},
        {"StartTime": taken(-1)},
        {"VolumeSize": 3},
    ],
)
def test_a_snapshot_that_cannot_be_a_base_is_passed_over(unusable: dict[str, Any]) -> None:
    home = [at_home("snap-1", days=5), at_home("snap-2", days=1, **unusable)]
    recovery = [copy_of(f"snap-{n}", f"snap-r{n}") for n in (1, 2)]
    assert followed(home, recovery)[0] == "snap-1"


@pytest.mark.parametrize("unusable", [{"state": "pending"}, {"StorageTier": "archive"}])
def test_a_copy_that_cannot_be_a_parent_is_passed_over(unusable: dict[str, Any]) -> None:
    recovery = [copy_of("snap-1", "snap-r1", days=2), copy_of("snap-1", "snap-r2", days=1, **unusable)]
    assert followed([at_home("snap-1")], recovery) == ("snap-1", ["snap-r1"])


def test_copies_that_are_shown_as_pending_are_waited_for_and_the_others_are_left_alone() -> None:
    slow = Slow(copy_of("snap-1", "snap-r1"))
    quick = MemoryEc2(copy_of("snap-1", "snap-t1"))
    aws = Cloud(us_east_1=MemoryEc2(at_home("snap-1")), eu_west_1=slow, ap_southeast_2=quick)
    asked = request({"region": RECOVERY}, {"region": THIRD}, follow=True)
    _, parents = follow(asked.targets, source_facts(), "db", HERE, call_of(aws, related("snap-1")))
    assert [parent.snapshot_id for parent in parents] == ["snap-r1", "snap-t1"]
    assert (slow.calls["DescribeSnapshots"], quick.calls["DescribeSnapshots"]) == (3, 1)


def test_one_pending_copy_among_others_is_waited_for() -> None:
    class OneSlow(Slow):
        def _called(self, operation: str) -> None:
            super()._called(operation)
            self.snapshots["snap-r1"]["State"] = "completed"

    home = [at_home("snap-1", days=5), at_home("snap-2", days=1)]
    recovery = OneSlow(copy_of("snap-1", "snap-r1"), copy_of("snap-2", "snap-r2"))
    aws = Cloud(us_east_1=MemoryEc2(*home), eu_west_1=recovery)
    asked = request(follow=True)
    base, _ = follow(asked.targets, source_facts(), "db", HERE, call_of(aws, related("snap-1", "snap-2")))
    assert base.snapshot_id == "snap-2"


def test_a_snapshot_as_old_as_the_source_and_as_large_may_be_its_base() -> None:
    assert followed([at_home("snap-1", days=0, VolumeSize=2)], [copy_of("snap-1", "snap-r1")])[0] == "snap-1"


def test_a_snapshot_of_another_volume_is_passed_over() -> None:
    home = [at_home("snap-1", days=5), at_home("snap-2", days=1)]
    ebs = related("snap-1")
    ebs.snapshots["snap-2"] = {}
    recovery = [copy_of(f"snap-{n}", f"snap-r{n}") for n in (1, 2)]
    assert followed(home, recovery, ebs=ebs)[0] == "snap-1"


def refused_following(*given: Any, **more: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        followed(*given, **more)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("base_is_there", [True, False])
def test_what_is_copied_already_is_named_and_not_copied_a_second_time(base_is_there: bool) -> None:
    home = [at_home(LATER, days=0), *([at_home("snap-1", days=5)] if base_is_there else [])]
    recovery = [copy_of("snap-1", "snap-r1"), copy_of(LATER, "snap-r2")]
    assert refused_following(home, recovery) == [
        f"follow: nothing to do: every target has a proved copy of {LATER} already, and nothing was started",
        f"- targets[0] in {RECOVERY}: has snap-r2",
    ]


@pytest.mark.parametrize(
    ("shown", "told"),
    [({"state": "pending"}, "snap-r2 (being sealed)"), ({"StorageTier": "archive"}, "snap-r2 (archived)")],
)
def test_a_copy_that_is_no_parent_is_a_copy(shown: dict[str, Any], told: str) -> None:
    home = [at_home(LATER, days=0), at_home("snap-1", days=5)]
    lines = refused_following(home, [copy_of("snap-1", "snap-r1"), copy_of(LATER, "snap-r2", **shown)])
    assert lines[1] == f"- targets[0] in {RECOVERY}: has {told}"


def test_targets_that_have_a_copy_already_are_told_from_those_that_have_none() -> None:
    home = [at_home(LATER, days=0), at_home("snap-1", days=5)]
    recovery = [copy_of("snap-1", "snap-r1"), copy_of(LATER, "snap-r2")]
    assert refused_following(home, recovery, [copy_of("snap-1", "snap-t1")]) == [
        f"follow: some targets have a proved copy of {LATER} already, and nothing was started: leave them out and "
        "start the job for the others",
        f"- targets[0] in {RECOVERY}: has snap-r2",
        f"- targets[1] in {THIRD}: has none",
    ]


def test_where_every_base_is_unusable_a_full_copy_is_advised_and_why_is_told() -> None:
    home = [
        at_home("snap-2", days=3, StorageTier="archive"),
        at_home("snap-3", days=-1),
        at_home("snap-4", days=2, VolumeSize=3),
        at_home("snap-5", days=1),
    ]
    recovery = [copy_of(f"snap-{n}", f"snap-r{n}") for n in range(1, 6)]
    unrelated = related()
    unrelated.snapshots["snap-5"] = {}
    head, *lines = refused_following(home, recovery, ebs=unrelated)
    assert f"Make a full copy of {LATER} with the operation copy" in head
    assert lines[1:] == [
        "- snap-1 is no base: EC2 does not know it any more",
        "- snap-2 is no base: it is in the archive tier",
        f"- snap-3 is no base: it was taken after {LATER}",
        f"- snap-4 is no base: it is larger than {LATER}",
        "- snap-5 is no base: EBS lists no changes from it",
    ]


def test_targets_with_copies_of_different_snapshots_are_synced_in_jobs_of_their_own() -> None:
    home = [at_home("snap-1", days=5), at_home("snap-2", days=3)]
    head, *_ = refused_following(home, [copy_of("snap-1", "snap-r1")], [copy_of("snap-2", "snap-t2")])
    assert "sync each in a job of its own" in head


# -- the chain that a snapshot goes on ---------------------------------------------------------------------------------

MADE_UP = "vol-ffffffff"


@pytest.mark.parametrize(
    ("volume", "tag", "name"),
    [
        ("vol-1", "db", "vol-1"),
        (MADE_UP, "upload-1", "upload-1"),
        (MADE_UP, "vol-1", "vol-1"),
        (MADE_UP, MADE_UP, None),
        (MADE_UP, None, None),
        ("", None, None),
    ],
)
def test_a_made_up_volume_names_no_chain(volume: str, tag: str | None, name: str | None) -> None:
    shown = described("snap-1", VolumeId=volume, tags={snapshots.LINEAGE_TAG: tag} if tag else {})
    (facts,) = snapshots.existing(cast(Any, MemoryEc2(shown)), ["snap-1"])
    assert snapshots.lineage_of(facts) == name


def test_a_snapshot_of_no_volume_is_followed_by_a_name_only() -> None:
    unnamed = described(LATER, VolumeSize=2, VolumeId=MADE_UP, Encrypted=False, tags={})
    recovery = MemoryEc2(copy_of("snap-1", "snap-r1"))
    ebs = related(LATER, "snap-1")

    def found(home: MemoryEc2, **more: Any) -> str:
        aws = Cloud(us_east_1=home, eu_west_1=recovery)
        return examine_delta(request(follow=True, **more), HERE, call_of(aws, ebs)).source.lineage_name

    base = at_home("snap-1", days=5)
    with pytest.raises(InvalidRequest, match=rf"follow: {LATER} has no volume of its own .*{MADE_UP}.*name it with"):
        found(MemoryEc2(unnamed, base))
    assert found(MemoryEc2(unnamed, base), lineage="db") == "db"
    tagged = described(LATER, VolumeSize=2, VolumeId=MADE_UP, Encrypted=False, tags={snapshots.LINEAGE_TAG: "db"})
    assert found(MemoryEc2(tagged, base)) == "db"


@pytest.mark.parametrize(("tags", "name"), [({snapshots.LINEAGE_TAG: "db"}, "db"), ({}, BASE)])
def test_a_delta_of_no_volume_goes_on_the_chain_of_its_base(tags: dict[str, str], name: str) -> None:
    home = MemoryEc2(
        at_home(VolumeId=MADE_UP, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]),
        described(LATER, VolumeSize=2, VolumeId=MADE_UP, Encrypted=False, tags={}),
    )
    aws = Cloud(us_east_1=home, eu_west_1=MemoryEc2(described("snap-0000000a")))
    assert examine_delta(named(), HERE, call_of(aws, related(BASE))).source.lineage_name == name


def test_without_a_common_copy_each_target_is_told_of() -> None:
    recovery = [copy_of(f"snap-{n}", f"snap-r{n}") for n in (2, 1)]
    with pytest.raises(InvalidRequest) as caught:
        followed([at_home("snap-1")], recovery, [])
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"follow: there is no earlier snapshot of lineage db that still exists in {HOME}")
    assert lines == [
        f"- targets[0] in {RECOVERY}: copies of snap-1, snap-2",
        f"- targets[1] in {THIRD}: no proven copy of this lineage",
    ]


def test_only_the_newest_candidates_are_tried() -> None:
    home = [at_home(f"snap-{n:02d}", days=100 - n) for n in range(MOST_CANDIDATES + 1)]
    recovery = [copy_of(shown["SnapshotId"], f"{shown['SnapshotId']}r") for shown in home]
    ebs = related("snap-00")
    ebs.snapshots |= {shown["SnapshotId"]: {} for shown in home}
    with pytest.raises(InvalidRequest, match="no earlier snapshot of lineage"):
        followed(home, recovery, ebs=ebs)
    assert sum(operation == "ListChangedBlocks" for operation, *_ in ebs.asked) == MOST_CANDIDATES
    assert followed(home[:-1], recovery, ebs=ebs)[0] == "snap-00"


def test_a_role_of_a_target_that_cannot_be_assumed_is_told_by_its_region() -> None:
    aws = Cloud(us_east_1=MemoryEc2(), eu_west_1=MemoryEc2())
    aws.regions[RECOVERY].errors["DescribeSnapshots"] = refusal("AccessDenied", "AssumeRole")
    with pytest.raises(InvalidRequest, match=rf"target in {RECOVERY}: the role cannot be assumed"):
        follow(request(follow=True).targets, source_facts(), "db", HERE, call_of(aws, related()))


def test_base_and_parents_that_are_named_are_taken() -> None:
    home = MemoryEc2(at_home(), described(LATER, VolumeSize=2, VolumeId="vol-1", Encrypted=False))
    aws = Cloud(us_east_1=home, eu_west_1=MemoryEc2(described("snap-0000000a")))
    found = examine_delta(named(lineage="db"), HERE, call_of(aws, related(BASE)))
    assert (found.source.snapshot_id, found.source.lineage_name, found.size_gib) == (LATER, "db", 2)
    assert found.source.base == base_record(found.base)
    assert (found.base.snapshot_id, [each.snapshot_id for each in found.parents]) == (BASE, ["snap-0000000a"])


# -- a target on top of its parent -------------------------------------------------------------------------------------

DELTA = HoleDecision(HolePolicy.PRESERVE, HoleMeaning.NOISE, HoleMeaning.NOISE, "default", "why")


def parented(
    shown: Any,
    *,
    verify: bool = False,
    base: Any = None,
    encrypts: bool = False,
    cloud: Cloud | None = None,
    decision: HoleDecision = DELTA,
    **more: Any,
) -> SnapshotOnParent:
    """The proposal of the second of two targets on top of parents."""
    ec2 = MemoryEc2(encrypts=encrypts)
    aws = cloud or Cloud(eu_west_1=ec2, us_east_1=ec2)
    aws.clients.snapshots = {shown["SnapshotId"]: {}, "snap-z": {}}
    aws.regions.setdefault(THIRD, MemoryEc2())
    based = facts(base or at_home())
    source = delta(base_record(based), snapshot_id=LATER, size_gib=2, lineage_name="db")

    class Found(ExaminedDelta):
        def decide(self, asked: HolePolicy | None, *, may_be_encrypted: bool) -> HoleDecision:
            return decision

    first = {"region": THIRD, "parent_snapshot_id": "snap-0000000e"}
    second = {"region": RECOVERY, "parent_snapshot_id": "snap-0000000f", **more}
    asked = request(first, second, base_snapshot_id=BASE, options={"verify_parent": verify})
    good = copy_of(BASE, "snap-z", VolumeSize=based.size_gib)
    found = Found(
        source=source,
        size_gib=2,
        description="nightly",
        tags={"kept": "1", "won": "1"},
        own_tags=copy_tags(source),
        snapshot=source_facts(),
        base=based,
        parents=[facts(good), facts(shown)],
    )
    return propose_on_parents(asked, found, EXECUTION, call_of(aws)).targets[1]


NAME = rf"targets\[1\]\.parent_snapshot_id snap-p in {RECOVERY}"


def test_a_target_has_its_parents_encryption_the_larger_size_and_the_tags_of_both() -> None:
    shown = copy_of(BASE, "snap-p", Encrypted=True, KmsKeyId="arn:key", VolumeSize=3)
    made = parented(shown, tags={"won": "2"}, external_id=None)
    assert made == SnapshotOnParent(
        region=RECOVERY,
        role_arn=None,
        external_id=None,
        description="nightly",
        tags={
            "kept": "1",
            "won": "2",
            snapshots.JOB_TAG: "job-1",
            snapshots.EXECUTION_TAG: EXECUTION.mark,
            snapshots.SOURCE_TAG: LATER,
            snapshots.SOURCE_REGION_TAG: HOME,
            snapshots.LINEAGE_TAG: "db",
            "blockferry:holes": "noise",
            "blockferry:base-snapshot-id": BASE,
            "blockferry:parent-snapshot-id": "snap-p",
        },
        size_gib=3,
        parent_snapshot_id="snap-p",
        parent_size_gib=3,
        parent_encrypted=True,
        parent_is_full=False,
        parent_kms_key_arn="arn:key",
    )


def test_a_description_that_is_asked_for_wins_even_an_empty_one() -> None:
    shown = copy_of(BASE, "snap-p")
    assert parented(shown, description="mine").description == "mine"
    assert parented(shown, description="").description == ""
    assert parented(shown).size_gib == 2


def test_a_target_of_a_role_has_its_parent_in_the_roles_account() -> None:
    shown = copy_of(BASE, "snap-p", OwnerId=OTHER)
    made = parented(shown, role_arn=ROLE, external_id="secret")
    assert (made.role_arn, made.external_id) == (ROLE, "secret")
    with pytest.raises(InvalidRequest, match=f"{NAME} belongs to account {OTHER}, the target is made in {OWN}"):
        parented(shown)
    with pytest.raises(InvalidRequest, match=f"belongs to account {OWN}, the target is made in {OTHER}"):
        parented(copy_of(BASE, "snap-p"), role_arn=ROLE)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"state": "pending"}, "is in state pending; only"),
        ({"state": "error", "StorageTier": "archive"}, "is in state error; only"),
        ({"StorageTier": "archive"}, "is in the archive tier; only"),
    ],
)
def test_a_parent_that_ebs_does_not_take_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{NAME} {told}"):
        parented(copy_of(BASE, "snap-p", **more))


def test_a_parent_is_no_smaller_than_the_base() -> None:
    assert parented(copy_of(BASE, "snap-p", VolumeSize=2), base=at_home(VolumeSize=2)).parent_size_gib == 2
    with pytest.raises(InvalidRequest, match=f"{NAME} has 1 GiB, the base {BASE} has 2"):
        parented(copy_of(BASE, "snap-p"), base=at_home(VolumeSize=2))


@pytest.mark.parametrize(
    ("tags", "doubt"),
    [
        ({snapshots.SOURCE_TAG: "snap-9"}, f"it was made of snap-9 in {HOME}"),
        ({snapshots.SOURCE_REGION_TAG: THIRD}, f"it was made of {BASE} in {THIRD}"),
        ({snapshots.PROVED_TAG: "snap-9"}, "its tags were copied from snap-9"),
    ],
)
def test_a_parent_whose_tags_leave_a_doubt_is_compared_or_refused(tags: dict[str, str], doubt: str) -> None:
    shown = copy_of(BASE, "snap-p", tags=tags)
    with pytest.raises(InvalidRequest, match=f"{NAME} is not shown to equal the base {BASE}: .*{doubt}"):
        parented(shown)
    assert parented(shown, verify=True).parent_snapshot_id == "snap-p"


def test_missing_tags_are_the_doubt() -> None:
    with pytest.raises(InvalidRequest, match=f"it has no tag {snapshots.SOURCE_TAG}"):
        parented(described("snap-p"))
    for missing in (snapshots.CHECKSUM_TAG, snapshots.PROVED_TAG, snapshots.JOB_TAG):
        shown = copy_of(BASE, "snap-p")
        shown["Tags"] = [tag for tag in shown["Tags"] if tag["Key"] != missing]
        with pytest.raises(InvalidRequest, match="it lacks the tags"):
            parented(shown)


def test_the_base_itself_is_its_clone_where_it_lies() -> None:
    assert parented(at_home(), region=HOME).parent_snapshot_id == BASE
    # Neither is the same id in another region, nor another snapshot in the same one.
    for shown, region in ((at_home(), RECOVERY), (described("snap-p"), HOME)):
        with pytest.raises(InvalidRequest, match="is not shown to equal the base"):
            parented(shown, region=region)


def test_a_parent_that_is_to_be_compared_must_be_readable() -> None:
    cloud = Cloud(eu_west_1=MemoryEc2())
    cloud.clients.errors["ListSnapshotBlocks"] = refused("AccessDeniedException")
    shown = copy_of(BASE, "snap-p")
    with pytest.raises(InvalidRequest, match=r"options\.verify_parent: targets\[0\]: snapshot snap-z .*cannot be read"):
        parented(shown, verify=True, cloud=cloud)
    assert parented(shown, cloud=cloud).parent_snapshot_id == "snap-p"


def test_an_unencrypted_parent_is_refused_where_the_account_encrypts_by_default() -> None:
    with pytest.raises(
        InvalidRequest, match=f"{NAME} is not encrypted, and the account encrypts by default in {RECOVERY}"
    ):
        parented(copy_of(BASE, "snap-p"), encrypts=True)
    assert parented(copy_of(BASE, "snap-p", Encrypted=True), encrypts=True).parent_encrypted


def test_holes_that_do_not_read_as_those_of_the_base_are_refused_or_compared() -> None:
    zeros = HoleDecision(HolePolicy.PRESERVE, HoleMeaning.ZEROS, HoleMeaning.ZEROS, "default", "zeros were left out")

    def on_encrypted(*, verify: bool) -> SnapshotOnParent:
        return parented(copy_of(BASE, "snap-p", Encrypted=True, VolumeSize=2), verify=verify, decision=zeros)

    with pytest.raises(InvalidRequest, match=f"{NAME} is encrypted.*zeros were left out"):
        on_encrypted(verify=False)
    made = on_encrypted(verify=True)
    assert (made.parent_is_full, made.tags[snapshots.HOLES_TAG]) == (True, "none")
