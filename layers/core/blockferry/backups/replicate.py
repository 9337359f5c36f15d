"""Replicate: what the state machine of the same name does. Deciding is ``blockferry.lifecycle.replicating``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from blockferry.aws.regions import enabled_regions
from blockferry.aws.sessions import Identity
from blockferry.backups import record
from blockferry.backups.inventory import AT_A_TIME, PAGE, backup_of, place_of
from blockferry.backups.record import Run
from blockferry.backups.settings import Settings
from blockferry.backups.slots import SETTLING, Claim, Slot, goes_on
from blockferry.core.reserves import BACKUP_SECONDS
from blockferry.core.together import together
from blockferry.jobs.call import JobCall
from blockferry.jobs.execution import Execution
from blockferry.jobs.folder import RANGES, RESULTS
from blockferry.jobs.workspace import Workspace
from blockferry.lifecycle.expiring import Backup
from blockferry.lifecycle.items import Action, Item, Outcome
from blockferry.lifecycle.replicating import Copy, Destination, Found, no_place, replication
from blockferry.lifecycle.tags import TagNames, destination_of
from blockferry.requests.lifecycle import ReplicateRequest
from blockferry.requests.parts import parse

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

COPY = "copy_backups"

WORKERS = 2
BATCH = 20
"""Steps that one call takes: a copy is a few requests."""

FULL = "ResourceLimitExceeded"
"""EC2's answer where as many snapshots are copied to the Region as may be."""

COPIES = "copies"
"""In place of a slot: the claims of all copies."""

RUNNING = "replicate"
"""What the run claims that is at work."""


def plan_replication(
    call: JobCall,
    workspace: Workspace,
    execution: Execution,
    settings: Settings,
    *,
    started_at: str,
    request: Mapping[str, Any],
    planned_at: datetime | None = None,
) -> dict[str, Any]:
    """Look at all backups that want a copy, and at the copies that there are, and write down what is to be done.

    An event of EventBridge as the ``request`` only wakes it. While another run of the Region is at work there is
    nothing to do. Returns ``{"job_id", "bucket", "plan_key", "results_prefix", "max_concurrency", "record", "to_do"}``.
    Raises ``InvalidRequest`` for an input that cannot be used.
    """
    given = {} if "detail-type" in request else request
    asked = parse(ReplicateRequest, given, what="replicate")
    now = settings.now(asked.as_of, started_at)
    known = record.planned(call.folder, execution, request)
    if known is None:
        planning = planned_at or datetime.now(UTC)
        run = Run(
            operation="replicate",
            job_id=execution.job_id,
            execution_arn=execution.arn,
            planned_at=planning.isoformat(),
            now=now.isoformat(),
            dry_run=asked.dry_run,
            fingerprint=record.fingerprint_of(request),
        )
        other = None if asked.dry_run else _other_run(call, workspace, execution, planning)
        if other is not None:
            note = f"{other} is at work: what it does not see is left to the next run"
            known = record.save(call.folder, run.model_copy(update={"notes": (note,)}), (), {})
        else:
            known = _decide(call, execution, settings, run, asked)
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


def _other_run(call: JobCall, workspace: Workspace, execution: Execution, now: datetime) -> str | None:
    """The execution that is at work already; ``None`` when this one is."""
    claims = Slot.of(workspace, COPIES)
    mine = Claim(execution_arn=execution.arn, at=now.isoformat())
    if claims.claim(RUNNING, mine) is not None:
        return None
    held = claims.held(RUNNING)
    if held is None:
        return "another run"
    if held.claim.execution_arn == execution.arn:
        return None
    states = call.aws.step_functions(execution.region)
    if goes_on(lambda arn: states.describe_execution(executionArn=arn), held.claim.execution_arn):
        return held.claim.execution_arn
    return None if claims.replace(RUNNING, held, mine) is not None else "another run"


def _decide(
    call: JobCall, execution: Execution, settings: Settings, run: Run, asked: ReplicateRequest
) -> tuple[Run, str]:
    names = settings.names
    backups = _wanting(call.ec2(Identity(execution.region)), settings)
    if asked.snapshot_ids is not None:
        backups = [backup for backup in backups if backup.snapshot_id in asked.snapshot_ids]
    regions = enabled_regions(call.aws) - {execution.region}
    destinations = {name: settings.destination(name) for name in (*regions, *settings.destinations)}
    named = {name for backup in backups for name in backup.tags[names.destinations].replace(",", " ").split()}
    looks = _looks(call, settings, sorted(named & destinations.keys()))
    steps, problems = replication(
        backups,
        {name: look.found for name, look in looks.items()},
        destinations,
        names=names,
        retention=settings.default_retention,
        own_region=execution.region,
        under_way={destinations[name].region: look.under_way for name, look in looks.items()},
    )
    looked = []
    to_do = []
    for step in steps:
        if step.item.outcome is not Outcome.PLANNED or run.dry_run:
            looked.append(step.item)
            continue
        to_do.append(
            {
                "resource": step.item.resource,
                "action": step.item.action.value,
                "reason": step.item.reason,
                "destination": step.destination,
                "copy_id": step.copy_id,
                "tags": dict(step.tags),
            }
        )
    unreached = [f"destination {name}: {look.found.unreached}" for name, look in looks.items() if look.found.unreached]
    run = run.model_copy(
        update={"problems": tuple(record.problem_line(each) for each in problems), "notes": tuple(unreached)}
    )
    return record.save(call.folder, run, looked, {COPY: to_do}, batch=BATCH)


def _wanting(ec2: EC2Client, settings: Settings) -> list[Backup]:
    """The account's snapshots in the client's Region that want a copy anywhere."""
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[{"Name": "tag-key", "Values": [settings.names.destinations]}],
        PaginationConfig={"PageSize": PAGE},
    )
    return [backup_of(found, settings.names, settings.schedule) for page in pages for found in page["Snapshots"]]


@dataclass(frozen=True)
class _Look:
    """What a look at a destination gave, and how many copies are under way to its Region, of whomever."""

    found: Found
    under_way: int = 0


def _looks(call: JobCall, settings: Settings, names: Sequence[str]) -> dict[str, _Look]:
    def look(name: str) -> _Look:
        try:
            return _look(call.ec2(place_of(settings, name)), settings, name)
        except (ClientError, BotoCoreError) as error:
            return _Look(Found(unreached=str(error)))

    return dict(zip(names, together(look, names, most=AT_A_TIME), strict=True))


def _look(ec2: EC2Client, settings: Settings, name: str) -> _Look:
    names, region = settings.names, settings.destination(name).region
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"],
        Filters=[{"Name": "tag-key", "Values": [names.source_snapshot]}],
        PaginationConfig={"PageSize": PAGE},
    )
    there = (_copy(found, names) for page in pages for found in page["Snapshots"])
    copies = tuple(copy for copy in there if destination_of(copy.tags, region) == name)
    pending = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": "status", "Values": ["pending"]}], PaginationConfig={"PageSize": PAGE}
    )
    # Of a copy alone EC2 tells a transfer type (botocore's ec2 model).
    under_way = sum(bool(found.get("TransferType")) for page in pending for found in page["Snapshots"])
    return _Look(Found(copies), under_way)


def _copy(found: Any, names: TagNames) -> Copy:
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}
    return Copy(snapshot_id=found["SnapshotId"], original=tags[names.source_snapshot], state=found["State"], tags=tags)


# -- doing it --------------------------------------------------------------------------


def copy_backups(
    call: JobCall,
    workspace: Workspace,
    digest: str,
    settings: Settings,
    *,
    region: str,
    first: int,
    now: Callable[[], datetime],
) -> dict[str, Any]:
    """Take the steps of a batch: begin copies, note those that are complete, hand on protection."""
    run = record.recorded(call.folder, digest)
    copying = _Copying(call, Slot.of(workspace, COPIES), run.execution_arn, region, settings, now)
    items = []
    for thing in record.things(call.folder, COPY, first):
        action = Action(thing["action"])
        try:
            if call.seconds_left < BACKUP_SECONDS:
                reason = "it was not begun, since EC2 took so long for others: the next run takes it"
                items.append(Item(thing["resource"], action, Outcome.SKIPPED, reason))
            else:
                items.append(copying.copy(thing) if action is Action.COPY else copying.tag(thing))
        except (ClientError, BotoCoreError) as error:
            items.append(Item(thing["resource"], action, Outcome.FAILED, f"{thing['reason']}: {error}"))
    record.save_outcome(call.folder, COPY, first, items)
    return {"items": len(items)}


@dataclass(frozen=True)
class _Copying:
    call: JobCall
    claims: Slot
    execution_arn: str
    region: str
    settings: Settings
    now: Callable[[], datetime]
    full: set[str] = field(default_factory=set)

    def tag(self, thing: Mapping[str, Any]) -> Item:
        """Set tags on an original, or on a copy."""
        there = thing["copy_id"] is not None
        place = place_of(self.settings, thing["destination"]) if there else Identity(self.region)
        tags = [{"Key": key, "Value": value} for key, value in thing["tags"].items()]
        self.call.ec2(place).create_tags(Resources=[thing["resource"]], Tags=tags)  # type: ignore[arg-type]
        return Item(thing["resource"], Action.MARK, Outcome.DONE, thing["reason"])

    def copy(self, thing: Mapping[str, Any]) -> Item:
        """Begin a copy, unless there is one, or no place for it."""
        original, name = thing["resource"], thing["destination"]
        destination = self.settings.destination(name)
        place = place_of(self.settings, name)

        def item(outcome: Outcome, reason: str) -> Item:
            return Item(original, Action.NONE if outcome is Outcome.SKIPPED else Action.COPY, outcome, reason)

        if destination.region in self.full:
            return item(Outcome.SKIPPED, no_place(destination.region))
        claim = f"{original}-{name}"
        mine = Claim(execution_arn=self.execution_arn, at=self.now().isoformat())
        own = self.claims.claim(claim, mine)
        if own is None:
            held = self.claims.held(claim)
            # Whether the request of whoever claimed it before has made one shows within a while.
            found = self._settled(place, original, name, None if held is None else held.claim)
            if found is not None:
                return item(Outcome.SKIPPED, f"copy {found} in {name} is there already")
            own = None if held is None else self.claims.replace(claim, held, mine)
            if own is None:
                return item(Outcome.SKIPPED, "another run makes it")
        try:
            made = self._begin(place, destination, thing)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode", 500) >= 500:
                return self._unanswered(place, original, name, thing, error)
            # Nothing was made: whoever comes next need not wait for EC2 to show it.
            long_ago = (self.now() - SETTLING).isoformat()
            self.claims.replace(claim, own, own.claim.model_copy(update={"at": long_ago}))
            if error.response["Error"]["Code"] == FULL:
                self.full.add(destination.region)
                return item(Outcome.SKIPPED, no_place(destination.region))
            return item(Outcome.FAILED, f"{thing['reason']}: {error}")
        except BotoCoreError as error:
            return self._unanswered(place, original, name, thing, error)
        return item(Outcome.DONE, f"{thing['reason']}: {made} is begun")

    def _begin(self, place: Identity, destination: Destination, thing: Mapping[str, Any]) -> str:
        found = self.settings.destinations.get(destination.name)
        key: Any = {}
        if found is not None and found.kms_key_arn is not None:
            key = {"Encrypted": True, "KmsKeyId": found.kms_key_arn}
        tags: Any = [{"Key": name, "Value": value} for name, value in thing["tags"].items()]
        answer = self.call.aws.ec2_once(place).copy_snapshot(
            SourceRegion=self.region,
            SourceSnapshotId=thing["resource"],
            Description=f"[Copied {thing['resource']} from {self.region}]",
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
            **key,
        )
        return str(answer["SnapshotId"])

    def _unanswered(self, place: Identity, original: str, name: str, thing: Mapping[str, Any], why: Exception) -> Item:
        for _ in range(self.call.waits.looks):
            if (found := self._there(place, original, name)) is not None:
                return Item(original, Action.COPY, Outcome.DONE, f"{thing['reason']}: {found} is begun")
            self.call.clock.sleep(self.call.waits.look_seconds)
        reason = f"{thing['reason']}: EC2 has not answered, and shows no copy yet; the next run looks again. {why}"
        return Item(original, Action.COPY, Outcome.FAILED, reason)

    def _settled(self, place: Identity, original: str, name: str, claim: Claim | None) -> str | None:
        while True:
            found = self._there(place, original, name)
            if found is not None or claim is None or self.now() - datetime.fromisoformat(claim.at) >= SETTLING:
                return found
            self.call.clock.sleep(self.call.waits.look_seconds)

    def _there(self, place: Identity, original: str, name: str) -> str | None:
        """The copy of an original for a destination, pending or complete."""
        pages = (
            self.call.ec2(place)
            .get_paginator("describe_snapshots")
            .paginate(
                OwnerIds=["self"],
                Filters=[
                    {"Name": f"tag:{self.settings.names.source_snapshot}", "Values": [original]},
                    {"Name": "status", "Values": ["pending", "completed"]},
                ],
            )
        )
        copies = (_copy(found, self.settings.names) for page in pages for found in page["Snapshots"])
        mine = (copy.snapshot_id for copy in copies if destination_of(copy.tags, place.region) == name)
        return next(mine, None)
