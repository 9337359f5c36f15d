"""A snapshot on top of a parent that equals the base of a delta: the target of syncs.

A delta on top of a snapshot that does not equal the base gives a snapshot that equals nothing, and EBS cannot notice.
So a parent is taken only if its tags say that a job of this software made it of the base and proved it, or if the job
compares it with the base block by block before it writes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import blocks_of_volume
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import InvalidRequest
from blockferry.core.holes import HoleDecision
from blockferry.jobs.execution import Execution
from blockferry.requests.sync import SyncRequest, SyncTarget
from blockferry.sources.delta import ExaminedDelta, JobDelta
from blockferry.sources.equal import Clone
from blockferry.sources.meaning import on_parent
from blockferry.sources.readable import refuse_no_access
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.encryption import WantedEncryption
from blockferry.targets.proposal import Proposal, all_tags, job_tags, tags_left_out
from blockferry.targets.snapshot import SnapshotTarget


class SnapshotOnParent(SnapshotTarget):
    """A snapshot with a parent, which is encrypted as that one is, with the same key.

    ``parent_is_full`` says that the comparison with the base has to show that the parent has no holes.
    """

    kind: Literal["snapshot on parent"] = "snapshot on parent"
    parent_snapshot_id: str
    parent_size_gib: int
    parent_encrypted: bool
    parent_kms_key_arn: str | None
    parent_is_full: bool = False

    @property
    def parent_id(self) -> str:
        return self.parent_snapshot_id

    @property
    def wanted(self) -> WantedEncryption:
        return WantedEncryption(
            self.parent_kms_key_arn if self.parent_encrypted else None,
            must=self.parent_encrypted,
            must_not=not self.parent_encrypted,
            key_because=" of its parent",
            must_because=", as its parent has it",
        )

    def clone(self, number: int, call: Call) -> Clone:
        blocks = blocks_of_volume(self.parent_size_gib)
        parent = SnapshotSource(call.ebs(self.identity), self.parent_snapshot_id, total_blocks=blocks)
        name = f"targets[{number}].parent_snapshot_id {self.parent_snapshot_id} in {self.region}"
        return Clone(name, parent, self.parent_encrypted, blocks if self.parent_is_full else 0)

    def _new(self, token: str, tags: Mapping[str, str]) -> NewSnapshot:
        return NewSnapshot(
            volume_size_gib=self.volume_gib,
            client_token=token,
            description=self.description,
            tags=tags,
            parent_snapshot_id=self.parent_snapshot_id,
        )


def propose_on_parents(
    request: SyncRequest, found: ExaminedDelta, execution: Execution, call: Call
) -> Proposal[SnapshotOnParent]:
    """A target on top of each parent. Raises ``InvalidRequest`` when a parent cannot serve, is not proved to, or has
    holes that may not read as those of the base."""
    holes = found.decide(request.options.holes, may_be_encrypted=True)
    targets = tuple(
        _on_parent(target, number, parent, request, found, holes, execution, call)
        for number, (target, parent) in enumerate(zip(request.targets, found.parents, strict=True))
    )
    return Proposal(targets, holes, compared=request.options.verify_parent, warnings=tags_left_out(found.tags))


def _on_parent(
    target: SyncTarget,
    number: int,
    parent: SnapshotFacts,
    request: SyncRequest,
    found: ExaminedDelta,
    holes: HoleDecision,
    execution: Execution,
    call: Call,
) -> SnapshotOnParent:
    source, base, verify = found.source, found.base, request.options.verify_parent
    identity = Identity(target.region, target.role_arn, target.external_id)
    name = f"targets[{number}].parent_snapshot_id {parent.snapshot_id} in {target.region}"
    account = target.role_arn.split(":")[4] if target.role_arn else execution.account
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
    clone = itself or parent.proved_copy_of(base.snapshot_id, region=source.region)
    if not (verify or clone):
        raise InvalidRequest(
            f"{name} is not shown to equal the base {base.snapshot_id}: {_doubt(parent, base, source)}. Name a copy "
            "that a job of this deployment made of it, or set options.verify_parent to true, which reads and compares "
            "both in full"
        )
    if verify:
        try:
            refuse_no_access(call.ebs(identity, counts=RequestCounts()), parent.snapshot_id)
        except InvalidRequest as error:
            raise InvalidRequest(f"options.verify_parent: targets[{number}]: {error}") from error
    refuse_unencrypted_parent(parent, identity, call, name=name)
    read = on_parent(parent, snapshot=found.snapshot, delta=holes, clone=clone, verify=verify, name=name)
    own = job_tags(execution, read.left) | dict(found.own_tags)
    own |= {snapshots.BASE_TAG: base.snapshot_id, snapshots.PARENT_TAG: parent.snapshot_id}
    return SnapshotOnParent(
        region=target.region,
        role_arn=target.role_arn,
        external_id=target.external_id,
        description=found.description if target.description is None else target.description,
        tags=all_tags(found.tags, target.tags, own, region=target.region),
        size_gib=max(source.size_gib, parent.size_gib),
        parent_snapshot_id=parent.snapshot_id,
        parent_size_gib=parent.size_gib,
        parent_encrypted=parent.encrypted,
        parent_kms_key_arn=parent.kms_key_id,
        parent_is_full=read.full,
    )


def refuse_unencrypted_parent(parent: SnapshotFacts, identity: Identity, call: Call, *, name: str) -> None:
    """Raise ``InvalidRequest`` for a parent on top of which EBS takes nothing in an account that encrypts by default;
    ``name`` is the parent's in the text."""
    if not parent.encrypted and snapshots.encrypted_by_default(call.ec2(identity)):
        raise InvalidRequest(
            f"{name} is not encrypted, and the account encrypts by default in {identity.region}: there EBS refuses a "
            "snapshot on top of an unencrypted parent. Make an encrypted full copy with the operation copy, and sync "
            "on top of that one from then on"
        )


def _doubt(parent: SnapshotFacts, base: SnapshotFacts, source: JobDelta) -> str:
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
