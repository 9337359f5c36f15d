"""What requests cost. Prices are data with a date and a source per row (``prices.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Prices:
    """Dollars per request by operation, the date of the oldest row, and the region they hold for."""

    usd: Mapping[str, float]
    as_of: str
    region: str


@cache
def prices() -> Prices:
    """The shipped prices. Those of other regions than ``region`` are not published per request type."""
    data = json.loads(files("blockferry").joinpath("prices.json").read_text())
    return Prices(
        usd={row["item"]: float(row["usd"]) for row in data["rows"]},
        as_of=min(row["as_of"] for row in data["rows"]),
        region=data["basis_elsewhere"],
    )


def request_cost(requests: Mapping[str, int]) -> dict[str, float | str]:
    """Dollars by operation and in total for counted requests; operations without a price are free.

    GetSnapshotBlock and PutSnapshotBlock are billed per block returned or written, so repeated throttled requests
    make this an upper bound.
    """
    table = prices()
    cost: dict[str, float | str] = {
        operation: round(count * table.usd[operation], 6)
        for operation, count in sorted(requests.items())
        if operation in table.usd
    }
    cost["total"] = round(sum(value for value in cost.values() if isinstance(value, float)), 6)
    cost["basis"] = f"prices of {table.region}, {table.as_of}; Lambda, Step Functions and data transfer not included"
    return cost
