"""The EC2 side of snapshots: facts about them, their tags, their end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.core.errors import InvalidRequest
from blockferry.core.quotas import FILTER_VALUES
from blockferry.core.retry import Clock
from blockferry.core.tuning import Waits

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

JOB_TAG = "blockferry:job-id"
EXECUTION_TAG = "blockferry:execution"
"""The tag with the mark of the execution that started the snapshot. Names of jobs are not unique: whoever deletes asks
for this."""

SOURCE_TAG = "blockferry:source-snapshot-id"
SOURCE_REGION_TAG = "blockferry:source-region"
BASE_TAG = "blockferry:base-snapshot-id"
PARENT_TAG = "blockferry:parent-snapshot-id"
LINEAGE_TAG = "blockferry:lineage"
IMAGE_TAG = "blockferry:source-image"
ARCHIVE_TAG = "blockferry:source-archive"
CHECKSUM_TAG = "blockferry:linear-checksum"
PROVED_TAG = "blockferry:proved-snapshot-id"
"""The tag that is set together with ``CHECKSUM_TAG`` when EBS was given count and checksum: a completed snapshot that
carries both is what its job proved. It names the snapshot itself, since tags travel: restored volumes and their next
snapshots may inherit them."""

HOLES_TAG = "blockferry:holes"
"""The tag that tells what the snapshot's holes stand for, a ``HoleMeaning``; set when the snapshot is started."""

_COPIED = re.compile(r"\[Copied (?P<source>snap-[0-9a-f]+) from (?P<region>[a-z0-9-]+)\]")
"""How EC2's console begins the description of a copy. Nothing else tells what CopySnapshot made a copy of."""


@dataclass(frozen=True)
class SnapshotFacts:
    """What EC2 says of a snapshot. ``size_gib`` is the volume's; ``full_size_bytes`` what was ever written to it
    (``None`` where EC2 does not tell). ``copied``: CopySnapshot made it."""

    snapshot_id: str
    state: str
    size_gib: int
    tier: str
    owner_id: str
    volume_id: str
    start_time: datetime
    description: str
    tags: Mapping[str, str]
    encrypted: bool
    kms_key_id: str | None
    full_size_bytes: int | None
    state_message: str
    copied: bool = False

    @property
    def proved(self) -> bool:
        """Whether the tags say that a job made this very snapshot and proved it; it must be completed, too."""
        has_all = {JOB_TAG, CHECKSUM_TAG} <= self.tags.keys()
        return has_all and self.names_itself

    def proved_copy_of(self, snapshot_id: str, *, region: str) -> bool:
        """Whether the tags say that a job made it of this snapshot in ``region`` and proved it."""
        made_of = (self.tags.get(SOURCE_TAG), self.tags.get(SOURCE_REGION_TAG))
        return self.proved and made_of == (snapshot_id, region)

    def copied_from(self, snapshot_id: str, *, region: str) -> bool:
        """Whether CopySnapshot made it of this snapshot in ``region``, by its description."""
        told = _COPIED.search(self.description)
        return self.copied and told is not None and (told["source"], told["region"]) == (snapshot_id, region)

    @property
    def names_itself(self) -> bool:
        """Whether its tags were set on this very snapshot, once EBS was given its checksum."""
        return self.tags.get(PROVED_TAG) == self.snapshot_id


def has_volume(volume_id: str) -> bool:
    """Whether the id is that of a volume: copies and direct uploads carry a made-up one, vol-ffffffff (EBS user guide,
    copy a snapshot)."""
    return volume_id.startswith("vol-") and not volume_id.startswith("vol-ffff")


def lineage_of(facts: SnapshotFacts) -> str | None:
    """The name of the chain of copies that a snapshot goes on: the id of its volume, or what its tag says where it has
    none of its own. ``None`` when nothing tells: a made-up id is that of unrelated disks."""
    if has_volume(facts.volume_id):
        return facts.volume_id
    named = facts.tags.get(LINEAGE_TAG)
    return named if named and (has_volume(named) or not named.startswith("vol-")) else None


def describe(
    ec2: EC2Client, snapshot_id: str, *, region: str, hint: str = "Check the id and source.region"
) -> SnapshotFacts:
    """The facts of one snapshot. ``hint`` is what its user should look at when there is none.

    Raises ``InvalidRequest`` when it is not there or not visible to this identity; other AWS errors pass through.
    """
    try:
        found = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    except ClientError as error:
        if error.operation_name == "AssumeRole":
            # EC2 was never asked: what is missing is not a permission of the role.
            raise
        code = error.response["Error"]["Code"]
        if code in ("InvalidSnapshot.NotFound", "InvalidSnapshotID.Malformed"):
            raise InvalidRequest(
                f"snapshot {snapshot_id} in {region}: EC2 does not know it ({code}). {hint}; "
                "a snapshot of another account must be shared with this one or be read through source.role_arn"
            ) from error
        if code in ("UnauthorizedOperation", "AccessDenied", "AuthFailure"):
            raise InvalidRequest(
                f"snapshot {snapshot_id} in {region}: no permission to look at it ({code}: "
                f"{error.response['Error'].get('Message', '')})"
            ) from error
        raise
    if not found:
        raise InvalidRequest(f"snapshot {snapshot_id} in {region}: EC2 does not know it. {hint}")
    return _facts(found[0])


def described_soon(ec2: EC2Client, snapshot_id: str, *, clock: Clock, waits: Waits) -> SnapshotFacts | None:
    """The facts of a snapshot that was started a moment ago, which EC2 need not know yet: it is asked for a while.
    ``None`` when it does not know it after that."""
    found = existing(ec2, [snapshot_id])
    for _ in range(waits.looks - 1):
        if found:
            break
        clock.sleep(waits.look_seconds)
        found = existing(ec2, [snapshot_id])
    return found[0] if found else None


def existing(ec2: EC2Client, snapshot_ids: Iterable[str], *, owner: str | None = None) -> list[SnapshotFacts]:
    """The facts of those of the snapshots that still exist and are visible, in no order; with ``owner`` ("self") only
    of those that are that account's."""
    ids = sorted(set(snapshot_ids))
    owners: Any = {} if owner is None else {"OwnerIds": [owner]}
    found: list[SnapshotFacts] = []
    for first in range(0, len(ids), FILTER_VALUES):
        pages = ec2.get_paginator("describe_snapshots").paginate(
            **owners, Filters=[{"Name": "snapshot-id", "Values": ids[first : first + FILTER_VALUES]}]
        )
        found += [_facts(snapshot) for page in pages for snapshot in page["Snapshots"]]
    return found


class Stateful(Protocol):
    """What may be pending."""

    @property
    def state(self) -> str: ...


S = TypeVar("S", bound=Stateful)


def _nothing() -> bool:
    return False


def settled(
    look: Callable[[], list[S]],
    *,
    clock: Clock,
    waits: Waits,
    pauses: Iterable[float] | None = None,
    missing: Callable[[], bool] = _nothing,
) -> list[S]:
    """What ``look`` finds, asked again for a short while as long as any of it is pending, or ``missing`` says that some
    of it was not found: after each of the ``pauses`` (seconds), which are those of ``waits`` unless others are given.

    EC2's answers are not all of the same moment: one may show a completed snapshot as pending once more (coldsnap,
    AWS's own tool, waits for several completed answers in a row). What is pending for longer is returned as pending.
    """
    found = look()
    for pause in repeat(waits.look_seconds, waits.looks - 1) if pauses is None else pauses:
        if all(facts.state != "pending" for facts in found) and not missing():
            break
        clock.sleep(pause)
        found = look()
    return found


def proven_copies(ec2: EC2Client, *, lineage: str, source_region: str) -> list[SnapshotFacts]:
    """The copies of a lineage in the client's region and account that a job has proved; some may be pending."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[
            {"Name": f"tag:{LINEAGE_TAG}", "Values": [lineage]},
            {"Name": f"tag:{SOURCE_REGION_TAG}", "Values": [source_region]},
            {"Name": "status", "Values": ["pending", "completed"]},
        ],
    )
    found = [_facts(snapshot) for page in pages for snapshot in page["Snapshots"]]
    return [facts for facts in found if facts.proved and SOURCE_TAG in facts.tags]


def copies_of(ec2: EC2Client, snapshot_ids: Iterable[str], *, source_region: str) -> list[SnapshotFacts]:
    """The completed snapshots of the standard tier in the client's region and account that are copies of these, newest
    first: those that jobs have proved, and those by CopySnapshot whose description tells."""
    ids = sorted(set(snapshot_ids))
    found: dict[str, SnapshotFacts] = {}
    for name, values in (
        (f"tag:{SOURCE_TAG}", ids),
        ("description", [f"*Copied {each} from {source_region}*" for each in ids]),
    ):
        pages = ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"],
            Filters=[
                {"Name": name, "Values": values},
                {"Name": "status", "Values": ["completed"]},
                {"Name": "storage-tier", "Values": ["standard"]},
            ],
        )
        found |= {facts.snapshot_id: facts for page in pages for facts in map(_facts, page["Snapshots"])}
    copies = [
        facts
        for facts in found.values()
        for name in ids
        if facts.proved_copy_of(name, region=source_region) or facts.copied_from(name, region=source_region)
    ]
    return sorted(copies, key=lambda facts: (facts.start_time, facts.snapshot_id), reverse=True)


def encrypted_by_default(ec2: EC2Client) -> bool | None:
    """Whether the account encrypts new snapshots in the client's region; ``None`` when that cannot be found out."""
    try:
        return bool(ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"])
    except (ClientError, BotoCoreError):
        return None


def unfinished_of(ec2: EC2Client, mark: str) -> list[SnapshotFacts]:
    """The snapshots that an execution has started and that are pending or in ``error``, in the client's region."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[
            {"Name": f"tag:{EXECUTION_TAG}", "Values": [mark]},
            {"Name": "status", "Values": ["pending", "error"]},
        ],
    )
    return [_facts(snapshot) for page in pages for snapshot in page["Snapshots"]]


def pending_uploads(ec2: EC2Client, *, but_of: str) -> list[str]:
    """Ids of the account's pending snapshots in the client's region that StartSnapshot began, but for those of the
    execution with this mark.

    They are of no volume, and no copies, of which alone EC2 tells a transfer type (botocore's ec2 model): those have
    quotas of their own.
    """
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "status", "Values": ["pending"]}]
    )
    return [
        facts.snapshot_id
        for page in pages
        for found in page["Snapshots"]
        if not found.get("TransferType") and not has_volume((facts := _facts(found)).volume_id)
        if facts.tags.get(EXECUTION_TAG) != but_of
    ]


def delete(ec2: EC2Client, snapshot_id: str, *, mark: str, asked_to_seal: bool) -> str | None:
    """Delete a snapshot that was never completed; returns why it is kept, ``None`` when it is gone.

    Everything that deletes a snapshot does so here. It must carry ``mark`` as its tag ``EXECUTION_TAG``; what EC2 calls
    completed is kept, and so is what carries the proof, whatever became of it. What EBS was asked to seal is kept,
    unless EC2 calls it failed, and even if EC2 shows nothing of it, since that answer may be old. Nothing can become
    completed between the look and the deletion: only who started a snapshot completes it, and says ``asked_to_seal``
    from before the request on; and what has failed stays so.
    """
    facts = next(iter(existing(ec2, [snapshot_id])), None)
    if facts is not None:
        if facts.state == "completed":
            return "EC2 calls it completed"
        if facts.tags.get(EXECUTION_TAG) != mark:
            return f"its tag {EXECUTION_TAG} is not that of this job"
    if asked_to_seal and (facts is None or facts.state != "error"):
        return "EBS was asked to seal it"
    if facts is not None and PROVED_TAG in facts.tags:
        return f"EBS took its checksum, as its tag {PROVED_TAG} says; it is in state {facts.state}"
    try:
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
            raise
    return None


def add_tags(ec2: EC2Client, snapshot_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on a snapshot; same keys are replaced."""
    ec2.create_tags(Resources=[snapshot_id], Tags=[{"Key": k, "Value": v} for k, v in tags.items()])


def refuse_unreadable(facts: SnapshotFacts, *, region: str) -> None:
    """Raise ``InvalidRequest`` when the direct APIs cannot read the snapshot in its present state and tier."""
    name = f"snapshot {facts.snapshot_id} in {region}"
    if facts.tier == "archive":
        raise InvalidRequest(
            f"{name} is in the archive tier, which the EBS direct APIs cannot read; restore it first with: aws ec2 "
            f"restore-snapshot-tier --snapshot-id {facts.snapshot_id} --temporary-restore-days 2"
        )
    if facts.state == "pending":
        raise InvalidRequest(f"{name} is pending; start again once it is completed")
    if facts.state != "completed":
        why = f" ({facts.state_message})" if facts.state_message else ""
        raise InvalidRequest(f"{name} is in state {facts.state}{why}; only a completed snapshot can be read")


def _facts(found: Any) -> SnapshotFacts:
    full = found.get("FullSnapshotSizeInBytes")
    return SnapshotFacts(
        snapshot_id=found["SnapshotId"],
        state=found["State"],
        size_gib=int(found["VolumeSize"]),
        tier=found.get("StorageTier") or "standard",
        owner_id=found.get("OwnerId", ""),
        volume_id=found.get("VolumeId", ""),
        start_time=found["StartTime"],
        description=found.get("Description") or "",
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()},
        encrypted=bool(found.get("Encrypted")),
        kms_key_id=found.get("KmsKeyId") or None,
        full_size_bytes=None if full is None else int(full),
        state_message=found.get("StateMessage") or "",
        copied=found.get("TransferType") is not None,
    )
