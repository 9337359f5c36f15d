"""What each way to copy or keep a snapshot costs, against figures worked out by hand, and which one is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from blockferry.core.delta import Delta
from blockferry.cost.choice import Choice, Destination, Subject
from blockferry.cost.copying import copying, recommended
from blockferry.cost.keeping import CLASSES, cheapest_keep, keeping
from blockferry.cost.prices import prices

OWNER, OTHER = "111122223333", "444455556666"
GIB = 2048
TIB = 1024 * GIB
KEY = f"arn:aws:kms:us-east-1:{OWNER}:key/1"
NEW_KEY = f"arn:aws:kms:us-east-1:{OWNER}:key/2"
THERE = f"arn:aws:kms:eu-west-1:{OWNER}:key/3"
WORKER = GIB / 2 / 60 * 1.769 * 0.0000133334
"""Lambda for one GiB at 60 MiB/s: $0.0004026."""


def subject(blocks: int = GIB, *, total: int | None = None, **more: Any) -> Subject:
    values: dict[str, Any] = {
        "snapshot_id": "snap-b",
        "region": "us-east-1",
        "home_region": "us-east-1",
        "owner_id": OWNER,
        "total_blocks": total or max(blocks, GIB),
        "allocated_blocks": blocks,
        **more,
    }
    return Subject(**values)


def to(region: str = "us-east-1", account: str = OWNER, **more: Any) -> Destination:
    return Destination(name=more.pop("name", "targets[0]"), region=region, account=account, **more)


def choices(what: Subject, *targets: Destination) -> dict[str, Choice]:
    return {choice.name: choice for choice in (*copying(what, targets or (to(),)), *keeping(what))}


def advice(what: Subject, *targets: Destination) -> dict[str, Any]:
    places = targets or (to(),)
    return recommended(copying(what, places), what, places)


DELTA: dict[str, Any] = {"base_snapshot_id": "snap-a", "delta": Delta(added=10, overwritten=20, removed=5)}


def test_a_full_copy_of_a_gib_inside_a_region() -> None:
    direct = choices(subject())["direct"].to_json()
    assert direct["requests"] == {"ListSnapshotBlocks": 3, "GetSnapshotBlock": 2048, "PutSnapshotBlock": 2048}
    by_hand = 0.018432 + 3 * 0.0000006 + WORKER + 0.0000002 + 4 * 0.000025
    assert direct["one_time_usd"] == pytest.approx(by_hand, abs=1e-6)
    assert direct["one_time_usd"] == 0.018937
    assert (direct["monthly_usd"], direct["restore_usd"], direct["minimum_days"]) == (0.05, 0.0, 0)
    assert direct["year_usd"] == pytest.approx(by_hand + 0.6, abs=1e-6)
    assert direct["seconds"] == 3


def test_a_full_copy_of_a_tib_takes_35_minutes_and_costs_nineteen_dollars() -> None:
    direct = choices(subject(TIB))["direct"].to_json()
    assert direct["seconds"] == 2098
    by_hand = 1024 * (0.018432 + WORKER) + 1025 * 0.0000006 + 512 * (4 * 0.000025 + 0.0000002)
    assert direct["one_time_usd"] == pytest.approx(by_hand, abs=1e-6)
    assert 18.87 < direct["one_time_usd"] < 19.4


def test_a_copy_to_many_regions_reads_once_and_writes_each() -> None:
    what = subject()
    direct = choices(what, to("eu-west-1"), to("us-east-2"), to("us-west-2"))["direct"]
    assert direct.requests is not None
    assert (direct.requests["GetSnapshotBlock"], direct.requests["PutSnapshotBlock"]) == (2048, 3 * 2048)
    transfer = 0.02 + 0.01 + 0.02
    by_hand = 0.006144 + 3 * (0.012288 + WORKER) + transfer + 3 * 0.0000006 + 0.0000002 + 0.0001
    assert direct.bill.usd == pytest.approx(by_hand, abs=1e-6)
    assert direct.seconds == 3


def test_targets_of_one_account_and_region_share_its_quota() -> None:
    assert choices(subject(), to(encrypted=True), to())["direct"].seconds == 5
    assert choices(subject(), to(), to(account=OTHER))["direct"].seconds == 3


def test_data_goes_by_way_of_the_region_in_which_workers_run() -> None:
    what = subject(region="sa-east-1", home_region="us-east-1")
    near = choices(subject(region="sa-east-1", home_region="sa-east-1"), to("sa-east-1"))["direct"]
    far = choices(what, to("sa-east-1"))["direct"]
    assert far.bill.usd - near.bill.usd == pytest.approx(0.138 + 0.02)


def test_copy_snapshot_costs_transfer_and_storage_only() -> None:
    native = choices(subject(), to("eu-west-1"))["copy_snapshot"].to_json()
    assert (native["one_time_usd"], native["monthly_usd"], native["year_usd"]) == (0.02, 0.05, 0.62)
    assert native["seconds"] is native["requests"] is None
    assert native["conditions"] == []


def test_copy_snapshot_beside_its_source_with_the_same_key_stores_nothing() -> None:
    native = choices(subject(encrypted=True, kms_key_id=KEY), to(kms_key_arn=KEY))["copy_snapshot"].to_json()
    assert (native["one_time_usd"], native["monthly_usd"], native["year_usd"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("more", "target"),
    [
        ({"encrypted": True, "kms_key_id": KEY}, {"kms_key_arn": NEW_KEY}),
        ({}, {"kms_key_arn": NEW_KEY}),
        ({}, {"encrypted": True}),
    ],
    ids=["another key", "a first key", "encryption"],
)
def test_copy_snapshot_beside_its_source_is_full_when_the_key_changes(more: Any, target: Any) -> None:
    native = choices(subject(**more, **DELTA), to(**target))["copy_snapshot"].to_json()
    assert (native["monthly_usd"], native["year_usd"]) == (0.05, 0.6)
    assert "full, because the copy gets another key" in native["notes"][0]


def test_copy_snapshot_of_a_delta_elsewhere_is_incremental_on_top_of_a_copy_that_it_made_of_the_base() -> None:
    native = choices(subject(**DELTA), to("eu-west-1", native_base_id="snap-n"))["copy_snapshot"].to_json()
    changed = 30 / GIB
    assert native["one_time_usd"] == pytest.approx(changed * 0.02, abs=1e-6)
    assert native["monthly_usd"] == pytest.approx(changed * 0.05, abs=1e-6)
    assert native["conditions"] == ["snap-n is the latest copy of the volume in eu-west-1"]
    assert "incremental on top of snap-n, a copy of snap-a by CopySnapshot" in native["notes"][0]


def test_copy_snapshot_that_goes_on_with_an_encrypted_copy_has_to_be_told_its_key() -> None:
    what = subject(encrypted=True, kms_key_id=KEY, **DELTA)
    told = choices(what, to("eu-west-1", native_base_id="snap-n"))["copy_snapshot"].conditions
    assert "CopySnapshot is told the key of snap-n" in told
    named = choices(what, to("eu-west-1", native_base_id="snap-n", kms_key_arn=THERE))["copy_snapshot"].conditions
    assert not any("is told the key" in text for text in named)


@pytest.mark.parametrize("stands", [{}, {"parent_id": "snap-p"}], ids=["nothing", "a copy by this software"])
def test_copy_snapshot_of_a_delta_is_full_where_it_has_made_no_copy_of_the_base(stands: dict[str, str]) -> None:
    native = choices(subject(**DELTA), to("eu-west-1", **stands))["copy_snapshot"].to_json()
    assert (native["one_time_usd"], native["monthly_usd"], native["conditions"]) == (0.02, 0.05, [])
    assert "full, because no copy of snap-a by CopySnapshot was seen there" in native["notes"][0]


def test_a_sync_moves_a_delta_with_its_removed_blocks_as_zeros() -> None:
    sync = choices(subject(**DELTA), to("eu-west-1", parent_id="snap-p"))["sync"]
    assert sync.requests == {
        "ListSnapshotBlocks": 2,
        "ListChangedBlocks": 3,
        "GetSnapshotBlock": 30,
        "PutSnapshotBlock": 35,
    }
    assert sync.notes == ["targets[0]: on top of snap-p, a proved copy of snap-a"]
    assert sync.monthly.usd == pytest.approx(35 / GIB * 0.05)
    assert sync.to_json()["parents"] == ["snap-p"]


def test_a_sync_is_possible_only_where_every_target_has_a_parent() -> None:
    why = "no proved copy of snap-a stands in us-west-2"
    places = (to("eu-west-1", parent_id="snap-p"), to("us-west-2", no_parent=why))
    sync = choices(subject(**DELTA), *places)["sync"].to_json()
    assert (sync["possible"], sync["why_not"], sync["one_time_usd"]) == (False, why, None)


def test_the_copy_in_full_is_priced_beside_the_sync() -> None:
    found = choices(subject(**DELTA), to("eu-west-1", parent_id="snap-p"))
    assert found["direct"].to_json() == choices(subject(), to("eu-west-1"))["direct"].to_json()
    assert "sync" not in choices(subject(), to("eu-west-1", parent_id="snap-p"))


@pytest.mark.parametrize(
    ("blocks", "copies", "minutes", "usd"),
    [
        # The user guide's own examples and price list; every price plus $0.02 of transfer a GiB.
        (GIB, 1, 15, 0.02),
        (450_000 * 2, 1, 15, 0.02),  # 450,000 MiB at 500 MiB/s are 15 minutes exactly
        (450_000 * 2 + 1, 1, 30, 0.018),
        (900_000 * 2, 1, 30, 0.018),
        (TIB, 1, 45, 0.018),
        (2 * TIB, 1, 75, 0.016),
        (16 * TIB, 1, 570, 0.010),
        (64 * TIB, 1, 2250, 0.005),
        (TIB, 8, 75, 0.016),  # eight copies share 2,000 MiB/s
    ],
)
def test_the_fastest_time_based_copy_keeps_to_the_throughput_of_aws(
    blocks: int, copies: int, minutes: int, usd: float
) -> None:
    targets = [to("eu-west-1", name=f"targets[{n}]") for n in range(copies)]
    timed = choices(subject(blocks), *targets)["time_based_copy"].to_json()
    size = blocks / GIB
    assert timed["seconds"] == minutes * 60
    assert timed["fastest"]["minutes"] == minutes
    assert timed["one_time_usd"] == pytest.approx(copies * size * (usd + 0.02), rel=1e-6, abs=1e-6)
    assert timed["cheapest"]["usd_per_gib"] == 0.005
    assert timed["cheapest"]["minutes"] == max(960, minutes)
    assert [band["minutes"] is not None for band in timed["bands"]] == sorted(
        band["minutes"] is not None for band in timed["bands"]
    )
    assert len(timed["bands"]) == 7


def test_a_time_based_copy_that_takes_more_than_two_days_is_not_possible() -> None:
    timed = choices(subject(64 * TIB), *[to("eu-west-1", name=f"targets[{n}]") for n in range(8)])["time_based_copy"]
    assert "4485 minutes" in str(timed.why_not)
    assert timed.to_json()["one_time_usd"] is None


@pytest.mark.parametrize(
    ("name", "year"),
    [
        # Worked out in the cost model for twelve months and one restore of one GiB; there the worker has 2 GB.
        ("snapshot_archive_tier", 0.180),
        ("s3_standard_ia", 0.180),
        ("s3_glacier_ir", 0.098),
        ("s3_glacier", 0.075),
        ("s3_deep_archive", 0.056),
    ],
)
def test_keeping_a_gib_for_a_year_with_one_restore(name: str, year: float) -> None:
    assert choices(subject())[name].to_json()["year_usd"] == pytest.approx(year, abs=0.0006)


def test_an_archive_in_glacier_by_hand() -> None:
    found = choices(subject())["s3_glacier"].to_json()
    run = WORKER + 0.0000002 + 0.0001
    assert found["requests"] == {"ListSnapshotBlocks": 3, "GetSnapshotBlock": 2048, "PutObject": 32 + 2}
    assert found["one_time_usd"] == pytest.approx(
        3 * 0.0000006 + 0.006144 + 32 * 0.00003 + 2 * 0.000005 + run, abs=1e-6
    )
    assert found["monthly_usd"] == 0.0036
    assert found["restore_usd"] == pytest.approx(
        0.01 + 32 * 0.00003 + 32 * 0.0000004 + 2 * 0.0000004 + 0.012288 + run, abs=1e-6
    )
    assert (found["minimum_days"], found["seconds"]) == (90, 3)
    assert any("3 to 5 hours" in note for note in found["notes"])


def test_intelligent_tiering_is_the_average_of_a_first_year_without_reads() -> None:
    found = choices(subject())["s3_intelligent_tiering"].to_json()
    by_hand = (0.023 + 2 * 0.0125 + 9 * 0.004) / 12 + 32 * 0.0000025
    assert found["monthly_usd"] == pytest.approx(by_hand, abs=1e-6)
    assert found["notes"][-1] == "not verified: the price of S3.INTELLIGENT_TIERING.instant"


def test_a_delta_is_archived_alone_but_restored_with_all_it_builds_on() -> None:
    found = choices(subject(TIB, **DELTA))["s3_standard"]
    assert found.requests is not None
    assert (found.requests["GetSnapshotBlock"], found.requests["PutObject"]) == (30, 1 + 512 + 1)
    assert found.monthly.usd == pytest.approx(30 / GIB * 0.023)
    assert found.restore.usd > 2048 * 1024 * 0.000006
    assert any("an archive of snap-a exists" in text for text in found.conditions)
    # EBS's archive tier knows no deltas.
    assert choices(subject(TIB, **DELTA))["snapshot_archive_tier"].monthly.usd == pytest.approx(1024 * 0.0125)


def test_an_increment_of_which_no_base_is_known_is_priced_and_not_recommended() -> None:
    assert [c.name for c in keeping(subject()) if c.planned] == []
    assert [c.name for c in keeping(subject(TIB, **DELTA)) if not c.planned] == ["snapshot_archive_tier"]


def test_every_storage_class_is_compared() -> None:
    names = [choice.name for choice in keeping(subject())]
    assert names == ["snapshot_archive_tier", *(f"s3_{name.lower()}" for name in CLASSES)]
    assert [c.minimum_days for c in keeping(subject())] == [90, 0, 0, 30, 30, 90, 90, 180]


def test_the_cheapest_way_to_keep_a_snapshot_comes_with_its_caveats() -> None:
    what = subject()
    found = cheapest_keep(keeping(what), what, frees_blocks=None)
    assert found["choice"] == "s3_deep_archive"
    assert found["year_usd"] == pytest.approx(0.056, abs=0.0006)
    assert (found["standard_year_usd"], found["deleting_frees_year_usd"]) == (0.6, None)
    assert "at least 180 days are billed" in found["caveats"]
    assert any("within 12 hours" in text for text in found["caveats"])
    assert any("name the chain to know" in text for text in found["caveats"])


def test_archiving_a_snapshot_that_shares_its_blocks_does_not_pay() -> None:
    what = subject()
    found = cheapest_keep(keeping(what), what, frees_blocks=20)
    assert found["deleting_frees_year_usd"] == pytest.approx(20 / 2048 * 0.6, abs=1e-6)
    assert "it costs more than deleting the snapshot saves: leave it as it is" in found["caveats"]
    paying = cheapest_keep(keeping(what), what, frees_blocks=2000)
    assert not any("leave it as it is" in text for text in paying["caveats"])


def test_a_cheapest_way_at_a_price_that_is_not_verified_names_the_next_one() -> None:
    kept = [c for c in keeping(subject()) if c.name in ("s3_glacier_ir", "s3_standard")]
    found = cheapest_keep(kept, subject(), frees_blocks=None)
    assert found["choice"] == "s3_glacier_ir"
    assert any("the cheapest at verified prices is an archive in S3 Standard at" in text for text in found["caveats"])


CROSS_ACCOUNT = to("eu-west-1", OTHER)

RECOMMENDATIONS: list[tuple[str, Subject, Sequence[Destination], str | None, str]] = [
    # (situation, what, where to, the choice, what the reason says)
    ("same region", subject(), [to()], "copy_snapshot", "CopySnapshot costs $0.00 once"),
    ("another region", subject(), [to("eu-west-1")], "copy_snapshot", "CopySnapshot costs $0.020 once and $0.62 over"),
    ("many regions", subject(), [to("eu-west-1"), to("us-west-2")], "copy_snapshot", "blockferry copy $1.27"),
    ("nothing in it", subject(0), [to("eu-west-1")], "copy_snapshot", "CopySnapshot costs $0.00 once and $0.00"),
    ("another partition", subject(), [to("cn-north-1")], None, "partition aws to aws-cn"),
    (
        "from a partition",
        subject(region="us-gov-west-1", home_region="us-gov-west-1"),
        [to()],
        None,
        "aws-us-gov to aws",
    ),
    (
        "inside a partition",
        subject(region="cn-north-1", home_region="cn-north-1"),
        [to("cn-northwest-1")],
        "copy_snapshot",
        "CopySnapshot costs $",
    ),
    ("another account", subject(), [CROSS_ACCOUNT], "copy_snapshot", "must be shared with account 444455556666"),
    (
        "another account, aws/ebs",
        subject(encrypted=True, kms_key_id=KEY, key_manager="AWS"),
        [CROSS_ACCOUNT],
        "direct",
        "CopySnapshot is not possible at any price: targets[0]: snap-b is encrypted with an AWS managed key",
    ),
    (
        "one of two accounts, aws/ebs",
        subject(encrypted=True, kms_key_id=KEY, key_manager="AWS"),
        [to("eu-west-1"), to("eu-west-1", OTHER, name="targets[1]")],
        "direct",
        "targets[1]: snap-b is encrypted with an AWS managed key",
    ),
    (
        "same account, aws/ebs",
        subject(encrypted=True, kms_key_id=KEY, key_manager="AWS"),
        [to("eu-west-1")],
        "copy_snapshot",
        "CopySnapshot costs $",
    ),
    (
        "another account, own key",
        subject(encrypted=True, kms_key_id=KEY, key_manager="CUSTOMER"),
        [CROSS_ACCOUNT],
        "copy_snapshot",
        "customer managed and shared with account 444455556666",
    ),
    (
        "another account, unknown key",
        subject(encrypted=True, kms_key_id=KEY),
        [CROSS_ACCOUNT],
        "copy_snapshot",
        "it could not be looked up",
    ),
    (
        "no encryption any more",
        subject(encrypted=True, kms_key_id=KEY),
        [to(encrypted=False)],
        "direct",
        "is always encrypted",
    ),
    (
        "a delta elsewhere, where nothing stands",
        subject(**DELTA),
        [to("eu-west-1")],
        "copy_snapshot",
        "CopySnapshot costs $0.020 once and $0.62 over 12 months with storage, blockferry copy $0.64",
    ),
    (
        "a delta elsewhere, where our own copy of the base stands",
        subject(**DELTA),
        [to("eu-west-1", parent_id="snap-p")],
        "sync",
        "CopySnapshot $0.62 and blockferry copy $0.64; CopySnapshot would make targets[0]: full, because no copy",
    ),
    (
        "a delta elsewhere, where both have copied the base",
        subject(**DELTA),
        [to("eu-west-1", parent_id="snap-p", native_base_id="snap-n")],
        "copy_snapshot",
        "on condition that snap-n is the latest copy of the volume in eu-west-1",
    ),
    (
        "a delta to two regions, one without a parent",
        subject(**DELTA),
        [to("eu-west-1", parent_id="snap-p"), to("us-west-2", name="targets[1]", no_parent="none is there")],
        "copy_snapshot",
        "CopySnapshot costs $0.040 once",
    ),
    (
        "a small delta and a new key",
        subject(encrypted=True, kms_key_id=KEY, key_manager="CUSTOMER", **DELTA),
        [to(kms_key_arn=NEW_KEY, parent_id="snap-p")],
        "sync",
        "CopySnapshot $0.60 and blockferry copy $0.62; CopySnapshot would make targets[0]: full, because",
    ),
    (
        "a delta of nearly everything and a new key",
        subject(
            encrypted=True, kms_key_id=KEY, base_snapshot_id="snap-a", delta=Delta(added=0, overwritten=2040, removed=0)
        ),
        [to(kms_key_arn=NEW_KEY, parent_id="snap-p")],
        "copy_snapshot",
        "blockferry sync $0.62 and blockferry copy $0.62",
    ),
    (
        "a full copy with a new key",
        subject(encrypted=True, kms_key_id=KEY),
        [to(kms_key_arn=NEW_KEY)],
        "copy_snapshot",
        "CopySnapshot costs $0.00 once and $0.60",
    ),
    (
        "a copy that is there already",
        subject(),
        [to("eu-west-1", copy_id="snap-c")],
        "nothing",
        "snap-c in eu-west-1 is a proved copy of it already",
    ),
    (
        "two copies, one of which is there",
        subject(),
        [to("eu-west-1", copy_id="snap-c"), to("us-west-2")],
        "copy_snapshot",
        "CopySnapshot costs $0.040 once",
    ),
]


@pytest.mark.parametrize(
    ("what", "targets", "choice", "said"), [r[1:] for r in RECOMMENDATIONS], ids=[r[0] for r in RECOMMENDATIONS]
)
def test_the_recommendation_and_its_reason(
    what: Subject, targets: Sequence[Destination], choice: str | None, said: str
) -> None:
    found = advice(what, *targets)
    assert found["choice"] == choice
    assert said in str(found["reason"])


@pytest.mark.parametrize(("what", "targets"), [r[1:3] for r in RECOMMENDATIONS], ids=[r[0] for r in RECOMMENDATIONS])
def test_this_software_is_never_recommended_where_ec2_can_do_it_at_the_same_price_or_less(
    what: Subject, targets: Sequence[Destination]
) -> None:
    found = {choice.name: choice for choice in copying(what, targets)}
    native = found["copy_snapshot"]
    recommended_name = advice(what, *targets)["choice"]
    if recommended_name in ("direct", "sync"):
        assert not native.possible or found[recommended_name].year_usd < native.year_usd
    elif native.possible and recommended_name != "nothing":
        assert all(native.year_usd <= c.year_usd for c in found.values() if c.name in ("direct", "sync") and c.possible)


def test_a_tie_goes_to_ec2() -> None:
    ways = (
        Choice(name="direct", title="ours"),
        Choice(name="copy_snapshot", title="EC2's"),
        Choice(name="time_based_copy", title="timed", why_not="no"),
    )
    assert ways[0].year_usd == ways[1].year_usd
    assert recommended(ways, subject(), [to()])["choice"] == "copy_snapshot"


def test_a_deadline_is_answered_beside_the_recommendation() -> None:
    reason = str(advice(subject(TIB), to("eu-west-1"))["reason"])
    assert "if a deadline counts, time-based CopySnapshot is done within 45 minutes for $38.91 once" in reason


SYNC = [to("eu-west-1", parent_id="snap-p"), to("us-west-2", parent_id="snap-q")]
NATIVE = (
    "aws ec2 copy-snapshot --source-region us-east-1 --source-snapshot-id snap-b --region eu-west-1 "
    "--description '[Copied snap-b from us-east-1]'"
)


@pytest.mark.parametrize(
    ("what", "targets", "commands"),
    [
        (subject(), [to("eu-west-1")], [NATIVE]),
        (subject(), [to("eu-west-1", encrypted=True)], [f"{NATIVE} --encrypted"]),
        (
            subject(encrypted=True, kms_key_id=KEY),
            [to("eu-west-1", kms_key_arn=THERE)],
            [f"{NATIVE} --encrypted --kms-key-id {THERE}"],
        ),
        (
            subject(**DELTA),
            SYNC,
            ["blockferry sync snap-b --base snap-a --to eu-west-1=snap-p --to us-west-2=snap-q"],
        ),
        (
            subject(region="ap-south-1", **DELTA),
            SYNC[:1],
            ["blockferry sync snap-b --from ap-south-1 --base snap-a --to eu-west-1=snap-p"],
        ),
        # Who makes these has to assume a role, or to write an input as JSON.
        (subject(), [CROSS_ACCOUNT], []),
        (subject(encrypted=True, kms_key_id=KEY), [to(encrypted=False)], []),
    ],
    ids=["copy", "encrypted copy", "copy with a key", "sync", "sync from elsewhere", "another account", "decrypted"],
)
def test_what_is_recommended_comes_as_commands(what: Subject, targets: list[Destination], commands: list[str]) -> None:
    assert advice(what, *targets)["commands"] == commands


def test_an_impossible_choice_has_a_reason_and_no_figures() -> None:
    found = choices(subject(), to("cn-north-1"))
    for name in ("direct", "copy_snapshot", "time_based_copy"):
        json = found[name].to_json()
        assert not json["possible"]
        assert json["why_not"]
        for figure in ("one_time_usd", "monthly_usd", "restore_usd", "year_usd", "seconds", "requests"):
            assert json[figure] is None


def test_every_choice_has_the_same_members() -> None:
    what = subject()
    members = {
        "name",
        "title",
        "possible",
        "planned",
        "why_not",
        "conditions",
        "requests",
        "seconds",
        "one_time_usd",
        "monthly_usd",
        "restore_usd",
        "minimum_days",
        "year_usd",
        "notes",
    }
    for choice in choices(what).values():
        assert members <= choice.to_json().keys()
        assert choice.to_json().keys() - members <= {"fastest", "cheapest", "bands", "cost_usd"}


def test_a_price_of_the_region_itself_wins() -> None:
    assert prices().find("DataTransfer", "sa-east-1").region == "sa-east-1"
    assert prices().find("SnapshotStorage", "sa-east-1").region == "us-east-1"
