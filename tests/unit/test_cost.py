"""Prices and what they add up to, against figures worked out by hand."""

from __future__ import annotations

from datetime import date

import pytest
from blockferry.core.blocks import BLOCKS_PER_GIB
from blockferry.core.counts import at
from blockferry.cost.bill import GIB, Bill, basis, storage_a_month
from blockferry.cost.prices import Price, PriceList, partition_of, prices
from blockferry.cost.work import Work, cost_of, expected_gb_seconds

ROWS = prices().rows


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.item} {row.region} {row.to_region or row.minutes_from}")
def test_every_price_has_a_date_a_source_and_a_unit(row: object) -> None:
    price = next(each for each in ROWS if each is row)
    assert date(2026, 1, 1) <= date.fromisoformat(price.as_of)
    assert len(price.source) > 10
    assert price.unit
    assert price.usd >= 0


def test_no_price_is_there_twice() -> None:
    keys = [(row.item, row.region, row.to_region, row.minutes_from) for row in ROWS]
    assert len(keys) == len(set(keys))


def test_every_item_has_a_price_in_the_region_that_stands_in_for_others() -> None:
    here = prices().basis_elsewhere
    assert {row.item for row in ROWS} == {row.item for row in ROWS if row.region == here and row.to_region is None}


def test_what_no_price_list_confirms_is_marked() -> None:
    assert {row.item for row in ROWS if not row.verified} == {
        "S3.GLACIER_IR.storage",
        "S3.GLACIER_IR.put",
        "S3.GLACIER_IR.get",
        "S3.GLACIER_IR.retrieval",
        "S3.GLACIER_IR.restore",
        "S3.INTELLIGENT_TIERING.instant",
    }


@pytest.mark.parametrize(
    ("storage_class", "days"),
    [
        ("STANDARD", 0),
        ("INTELLIGENT_TIERING", 0),
        ("STANDARD_IA", 30),
        ("ONEZONE_IA", 30),
        ("GLACIER_IR", 90),
        ("GLACIER", 90),
        ("DEEP_ARCHIVE", 180),
    ],
)
def test_a_storage_class_says_how_many_days_are_billed_at_least(storage_class: str, days: int) -> None:
    assert prices().find(f"S3.{storage_class}.storage", "us-east-1").minimum_days == days


def test_an_item_that_does_not_exist_has_no_price() -> None:
    with pytest.raises(KeyError, match="Unobtainium"):
        prices().find("Unobtainium", "us-east-1")


HERE, THERE, FAR = "us-east-1", "us-east-2", "eu-west-1"


def test_a_full_copy_of_a_gib_inside_a_region_costs_what_it_does_by_hand() -> None:
    requests = {at("GetSnapshotBlock", HERE): 2048, at("PutSnapshotBlock", HERE): 2048, at("StartSnapshot", HERE): 1}
    assert cost_of(Work(requests=requests, home=HERE)) == {
        "GetSnapshotBlock": 0.006144,
        "PutSnapshotBlock": 0.012288,
        "DataTransfer": 0.0,
        "total": 0.018432,
        "basis": "prices of us-east-1, 2026-08-01; included: EBS requests, data transfer between regions; not "
        "included: S3 requests (STANDARD), Lambda compute, Step Functions, KMS, logs, storage",
    }


def test_a_receipt_may_include_s3_requests_data_transfer_and_lambda_and_says_so() -> None:
    cost = cost_of(
        Work(
            requests={
                at("ListChangedBlocks", HERE): 1000,
                at("GetObject", HERE): 10_000,
                at("PutObject", HERE): 2_000,
                at("PutSnapshotBlock", THERE): 3 * BLOCKS_PER_GIB,
                at("PutSnapshotBlock", FAR): BLOCKS_PER_GIB,
            },
            home=HERE,
            object_bytes={HERE: GIB},
            gb_seconds=30_000,
        )
    )
    assert cost.pop("basis") == (
        "prices of us-east-1, 2026-08-01 (those of us-east-1 stand in for unknown ones of eu-west-1, us-east-2); "
        "included: EBS requests, S3 requests (STANDARD), data transfer between regions, Lambda compute; not included: "
        "Step Functions, KMS, logs, storage"
    )
    assert cost == {
        "ListChangedBlocks": 0.0006,
        "GetObject": 0.004,
        "PutObject": 0.01,
        "PutSnapshotBlock": 0.049152,
        "DataTransfer": 0.05,
        "Lambda": 0.400002,
        "total": 0.513754,
    }


def test_what_goes_from_region_to_region_is_what_workers_read_and_write_and_what_they_fetch_from_buckets() -> None:
    requests = {
        at("GetSnapshotBlock", THERE): 2,
        at("GetSnapshotBlock", HERE): 4,
        at("PutSnapshotBlock", HERE): 8,
        at("PutSnapshotBlock", FAR): 16,
        at("ListSnapshotBlocks", FAR): 32,
        "PutSnapshotBlock": 64,
    }
    work = Work(requests=requests, home=HERE, object_bytes={THERE: 5, FAR: 7, HERE: 9})
    assert work.ways == {
        (THERE, HERE): 2 * 524_288 + 5,
        (HERE, FAR): 16 * 524_288,
        (FAR, HERE): 7,
    }


def test_requests_are_billed_in_the_region_that_they_are_sent_to() -> None:
    def price(item: str, region: str, usd: float) -> Price:
        return Price(item=item, usd=usd, unit="", region=region, as_of="2026-08-01", source="")

    dear = PriceList(
        (
            price("GetSnapshotBlock", HERE, 1.0),
            price("GetSnapshotBlock", THERE, 10.0),
            price("PutSnapshotBlock", HERE, 100.0),
            price("PutSnapshotBlock", THERE, 1_000.0),
            price("PutSnapshotBlock", FAR, 10_000.0),
            price("DataTransfer", HERE, 0.0),
            price("DataTransfer", THERE, 0.0),
            price("LambdaGbSecond", HERE, 0.5),
            price("LambdaGbSecond", THERE, 0.25),
        ),
        HERE,
    )
    requests = {
        at("GetSnapshotBlock", THERE): 2,
        at("PutSnapshotBlock", THERE): 3,
        at("PutSnapshotBlock", FAR): 4,
        "PutSnapshotBlock": 5,
    }
    cost = cost_of(Work(requests=requests, home=HERE, gb_seconds=8), dear)
    assert (cost["GetSnapshotBlock"], cost["PutSnapshotBlock"], cost["Lambda"]) == (20, 3_000 + 40_000 + 500, 4)
    assert cost["total"] == 43_524


def test_a_machine_of_the_operators_pays_no_lambda_and_its_transfer_is_not_known() -> None:
    cost = cost_of(Work(requests={at("PutSnapshotBlock", FAR): 1_000_000}, home=None, gb_seconds=1.0))
    assert cost.keys() == {"PutSnapshotBlock", "total", "basis"}
    assert "not included: S3 requests (STANDARD), data transfer between regions, Lambda compute" in str(cost["basis"])


def test_transfer_that_stays_inside_a_region_is_free_and_still_named() -> None:
    cost = cost_of(Work(requests={}, home=FAR, object_bytes={FAR: 10 * GIB}))
    assert (cost["DataTransfer"], cost["total"]) == (0, 0)


def test_a_region_without_prices_takes_those_of_another_one_and_says_so() -> None:
    requests = {at("GetSnapshotBlock", FAR): 1_000_000}
    cost = cost_of(Work(requests=requests, home=FAR, object_bytes={"sa-east-1": GIB}))
    assert (cost["GetSnapshotBlock"], cost["DataTransfer"]) == (3.0, 0.138)
    assert str(cost["basis"]).startswith(
        "prices of sa-east-1, us-east-1, 2026-08-01 (those of us-east-1 stand in for unknown ones of eu-west-1);"
    )


def test_workers_that_have_not_run_are_expected_to_move_60_mib_a_second() -> None:
    # A GiB takes 17 seconds of 1.769 GB.
    read = {at("GetSnapshotBlock", HERE): 1024, at("ListSnapshotBlocks", HERE): 10**6}
    assert expected_gb_seconds(read | {at("PutSnapshotBlock", FAR): 2048}) == pytest.approx(17.0667 * 1.769, rel=1e-4)
    assert expected_gb_seconds({at("GetSnapshotBlock", HERE): 2048}) == pytest.approx(17.0667 * 1.769, rel=1e-4)


def test_a_gib_kept_in_two_regions_costs_ten_cents_a_month() -> None:
    assert storage_a_month([HERE, FAR], BLOCKS_PER_GIB) == 0.1


@pytest.mark.parametrize(
    ("source", "target", "usd"),
    [
        ("us-east-1", "us-east-1", 0.0),
        ("us-east-1", "us-east-2", 0.01),
        ("us-east-2", "us-east-1", 0.01),
        ("us-east-1", "eu-west-1", 0.02),
        ("eu-west-1", "us-east-2", 0.02),
        ("sa-east-1", "us-east-1", 0.138),
        ("ap-northeast-1", "us-east-1", 0.09),
        ("af-south-1", "us-east-1", 0.147),
        ("us-gov-west-1", "us-gov-east-1", 0.03),
        ("us-east-1", "cn-north-1", 0.09),  # over the Internet
        ("no-such-1", "us-east-2", 0.02),  # the exceptions of us-east-1 are its own
    ],
)
def test_a_gib_from_region_to_region(source: str, target: str, usd: float) -> None:
    assert Bill().transfer(source, target, GIB) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-east-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
    ],
)
def test_a_region_tells_its_partition(region: str, partition: str) -> None:
    assert partition_of(region) == partition


def test_a_bill_remembers_which_of_its_prices_are_not_verified() -> None:
    bill = Bill()
    bill.add("S3.STANDARD.storage", "us-east-1", 10)
    assert bill.unverified == []
    bill.add("S3.GLACIER_IR.storage", "us-east-1", 10)
    assert bill.unverified == ["S3.GLACIER_IR.storage"]
    assert bill.usd == pytest.approx(0.27)


def test_the_basis_of_nothing_is_that_of_the_list() -> None:
    assert basis([]) == "prices of us-east-1, 2026-08-01"
