"""A snapshot that a job makes: proposed, started, written, sealed, looked at, confirmed or discarded.

What EBS is asked for at the end is noted before the request and after its answer, so that whoever comes next neither
completes a sealed target again nor takes it for one that may be deleted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws import sealing, snapshots
from blockferry.aws.call import Call
from blockferry.aws.ebs.client import NewSnapshot
from blockferry.aws.errors import assuming, translated
from blockferry.aws.sessions import Identity
from blockferry.aws.snapshots import SnapshotFacts
from blockferry.core.blocks import BlockRange
from blockferry.core.counts import RequestCounts, at
from blockferry.core.errors import (
    BlockferryError,
    EncryptionDiffers,
    InvalidRequest,
    RequestRefused,
    RetryLater,
    TargetFailed,
)
from blockferry.core.together import together
from blockferry.jobs.record import Sealing, Sums
from blockferry.requests.parts import taken_at_the_start
from blockferry.targets.encryption import WantedEncryption
from blockferry.targets.kind import JobTarget, Looked, Sealings, Started
from blockferry.targets.sink import SnapshotSink


@dataclass(frozen=True)
class LeftSnapshot:
    """A snapshot of a job that cannot be finished. ``failed`` says that EC2 calls it so, ``new`` that EC2 may not know
    it yet."""

    identity: Identity
    snapshot_id: str
    failed: bool = False
    new: bool = False

    @property
    def name(self) -> str:
        return f"{self.snapshot_id} in {self.identity.region}"

    def discard(self, call: Call, sealings: Sealings | None, *, mark: str) -> str | None:
        """Delete it, if ``snapshots.delete`` may; returns why it is kept, ``None`` when it is gone. ``sealings`` is
        ``None`` when EBS was never asked to seal it.

        One that is new is waited for before: what EC2 does not know yet cannot be deleted. Raises ``RetryLater`` when
        EC2 still does not know it.
        """
        ec2 = call.ec2(self.identity)
        noted = None if sealings is None else sealings.sealing(self.snapshot_id)
        asked = noted is not None and noted.state != "refused"
        known = not self.new or snapshots.described_soon(ec2, self.snapshot_id, clock=call.clock, waits=call.waits)
        why = snapshots.delete(ec2, self.snapshot_id, mark=mark, asked_to_seal=asked)
        if why is None and not known:
            raise RetryLater(f"EC2 does not know {self.name}, which was started a moment ago")
        return why


class SnapshotTarget(JobTarget, ABC):
    """A snapshot that a job makes. ``tags`` are all of it but those that are set when it is proved."""

    takes_up_a_place: ClassVar[bool] = True

    description: str
    tags: dict[str, str]

    # -- what it is --------------------------------------------------------------------

    @property
    def parent_id(self) -> str | None:
        """The snapshot that it is made on top of."""
        return None

    @property
    @abstractmethod
    def wanted(self) -> WantedEncryption:
        """The encryption that it has to have."""

    @property
    def name(self) -> str:
        return f"{self.snapshot_id} in {self.region}"

    def asks(self, home: str) -> str:
        return f"put {self.quota(home)}"

    def writing(self, blocks: int, ranges: int) -> Mapping[str, int]:
        return {at("PutSnapshotBlock", self.region): blocks}

    @property
    def beside(self) -> Mapping[str, int]:
        # Counted by the plan and by completion, one each per target; they are free but part of the story.
        return {"StartSnapshot": 1, "CompleteSnapshot": 1}

    def planned(self) -> dict[str, Any]:
        """What a dry run tells of it."""
        return {"region": self.region, "parent_snapshot_id": self.parent_id, "volume_size_gib": self.size_gib}

    # -- its life ----------------------------------------------------------------------

    @abstractmethod
    def _new(self, token: str, tags: Mapping[str, str]) -> NewSnapshot:
        """The request that starts it."""

    def start(self, call: Call, *, token: str, mark: str) -> Self:
        """Start it, or find the one that was started under the same ``token``; ``mark`` is that of its execution.

        Raises ``InvalidRequest`` when its role cannot be assumed, ``EncryptionDiffers``, with the snapshot deleted,
        when it is not encrypted as it was asked for, and what ``EbsDirect.start_snapshot`` raises.
        """
        tags = {key: value for key, value in self.tags.items() if taken_at_the_start(key, value)}
        client = call.ebs(self.identity, policy=call.waits.starts)
        began = assuming(lambda: client.start_snapshot(self._new(token, tags)), f"target in {self.region}")
        target = self.model_copy(
            update={"started": Started(snapshot_id=began.snapshot_id, at=datetime.now(UTC).isoformat())}
        )
        try:
            target._refuse_as_started(began.kms_key_arn, call)
        except EncryptionDiffers as error:
            raise target._without(error, call, mark) from error
        return target

    def _refuse_as_started(self, key: str | None, call: Call) -> None:
        # The answer names a key and nothing else. Where it names none although it should, EC2 decides, if it knows the
        # snapshot already; else the look before it is sealed does.
        if key is not None:
            self.wanted.refuse_other(encrypted=True, key=key, name=self.name)
        elif self.wanted.must:
            for facts in snapshots.existing(call.ec2(self.identity), [self.snapshot_id]):
                self.refuse_other_encryption(facts)

    def _without(self, error: EncryptionDiffers, call: Call, mark: str) -> EncryptionDiffers:
        try:
            why = LeftSnapshot(self.identity, self.snapshot_id, new=True).discard(call, None, mark=mark)
        except (ClientError, BotoCoreError, RetryLater) as failure:
            return EncryptionDiffers(f"{error}. It is empty and could not be deleted yet: {failure}")
        return EncryptionDiffers(f"{error}. It is empty and {'deleted' if why is None else f'kept: {why}'}")

    def sink(self, call: Call, *, number: int = 0, within: BlockRange | None = None) -> SnapshotSink:
        """Where its blocks are written."""
        return SnapshotSink(call.ebs(self.identity), self.snapshot_id, started_seconds_ago=self.seconds_old)

    @property
    def seconds_old(self) -> float:
        """Seconds since it was started. Raises ``IncompleteTransfer`` when it never was."""
        return (datetime.now(UTC) - datetime.fromisoformat(self._begun.at)).total_seconds()

    def mark_proved(self, call: Call, sums: Sums) -> None:
        """Let its tags say what EBS was given, which a later sync trusts, and add those that are set late.

        Raises ``RetryLater`` while EC2 does not know the snapshot.
        """
        # If EBS should still find fault with the snapshot it is never completed, tag or not.
        late = {key: value for key, value in self.tags.items() if not taken_at_the_start(key, value)}
        proved = {snapshots.CHECKSUM_TAG: sums.linear_checksum, snapshots.PROVED_TAG: self.snapshot_id}
        try:
            snapshots.add_tags(call.ec2(self.identity), self.snapshot_id, late | proved)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
                raise
            raise RetryLater(
                f"{self.name} could not be tagged as proved: EC2 does not know it yet ({error})"
            ) from error

    def seal(self, call: Call, number: int, sums: Sums, sealings: Sealings) -> None:
        """Have EBS seal it. In doubt it stays pending, and is to be looked at.

        Raises ``EncryptionDiffers`` when it is not encrypted as it was asked for, ``TargetFailed`` when EBS does not
        take it, and ``RetryLater`` when that may pass.
        """
        before = sealings.sealing(self.snapshot_id)
        if before is not None and before.state == "accepted":
            return
        ec2 = call.ec2(self.identity)
        facts = snapshots.described_soon(ec2, self.snapshot_id, clock=call.clock, waits=call.waits)
        if facts is not None:
            self.refuse_other_encryption(facts)
        asked = Sealing(state="asked", changed_blocks=sums.blocks_written, linear_checksum=sums.linear_checksum)
        accepted, refused = (asked.model_copy(update={"state": state}) for state in ("accepted", "refused"))
        if facts is not None and facts.state == "completed":
            # Only this completes targets, always with count and checksum: an earlier call did.
            sealings.save_sealing(self.snapshot_id, accepted)
            return
        if facts is not None and facts.state != "pending":
            raise TargetFailed(f"it is in state {facts.state}: {facts.state_message or 'EC2 gives no reason'}")
        sealings.save_sealing(self.snapshot_id, asked)
        ebs = call.ebs(self.identity, counts=RequestCounts())
        ebs.was_started(self.snapshot_id, seconds_ago=self.seconds_old)
        try:
            answer = sealing.ask(
                ebs,
                ec2,
                self.snapshot_id,
                changed_blocks=sums.blocks_written,
                linear_checksum=sums.linear_checksum,
                asked_before=before is not None and before.state == "asked",
            )
        except (sealing.NotSealed, sealing.NotAsked) as error:
            sealings.save_sealing(self.snapshot_id, refused)
            raise _failed(error) from error
        except RequestRefused as error:
            raise _failed(error) from error
        if answer == "accepted":
            sealings.save_sealing(self.snapshot_id, accepted)

    @classmethod
    def look(cls, targets: Mapping[int, SnapshotTarget], call: Call) -> Looked:
        """What EC2 says of started targets, given by their positions: one request for all that are in one place, and
        several places at a time. A place that does not answer says nothing of others."""
        places: dict[Identity, dict[str, int]] = {}
        for number, target in targets.items():
            places.setdefault(target.identity, {})[target.snapshot_id] = number
        facts: dict[int, SnapshotFacts] = {}
        errors: dict[int, BlockferryError] = {}

        def ask(place: tuple[Identity, dict[str, int]]) -> list[SnapshotFacts] | BlockferryError:
            identity, numbers = place
            try:
                return snapshots.existing(call.ec2(identity), numbers)
            except (ClientError, BotoCoreError) as error:
                return translated(error)

        answers = together(ask, places.items(), most=call.throughput.places_at_a_time)
        for (identity, numbers), found in zip(places.items(), answers, strict=True):
            if isinstance(found, BlockferryError):
                errors |= dict.fromkeys(numbers.values(), found)
                continue
            facts |= {numbers[each.snapshot_id]: each for each in found}
            for snapshot_id in numbers.keys() - {each.snapshot_id for each in found}:
                errors[numbers[snapshot_id]] = InvalidRequest(f"EC2 does not know {snapshot_id} in {identity.region}")
        return Looked(facts, errors)

    def refuse_other_encryption(self, facts: SnapshotFacts) -> None:
        """Hold what EC2 says of it against what was asked for. Raises ``EncryptionDiffers``."""
        self.wanted.refuse_other(encrypted=facts.encrypted, key=facts.kms_key_id, name=self.name)

    def confirm(self, facts: SnapshotFacts) -> None:
        """Raise when EC2 does not call it completed and what was asked for: ``RetryLater`` while it is shown as pending
        once more, else ``TargetFailed`` or ``EncryptionDiffers``."""
        name = f"target {self.name}"
        if facts.state == "pending":
            raise RetryLater(f"{name} is shown as pending, it was completed before; EC2's answers differ for a while")
        if facts.state != "completed":
            raise TargetFailed(f"{name} is in state {facts.state}, it was completed before")
        if facts.size_gib != self.size_gib:
            raise TargetFailed(f"{name} has {facts.size_gib} GiB, it was started with {self.size_gib}")
        self.refuse_other_encryption(facts)

    def facts(self, found: SnapshotFacts) -> dict[str, Any]:
        """What a receipt tells of it beside what was written."""
        return {
            "region": self.region,
            "snapshot_id": self.snapshot_id,
            "state": found.state,
            "volume_size_gib": found.size_gib,
            "parent_snapshot_id": self.parent_id,
            "owner_id": found.owner_id,
            "encrypted": found.encrypted,
            "kms_key_arn": found.kms_key_id,
            "holes_stand_for": self.tags.get(snapshots.HOLES_TAG),
        }

    def leftover(self, *, new: bool = False) -> LeftSnapshot | None:
        """Its snapshot, for a job that cannot be finished; ``None`` when it was never started."""
        return None if self.started is None else LeftSnapshot(self.identity, self.started.snapshot_id, new=new)

    @classmethod
    def left_behind(
        cls, targets: Sequence[SnapshotTarget], identity: Identity, call: Call, *, mark: str
    ) -> Sequence[LeftSnapshot]:
        """The snapshots in a place that an execution has started and that are not completed."""
        # By tag, not by the record: a target may have been started by a plan that failed before it was recorded.
        found = snapshots.unfinished_of(call.ec2(identity), mark)
        return [LeftSnapshot(identity, facts.snapshot_id, facts.state == "error") for facts in found]

    def asked_for(self, given: Mapping[str, Any]) -> bool:
        asked = given.get("targets")
        return any(
            (each.get("region"), each.get("role_arn"), each.get("external_id"))
            == (self.region, self.role_arn, self.external_id)
            for each in (asked if isinstance(asked, list) else ())
            if isinstance(each, dict)
        )


def _failed(error: BlockferryError) -> BlockferryError:
    return error if isinstance(error, sealing.NotAsked) else TargetFailed(f"it was not completed: {error}")
