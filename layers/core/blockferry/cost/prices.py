"""The price list: data with a date and a source per row (``prices.json``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("eusc-", "aws-eusc"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
)


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
