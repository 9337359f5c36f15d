"""Upload: a raw disk image on this machine becomes a snapshot, alone or on top of an earlier one."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import snapshots
from blockferry.aws.call import Call
from blockferry.aws.errors import patiently, translated
from blockferry.aws.sessions import Aws, Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import blocks_of_volume, split
from blockferry.core.checksums import Linear
from blockferry.core.errors import BlockferryError, IncompleteTransfer, InvalidRequest, RetryLater, TargetFailed
from blockferry.core.holes import HoleMeaning, HolePolicy
from blockferry.core.mover import move
from blockferry.core.pacing import growing
from blockferry.core.quotas import MAX_DESCRIPTION, MAX_TAGS
from blockferry.core.retry import Clock, Deadline
from blockferry.core.tuning import Waits
from blockferry.core.words import counted
from blockferry.formats.recognise import ImageFormat
from blockferry.jobs.record import Sums
from blockferry.local.begun import Begun
from blockferry.local.holes import UploadHoles, decide
from blockferry.local.image import refuse_other_format, volume_size
from blockferry.local.interrupts import Interrupts
from blockferry.local.tuning import UploadTuning
from blockferry.requests.parts import check_tags
from blockferry.sources.device import ImageSource
from blockferry.sources.readable import refuse_no_access
from blockferry.sources.snapshot import SnapshotSource
from blockferry.targets.full import FullSnapshot
from blockferry.targets.on_parent import SnapshotOnParent
from blockferry.targets.sink import SnapshotSink
from blockferry.targets.snapshot import SnapshotTarget


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
    waits: Waits | None = None,
    tuning: UploadTuning | None = None,
    interrupts: Interrupts | None = None,
    on_start: Callable[[str], None] = lambda _snapshot_id: None,
) -> Uploaded:
    """Make a snapshot of ``image`` in ``region`` and wait until EC2 calls it completed.

    With a parent only blocks that differ from it are put. The volume is as large as the image, rounded up, and the
    parent, if no more is asked for. Without ``holes`` blocks of zeros become holes where these read as zeros; where the
    snapshot is or may be encrypted the image is written whole, holes of the file included: a hole does not mean that
    nobody wrote there.

    ``on_start`` is told the id of the snapshot. If anything fails, or one of the ``interrupts`` comes, the pending
    snapshot is deleted, unless EBS was asked to seal it and may have done so: then it is kept. A note of the error says
    which, and what could not be deleted. Raises ``InvalidRequest`` for an unusable image, size, parent or choice, also
    for an image that looks like another kind of file, unless ``image_format`` says that it is raw, and
    ``SourceChanged`` for a file that changes meanwhile, and ``UnreadableSource`` for a disk that fails.
    """
    tuning, interrupts = tuning or UploadTuning(), interrupts or Interrupts()
    call = Call(aws=aws, clock=clock or Clock(), connections=tuning.threads, waits=waits or Waits())
    _refuse_unusable(description, tags or {})
    with ImageSource(image) as source:
        found = prepare(
            source,
            region=region,
            call=call,
            volume_size_gib=volume_size_gib,
            parent=parent_snapshot_id,
            holes=holes,
            image_format=image_format,
        )
        decision = found.holes.decision
        token = secrets.token_hex(32)
        mark = hashlib.sha256(token.encode()).hexdigest()
        own = {
            snapshots.HOLES_TAG: decision.left.value,
            snapshots.EXECUTION_TAG: mark,
            snapshots.LINEAGE_TAG: _lineage(found.parent, mark),
        }
        proposed = _target(found, region=region, description=description, tags={**(tags or {}), **own})
        source.refuse_changed()
        begun = Begun(proposed, call, mark=mark)
        with interrupts.held():
            try:
                with interrupts.let_in():
                    target = begun.target = proposed.start(call, token=token, mark=mark)
                    on_start(target.snapshot_id)
                    linear = _put(found, target.sink(call), clock=call.clock, tuning=tuning)
                    source.refuse_changed()
                    sums = Sums(blocks_written=linear.blocks, linear_checksum=linear.value())
                    patiently(lambda: target.seal(call, 0, sums, begun), clock=call.clock, waits=call.waits)
            except BaseException as error:
                begun.clear(error)
                raise
            try:
                with interrupts.let_in():
                    unmarked = _mark_proved(target, sums, call)
                    _wait(target, call, tuning)
                    if unmarked:
                        # EC2 may not have known it.
                        unmarked = _mark_proved(target, sums, call)
            except BaseException as error:
                begun.tell(error)
                raise
    warnings = [*found.holes.warnings, *unmarked]
    return Uploaded(
        target.snapshot_id,
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


def _lineage(parent: SnapshotFacts | None, mark: str) -> str:
    """The name of the chain of copies: the parent's, or a new one. All uploads have the same made-up volume."""
    if parent is None:
        return f"upload-{mark[:16]}"
    return snapshots.lineage_of(parent) or parent.snapshot_id


def _target(found: Prepared, *, region: str, description: str, tags: dict[str, str]) -> FullSnapshot | SnapshotOnParent:
    """The snapshot that is made. What was decided about holes rests on its encryption: that is not left to a default
    that may change."""
    parent = found.parent
    if parent is None:
        return FullSnapshot(
            region=region,
            role_arn=None,
            external_id=None,
            description=description,
            tags=tags,
            size_gib=found.size_gib,
            kms_key_arn=None,
            encrypted=found.encrypted,
        )
    return SnapshotOnParent(
        region=region,
        role_arn=None,
        external_id=None,
        description=description,
        tags=tags,
        size_gib=found.size_gib,
        parent_snapshot_id=parent.snapshot_id,
        parent_size_gib=parent.size_gib,
        parent_encrypted=parent.encrypted,
        parent_kms_key_arn=parent.kms_key_id,
    )


def prepare(
    source: ImageSource,
    *,
    region: str,
    call: Call,
    volume_size_gib: int | None,
    parent: str | None,
    holes: HolePolicy | None,
    image_format: ImageFormat | None,
) -> Prepared:
    """Look at everything that the upload needs. Raises ``InvalidRequest`` when it cannot work."""
    # What is wrong with the image is told before AWS is asked for anything.
    if image_format is None:
        refuse_other_format(source, unpacking="fanout")
    size = volume_size(source, volume_size_gib)
    here = Identity(region)
    encrypted = snapshots.encrypted_by_default(call.ec2(here))
    facts = below = None
    if parent is not None:
        facts = _parent(here, call, parent, asked_gib=volume_size_gib, encrypts=encrypted)
        below = SnapshotSource(call.ebs(here), parent, total_blocks=blocks_of_volume(facts.size_gib))
        size, encrypted = max(size, facts.size_gib), facts.encrypted
    decided = decide(
        holes,
        source,
        may_be_encrypted=encrypted is not False,
        on_parent=parent is not None,
        total_blocks=blocks_of_volume(size),
    )
    return Prepared(size, encrypted, facts, below, decided)


def _mark_proved(target: SnapshotTarget, sums: Sums, call: Call) -> list[Mapping[str, str]]:
    """Let the snapshot's tags say what EBS took, as a job's targets do; what went wrong is no reason to fail.

    Without them the tag about holes is not believed, which costs a question and no data.
    """
    try:
        target.mark_proved(call, sums)
    except (ClientError, BotoCoreError, RetryLater) as error:
        why = error if isinstance(error, RetryLater) else translated(error)
        return [
            {
                "code": "not_marked_as_proved",
                "message": f"{target.snapshot_id} is good, but its tags could not be completed ({why}): "
                "copies of it into encrypted snapshots will ask for holes",
            }
        ]
    return []


def _refuse_unusable(description: str, tags: Mapping[str, str]) -> None:
    if len(description) > MAX_DESCRIPTION:
        raise InvalidRequest(
            f"description: {len(description)} characters, EBS takes {MAX_DESCRIPTION}; name a shorter one"
        )
    own = (
        snapshots.HOLES_TAG,
        snapshots.EXECUTION_TAG,
        snapshots.LINEAGE_TAG,
        snapshots.CHECKSUM_TAG,
        snapshots.PROVED_TAG,
    )
    try:
        check_tags(tags)
        if len(tags) + len(own) > MAX_TAGS:
            raise ValueError(f"tags: {len(tags)} and {len(own)} of the upload, EC2 keeps at most {MAX_TAGS}")
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _parent(
    here: Identity, call: Call, snapshot_id: str, *, asked_gib: int | None, encrypts: bool | None
) -> SnapshotFacts:
    """The facts of a parent that a snapshot can be made on top of. Raises ``InvalidRequest`` for any other."""
    region, ec2 = here.region, call.ec2(here)
    name = f"parent {snapshot_id} in {region}"
    found = own = list[SnapshotFacts]()

    def look() -> list[SnapshotFacts]:
        nonlocal found, own
        found = snapshots.existing(ec2, [snapshot_id])
        own = own or snapshots.existing(ec2, [snapshot_id], owner="self")
        return found

    # It may be the upload of a moment ago.
    snapshots.settled(
        look, clock=call.clock, waits=call.waits, pauses=call.waits.named_looks, missing=lambda: not (found and own)
    )
    if found:
        snapshots.settled(look, clock=call.clock, waits=call.waits)
    if not found:
        raise InvalidRequest(
            f"{name}: EC2 does not know it. Check the id and the region: a parent is in the region and account of the "
            "new snapshot. What was made a moment ago may not be shown yet"
        )
    facts = found[0]
    if not own:
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
    refuse_no_access(call.ebs(here), snapshot_id)
    return facts


def _put(found: Prepared, sink: SnapshotSink, *, clock: Clock, tuning: UploadTuning) -> Linear:
    """Put every block that has to be; returns their number and checksum."""
    source, holes = found.holes.to_put(found.below)
    linear = Linear()
    written = 0
    for stretch in split(blocks_of_volume(found.size_gib), tuning.stretch):
        deadline = Deadline(None, clock=clock)
        moved = move(stretch, source, [sink], holes=holes, threads=tuning.threads, deadline=deadline)
        written += moved.blocks_written
        for index, digest in moved.digests:
            if holes.writes(digest):
                linear.add(index, digest)
        if not moved.done or written != linear.blocks:
            raise IncompleteTransfer(
                f"EBS was given {counted(written, 'block')} of {linear.blocks} up to block {moved.next_index} of "
                f"{stretch.stop}: upload again"
            )
    return linear


def _wait(target: SnapshotTarget, call: Call, tuning: UploadTuning) -> None:
    """Wait until EC2 calls the snapshot completed, which it may not even know at first.

    Looks that fail are waited out as long as that may pass. Raises ``TargetFailed`` when it is not completed, or not in
    time, and ``RequestRefused`` when nobody may look.
    """
    ec2, name = call.ec2(target.identity), target.name
    deadline = Deadline(tuning.seal_seconds, clock=call.clock)
    unknown = Deadline(tuning.unknown_seconds, clock=call.clock)
    pauses = growing(tuning.first_poll_seconds, longest=tuning.poll_seconds)
    while True:
        why: BlockferryError | None = None
        try:
            facts = next(iter(snapshots.existing(ec2, [target.snapshot_id])), None)
        except (ClientError, BotoCoreError) as error:
            facts, why = None, translated(error)
            if not isinstance(why, RetryLater):
                raise why from error
        if facts is not None:
            unknown = Deadline(tuning.unknown_seconds, clock=call.clock)
            if facts.state == "completed":
                target.confirm(facts)
                return
            if facts.state != "pending":
                raise TargetFailed(f"{name} is in state {facts.state}, not completed: {facts.state_message}")
        if deadline.passed():
            seen = "it is still pending" if facts is not None else str(why or "EC2 does not know it")
            raise TargetFailed(f"{name} is not completed {tuning.seal_seconds:.0f} s after EBS took all of it: {seen}")
        if facts is None and why is None and unknown.passed():
            raise TargetFailed(f"{name}: EC2 has not known it for {tuning.unknown_seconds:.0f} s: somebody deleted it")
        call.clock.sleep(next(pauses))
