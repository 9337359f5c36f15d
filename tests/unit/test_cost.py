"""Prices and what they add up to, against figures worked out by hand."""

from __future__ import annotations

from datetime import date

import pytest
from blockferry.cost.prices import GIB, Bill, basis, partition_of, prices, request_cost

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


def test_a_full_copy_of_a_gib_inside_a_region_costs_what_it_does_by_hand() -> None:
    cost = request_cost({"GetSnapshotBlock": 2048, "PutSnapshotBlock": 2048, "StartSnapshot": 1})
    assert cost == {
        "GetSnapshotBlock": 0.006144,
        "PutSnapshotBlock": 0.012288,
        "total": 0.018432,
        "basis": "prices of us-east-1, 2026-08-01; included: EBS requests; not included: S3 requests (STANDARD), data "
        "transfer between regions, Lambda compute, Step Functions, KMS, logs, storage",
    }


def test_a_receipt_may_include_s3_requests_data_transfer_and_lambda_and_says_so() -> None:
    cost = request_cost(
        {"ListChangedBlocks": 1000, "GetObject": 10_000, "PutObject": 2_000},
        transfer={
            ("us-east-1", "us-east-2"): 3 * GIB,
            ("us-east-1", "eu-west-1"): GIB,
            ("us-east-1", "us-east-1"): GIB,
        },
        lambda_gb_seconds=30_000,
    )
    assert cost.pop("basis") == (
        "prices of us-east-1, 2026-08-01; included: EBS requests, S3 requests (STANDARD), data transfer between "
        "regions, Lambda compute; not included: Step Functions, KMS, logs, storage"
    )
    assert cost == {
        "ListChangedBlocks": 0.0006,
        "GetObject": 0.004,
        "PutObject": 0.01,
        "DataTransfer": 0.05,
        "Lambda": 0.400002,
        "total": 0.464602,
    }


def test_transfer_that_stays_inside_a_region_is_free_and_still_named() -> None:
    cost = request_cost({}, transfer={("eu-west-1", "eu-west-1"): 10 * GIB})
    assert (cost["DataTransfer"], cost["total"]) == (0, 0)


def test_a_region_without_prices_takes_those_of_another_one_and_says_so() -> None:
    cost = request_cost({"GetSnapshotBlock": 1_000_000}, region="eu-west-1", transfer={("sa-east-1", "eu-west-1"): GIB})
    assert (cost["GetSnapshotBlock"], cost["DataTransfer"]) == (3.0, 0.138)
    assert str(cost["basis"]).startswith(
        "prices of sa-east-1, us-east-1, 2026-08-01 (those of us-east-1 stand in for unknown ones of eu-west-1);"
    )


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
