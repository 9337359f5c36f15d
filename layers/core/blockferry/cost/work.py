"""The one pricing of a job: dollars for what it sent, as its receipt tells, or would send, as dry runs and reports do.

Each request is billed in the region that it is sent to (EBS user guide, billing: usage types begin with the region):
lists and reads in the source's, writes in each target's, S3's in the bucket's. Workers are billed in the region of the
state machine, through which every block passes, so that what crosses a border is the price of the region that it
leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import by_operation, by_place
from blockferry.cost.bill import Bill, basis
from blockferry.cost.prices import PriceList

WORKER_MIB_PER_SECOND, WORKER_GB = 60.0, 1.769
"""MiB a second that one worker moves, and its memory in GB: one vCPU's worth (Lambda developer guide, memory)."""

_UPLOADING = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")

_ITEMS = {
    "ListSnapshotBlocks": "ListSnapshotBlocks",
    "ListChangedBlocks": "ListChangedBlocks",
    "GetSnapshotBlock": "GetSnapshotBlock",
    "PutSnapshotBlock": "PutSnapshotBlock",
    "GetObject": "S3.STANDARD.get",
    "PutObject": "S3.STANDARD.put",
    "ListObjectsV2": "S3.STANDARD.put",
    "ListParts": "S3.STANDARD.put",
    "ListMultipartUploads": "S3.STANDARD.put",
    **dict.fromkeys(_UPLOADING, "S3.STANDARD.put"),
    **{
        f"{operation}.{name}": f"S3.{name}.put"
        for operation in ("PutObject", *_UPLOADING)
        for name in ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")
    },
}
"""Operations that are billed per request, and their item in the price list; all others are free."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a job: what it sent, or would send.

    ``requests`` is by operation and region (``core.counts.at``); ``home`` is the region of the workers, ``None`` for a
    machine of the operator's; ``object_bytes`` are read from buckets, by region, ``stored_bytes`` written to them;
    ``gb_seconds`` is the memory of the workers in GB times the seconds that they ran.
    """

    requests: Mapping[str, int]
    home: str | None
    object_bytes: Mapping[str, int] = field(default_factory=dict)
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    gb_seconds: float = 0.0

    @property
    def ways(self) -> dict[tuple[str, str], int]:
        """Bytes by the regions between which they go: to the workers, and on from them."""
        moved: dict[tuple[str, str], int] = {}
        if self.home is None:
            return moved
        for operation, region, count in by_place(self.requests):
            place = region or self.home
            if operation == "GetSnapshotBlock":
                _more(moved, (place, self.home), count * BLOCK_SIZE)
            elif operation == "PutSnapshotBlock":
                _more(moved, (self.home, place), count * BLOCK_SIZE)
        for region, size in self.object_bytes.items():
            _more(moved, (region, self.home), size)
        for region, size in self.stored_bytes.items():
            _more(moved, (self.home, region), size)
        return moved


def expected_gb_seconds(requests: Mapping[str, int]) -> float:
    """The GB-seconds that workers would take for the blocks of requests that are not sent yet."""
    total = by_operation(requests)
    blocks = max(total["GetSnapshotBlock"], total["PutSnapshotBlock"])
    return blocks * BLOCK_SIZE / 2**20 / WORKER_MIB_PER_SECOND * WORKER_GB


def charge(work: Work, bill: Bill) -> dict[str, float]:
    """Put a job's work on a bill: dollars by operation, for ``DataTransfer`` and for ``Lambda``.

    GetSnapshotBlock and PutSnapshotBlock are billed per block returned or written, so repeated throttled requests
    make them, and the transfer, an upper bound. Requests that earlier versions counted without a region are taken for
    requests of the home region.
    """
    parts: dict[str, float] = {}
    for operation, region, count in sorted(by_place(work.requests)):
        if operation in _ITEMS:
            usd = bill.add(_ITEMS[operation], region or work.home or bill.price_list.basis_elsewhere, count)
            parts[operation] = parts.get(operation, 0.0) + usd
    if work.home is not None:
        parts["DataTransfer"] = sum((bill.transfer(*way, size) for way, size in work.ways.items()), 0.0)
        if work.gb_seconds:
            parts["Lambda"] = bill.add("LambdaGbSecond", work.home, work.gb_seconds)
    return parts


def cost_of(work: Work, price_list: PriceList | None = None) -> dict[str, float | str]:
    """Dollars by operation and in total, as a receipt's ``cost_usd`` has them, and the ``basis`` of the prices."""
    bill = Bill(price_list)
    cost: dict[str, float | str] = {name: round(usd, 6) for name, usd in charge(work, bill).items()}
    included = {
        "EBS requests": True,
        "S3 requests (STANDARD)": bool(cost.keys() & {"GetObject", "PutObject", "UploadPart"}),
        "data transfer between regions": "DataTransfer" in cost,
        "Lambda compute": "Lambda" in cost,
    }
    left_out = [*_named(included, False), "Step Functions", "KMS", "logs", "storage"]
    cost["total"] = round(sum((usd for usd in cost.values() if isinstance(usd, float)), 0.0), 6)
    cost["basis"] = (
        f"{basis([bill])}; included: {', '.join(_named(included, True))}; not included: {', '.join(left_out)}"
    )
    return cost


def _named(parts: Mapping[str, bool], wanted: bool) -> list[str]:
    return [name for name, included in parts.items() if included is wanted]


def _more(moved: dict[tuple[str, str], int], way: tuple[str, str], size: int) -> None:
    if way[0] != way[1]:
        moved[way] = moved.get(way, 0) + size
