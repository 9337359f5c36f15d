"""What a sync is built on: the base that the delta starts from, and the parents that must equal it.

A delta on top of a snapshot that does not equal the base gives a snapshot that equals nothing, and EBS cannot notice.
So a parent is taken only if its tags say that a job of this software made it of the base and proved it, or if the job
compares it with the base block by block before it writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.delta import ExaminedDelta, JobDelta, base_record
from blockferry.sources.readable import readable_snapshot, refuse_no_access, related
from blockferry.sources.snapshot import copy_tags, snapshot_members

MOST_CANDIDATES = 25
"""Earlier snapshots that are tried as base, newest first. Only copies whose source has no volume id of its own, such as
direct uploads, can be of several lineages at all."""


def delta_base(base_snapshot_id: str, source: SnapshotFacts, identity: Identity, call: Call) -> SnapshotFacts:
    """The base that a request names, checked. Raises ``InvalidRequest`` when no delta can start there."""
    facts = readable_snapshot(call, identity, base_snapshot_id)
    name = f"base_snapshot_id {facts.snapshot_id}"
    if facts.start_time > source.start_time:
        raise InvalidRequest(
            f"{name} was taken at {facts.start_time.isoformat()}, after {source.snapshot_id} "
            f"({source.start_time.isoformat()}); a "
            "delta leads from the earlier to the later one: name them the other way round"
        )
    if facts.size_gib > source.size_gib:
        raise InvalidRequest(
            f"{name} has {facts.size_gib} GiB, {source.snapshot_id} has {source.size_gib}; volumes only grow, so they "
            "cannot be of one volume"
        )
    if not related(call.ebs(identity), facts.snapshot_id, source.snapshot_id):
        raise InvalidRequest(
            f"{name} and {source.snapshot_id} in {identity.region} are not of one volume (UNRELATED_SNAPSHOTS): there "
            "is no delta between them. A copy that EC2 has encrypted with another key begins a new lineage, too"
        )
    return facts


def named_parents(targets: Sequence[SyncTarget], call: Call) -> list[SnapshotFacts]:
    """What EC2 says of the parents that the request names. Those shown as pending are waited for together."""
    found: dict[int, SnapshotFacts] = {}

    def look() -> list[SnapshotFacts]:
        for number, target in enumerate(targets):
            if number not in found or found[number].state == "pending":
                found[number] = _parent_facts(target, number, call)
        return list(found.values())

    snapshots.settled(look, clock=call.clock, waits=call.waits)
    return [found[number] for number in range(len(targets))]


def _parent_facts(target: SyncTarget, number: int, call: Call) -> SnapshotFacts:
    try:
        return assuming(
            lambda: snapshots.describe(
                call.ec2(_identity(target)),
                target.parent_snapshot_id or "",
                region=target.region,
                hint="A parent must be in the region and account of its target",
            ),
            f"target in {target.region}",
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"targets[{number}].parent_snapshot_id: {error}") from error


def follow(
    targets: Sequence[SyncTarget], source: SnapshotFacts, lineage: str, identity: Identity, call: Call
) -> tuple[SnapshotFacts, list[SnapshotFacts]]:
    """The newest earlier snapshot of which every target has a proven copy, and those copies, one for each target.

    Raises ``InvalidRequest`` when there is none, saying what each target has.
    """
    copies = _copies_by_source(targets, lineage, identity.region, call)
    common = set.intersection(*(set(found) for found in copies)) - {source.snapshot_id}
    alive = [
        facts
        for facts in snapshots.settled(
            lambda: snapshots.existing(call.ec2(identity), common), clock=call.clock, waits=call.waits
        )
        if facts.state == "completed" and facts.tier == "standard" and facts.start_time <= source.start_time
    ]
    alive.sort(key=lambda facts: (facts.start_time, facts.snapshot_id), reverse=True)
    ebs = call.ebs(identity)
    for facts in alive[:MOST_CANDIDATES]:
        if facts.size_gib <= source.size_gib and related(ebs, facts.snapshot_id, source.snapshot_id):
            return facts, [found[facts.snapshot_id] for found in copies]
    lines = [
        f"- targets[{number}] in {target.region}: "
        + (f"copies of {', '.join(sorted(found))}" if found else "no proven copy of this lineage")
        for number, (target, found) in enumerate(zip(targets, copies, strict=True))
    ]
    raise InvalidRequest(
        f"follow: there is no earlier snapshot of lineage {lineage} that still exists in {identity.region} and of "
        f"which every target has a copy, so nothing can be built upon. Make one with the operation copy (the same "
        "lineage, if it was given), or name base_snapshot_id and the parents\n" + "\n".join(lines)
    )


def _copies_by_source(
    targets: Sequence[SyncTarget], lineage: str, region: str, call: Call
) -> list[dict[str, SnapshotFacts]]:
    """For each target the newest proven copy of each snapshot of the lineage that is where it will be."""
    found: dict[int, list[SnapshotFacts]] = {}

    def look() -> list[SnapshotFacts]:
        for number, target in enumerate(targets):
            if number not in found or any(facts.state == "pending" for facts in found[number]):
                found[number] = _copies(target, lineage, region, call)
        return [facts for each in found.values() for facts in each]

    snapshots.settled(look, clock=call.clock, waits=call.waits)
    return [
        {
            facts.tags[snapshots.SOURCE_TAG]: facts
            for facts in sorted(found[number], key=lambda f: f.start_time)
            if facts.tier == "standard" and facts.state == "completed"
        }
        for number in range(len(targets))
    ]


def _copies(target: SyncTarget, lineage: str, region: str, call: Call) -> list[SnapshotFacts]:
    return assuming(
        lambda: snapshots.proven_copies(call.ec2(_identity(target)), lineage=lineage, source_region=region),
        f"target in {target.region}",
    )


def examine_delta(request: SyncRequest, identity: Identity, call: Call) -> ExaminedDelta:
    """Look at a snapshot of which the changes are to be moved, at its base and at the parents, named or found.

    Raises ``InvalidRequest`` when one of them cannot be read or does not belong to the others.
    """
    facts = readable_snapshot(call, identity, request.snapshot_id)
    refuse_no_access(call.ebs(identity), request.snapshot_id)
    members = snapshot_members(facts, identity, request.lineage)
    if request.base_snapshot_id is None:
        base, parents = follow(request.targets, facts, members["lineage_name"], identity, call)
    else:
        base = delta_base(request.base_snapshot_id, facts, identity, call)
        parents = named_parents(request.targets, call)
    source = JobDelta(**members, base=base_record(base))
    return ExaminedDelta(
        source=source,
        size_gib=facts.size_gib,
        description=facts.description,
        tags=facts.tags,
        own_tags=copy_tags(source),
        encrypted=facts.encrypted,
        snapshot=facts,
        base=base,
        parents=parents,
    )


def _identity(target: SyncTarget) -> Identity:
    return Identity(target.region, target.role_arn, target.external_id)
