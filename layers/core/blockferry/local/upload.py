"""Upload: a raw disk image on this machine becomes a snapshot, alone or on top of an earlier one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import sealing, snapshots
from blockferry.aws.ebs.client import EbsDirect, NewSnapshot
from blockferry.aws.errors import translated
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BLOCK_SIZE, BLOCKS_PER_GIB, blocks_of_volume, split
from blockferry.core.checksums import Linear
from blockferry.core.counts import RequestCounts
from blockferry.core.errors import EncryptionDiffers, IncompleteTransfer, InvalidRequest, TargetFailed
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.mover import move
from blockferry.core.quotas import MAX_DESCRIPTION, MAX_TAGS
from blockferry.core.retry import Clock, Deadline
from blockferry.formats.recognise import ImageFormat, looks_like, refusal
from blockferry.local.holes import UploadHoles, decide
from blockferry.requests.parts import check_tags
from blockferry.sources.device import ImageSource
from blockferry.sources.readable import refuse_no_access
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.sink import SnapshotSink

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

THREADS = 16
POLL_SECONDS = 2.0
SEAL_SECONDS = 3_600.0
"""How long sealing is waited for before the command gives up waiting; the snapshot is complete by then."""

STRETCH = 64 * BLOCKS_PER_GIB
"""Blocks moved at a time, so that digests of a huge image are folded into the checksum as they come."""


@dataclass(frozen=True)
class Uploaded:
    """The new snapshot; ``blocks`` were put, with ``linear_checksum`` over them. All others of the
    ``volume_size_gib * 2048`` are the parent's, or holes, of which the snapshot's tags tell ``holes_stand_for``. The
    other members about holes are those of a receipt."""

    snapshot_id: str
    region: str
    volume_size_gib: int
    blocks: int
    linear_checksum: str
    parent_snapshot_id: str | None = None
    holes: HolePolicy = HolePolicy.PRESERVE
    holes_taken_for: HoleMeaning = HoleMeaning.UNKNOWN
    holes_decided_by: str = "default"
    holes_reason: str = ""
    holes_stand_for: HoleMeaning = HoleMeaning.UNKNOWN
    warnings: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is started. ``encrypted`` is ``None`` where it cannot be found out."""

    size_gib: int
    encrypted: bool | None
    parent: SnapshotFacts | None
    below: SnapshotSource | None
    holes: UploadHoles


def upload_image(
    image: Path,
    *,
    region: str,
    aws: Aws,
    volume_size_gib: int | None = None,
    parent_snapshot_id: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    holes: HolePolicy | None = None,
    image_format: ImageFormat | None = None,
    clock: Clock | None = None,
) -> Uploaded:
    """Make a snapshot of ``image`` in ``region`` and wait until EC2 calls it completed.

    With a parent only blocks that differ from it are put. The volume is as large as the image, rounded up, and the
    parent, if no more is asked for. Without ``holes`` blocks of zeros become holes where these read as zeros; where the
    snapshot is or may be encrypted the image is written whole, holes of the file included: a hole does not mean that
    nobody wrote there.

    If anything fails the pending snapshot is deleted, unless EBS was asked to seal it and may have done so: then it is
    kept. A note of the error says which. Raises ``InvalidRequest`` for an unusable image, size, parent or choice, also
    for an image that looks like another kind of file, unless ``image_format`` says that it is raw, and
    ``SourceChanged`` for a file that changes meanwhile, and ``UnreadableSource`` for a disk that fails.
    """
    clock = clock or Clock()
    _refuse_unusable(description, tags or {})
    with ImageSource(image) as source:
        ec2 = aws.ec2(Identity(region))
        ebs = aws.ebs(Identity(region), counts=RequestCounts(), clock=clock, connections=THREADS)
        found = prepare(
            source,
            image,
            ec2=ec2,
            ebs=ebs,
            volume_size_gib=volume_size_gib,
            parent=parent_snapshot_id,
            holes=holes,
            image_format=image_format,
        )
        decision = found.holes.decision
        new = NewSnapshot(
            found.size_gib,
            secrets.token_hex(32),
            description,
            {**(tags or {}), snapshots.HOLES_TAG: decision.left.value},
            # What was decided about holes rests on it: it is not left to a default that may change.
            encrypted=None if parent_snapshot_id is not None else found.encrypted,
            parent_snapshot_id=parent_snapshot_id,
        )
        source.refuse_changed()
        started = ebs.start_snapshot(new)
        snapshot_id, asked_to_seal = started.snapshot_id, False
        try:
            if started.kms_key_arn is not None and found.encrypted is False:
                raise EncryptionDiffers(
                    f"{snapshot_id} in {region} came out encrypted with {started.kms_key_arn}, although neither the "
                    "account nor the parent encrypts; zeros that are left out would not be read as zeros. Start again"
                )
            linear = _put(found, SnapshotSink(ebs, snapshot_id, started_seconds_ago=0.0), clock=clock)
            source.refuse_changed()
            # EC2 may not know it yet; then it is looked at when it is completed.
            for facts in snapshots.existing(ec2, [snapshot_id]):
                _refuse_other_encryption(facts, found, region=region)
            asked_to_seal = True
            sealing.ask(ebs, ec2, snapshot_id, changed_blocks=linear.blocks, linear_checksum=linear.value())
        except BaseException as error:
            if isinstance(error, sealing.NotSealed | sealing.NotAsked):
                asked_to_seal = False
            error.add_note(_left(ec2, snapshot_id, region=region, asked_to_seal=asked_to_seal))
            raise
    warnings = [*found.holes.warnings, *_mark_proved(ec2, snapshot_id, linear.value())]
    _refuse_other_encryption(_wait(ec2, snapshot_id, region=region, clock=clock), found, region=region)
    return Uploaded(
        snapshot_id,
        region,
        found.size_gib,
        linear.blocks,
        linear.value(),
        parent_snapshot_id,
        holes=found.holes.policy,
        holes_taken_for=decision.taken_for,
        holes_decided_by=decision.by,
        holes_reason=decision.reason,
        holes_stand_for=decision.left,
        warnings=tuple(warnings),
    )


def _refuse_other_encryption(facts: SnapshotFacts, found: Prepared, *, region: str) -> None:
    if found.encrypted is not None and facts.encrypted != found.encrypted:
        raise EncryptionDiffers(
            f"{facts.snapshot_id} in {region} is {'' if facts.encrypted else 'not '}encrypted, which was not to be: "
            + ("it is completed and kept, delete it; " if facts.state == "completed" else "")
            + "look at the account's EBS settings, and upload again"
        )


def prepare(
    source: ImageSource,
    image: Path,
    *,
    ec2: EC2Client,
    ebs: EbsDirect,
    volume_size_gib: int | None,
    parent: str | None,
    holes: HolePolicy | None,
    image_format: ImageFormat | None,
) -> Prepared:
    """Look at everything that the upload needs. Raises ``InvalidRequest`` when it cannot work."""
    # What is wrong with the image is told before AWS is asked for anything.
    if image_format is None:
        _refuse_other_format(image, source)
    size = _volume_size(source, image, volume_size_gib)
    encrypted = snapshots.encrypted_by_default(ec2)
    facts = below = None
    if parent is not None:
        facts = _parent(ec2, ebs, parent, asked_gib=volume_size_gib, encrypts=encrypted)
        below = SnapshotSource(ebs, parent, total_blocks=blocks_of_volume(facts.size_gib))
        size, encrypted = max(size, facts.size_gib), facts.encrypted
    decided = decide(
        holes,
        source,
        may_be_encrypted=encrypted is not False,
        on_parent=parent is not None,
        total_blocks=blocks_of_volume(size),
    )
    return Prepared(size, encrypted, facts, below, decided)


def _mark_proved(ec2: EC2Client, snapshot_id: str, linear_checksum: str) -> list[Mapping[str, str]]:
    """Let the snapshot's tags say what EBS took, as a job's targets do; what went wrong is no reason to fail.

    Without them the tag about holes is not believed, which costs a question and no data.
    """
    try:
        snapshots.add_tags(
            ec2, snapshot_id, {snapshots.CHECKSUM_TAG: linear_checksum, snapshots.PROVED_TAG: snapshot_id}
        )
    except (ClientError, BotoCoreError) as error:
        return [
            {
                "code": "not_marked_as_proved",
                "message": f"{snapshot_id} is good, but its tags could not be completed ({translated(error)}): "
                "copies of it into encrypted snapshots will ask for holes",
            }
        ]
    return []


def _refuse_other_format(image: Path, source: ImageSource) -> None:
    found = looks_like(*source.ends())
    if found is not None:
        unpacked = "put it into S3, where `blockferry fanout` unpacks it"
        raise InvalidRequest(refusal(str(image), found, file=str(image), insist="--format raw", unpack=unpacked))


def _left(ec2: EC2Client, snapshot_id: str, *, region: str, asked_to_seal: bool) -> str:
    """Delete the snapshot of an upload that failed, unless EBS may have sealed it; says what was done."""
    try:
        why = snapshots.delete(ec2, snapshot_id, asked_to_seal=asked_to_seal)
    except (ClientError, BotoCoreError) as error:
        return f"the unfinished snapshot {snapshot_id} in {region} could not be deleted: {error}; delete it"
    if why is None:
        return "the unfinished snapshot is deleted"
    return (
        f"{snapshot_id} in {region} is kept: {why}, and its answer is not known. It holds the whole image if EC2 calls "
        "it completed; if it stays pending, delete it and upload again"
    )


def _refuse_unusable(description: str, tags: Mapping[str, str]) -> None:
    if len(description) > MAX_DESCRIPTION:
        raise InvalidRequest(
            f"description: {len(description)} characters, EBS takes {MAX_DESCRIPTION}; name a shorter one"
        )
    own = (snapshots.HOLES_TAG, snapshots.CHECKSUM_TAG, snapshots.PROVED_TAG)
    try:
        check_tags(tags)
        if len(tags) + len(own) > MAX_TAGS:
            raise ValueError(f"tags: {len(tags)} and {len(own)} of the upload, EC2 keeps at most {MAX_TAGS}")
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _volume_size(source: ImageSource, image: Path, asked_gib: int | None) -> int:
    size = -(-source.size // (BLOCK_SIZE * BLOCKS_PER_GIB)) if asked_gib is None else asked_gib
    try:
        total = blocks_of_volume(size)
    except ValueError as error:
        raise InvalidRequest(f"image {image}: {error}") from error
    if source.total_blocks > total:
        raise InvalidRequest(f"image {image} has {source.size} bytes, more than a volume of {size} GiB holds")
    return size


def _parent(
    ec2: EC2Client, ebs: EbsDirect, snapshot_id: str, *, asked_gib: int | None, encrypts: bool | None
) -> SnapshotFacts:
    """The facts of a parent that a snapshot can be made on top of. Raises ``InvalidRequest`` for any other."""
    region = ebs.region
    name = f"parent {snapshot_id} in {region}"
    found = snapshots.settled(lambda: snapshots.existing(ec2, [snapshot_id]))
    if not found:
        raise InvalidRequest(
            f"{name}: EC2 does not know it. Check the id and the region: a parent is in the region and account of the "
            "new snapshot"
        )
    facts = found[0]
    if not _own(ec2, snapshot_id):
        raise InvalidRequest(
            f"{name} belongs to account {facts.owner_id}, and EBS takes a parent of the same account only: copy it "
            "into this one first, with the operation copy"
        )
    snapshots.refuse_unreadable(facts, region=region)
    if asked_gib is not None and facts.size_gib > asked_gib:
        raise InvalidRequest(
            f"{name} has {facts.size_gib} GiB, more than the {asked_gib} GiB that were asked for; a snapshot is never "
            "smaller than its parent"
        )
    if encrypts and not facts.encrypted:
        raise InvalidRequest(
            f"{name} is not encrypted, and the account encrypts by default in {region}: there EBS refuses a snapshot "
            "on top of an unencrypted parent. Upload without a parent, or on top of an encrypted copy of it"
        )
    refuse_no_access(ebs, snapshot_id)
    return facts


def _own(ec2: EC2Client, snapshot_id: str) -> bool:
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "snapshot-id", "Values": [snapshot_id]}]
    )
    return any(page["Snapshots"] for page in pages)


def _put(found: Prepared, sink: SnapshotSink, *, clock: Clock) -> Linear:
    """Put every block that has to be; returns their number and checksum."""
    source, holes = found.holes.to_put(found.below)
    linear = Linear()
    written = 0
    for stretch in split(blocks_of_volume(found.size_gib), STRETCH):
        moved = move(stretch, source, [sink], holes=holes, threads=THREADS, deadline=Deadline(None, clock=clock))
        written += moved.blocks_written
        for index, digest in moved.digests:
            if holes.writes(digest):
                linear.add(index, digest)
        if not moved.done or written != linear.blocks:
            raise IncompleteTransfer(
                f"{written} blocks were put up to block {moved.next_index} of {stretch.stop}, not {linear.blocks}"
            )
    return linear


def _wait(ec2: EC2Client, snapshot_id: str, *, region: str, clock: Clock) -> SnapshotFacts:
    deadline = Deadline(SEAL_SECONDS, clock=clock)
    while True:
        facts = snapshots.describe(ec2, snapshot_id, region=region)
        if facts.state == "completed":
            return facts
        if facts.state != "pending" or deadline.passed():
            failed = TargetFailed(
                f"{snapshot_id} in {region} is in state {facts.state}, not completed: {facts.state_message}"
            )
            failed.add_note(_left(ec2, snapshot_id, region=region, asked_to_seal=True))
            raise failed
        clock.sleep(POLL_SECONDS)
