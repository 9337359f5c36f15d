"""What an upload would put, and what each choice about holes costs: the image is read, and nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockferry.aws.call import Call
from blockferry.aws.sessions import Aws
from blockferry.core.blocks import BlockRange, blocks_of_volume, split
from blockferry.core.checksums import ZERO_BLOCK
from blockferry.core.counts import at
from blockferry.core.holes import HolePolicy
from blockferry.core.ports import BlockSource
from blockferry.core.quotas import MAX_PAGE
from blockferry.cost.bill import storage_a_month
from blockferry.cost.estimate import writing
from blockferry.cost.work import Work, cost_of
from blockferry.formats.recognise import ImageFormat
from blockferry.local.upload import Prepared, prepare
from blockferry.sources.device import ImageSource
from blockferry.sources.extents import WrittenImage, tells_extents


def estimate_upload(
    image: Path,
    *,
    region: str,
    aws: Aws,
    volume_size_gib: int | None = None,
    parent_snapshot_id: str | None = None,
    holes: HolePolicy | None = None,
    image_format: ImageFormat | None = None,
) -> dict[str, Any]:
    """The outcome of a dry run. Of ``holes_choices`` the one without ``holes`` is what is done if nothing is asked for.

    A parent is listed but not read, which would cost: on top of one the counts are upper bounds. Raises
    ``InvalidRequest`` for what the upload itself refuses, and ``SourceChanged`` for a file that changes meanwhile.
    """
    with ImageSource(image) as source:
        found = prepare(
            source,
            region=region,
            call=Call(aws=aws),
            volume_size_gib=volume_size_gib,
            parent=parent_snapshot_id,
            holes=holes,
            image_format=image_format,
        )
        counted = _counted(source, found)
        source.refuse_changed()
    whole = None if found.encrypted is False else "whole"
    choices: list[dict[str, Any]] = []
    costs: dict[HolePolicy | None, dict[str, float | str]] = {}
    for policy, name in ((None, whole or "skip_zero"), *((policy, policy.value) for policy in HolePolicy)):
        possible = policy is None or policy in found.holes.decision.possible
        choice: dict[str, Any] = {"holes": policy and policy.value, "possible": possible, "chosen": policy is holes}
        written = counted[name]
        requests = writing([region], written)
        if found.parent is not None:
            lists = blocks_of_volume(found.parent.size_gib) // MAX_PAGE + 1
            requests[at("GetSnapshotBlock", region)] += counted["parent"]
            requests[at("ListSnapshotBlocks", region)] += lists
        cost = cost_of(Work(requests=requests, home=None))
        costs[policy] = cost
        choices.append(
            choice
            | {
                "blocks_written": written,
                "blocks_written_from": "the image" if found.parent is None else "the image and its parent: at most",
                "usd_once": cost["total"],
                "usd_a_month": storage_a_month([region], written),
            }
        )
    return {
        "operation": "upload",
        "status": "DRY_RUN",
        "region": region,
        "volume_size_gib": found.size_gib,
        "parent_snapshot_id": parent_snapshot_id,
        "encrypted": found.encrypted,
        "image_blocks": counted["image"],
        "data_blocks": counted["data"],
        "holes": found.holes.policy.value,
        "holes_taken_for": found.holes.decision.taken_for.value,
        "holes_decided_by": found.holes.decision.by,
        "holes_reason": found.holes.decision.reason,
        "holes_choices": choices,
        "cost_usd": costs[holes],
        "warnings": list(found.holes.warnings),
    }


def _counted(image: ImageSource, found: Prepared) -> dict[str, int]:
    """Blocks by what is done about holes, those of the image, those of it with data, and those of the parent."""
    total = blocks_of_volume(found.size_gib)
    written: BlockSource = WrittenImage(image)
    counted = dict.fromkeys(("preserve", "skip_zero", "whole", "data", "parent"), 0)
    told = tells_extents(image.fileno())
    for stretch in split(total, MAX_PAGE):
        end = stretch.before(image.total_blocks)
        whole = frozenset() if end is None else frozenset(range(end.first, end.stop))
        below = frozenset(_indices(found.below, stretch))
        data = frozenset(ref.index for ref in image.blocks(stretch) if image.read(ref).data != ZERO_BLOCK)
        counted["data"] += len(data)
        counted["parent"] += len(below)
        counted["skip_zero"] += len(data | below)
        counted["whole"] += len(whole | below)
        counted["preserve"] += len((frozenset(_indices(written, stretch)) if told else whole) | below)
    return {**counted, "zero_fill": total, "image": image.total_blocks}


def _indices(source: BlockSource | None, within: BlockRange) -> Iterator[int]:
    return iter(()) if source is None else (ref.index for ref in source.blocks(within))
