"""What the archive of an image on this machine would take: its data is listed, a sample is read, nothing is stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from blockferry.aws.call import Call
from blockferry.aws.sessions import Aws
from blockferry.core.blocks import BLOCK_SIZE, blocks_of_volume, split
from blockferry.core.counts import at, by_operation
from blockferry.core.quotas import MAX_PAGE
from blockferry.core.words import counted
from blockferry.cost.bill import GIB, Bill
from blockferry.cost.work import Work, cost_of
from blockferry.formats.recognise import ImageFormat
from blockferry.local.archive import Prepared, known, prepare
from blockferry.requests.archive import LocalArchiveRequest
from blockferry.sources.device import ImageSource


def estimate_archive(
    image: Path,
    request: LocalArchiveRequest,
    *,
    region: str,
    aws: Aws,
    image_format: ImageFormat | None = None,
) -> dict[str, Any]:
    """The outcome of a dry run, with the members of a job's. On top of a base all figures are upper bounds: what it has
    already is known when all is read. Raises what the archive itself refuses."""
    call = Call(aws=aws)
    with ImageSource(image) as source:
        found = prepare(source, request, region=region, call=call, image_format=image_format)
        target, held = found.target, found.holes.source
        total = target.total_blocks
        blocks = sum(1 for stretch in split(total, MAX_PAGE) for _ in held.blocks(stretch))
        forecast = target.sampled(lambda: held, total_blocks=total, blocks=blocks)
        source.refuse_changed()
        told = known(found, source)
    requests = _requests(found, blocks)
    month = Bill()
    if forecast is not None:
        month.add(f"S3.{target.storage_class}.storage", target.region, forecast.stored_bytes / GIB)
    sampled = 0 if forecast is None else forecast.sampled_blocks
    most = "; at most: what the base has is left out" if target.base else ""
    return {
        **told,
        "status": "DRY_RUN",
        "targets": [target.planned()],
        "allocated_blocks": blocks,
        "allocated_blocks_from": "the data of the image",
        "bytes_read": blocks * BLOCK_SIZE,
        "bytes_written": 0 if forecast is None else forecast.stored_bytes,
        "bytes_written_from": f"a sample of {counted(sampled, 'block')}{most}",
        "requests": dict(sorted(by_operation(requests).items())),
        "cost_usd": cost_of(Work(requests=requests, home=None)),
        "usd_a_month": round(month.usd, 6),
        "warnings": [*found.holes.warnings, *(warning.model_dump() for warning in found.warnings)],
    }


def _requests(found: Prepared, blocks: int) -> Counter[str]:
    """Requests by operation and Region, at most."""
    target = found.target
    ranges = -(-blocks_of_volume(target.volume_gib) // found.range_blocks)
    requests = Counter(target.writing(blocks, ranges))
    requests[at("ListObjectsV2", target.region)] += min(ranges, blocks) + 2
    # When a range is read and when it is counted: the indexes that all bases have of it. Their manifests when it is
    # planned, before and behind all that; its own place when it is claimed, and its manifest when it is written.
    requests[at("GetObject", target.region)] += len(target.base) * (2 * ranges + 3) + 2
    return requests
