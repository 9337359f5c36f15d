"""Inspect snapshots: refuse what cannot be read, count as far as the time allows, report at the end."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blockferry import __version__
from blockferry.aws.regions import refuse_unknown_regions
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE, blocks_of_volume
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import IncompleteTransfer, InvalidRequest, OutOfTime, RetryLater
from blockferry.core.reserves import INSPECT_SECONDS
from blockferry.core.retry import Clock, Deadline
from blockferry.cost.choice import Choice, Destination, Subject
from blockferry.cost.choices import copying, recommended
from blockferry.cost.keeping import cheapest_keep, keeping
from blockferry.cost.prices import basis, partition_of, request_cost
from blockferry.inspection import access, chain
from blockferry.inspection.count import Counts, Delta, ListReader, Lists, Zeros, count_lists, count_zeros
from blockferry.inspection.report import report_page
from blockferry.jobs.workspace import Workspace
from blockferry.requests.inspect import InspectRequest
from blockferry.requests.parts import Target, parse
from blockferry.sources.readable import source_identity

_ELSEWHERE = {
    "aws": ("eu-west-1", "us-west-2"),
    "aws-cn": ("cn-north-1", "cn-northwest-1"),
    "aws-us-gov": ("us-gov-west-1", "us-gov-east-1"),
}
"""The other region that is assumed when no target is named."""


@dataclass(frozen=True)
class _Inspection:
    """What is inspected: the request with every default filled in, and the facts of each snapshot."""

    request: InspectRequest
    identity: Identity
    home_account: str
    facts: Mapping[str, SnapshotFacts]
    source: SnapshotFacts
    base: SnapshotFacts | None
    chain: tuple[SnapshotFacts, ...]

    @property
    def region(self) -> str:
        return self.identity.region

    @property
    def delta_of(self) -> tuple[str, str] | None:
        return None if self.base is None else (self.base.snapshot_id, self.source.snapshot_id)

    @property
    def lists(self) -> Lists:
        members = tuple(facts.snapshot_id for facts in self.chain)
        pairs = list(itertools.pairwise(members))
        if self.delta_of is not None:
            pairs.append(self.delta_of)
        return Lists(
            snapshots=tuple(dict.fromkeys((*members, self.source.snapshot_id))),
            pairs=tuple(dict.fromkeys(pairs)),
            chain=members,
            blocks={name: blocks_of_volume(facts.size_gib) for name, facts in self.facts.items()},
        )


def inspect_snapshots(
    *,
    job_id: str,
    execution_arn: str,
    started_at: str,
    request: Mapping[str, Any],
    progress: Mapping[str, Any] | None,
    seconds_left: float,
    aws: Aws,
    workspace: Workspace,
    counts: RequestCounts | None = None,
    now: datetime | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Count on from ``progress`` (``None`` at first, then what the last call returned).

    Returns ``{"done": False, "progress": {...}}`` when the time is up, else ``{"done": True, "report": {...}}`` with
    the report stored beside. The first call raises ``InvalidRequest`` for everything that cannot be inspected.
    ``RetryLater`` when a whole invocation was not enough for anything.
    """
    clock = clock or Clock()
    deadline = Deadline(max(seconds_left - INSPECT_SECONDS, 1.0), clock=clock)
    sent = counts or RequestCounts()
    what = _inspection(request, execution_arn, aws=aws)
    lists = what.lists
    ebs = aws.ebs(what.identity, counts=sent, clock=clock, deadline=deadline)
    if progress is None:
        try:
            access.refuse_no_access(ebs, list(what.facts), lists.pairs)
        except OutOfTime as error:
            raise RetryLater(str(error)) from error
        counted, zeros, earlier = Counts(), Zeros(), Counter[str]()
    else:
        counted, zeros = Counts.from_json(progress["counts"]), Zeros(**progress["zeros"])
        earlier = Counter(progress["requests"])
    begun = (counted.next_index, zeros.next_index)
    total = blocks_of_volume(what.source.size_gib)
    done = False
    if counted.next_index < lists.total_blocks:
        count_lists(lists, counted, ListReader(ebs, blocks=lists.blocks, clock=clock), deadline=deadline)
    if counted.next_index >= lists.total_blocks:
        done = True
        if what.request.options.count_zeros:
            count_zeros(what.source.snapshot_id, total, zeros, ebs, deadline=deadline, clock=clock)
            done = zeros.next_index >= total
    requests = earlier + sent.requests
    if not done:
        if (counted.next_index, zeros.next_index) == begun:
            raise RetryLater(
                f"nothing could be counted behind block {max(begun)} within {seconds_left:.0f} seconds: EBS "
                f"throttles or fails ({dict(sent.retries) or 'no answer'})"
            )
        return {
            "done": False,
            "progress": {
                "next_index": counted.next_index,
                "counts": counted.to_json(),
                "zeros": zeros.to_json(),
                "requests": dict(requests),
            },
        }
    report = _report(
        what,
        counted,
        zeros if what.request.options.count_zeros else None,
        requests,
        aws=aws,
        workspace=workspace,
        job_id=job_id,
        duration=((now or datetime.now(UTC)) - datetime.fromisoformat(started_at)).total_seconds(),
    )
    workspace.write(job_id, "report.md", report_page(report).encode(), content_type="text/markdown; charset=utf-8")
    workspace.write(job_id, "receipt.json", json.dumps(report, indent=1).encode())
    return {"done": True, "report": report}


def _inspection(request: Mapping[str, Any], execution_arn: str, *, aws: Aws) -> _Inspection:
    """Parse the request and look at every snapshot that it names. Raises ``InvalidRequest``."""
    parsed = parse(InspectRequest, request, what="inspect")
    identity = source_identity(parsed.source, aws)
    own = partition_of(aws.own_region)
    # A target may be in another partition, of which this one knows nothing: how to get there is what is asked.
    within = [(f"targets[{n}].region", t.region) for n, t in enumerate(parsed.targets) if partition_of(t.region) == own]
    refuse_unknown_regions(aws, [("source.region", identity.region), *within])
    named = [(f"chain[{number}]", snapshot_id) for number, snapshot_id in enumerate(parsed.chain or ())]
    if parsed.base_snapshot_id is not None:
        named.insert(0, ("base_snapshot_id", parsed.base_snapshot_id))
    if parsed.snapshot_id is not None:
        named.insert(0, ("snapshot_id", parsed.snapshot_id))
    facts = access.described(aws, identity, named)
    members = tuple(facts[name] for name in chain.in_order([facts[name] for name in parsed.chain or ()]))
    source = facts[parsed.snapshot_id] if parsed.snapshot_id is not None else members[-1]
    if parsed.base_snapshot_id == source.snapshot_id:
        raise InvalidRequest(
            f"base_snapshot_id: {source.snapshot_id} is the newest of the chain; nothing changes between a snapshot "
            "and itself: name an earlier one"
        )
    return _Inspection(
        request=parsed,
        identity=identity,
        home_account=execution_arn.split(":")[4],
        facts=facts,
        source=source,
        base=None if parsed.base_snapshot_id is None else facts[parsed.base_snapshot_id],
        chain=members,
    )


def _report(
    what: _Inspection,
    counted: Counts,
    zeros: Zeros | None,
    requests: Mapping[str, int],
    *,
    aws: Aws,
    workspace: Workspace,
    job_id: str,
    duration: float,
) -> dict[str, Any]:
    source, region = what.source, what.region
    allocated = counted.allocated[source.snapshot_id]
    _refuse_lost(source, allocated, zeros)
    delta = None if what.delta_of is None else counted.changed[what.delta_of]
    destinations, notes = _destinations(what)
    notes += _notes(what, allocated, delta)
    subject = Subject(
        snapshot_id=source.snapshot_id,
        region=region,
        home_region=aws.own_region,
        owner_id=source.owner_id,
        total_blocks=blocks_of_volume(source.size_gib),
        allocated_blocks=allocated,
        encrypted=source.encrypted,
        kms_key_id=source.kms_key_id,
        key_manager=access.key_manager(aws, what.identity, source),
        base_snapshot_id=None if what.base is None else what.base.snapshot_id,
        delta=delta,
    )
    direct, native, timed = copying(subject, destinations)
    kept = keeping(subject)
    choices: tuple[Choice, ...] = (direct, native, timed, *kept)
    moved = {} if zeros is None else {(region, aws.own_region): zeros.blocks_read * BLOCK_SIZE}
    written = subject.blocks_written * len(destinations)
    return {
        "job_id": job_id,
        "operation": "inspect",
        "status": "SUCCEEDED",
        "source": _facts_json(source, region),
        "base": None if what.base is None else _facts_json(what.base, region),
        "targets": [],
        "allocated_blocks": allocated,
        "allocated_bytes": allocated * BLOCK_SIZE,
        "zero_blocks": None if zeros is None else zeros.zero_blocks,
        "nonzero_blocks": None if zeros is None else allocated - zeros.zero_blocks,
        "changed_blocks": None if delta is None else delta.added + delta.overwritten,
        "removed_blocks": None if delta is None else delta.removed,
        "delta": None if delta is None else chain.delta_json(delta),
        "requests": {
            **subject.lists,
            "GetSnapshotBlock": subject.blocks_read,
            "PutSnapshotBlock": written,
        },
        "bytes_read": subject.blocks_read * BLOCK_SIZE,
        "bytes_written": written * BLOCK_SIZE,
        "seconds_at_quota": direct.seconds,
        "choices": [choice.to_json() for choice in choices],
        "prices": basis(bill for choice in choices for bill in (choice.bill, choice.monthly, choice.restore)),
        "recommendation": recommended(direct, native, timed),
        "cheapest_keep": cheapest_keep(kept, subject, frees_blocks=counted.frees.get(source.snapshot_id)),
        "chain": _chain(what, counted, aws),
        "notes": notes,
        "inspection": {
            "requests": dict(sorted(requests.items())),
            "cost_usd": request_cost(requests, region=region, transfer=moved),
        },
        "duration_seconds": round(duration, 3),
        "tool_version": __version__,
        "receipt_uri": workspace.uri(job_id, "receipt.json"),
        "report_uri": workspace.uri(job_id, "report.md"),
    }


def _refuse_lost(source: SnapshotFacts, allocated: int, zeros: Zeros | None) -> None:
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


def _destinations(what: _Inspection) -> tuple[list[Destination], list[str]]:
    if what.request.targets:
        return [_destination(f"targets[{n}]", t, what) for n, t in enumerate(what.request.targets)], []
    candidates = _ELSEWHERE.get(partition_of(what.region), (what.region,))
    region = next((name for name in candidates if name != what.region), what.region)
    note = f"no targets are named: the choices are for one copy in {region}, owned by {what.home_account}"
    return [Destination(name="the copy", region=region, account=what.home_account)], [note]


def _destination(name: str, target: Target, what: _Inspection) -> Destination:
    account = what.home_account if target.role_arn is None else target.role_arn.split(":")[4]
    return Destination(
        name=name,
        region=target.region,
        account=account,
        kms_key_arn=target.kms_key_arn,
        encrypted=target.encrypted,
    )


def _notes(what: _Inspection, allocated: int, delta: Delta | None) -> list[str]:
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


def _chain(what: _Inspection, counted: Counts, aws: Aws) -> dict[str, Any] | None:
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
