"""What a sync is built on: the base that the delta starts from, and the parents that must equal it.

A delta on top of a snapshot that does not equal the base gives a snapshot that equals nothing, and EBS cannot notice.
So a parent is taken only if its tags say that a job of this software made it of the base and proved it, or if the job
compares it with the base block by block before it writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from blockferry.aws import snapshots
from blockferry.aws.ebs.client import EbsDirect
from blockferry.aws.errors import assuming
from blockferry.aws.sessions import Aws
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision
from blockferry.jobs.record import BaseSnapshot, JobSnapshot, JobTarget
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.meaning import on_parent
from blockferry.sources.readable import readable_snapshot, refuse_no_access, related
from blockferry.transfer.examine import all_tags, snapshot_tags, target_identity

MOST_CANDIDATES = 25
"""Earlier snapshots that are tried as base, newest first. Only copies whose source has no volume id of its own, such as
direct uploads, can be of several lineages at all."""


def delta_base(request: SyncRequest, source: JobSnapshot, *, aws: Aws, ebs: EbsDirect) -> SnapshotFacts:
    """The base that the request names, checked. Raises ``InvalidRequest`` when no delta can start there."""
    facts = readable_snapshot(aws, source.identity, request.base_snapshot_id or "")
    name = f"base_snapshot_id {facts.snapshot_id}"
    if facts.start_time > datetime.fromisoformat(source.start_time):
        raise InvalidRequest(
            f"{name} was taken at {facts.start_time.isoformat()}, after {source.snapshot_id} ({source.start_time}); a "
            "delta leads from the earlier to the later one: name them the other way round"
        )
    if facts.size_gib > source.size_gib:
        raise InvalidRequest(
            f"{name} has {facts.size_gib} GiB, {source.snapshot_id} has {source.size_gib}; volumes only grow, so they "
            "cannot be of one volume"
        )
    if not related(ebs, facts.snapshot_id, source.snapshot_id):
        raise InvalidRequest(
            f"{name} and {source.snapshot_id} in {source.region} are not of one volume (UNRELATED_SNAPSHOTS): there is "
            "no delta between them. A copy that EC2 has encrypted with another key begins a new lineage, too"
        )
    return facts


def named_parents(targets: Sequence[SyncTarget], *, aws: Aws) -> list[SnapshotFacts]:
    """What EC2 says of the parents that the request names. Those shown as pending are waited for together."""
    found: dict[int, SnapshotFacts] = {}

    def look() -> list[SnapshotFacts]:
        for number, target in enumerate(targets):
            if number not in found or found[number].state == "pending":
                found[number] = _parent_facts(target, number, aws=aws)
        return list(found.values())

    snapshots.settled(look)
    return [found[number] for number in range(len(targets))]


def _parent_facts(target: SyncTarget, number: int, *, aws: Aws) -> SnapshotFacts:
    try:
        return assuming(
            lambda: snapshots.describe(
                aws.ec2(target_identity(target)),
                target.parent_snapshot_id or "",
                region=target.region,
                hint="A parent must be in the region and account of its target",
            ),
            f"target in {target.region}",
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"targets[{number}].parent_snapshot_id: {error}") from error


def follow(
    request: SyncRequest, source: JobSnapshot, *, aws: Aws, ebs: EbsDirect
) -> tuple[SnapshotFacts, list[SnapshotFacts]]:
    """The newest earlier snapshot of which every target has a proven copy, and those copies, one for each target.

    Raises ``InvalidRequest`` when there is none, saying what each target has.
    """
    copies = _copies_by_source(request.targets, source, aws=aws)
    common = set.intersection(*(set(found) for found in copies)) - {source.snapshot_id}
    before = datetime.fromisoformat(source.start_time)
    alive = [
        facts
        for facts in snapshots.settled(lambda: snapshots.existing(aws.ec2(source.identity), common))
        if facts.state == "completed" and facts.tier == "standard" and facts.start_time <= before
    ]
    alive.sort(key=lambda facts: (facts.start_time, facts.snapshot_id), reverse=True)
    for facts in alive[:MOST_CANDIDATES]:
        if facts.size_gib <= source.size_gib and related(ebs, facts.snapshot_id, source.snapshot_id):
            return facts, [found[facts.snapshot_id] for found in copies]
    lines = [
        f"- targets[{number}] in {target.region}: "
        + (f"copies of {', '.join(sorted(found))}" if found else "no proven copy of this lineage")
        for number, (target, found) in enumerate(zip(request.targets, copies, strict=True))
    ]
    raise InvalidRequest(
        f"follow: there is no earlier snapshot of lineage {source.lineage} that still exists in {source.region} and of "
        f"which every target has a copy, so nothing can be built upon. Make one with the operation copy (the same "
        "lineage, if it was given), or name base_snapshot_id and the parents\n" + "\n".join(lines)
    )


def _copies_by_source(
    targets: Sequence[SyncTarget], source: JobSnapshot, *, aws: Aws
) -> list[dict[str, SnapshotFacts]]:
    """For each target the newest proven copy of each snapshot of the lineage that is where it will be."""
    found: dict[int, list[SnapshotFacts]] = {}

    def look() -> list[SnapshotFacts]:
        for number, target in enumerate(targets):
            if number not in found or any(facts.state == "pending" for facts in found[number]):
                found[number] = _copies(target, source, aws=aws)
        return [facts for each in found.values() for facts in each]

    snapshots.settled(look)
    return [
        {
            facts.tags[snapshots.SOURCE_TAG]: facts
            for facts in sorted(found[number], key=lambda f: f.start_time)
            if facts.tier == "standard" and facts.state == "completed"
        }
        for number in range(len(targets))
    ]


def _copies(target: SyncTarget, source: JobSnapshot, *, aws: Aws) -> list[SnapshotFacts]:
    return assuming(
        lambda: snapshots.proven_copies(
            aws.ec2(target_identity(target)), lineage=source.lineage, source_region=source.region
        ),
        f"target in {target.region}",
    )


def parented_target(
    target: SyncTarget,
    number: int,
    *,
    parent: SnapshotFacts,
    base: SnapshotFacts,
    source: JobSnapshot,
    source_facts: SnapshotFacts,
    job_id: str,
    own_account: str,
    verify: bool,
    holes: HoleDecision,
    aws: Aws,
) -> JobTarget:
    """A target on top of its parent. Raises ``InvalidRequest`` when the parent cannot serve, is not proved to, or has
    holes that may not read as those of the base."""
    name = f"targets[{number}].parent_snapshot_id {parent.snapshot_id} in {target.region}"
    account = target.role_arn.split(":")[4] if target.role_arn else own_account
    if parent.owner_id != account:
        raise InvalidRequest(
            f"{name} belongs to account {parent.owner_id}, the target is made in {account}; EBS takes a parent of the "
            "same account only: copy it there first, with the operation copy"
        )
    if parent.state != "completed" or parent.tier != "standard":
        what = f"in state {parent.state}" if parent.state != "completed" else "in the archive tier"
        raise InvalidRequest(f"{name} is {what}; only a completed snapshot of the standard tier can be a parent")
    if parent.size_gib < base.size_gib:
        raise InvalidRequest(
            f"{name} has {parent.size_gib} GiB, the base {base.snapshot_id} has {base.size_gib}; it cannot be a clone "
            "of it"
        )
    itself = parent.snapshot_id == base.snapshot_id and target.region == source.region
    clone = itself or _proved_copy_of(parent, base, source)
    if not (verify or clone):
        raise InvalidRequest(
            f"{name} is not shown to equal the base {base.snapshot_id}: {_doubt(parent, base, source)}. Name a copy "
            "that a job of this deployment made of it, or set options.verify_parent to true, which reads and compares "
            "both in full"
        )
    if verify:
        try:
            refuse_no_access(aws.ebs(target_identity(target), counts=RequestCounts()), parent.snapshot_id)
        except InvalidRequest as error:
            raise InvalidRequest(f"options.verify_parent: targets[{number}]: {error}") from error
    ec2 = aws.ec2(target_identity(target))
    if not parent.encrypted and snapshots.encrypted_by_default(ec2):
        raise InvalidRequest(
            f"{name} is not encrypted, and the account encrypts by default in {target.region}: there EBS refuses a "
            "snapshot on top of an unencrypted parent. Make an encrypted full copy with the operation copy, and sync "
            "on top of that one from then on"
        )
    read = on_parent(parent, snapshot=source_facts, delta=holes, clone=clone, verify=verify, name=name)
    own = snapshot_tags(source, job_id, read.left) | {
        snapshots.BASE_TAG: base.snapshot_id,
        snapshots.PARENT_TAG: parent.snapshot_id,
    }
    return JobTarget(
        region=target.region,
        role_arn=target.role_arn,
        external_id=target.external_id,
        kms_key_arn=None,
        encrypted=None,
        description=source_facts.description if target.description is None else target.description,
        tags=all_tags(source_facts.tags, target.tags, own, region=target.region),
        size_gib=max(source.size_gib, parent.size_gib),
        parent_snapshot_id=parent.snapshot_id,
        parent_size_gib=parent.size_gib,
        parent_encrypted=parent.encrypted,
        parent_is_full=read.full,
        parent_kms_key_arn=parent.kms_key_id,
    )


def _proved_copy_of(parent: SnapshotFacts, base: SnapshotFacts, source: JobSnapshot) -> bool:
    tags = parent.tags
    return (
        tags.get(snapshots.SOURCE_TAG) == base.snapshot_id
        and tags.get(snapshots.SOURCE_REGION_TAG) == source.region
        and parent.proved
    )


def _doubt(parent: SnapshotFacts, base: SnapshotFacts, source: JobSnapshot) -> str:
    made_of = parent.tags.get(snapshots.SOURCE_TAG)
    if made_of is None:
        return f"it has no tag {snapshots.SOURCE_TAG}"
    region = parent.tags.get(snapshots.SOURCE_REGION_TAG)
    if (made_of, region) != (base.snapshot_id, source.region):
        return f"its tags say that it was made of {made_of} in {region}"
    if parent.tags.get(snapshots.PROVED_TAG, parent.snapshot_id) != parent.snapshot_id:
        return f"its tags were copied from {parent.tags[snapshots.PROVED_TAG]}"
    return (
        f"it lacks the tags {snapshots.CHECKSUM_TAG} and {snapshots.PROVED_TAG}, which a job sets when EBS was given "
        "the checksum"
    )


def base_snapshot(facts: SnapshotFacts) -> BaseSnapshot:
    """The record of the base."""
    return BaseSnapshot(snapshot_id=facts.snapshot_id, size_gib=facts.size_gib, start_time=facts.start_time.isoformat())


def parents_of(
    request: SyncRequest, source: JobSnapshot, *, aws: Aws, ebs: EbsDirect
) -> tuple[SnapshotFacts, Sequence[SnapshotFacts]]:
    """The base and the parent of each target, named or found."""
    if request.follow:
        return follow(request, source, aws=aws, ebs=ebs)
    base = delta_base(request, source, aws=aws, ebs=ebs)
    return base, named_parents(request.targets, aws=aws)
