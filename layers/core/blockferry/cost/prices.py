"""What things cost. Prices are data with a date and a source per row (``prices.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

GIB = 2**30

_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("eusc-", "aws-eusc"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
)

_REQUESTS = {
    "ListSnapshotBlocks": "ListSnapshotBlocks",
    "ListChangedBlocks": "ListChangedBlocks",
    "GetSnapshotBlock": "GetSnapshotBlock",
    "PutSnapshotBlock": "PutSnapshotBlock",
    "GetObject": "S3.STANDARD.get",
    "PutObject": "S3.STANDARD.put",
}
"""Operations that are billed per request, and their item in the price list."""


@dataclass(frozen=True)
class Price:
    """Dollars for one ``unit`` of an item in ``region``.

    ``verified`` false: no price list at hand confirms it. ``to_region``: only for data that goes there.
    ``minimum_days``: storage deleted sooner is billed for so long. ``minutes_from``: of a copy that may take so long.
    """

    item: str
    usd: float
    unit: str
    region: str
    as_of: str
    source: str
    verified: bool = True
    to_region: str | None = None
    minimum_days: int = 0
    minutes_from: int = 0


@dataclass(frozen=True)
class PriceList:
    """Every price; ``basis_elsewhere`` is the region whose prices stand in for those that are not known."""

    rows: tuple[Price, ...]
    basis_elsewhere: str

    def find(self, item: str, region: str) -> Price:
        """The price of an item; its ``region`` is another one when none is known there. ``KeyError``: no such item."""
        return self.all(item, region)[0]

    def all(self, item: str, region: str) -> tuple[Price, ...]:
        """The rows of an item that has several, in the order of the file."""
        for place in (region, self.basis_elsewhere):
            found = tuple(row for row in self.rows if (row.item, row.region, row.to_region) == (item, place, None))
            if found:
                return found
        raise KeyError(item)

    def transfer(self, source: str, target: str) -> Price | None:
        """The price of a GiB from region to region; ``None`` inside a region, where it is free."""
        if source == target:
            return None
        if partition_of(source) != partition_of(target):
            return self.find("InternetTransfer", source)
        for row in self.rows:
            if (row.item, row.region, row.to_region) == ("DataTransfer", source, target):
                return row
        return self.find("DataTransfer", source)


@cache
def prices() -> PriceList:
    """The shipped prices."""
    data = json.loads(files("blockferry.cost").joinpath("prices.json").read_text())
    return PriceList(tuple(Price(**row) for row in data["rows"]), data["basis_elsewhere"])


def partition_of(region: str) -> str:
    """The partition of a region: no role, key or native copy reaches from one into another."""
    return next((partition for prefix, partition in _PARTITIONS if region.startswith(prefix)), "aws")


def request_cost(
    requests: Mapping[str, int],
    *,
    region: str = "us-east-1",
    transfer: Mapping[tuple[str, str], int] | None = None,
    lambda_gb_seconds: float = 0.0,
) -> dict[str, float | str]:
    """Dollars by operation and in total for counted requests; operations without a price are free.

    ``transfer`` is bytes by source and target region and adds ``DataTransfer``; ``lambda_gb_seconds`` adds
    ``Lambda``. GetSnapshotBlock and PutSnapshotBlock are billed per block returned or written, so repeated throttled
    requests make this an upper bound.
    """
    bill = Bill()
    cost: dict[str, float | str] = {}
    parts = ["EBS requests"]
    for operation, count in sorted(requests.items()):
        if operation in _REQUESTS:
            cost[operation] = round(bill.add(_REQUESTS[operation], region, count), 6)
    if requests.keys() & {"GetObject", "PutObject"}:
        parts.append("S3 requests (STANDARD)")
    if transfer is not None:
        parts.append("data transfer between regions")
        cost["DataTransfer"] = round(sum(bill.transfer(*way, moved) for way, moved in transfer.items()), 6)
    if lambda_gb_seconds:
        parts.append("Lambda compute")
        cost["Lambda"] = round(bill.add("LambdaGbSecond", region, lambda_gb_seconds), 6)
    cost["total"] = round(sum((value for value in cost.values() if isinstance(value, float)), 0.0), 6)
    cost["basis"] = f"{basis([bill])}; included: {', '.join(parts)}; not included: {', '.join(_left_out(parts))}"
    return cost


def storage_a_month(regions: Iterable[str], stored_bytes: int) -> float:
    """Dollars for so many bytes in a standard snapshot in each of the regions, a month."""
    bill = Bill()
    for region in regions:
        bill.add("SnapshotStorage", region, stored_bytes / GIB)
    return round(bill.usd, 6)


class Bill:
    """A sum that remembers which prices it took, and the regions that they were asked for."""

    def __init__(self) -> None:
        self.usd = 0.0
        self.used: list[tuple[str, Price]] = []

    def add(self, item: str, region: str, amount: float) -> float:
        """Dollars for so many units of an item. ``KeyError``: there is no such item."""
        return self.take(region, prices().find(item, region), amount)

    def transfer(self, source: str, target: str, moved_bytes: int) -> float:
        """Dollars for bytes that go from region to region."""
        price = prices().transfer(source, target)
        return 0.0 if price is None else self.take(source, price, moved_bytes / GIB)

    def take(self, region: str, price: Price, amount: float) -> float:
        """Dollars for so many units at a price that was found before."""
        self.used.append((region, price))
        self.usd += amount * price.usd
        return amount * price.usd

    @property
    def unverified(self) -> list[str]:
        """The items whose price no price list at hand confirms."""
        return sorted({price.item for _, price in self.used if not price.verified})


def basis(bills: Iterable[Bill]) -> str:
    """Where the prices of bills come from: the date of the oldest, and which regions had to take another one's."""
    here = prices().basis_elsewhere
    taken = [used for bill in bills for used in bill.used] or [
        (here, price) for price in prices().rows if price.region == here
    ]
    regions = ", ".join(sorted({price.region for _, price in taken}))
    text = f"prices of {regions}, {min(price.as_of for _, price in taken)}"
    elsewhere = sorted({region for region, price in taken if price.region != region})
    if elsewhere:
        text += f" (those of {here} stand in for unknown ones of {', '.join(elsewhere)})"
    return text


def _left_out(parts: list[str]) -> list[str]:
    possible = ("S3 requests (STANDARD)", "data transfer between regions", "Lambda compute")
    return [*(part for part in possible if part not in parts), "Step Functions", "KMS", "logs", "storage"]
