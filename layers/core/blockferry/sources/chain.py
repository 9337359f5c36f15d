"""What a sync is built on: the base that the delta starts from, and the parents that must equal it.

A delta on top of a snapshot that does not equal the base gives a snapshot that equals nothing, and EBS cannot notice.
So a parent is taken only if its tags say that a job of this software made it of the base and proved it, or if the job
compares it with the base block by block before it writes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.errors import InvalidRequest
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.copies import refuse_second_copies
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

    Raises ``InvalidRequest`` when a target has a copy of the source itself, and when there is no such snapshot, saying
    what each target has.
    """
    found = _found_copies(targets, lineage, identity.region, call)
    refuse_second_copies([target.region for target in targets], source.snapshot_id, found)
    copies = [_parents(each) for each in found]
    common = set.intersection(*(set(each) for each in copies))
    known = {
        facts.snapshot_id: facts
        for facts in snapshots.settled(
            lambda: snapshots.existing(call.ec2(identity), common), clock=call.clock, waits=call.waits
        )
    }
    doubts = {name: _no_base(known.get(name), source) for name in common}
    possible = sorted(
        (known[name] for name, doubt in doubts.items() if doubt is None),
        key=lambda facts: (facts.start_time, facts.snapshot_id),
        reverse=True,
    )
    ebs = call.ebs(identity)
    for facts in possible[:MOST_CANDIDATES]:
        if related(ebs, facts.snapshot_id, source.snapshot_id):
            return facts, [each[facts.snapshot_id] for each in copies]
        doubts[facts.snapshot_id] = "EBS lists no changes from it"
    regions = [target.region for target in targets]
    raise InvalidRequest(
        f"follow: there is no earlier snapshot of lineage {lineage} that still exists in {identity.region} and of "
        "which every target has a copy, so nothing can be built upon. "
        + "\n".join(_without_a_base(regions, source.snapshot_id, copies, doubts))
    )


def _without_a_base(
    regions: Sequence[str],
    snapshot_id: str,
    copies: Sequence[Mapping[str, SnapshotFacts]],
    doubts: Mapping[str, str | None],
) -> Iterator[str]:
    """What to do where nothing can be built upon, what each target has copies of, and why none of that is a base."""
    if doubts:
        yield (
            f"Make a full copy of {snapshot_id} with the operation copy (the same lineage, if it was given), and keep "
            "the snapshot that was copied last until the next one is"
        )
    elif all(copies):
        yield "The targets have copies of different snapshots: sync each in a job of its own, or copy one to all"
    else:
        yield (
            "Make one with the operation copy (the same lineage, if it was given), or name base_snapshot_id and the "
            "parents"
        )
    for number, (region, each) in enumerate(zip(regions, copies, strict=True)):
        has = f"copies of {', '.join(sorted(each))}" if each else "no proven copy of this lineage"
        yield f"- targets[{number}] in {region}: {has}"
    for name, doubt in sorted(doubts.items()):
        yield f"- {name} is no base: {doubt or 'only the newest are tried'}"


def _no_base(facts: SnapshotFacts | None, source: SnapshotFacts) -> str | None:
    """Why a snapshot of which every target has a copy cannot be the base; ``None`` when it may be."""
    if facts is None:
        return "EC2 does not know it any more"
    if facts.state != "completed" or facts.tier != "standard":
        return f"it is in state {facts.state}" if facts.state != "completed" else "it is in the archive tier"
    if facts.start_time > source.start_time:
        return f"it was taken after {source.snapshot_id}"
    return f"it is larger than {source.snapshot_id}" if facts.size_gib > source.size_gib else None


def _found_copies(targets: Sequence[SyncTarget], lineage: str, region: str, call: Call) -> list[list[SnapshotFacts]]:
    """For each target the proven copies of the lineage that are where it will be."""
    found: dict[int, list[SnapshotFacts]] = {}

    def look() -> list[SnapshotFacts]:
        for number, target in enumerate(targets):
            if number not in found or any(facts.state == "pending" for facts in found[number]):
                found[number] = _copies(target, lineage, region, call)
        return [facts for each in found.values() for facts in each]

    snapshots.settled(look, clock=call.clock, waits=call.waits)
    return [found[number] for number in range(len(targets))]


def _parents(found: Sequence[SnapshotFacts]) -> dict[str, SnapshotFacts]:
    """The newest of the copies of each snapshot that can be built upon."""
    return {
        facts.tags[snapshots.SOURCE_TAG]: facts
        for facts in sorted(found, key=lambda facts: facts.start_time)
        if facts.tier == "standard" and facts.state == "completed"
    }


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
    lineage = request.lineage or snapshots.lineage_of(facts)
    if request.base_snapshot_id is None:
        if lineage is None:
            raise InvalidRequest(
                f"follow: {facts.snapshot_id} has no volume of its own (all uploads and copies have "
                f"{facts.volume_id or 'none'}), and no tag {snapshots.LINEAGE_TAG}, so nothing tells which chain of "
                "copies it goes on: name it with lineage, as that tag of the copies says"
            )
        base, parents = follow(request.targets, facts, lineage, identity, call)
    else:
        base = delta_base(request.base_snapshot_id, facts, identity, call)
        parents = named_parents(request.targets, call)
    lineage = lineage or snapshots.lineage_of(base) or base.snapshot_id
    source = JobDelta(**snapshot_members(facts, identity, lineage), base=base_record(base))
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
