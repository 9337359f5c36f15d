"""The report of an inspection: counts, the price of each way to copy or keep the snapshot, and a recommendation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from blockferry import __version__
from blockferry.aws.sessions import Aws
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE
from blockferry.core.counts import by_operation
from blockferry.core.delta import Delta
from blockferry.core.errors import IncompleteTransfer
from blockferry.core.holes import HolePolicy
from blockferry.cost.bill import basis
from blockferry.cost.choice import Choice, Subject
from blockferry.cost.copying import copying, direct_outline, recommended
from blockferry.cost.keeping import cheapest_keep, keeping
from blockferry.cost.work import Work, cost_of
from blockferry.inspection import access, chain
from blockferry.inspection.count import Counts
from blockferry.inspection.destinations import destinations_of
from blockferry.inspection.inspected import Inspected
from blockferry.inspection.progress import Progress
from blockferry.inspection.zeros import Zeros
from blockferry.jobs.call import JobCall
from blockferry.jobs.folder import RECEIPT, REPORT


def report_of(what: Inspected, found: Progress, call: JobCall, *, duration: float) -> dict[str, Any]:
    """The report as it is stored, from everything that was counted; ``duration`` is in seconds.

    Raises ``IncompleteTransfer`` when the figures contradict each other or what EC2 says.
    """
    counted, zeros = found.counts, found.zeros if what.request.options.count_zeros else None
    source, region = what.source, what.region
    allocated = counted.allocated[source.snapshot_id]
    _refuse_lost(source, allocated, zeros)
    delta = None if what.delta_of is None else counted.changed[what.delta_of]
    destinations, notes = destinations_of(what, call)
    notes += _notes(what, allocated, delta)
    subject = Subject(
        snapshot_id=source.snapshot_id,
        region=region,
        home_region=call.aws.own_region,
        owner_id=source.owner_id,
        total_blocks=what.total_blocks,
        allocated_blocks=allocated,
        encrypted=source.encrypted,
        kms_key_id=source.kms_key_id,
        key_manager=access.key_manager(call.aws, what.identity, source),
        base_snapshot_id=None if what.base is None else what.base.snapshot_id,
        delta=delta,
    )
    copies, kept = copying(subject, destinations), keeping(subject)
    choices: tuple[Choice, ...] = (*copies, *kept)
    can_be_kept = [choice for choice in kept if not choice.planned]
    written = subject.blocks_written * len(destinations)
    outline = direct_outline(subject, destinations)
    return {
        "job_id": call.folder.job_id,
        "operation": "inspect",
        "status": "SUCCEEDED",
        "source": _facts_json(source, region),
        "base": None if what.base is None else _facts_json(what.base, region),
        "targets": [],
        "destinations": [asdict(destination) for destination in destinations],
        "allocated_blocks": allocated,
        "allocated_bytes": allocated * BLOCK_SIZE,
        "zero_blocks": None if zeros is None else zeros.zero_blocks,
        "nonzero_blocks": None if zeros is None else allocated - zeros.zero_blocks,
        "changed_blocks": None if delta is None else delta.read,
        "removed_blocks": None if delta is None else delta.removed,
        "delta": None if delta is None else chain.delta_json(delta),
        "requests": dict(by_operation(outline.work(HolePolicy.PRESERVE).requests)),
        "bytes_read": subject.blocks_read * BLOCK_SIZE,
        "bytes_written": written * BLOCK_SIZE,
        "seconds_at_quota": outline.seconds(HolePolicy.PRESERVE) if copies[0].possible else None,
        "choices": [choice.to_json() for choice in choices],
        "prices": basis(bill for choice in choices for bill in (choice.bill, choice.monthly, choice.restore)),
        "recommendation": recommended(copies, subject, destinations),
        "cheapest_keep": cheapest_keep(can_be_kept, subject, frees_blocks=counted.frees.get(source.snapshot_id)),
        "chain": _chain(what, counted, call.aws),
        "notes": notes,
        "inspection": {
            "requests": dict(sorted(by_operation(found.requests).items())),
            "cost_usd": cost_of(Work(requests=found.requests, home=call.aws.own_region)),
        },
        "duration_seconds": round(duration, 3),
        "tool_version": __version__,
        "receipt_uri": call.folder.uri(RECEIPT),
        "report_uri": call.folder.uri(REPORT),
    }


def _refuse_lost(source: SnapshotFacts, allocated: int, zeros: Zeros | None) -> None:
    """Raise ``IncompleteTransfer`` when blocks are missing in a list, or in what was read."""
    if allocated == 0 and source.full_size_bytes:
        raise IncompleteTransfer(
            f"{source.snapshot_id} lists no block, but EC2 says that it holds {source.full_size_bytes} bytes; a report "
            "of nothing is refused"
        )
    if zeros is not None and zeros.blocks_read != allocated:
        raise IncompleteTransfer(
            f"{zeros.blocks_read} blocks of {source.snapshot_id} were read, but {allocated} were listed before; a "
            "completed snapshot does not change, so no count can be trusted"
        )


def _notes(what: Inspected, allocated: int, delta: Delta | None) -> list[str]:
    notes = []
    full = what.source.full_size_bytes
    if full is not None and full != allocated * BLOCK_SIZE:
        notes.append(
            f"EC2 reports a full size of {full} bytes, the list has {allocated * BLOCK_SIZE}; the list is what counts"
        )
    if what.base is not None and what.base.start_time > what.source.start_time:
        notes.append(f"the base {what.base.snapshot_id} is newer than {what.source.snapshot_id}: the delta leads back")
    if delta is not None and delta.blocks == 0:
        notes.append("nothing changed between the two snapshots")
    return notes


def _chain(what: Inspected, counted: Counts, aws: Aws) -> dict[str, Any] | None:
    if not what.chain:
        return None
    others = access.left_out(
        aws.ec2(what.identity), what.chain[0].volume_id, [facts.snapshot_id for facts in what.chain]
    )
    return chain.chain_report(what.chain, counted, region=what.region, others=others)


def _facts_json(facts: SnapshotFacts, region: str) -> dict[str, Any]:
    return {
        "snapshot_id": facts.snapshot_id,
        "region": region,
        "owner_id": facts.owner_id,
        "volume_id": facts.volume_id,
        "volume_size_gib": facts.size_gib,
        "start_time": facts.start_time.isoformat(),
        "encrypted": facts.encrypted,
        "tier": facts.tier,
        "full_snapshot_size_bytes": facts.full_size_bytes,
    }
