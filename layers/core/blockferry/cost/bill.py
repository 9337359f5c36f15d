"""Sums of prices that remember where each price came from."""

from __future__ import annotations

import math
from collections.abc import Iterable

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.cost.prices import Price, PriceList, prices

GIB = 2**30


class Bill:
    """A sum that remembers which prices it took, and the regions that they were asked for."""

    def __init__(self, price_list: PriceList | None = None) -> None:
        self.usd = 0.0
        self.used: list[tuple[str, Price]] = []
        self.price_list = price_list or prices()

    def add(self, item: str, region: str, amount: float) -> float:
        """Dollars for so many units of an item. ``KeyError``: there is no such item."""
        return self.take(region, self.price_list.find(item, region), amount)

    def transfer(self, source: str, target: str, moved_bytes: int) -> float:
        """Dollars for bytes that go from region to region."""
        price = self.price_list.transfer(source, target)
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


def usd(amount: float) -> str:
    """Dollars as text: to the cent, and below ten cents two digits that say something."""
    if 0 < amount < 0.000001:
        return "under $0.000001"
    digits = 2 if amount == 0 else min(6, max(2, 1 - math.floor(math.log10(amount))))
    return f"${amount:,.{digits}f}"


def gib(blocks: int) -> float:
    """The size of so many blocks in GiB."""
    return blocks * BLOCK_SIZE / GIB


def storage_a_month(regions: Iterable[str], blocks: int) -> float:
    """Dollars a month for so many blocks in a standard snapshot in each of the regions."""
    bill = Bill()
    for region in regions:
        bill.add("SnapshotStorage", region, gib(blocks))
    return round(bill.usd, 6)


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
