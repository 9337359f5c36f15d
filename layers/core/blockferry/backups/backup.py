"""Backup: what the state machine of the same name does. Deciding is ``blockferry.lifecycle.backing_up``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.regions import enabled_regions
from blockferry.aws.sessions import Identity
from blockferry.backups import record
from blockferry.backups.record import Run
from blockferry.backups.settings import Settings
from blockferry.backups.slots import SETTLING, Claim, Held, Slot, goes_on
from blockferry.core.quotas import FILTER_VALUES
from blockferry.core.reserves import BACKUP_SECONDS
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, RESULTS
from blockferry.jobs.workspace import Workspace
from blockferry.lifecycle.backing_up import BackupSet, Defaults, Instance, Volume, Wanted, selection
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.schedule import slot_name
from blockferry.lifecycle.tags import SLOT_TAG, TagNames
from blockferry.requests.lifecycle import BackupRequest
from blockferry.requests.parts import parse

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

TAKE = "take_backups"

WORKERS = 4
"""Calls that make backups side by side. EC2 takes some five CreateSnapshots a second, of the whole account."""

BATCH = 20
"""Sets of backups that one call makes, each with a handful of requests."""

PAGE = 500
"""Instances or volumes in an answer of EC2."""

SLOTS_BACK = 3
"""Slots behind the present one whose backups are looked after, if a run of theirs has died."""

BUSY = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "SnapshotCreationPerVolumeRateExceeded"})
"""Refusals of a moment: nothing was made."""

TRIES = 6
"""Times that EC2 is asked to make a set as long as it is busy."""


def plan_backup(
    call: JobCall,
    workspace: Workspace,
    execution: Execution,
    settings: Settings,
    *,
    started_at: str,
    request: Mapping[str, Any],
    planned_at: datetime | None = None,
) -> dict[str, Any]:
    """Look at all instances and volumes that ask for backups, and write down what the slot lacks.

    Returns ``{"job_id", "bucket", "plan_key", "results_prefix", "max_concurrency", "record", "to_do"}``. Raises
    ``InvalidRequest`` for an input that cannot be used.
    """
    asked = parse(BackupRequest, request, what="backup")
    now = settings.now(asked.as_of, started_at)
    known = record.planned(call.folder, execution, request)
    if known is None:
        run = Run(
            operation="backup",
            job_id=execution.job_id,
            execution_arn=execution.arn,
            planned_at=(planned_at or datetime.now(UTC)).isoformat(),
            now=now.isoformat(),
            dry_run=asked.dry_run,
            fingerprint=record.fingerprint_of(request),
        )
        known = _decide(call, workspace, execution, settings, run, now)
    run, digest = known
    return {
        "job_id": execution.job_id,
        "bucket": call.folder.bucket,
        "plan_key": call.folder.key(RANGES),
        "results_prefix": call.folder.key(RESULTS),
        "max_concurrency": WORKERS,
        "record": digest,
        "to_do": bool(run.batches),
    }


def _decide(
    call: JobCall, workspace: Workspace, execution: Execution, settings: Settings, run: Run, now: datetime
) -> tuple[Run, str]:
    ec2 = call.ec2(Identity(execution.region))
    schedule, names = settings.schedule, settings.names
    slot = schedule.slot(now)
    regions = enabled_regions(call.aws)
    instances, volumes = _asking(ec2, names)
    chosen = selection(
        instances,
        volumes,
        _taken(ec2, slot),
        Defaults(
            names=names,
            retention=settings.default_retention,
            region=execution.region,
            slot=slot,
            made=schedule.day_of(slot),
        ),
        destinations={*settings.destinations, *(regions - {execution.region})},
    )
    looked = list(chosen.items)
    to_do: list[Mapping[str, Any]] = []
    for each in chosen.sets:
        if run.dry_run:
            looked += [Item(volume.volume_id, Action.CREATE, Outcome.PLANNED, _why(each)) for volume in each.volumes]
        else:
            to_do.append({"set": _stored(each), "slot": slot_name(slot)})
    if not run.dry_run:
        # What a run that died has left of earlier slots, and of this one.
        earlier = slot
        for _ in range(SLOTS_BACK):
            earlier = schedule.slot(earlier - timedelta(seconds=1))
            claims = Slot.of(workspace, slot_name(earlier))
            to_do += [{"repair": resource, "slot": slot_name(earlier)} for resource in _unfinished(claims)]
    run = run.model_copy(
        update={
            "problems": tuple(record.problem_line(each) for each in chosen.problems),
            "notes": (f"the slot is {slot_name(slot)}",),
        }
    )
    return record.save(call.folder, run, looked, {TAKE: to_do}, batch=BATCH)


def _why(wanted: BackupSet) -> str:
    return wanted.description


def _unfinished(claims: Slot) -> Iterator[str]:
    for resource in claims.resources():
        held = claims.held(resource)
        if held is not None and held.claim.tags and held.claim.made is None:
            yield resource


# -- what asks for backups -------------------------------------------------------------


def _asking(ec2: EC2Client, names: TagNames) -> tuple[list[Instance], list[Volume]]:
    """The instances that say anything about backups, with all of their volumes; the volumes that do, with the instances
    that they are attached to."""
    tagged = [{"Name": "tag-key", "Values": [names.backup]}]
    found = {each["InstanceId"]: each for each in _instances(ec2, tagged)}
    attached = {volume for each in found.values() for volume in _devices(each).values()}
    volumes = {each["VolumeId"]: each for each in _volumes(ec2, tagged)}
    for some in _some(sorted(attached - volumes.keys())):
        volumes |= {each["VolumeId"]: each for each in _volumes(ec2, [{"Name": "volume-id", "Values": some}])}
    owners = {
        attachment["InstanceId"]
        for each in volumes.values()
        for attachment in each.get("Attachments", ())
        if attachment.get("InstanceId")
    }
    for some in _some(sorted(owners - found.keys())):
        found |= {each["InstanceId"]: each for each in _instances(ec2, [{"Name": "instance-id", "Values": some}])}
    return (
        [
            Instance(
                instance_id=each["InstanceId"],
                state=each["State"]["Name"],
                tags=_tags(each),
                devices=_devices(each),
                root=each.get("RootDeviceName") or "",
            )
            for each in found.values()
        ],
        [Volume(volume_id=each["VolumeId"], state=each["State"], tags=_tags(each)) for each in volumes.values()],
    )


def _instances(ec2: EC2Client, filters: Any) -> Iterator[Any]:
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters, PaginationConfig={"PageSize": PAGE})
    return (instance for page in pages for each in page["Reservations"] for instance in each["Instances"])


def _volumes(ec2: EC2Client, filters: Any) -> Iterator[Any]:
    pages = ec2.get_paginator("describe_volumes").paginate(Filters=filters, PaginationConfig={"PageSize": PAGE})
    return (volume for page in pages for volume in page["Volumes"])


def _some(ids: Sequence[str]) -> Iterator[list[str]]:
    return (list(ids[first : first + FILTER_VALUES]) for first in range(0, len(ids), FILTER_VALUES))


def _tags(found: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}


def _devices(instance: Any) -> dict[str, str]:
    mapped = instance.get("BlockDeviceMappings", ())
    return {each["DeviceName"]: each["Ebs"]["VolumeId"] for each in mapped if each.get("Ebs", {}).get("VolumeId")}


def _taken(ec2: EC2Client, slot: datetime, volume_ids: Iterable[str] | None = None) -> dict[str, str]:
    """The backups of a slot that EC2 shows, by their volumes, of these volumes or of all; none that has failed."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[
            {"Name": f"tag:{SLOT_TAG}", "Values": [slot_name(slot)]},
            {"Name": "status", "Values": ["pending", "completed"]},
        ],
    )
    wanted = None if volume_ids is None else set(volume_ids)
    found = [(each["VolumeId"], each["SnapshotId"]) for page in pages for each in page["Snapshots"]]
    return {volume: snapshot for volume, snapshot in sorted(found, reverse=True) if wanted is None or volume in wanted}


def _stored(wanted: BackupSet) -> dict[str, Any]:
    return {
        "resource": wanted.resource,
        "instance_id": wanted.instance_id,
        "volumes": [
            {"volume_id": each.volume_id, "device": each.device, "tags": dict(each.tags)} for each in wanted.volumes
        ],
        "excluded": list(wanted.excluded),
        "without_root": wanted.without_root,
        "description": wanted.description,
        "at_once": dict(wanted.at_once),
        "copies_tags": wanted.copies_tags,
    }


def _read(stored: Mapping[str, Any]) -> BackupSet:
    volumes = tuple(Wanted(**each) for each in stored["volumes"])
    return BackupSet(**{**stored, "volumes": volumes, "excluded": tuple(stored["excluded"])})


# -- making them -----------------------------------------------------------------------


def take_backups(
    call: JobCall, workspace: Workspace, digest: str, *, region: str, first: int, now: Callable[[], datetime]
) -> dict[str, Any]:
    """Make the backups of a batch, each unless it is there or somebody else makes it."""
    run = record.recorded(call.folder, digest)
    items: list[Item] = []
    for thing in record.things(call.folder, TAKE, first):
        taking = _Taking(call, Slot.of(workspace, thing["slot"]), run.execution_arn, region, now)
        if call.seconds_left < BACKUP_SECONDS:
            reason = "it was not begun, since EC2 took so long for others: the next run makes it"
            items += [Item(each, Action.CREATE, Outcome.FAILED, reason) for each in _volumes_of(thing)]
            continue
        try:
            items += taking.repair(thing["repair"]) if "repair" in thing else taking.take(_read(thing["set"]))
        except (ClientError, BotoCoreError) as error:
            items += [Item(each, Action.CREATE, Outcome.FAILED, str(error)) for each in _volumes_of(thing)]
    record.save_outcome(call.folder, TAKE, first, items)
    return {"items": len(items)}


def _volumes_of(thing: Mapping[str, Any]) -> list[str]:
    """What a line of a batch is about, for the report."""
    return [thing["repair"]] if "repair" in thing else [each["volume_id"] for each in thing["set"]["volumes"]]


class _Refused(Exception):
    """EC2 has made nothing."""


class _Unanswered(Exception):
    """Nobody knows what EC2 has made."""


@dataclass(frozen=True)
class _Taking:
    """One slot and who makes backups in it."""

    call: JobCall
    slot: Slot
    execution_arn: str
    region: str
    now: Callable[[], datetime]

    @property
    def _ec2(self) -> EC2Client:
        return self.call.ec2(Identity(self.region))

    @property
    def _instant(self) -> datetime:
        return datetime.fromisoformat(self.slot.folder.job_id)

    def take(self, wanted: BackupSet) -> list[Item]:
        """Make a set of backups; an item for each of its volumes."""
        ids = [each.volume_id for each in wanted.volumes]
        tags = {each.volume_id: dict(each.tags) for each in wanted.volumes}
        mine = Claim(execution_arn=self.execution_arn, at=self.now().isoformat(), tags=tags)
        held = self.slot.claim(wanted.resource, mine)
        made: dict[str, str] = {}
        if held is None:
            found = self.slot.held(wanted.resource)
            if found is None:
                return self._all(ids, Outcome.FAILED, "its claim was taken away: the next run tries again")
            made = dict(found.claim.made or {})
            if made and set(ids) <= made.keys():
                return self._all(ids, Outcome.SKIPPED, f"{_listed(made)} was made in this slot")
            if found.claim.made is None:
                if self._at_work(found.claim):
                    return self._all(ids, Outcome.SKIPPED, f"{found.claim.execution_arn} makes it")
                made = self._settled(found.claim, ids)
            # Else all is done but for what is attached since then.
            held = self.slot.replace(wanted.resource, found, mine)
            if held is None:
                return self._all(ids, Outcome.SKIPPED, "another run makes it")
        lost = self._claimed_elsewhere(wanted, mine)
        rest = [each for each in wanted.volumes if each.volume_id not in made and each.volume_id not in lost]
        items = [Item(each, Action.NONE, Outcome.SKIPPED, why) for each, why in lost.items()]
        if rest:
            try:
                made |= self._made(wanted, rest)
            except _Refused as refused:
                # Nothing was made: whoever comes next need not wait for EC2 to show it.
                long_ago = held.claim.model_copy(update={"at": (self.now() - SETTLING).isoformat()})
                self.slot.replace(wanted.resource, held, long_ago)
                return items + self._all([each.volume_id for each in rest], Outcome.FAILED, str(refused))
            except _Unanswered as unanswered:
                return items + self._all([each.volume_id for each in rest], Outcome.FAILED, str(unanswered))
        return items + self._tagged(wanted.resource, held, made, tags, [each for each in ids if each not in lost])

    def repair(self, resource: str) -> list[Item]:
        """Put right what a run that died has left of an earlier slot."""
        found = self.slot.held(resource)
        if found is None or found.claim.made is not None or self._at_work(found.claim):
            return [Item(resource, Action.NONE, Outcome.SKIPPED, "another run makes it")]
        ids = list(found.claim.tags)
        made = _taken(self._ec2, self._instant, ids)
        if not made:
            # Told once: the slot is over.
            self.slot.replace(resource, found, found.claim.model_copy(update={"made": {}}))
            slot = self.slot.folder.job_id
            return self._all(ids, Outcome.FAILED, f"it has no backup of {slot}: the run that was to make it has died")
        held = self.slot.replace(resource, found, found.claim.model_copy(update={"execution_arn": self.execution_arn}))
        if held is None:
            return [Item(resource, Action.NONE, Outcome.SKIPPED, "another run makes it")]
        return self._tagged(resource, held, made, found.claim.tags, list(made) or ids)

    def _all(self, ids: Iterable[str], outcome: Outcome, reason: str) -> list[Item]:
        action = Action.NONE if outcome is Outcome.SKIPPED else Action.CREATE
        return [Item(each, action, outcome, reason) for each in ids]

    def _at_work(self, claim: Claim) -> bool:
        if claim.execution_arn == self.execution_arn:
            return False
        states = self.call.aws.step_functions(self.region)
        return goes_on(lambda arn: states.describe_execution(executionArn=arn), claim.execution_arn)

    def _settled(self, claim: Claim, ids: Sequence[str]) -> dict[str, str]:
        """What EC2 shows of an attempt whose end is not known, when it has had the time to show it."""
        while True:
            found = _taken(self._ec2, self._instant, ids)
            waited = self.now() - datetime.fromisoformat(claim.at)
            if len(found) == len(ids) or waited >= SETTLING:
                return found
            self.call.clock.sleep(self.call.waits.look_seconds)

    def _claimed_elsewhere(self, wanted: BackupSet, mine: Claim) -> dict[str, str]:
        """Volumes that belong to another set in this slot, each with the reason."""
        lost: dict[str, str] = {}
        if wanted.resource.startswith("vol-"):
            return lost
        for each in wanted.volumes:
            claim = mine.model_copy(update={"tags": {}})
            if self.slot.claim(each.volume_id, claim) is None:
                found = self.slot.held(each.volume_id)
                other = found is not None and found.claim.execution_arn != self.execution_arn
                if found is not None and other and (found.claim.made is not None or self._at_work(found.claim)):
                    lost[each.volume_id] = f"{found.claim.execution_arn} makes it with another instance"
        return lost

    def _made(self, wanted: BackupSet, rest: Sequence[Wanted]) -> dict[str, str]:
        """The snapshots of these volumes by the volumes' ids. Raises ``_Refused`` and ``_Unanswered``."""
        client = self.call.aws.ec2_once(Identity(self.region))
        for attempt in range(TRIES):
            try:
                return _create(client, wanted, rest)
            except ClientError as error:
                if error.response["Error"]["Code"] in BUSY:
                    if attempt < TRIES - 1:
                        self.call.clock.sleep(self.call.waits.look_seconds * 2**attempt)
                        continue
                    raise _Refused(f"EC2 is busy: {error}") from error
                if error.response["ResponseMetadata"].get("HTTPStatusCode", 500) < 500:
                    raise _Refused(str(error)) from error
                return self._unanswered(rest, error)
            except BotoCoreError as error:
                return self._unanswered(rest, error)
        raise AssertionError("every attempt returns or raises")

    def _unanswered(self, rest: Sequence[Wanted], why: Exception) -> dict[str, str]:
        """What an unanswered request has made: looked for by the slot's tag, since asking again would make another."""
        ids = [each.volume_id for each in rest]
        for _ in range(self.call.waits.looks):
            if found := _taken(self._ec2, self._instant, ids):
                return found
            self.call.clock.sleep(self.call.waits.look_seconds)
        raise _Unanswered(f"EC2 has not answered, and shows no snapshot yet: the next run looks again. {why}") from why

    def _tagged(
        self,
        resource: str,
        held: Held,
        made: Mapping[str, str],
        tags: Mapping[str, Mapping[str, str]],
        ids: Sequence[str],
    ) -> list[Item]:
        """The rest of each backup's tags; then the claim says that all is done."""
        items: list[Item] = []
        for volume_id in ids:
            snapshot_id = made.get(volume_id)
            if snapshot_id is None:
                items.append(
                    Item(volume_id, Action.CREATE, Outcome.FAILED, "EC2 has made no snapshot of it: is it detached?")
                )
                continue
            try:
                _complete_tags(self._ec2, snapshot_id, tags[volume_id])
            except (ClientError, BotoCoreError) as error:
                reason = f"{snapshot_id} was made, but not all of its tags: the next run sets them. {error}"
                items.append(Item(volume_id, Action.CREATE, Outcome.FAILED, reason))
            else:
                items.append(
                    Item(volume_id, Action.CREATE, Outcome.DONE, f"{snapshot_id} of {self.slot.folder.job_id}")
                )
        if all(item.outcome is Outcome.DONE for item in items):
            self.slot.replace(resource, held, held.claim.model_copy(update={"made": dict(made)}))
        return items


def _create(client: EC2Client, wanted: BackupSet, rest: Sequence[Wanted]) -> dict[str, str]:
    """One request that makes the snapshots of these volumes of a set; returns them by the volumes' ids."""
    tagged: Any = [{"ResourceType": "snapshot", "Tags": [{"Key": k, "Value": v} for k, v in wanted.at_once.items()]}]
    if wanted.instance_id is None or len(rest) == 1:
        (one,) = rest
        own: Any = [{"ResourceType": "snapshot", "Tags": [{"Key": k, "Value": v} for k, v in one.tags.items()]}]
        answer = client.create_snapshot(VolumeId=one.volume_id, Description=wanted.description, TagSpecifications=own)
        return {one.volume_id: answer["SnapshotId"]}
    ids = {each.volume_id for each in rest}
    left_out = [*wanted.excluded, *(each.volume_id for each in wanted.volumes if each.volume_id not in ids)]
    instance: Any = {"InstanceId": wanted.instance_id, "ExcludeBootVolume": wanted.without_root}
    if left_out:
        instance["ExcludeDataVolumeIds"] = left_out
    more: Any = {"CopyTagsFromSource": "volume"} if wanted.copies_tags else {}
    made = client.create_snapshots(
        InstanceSpecification=instance, Description=wanted.description, TagSpecifications=tagged, **more
    )
    return {each["VolumeId"]: each["SnapshotId"] for each in made["Snapshots"] if each["VolumeId"] in ids}


def _complete_tags(ec2: EC2Client, snapshot_id: str, tags: Mapping[str, str]) -> None:
    if tags:
        ec2.create_tags(Resources=[snapshot_id], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])


def _listed(made: Mapping[str, str]) -> str:
    return ", ".join(made.values()) or "nothing"
